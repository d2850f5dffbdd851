// Runs of neighbouring blocks, small enough for the first cache, and their rows in whole vectors.
#pragma once

#include <cstdint>

#include "block.hpp"
#include "simd.hpp"

namespace abcdeep {
namespace {

// Neighbouring blocks of one strip: rows [row, row + rows) of the stack, columns [column, column +
// columns). `step`: elements of a block's row, filled up to whole vectors; 1 for blocks of one
// column, of which a vector holds many.
struct BlockRun {
    std::int64_t row, column, first_block;
    int rows, columns, blocks, block_columns, step;

    bool has_single_columns() const { return block_columns == 1; }
    // Whether a row can be read and written in place.
    bool is_dense() const { return step == block_columns && columns == padded(); }
    int padded() const {
        constexpr int n = lanes<Vector<float>>;
        return (blocks * step + n - 1) / n * n;
    }
};

// Elements of a padded row of a run: more only if one block has more.
inline constexpr int run_elements = 1024;
static_assert(most_block_columns >= run_elements);

// body(run) for the blocks [begin, end).
template <class Body>
static inline void for_block_runs(const BlockLayout& layout, std::int64_t begin, std::int64_t end,
                                  const Body& body) {
    constexpr std::int64_t n = lanes<Vector<float>>;
    const std::int64_t of_strip = layout.blocks_of_strip(), strips = layout.strips();
    const std::int64_t step =
        layout.block_columns == 1 ? 1 : (layout.block_columns + n - 1) / n * n;
    const std::int64_t most = step < run_elements ? run_elements / step : 1;
    while (begin < end) {
        const std::int64_t strip = begin / of_strip, in_strip = begin % of_strip;
        std::int64_t blocks = of_strip - in_strip;
        blocks = blocks < most ? blocks : most;
        blocks = blocks < end - begin ? blocks : end - begin;
        const std::int64_t row = strip % strips * layout.block_rows;
        const std::int64_t column = in_strip * layout.block_columns;
        const std::int64_t rows = layout.rows - row, columns = layout.columns - column;
        const std::int64_t width = blocks * layout.block_columns;
        BlockRun run;
        run.row = strip / strips * layout.rows + row;
        run.column = column;
        run.first_block = begin;
        run.rows = int(rows < layout.block_rows ? rows : layout.block_rows);
        run.columns = int(columns < width ? columns : width);
        run.blocks = int(blocks);
        run.block_columns = int(layout.block_columns);
        run.step = int(step);
        body(run);
        begin += blocks;
    }
}

// body(i, factor) for each vector of a row, from element i on, with the factor of its block, or of
// each of its blocks.
template <class Body>
static inline void for_row_vectors(const BlockRun& run, const float* factors, const Body& body) {
    using F = Vector<float>;
    if (run.has_single_columns()) {
        for (int i = 0; i < run.padded(); i += lanes<F>) body(i, load<F>(factors + i));
        return;
    }
    const int blocks = run.blocks, step = run.step;
    for (int b = 0; b < blocks; ++b)
        for (int i = b * step; i < (b + 1) * step; i += lanes<F>) body(i, broadcast<F>(factors[b]));
}

// padded[...] = a row of the run with zeros after each block.
template <class T>
static inline void pad_row(const BlockRun& run, const T* row, T* padded) {
    for (int b = 0; b < run.blocks; ++b) {
        const int first = b * run.block_columns;
        const int rest = run.columns - first;
        const int count = rest < run.block_columns ? rest : run.block_columns;
        T* to = padded + b * run.step;
        for (int i = 0; i < count; ++i) to[i] = row[first + i];
        for (int i = count; i < run.step; ++i) to[i] = 0;
    }
    for (int i = run.blocks * run.step; i < run.padded(); ++i) padded[i] = 0;
}

// row[...] = what pad_row made of it.
template <class T, class Padded>
static inline void unpad_row(const BlockRun& run, const Padded* padded, T* row) {
    for (int b = 0; b < run.blocks; ++b) {
        const int first = b * run.block_columns;
        const int rest = run.columns - first;
        const int count = rest < run.block_columns ? rest : run.block_columns;
        const Padded* from = padded + b * run.step;
        for (int i = 0; i < count; ++i) row[first + i] = T(from[i]);
    }
}

}  // namespace
}  // namespace abcdeep
