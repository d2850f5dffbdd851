// Which terms of a block of dot products let their gradient pass: a bit a term, 32 a word.
#pragma once

#include <cstdint>

namespace abcdeep {

// Word g of chain (row, column) has terms 32 g, ..., 32 g + 31. The rows are those of the first
// operand, from the block's first on; the columns, at most `columns`, those of the second.
struct GradientWords {
    static constexpr int terms = 32, columns = 64, row_multiple = 8;

    std::uint32_t* data = nullptr;
    std::int64_t rows = 0;  // room for; a multiple of row_multiple

    static std::int64_t count(std::int64_t all_terms) { return (all_terms + terms - 1) / terms; }
    std::uint32_t* row(std::int64_t word, std::int64_t m) const {
        return data + (word * rows + m) * columns;
    }
};

}  // namespace abcdeep
