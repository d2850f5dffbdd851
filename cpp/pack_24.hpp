// 2:4 packing: what a call of the kernels carries, and where words of metadata go.
#pragma once

#include <cstdint>

namespace abcdeep {

// Where CUTLASS's layout for sm80 has the word (row, column) of `bytes` bytes, of a matrix of
// `rows` rows: pairs of columns, and in them tiles of 32 rows (16 of wide words).
constexpr std::int64_t reordered_word(std::int64_t rows, std::int64_t row, std::int64_t column,
                                      int bytes) {
    const std::int64_t pair = column / 2, odd = column % 2, lane = 4 * (row % 8);
    if (bytes == 2)
        return 2 * (pair * rows + row / 32 * 32 + lane + 2 * (row / 16 % 2) + odd) + row / 8 % 2;
    return 2 * pair * rows + row / 16 * 32 + lane + 2 * odd + row / 8 % 2;
}

// Groups of four units along rows of `row_bytes` bytes, a multiple of 32. A unit is what two bits
// of metadata count: two bytes (also the half of a float32 and a pair of 4-bit elements), or one.
//
// in: the dense rows, or for unpack_24 the values; out: the other one.
// kept: pack_24 only; null, or one byte for each element, non-zero where it is kept. Other elements
//       are stored as +0. Null keeps what has one of the `magnitude` bits.
// element_bytes, test_bytes: an element of `kept`; what is kept as a whole.
// codes: for the kept units of two groups (bit = unit, 4 bits a group) the byte of metadata, plus
//        packing_fault if there is none. For unpack_24: packing_fault for a byte that is not legal.
// Metadata is a stream of 4-bit words in row order, or words of word_bytes bytes `reordered`.
struct PackJob {
    const std::uint8_t* in = nullptr;
    std::uint8_t* out = nullptr;  // null: unpack_24 only checks
    std::uint8_t* metadata = nullptr;
    const std::uint8_t* kept = nullptr;
    std::int64_t rows = 0, row_bytes = 0;  // of one matrix
    int unit_bytes = 2, element_bytes = 2, test_bytes = 2, word_bytes = 2;
    std::uint32_t magnitude = 0;  // the same in each element of 32 bits
    const std::uint16_t* codes = nullptr;
    bool reordered = false;
};

inline constexpr std::uint16_t packing_fault = 256;

// Rows from which a kernel may start where metadata are reordered.
inline constexpr std::int64_t reordered_rows = 32;

}  // namespace abcdeep
