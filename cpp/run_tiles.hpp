// Blocks of outputs through the tile that suits them.
#pragma once

#include "gemm_tile.hpp"

namespace abcdeep {
namespace {

template <class V>
void make_opaque(V& x) {
#if defined(__x86_64__)
    asm volatile("" : "+x"(x));
#else
    asm volatile("" : "+w"(x));
#endif
}

// The steps of one tile with operands in registers: what bounds the speed of a kernel (bench).
template <class Step, class Job>
[[gnu::noinline]] void run_in_registers(const Step& step, const Job& job) {
    using V = typename Step::V;
    using E = Element<V>;
    alignas(64) E zeros[1024] = {};
    asm volatile("" : : "r"(zeros) : "memory");
    V s[tile_rows][tile_vectors] = {};
    auto right = [&] {
        if constexpr (PacksItself<Step>)
            return step.right(zeros);
        else
            return load<V>(zeros);
    };
    auto left = [&] {
        if constexpr (PacksItself<Step>)
            return step.left(zeros);
        else
            return broadcast<V>(zeros[0]);
    };
    decltype(right()) y[tile_vectors];
    for (auto& one : y) {
        one = right();
        if constexpr (sizeof(one) == sizeof(V)) make_opaque(one);
    }
    auto x = left();
    for (std::int64_t k = 0; k < job.terms; ++k) {
#pragma GCC unroll 8
        for (int i = 0; i < tile_rows; ++i) {
            if constexpr (sizeof(x) == sizeof(V)) make_opaque(x);
#pragma GCC unroll 8
            for (int j = 0; j < tile_vectors; ++j) s[i][j] = step.step(x, y[j], s[i][j]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < tile_rows; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < tile_vectors; ++j) make_opaque(s[i][j]);
}

// A block of outputs through the tile that suits its number of rows. A job without operands takes
// one tile's steps alone.
template <class Step, class Job>
void run_tiles(const Step& step, const Job& job, std::int64_t chunk, const Block& block) {
    if (!job.a.data) return run_in_registers(step, job);
    const NoWatch watch;
    if (block.row_end - block.row_begin <= std::max(1, tile_rows / 4))
        TileGemm<Step, Job, 1, row_vectors>(step, job, chunk, block, watch).run();
    else
        TileGemm<Step, Job, tile_rows, tile_vectors>(step, job, chunk, block, watch).run();
}

// The same under a Watch, which is to see no rows that fill up a tile.
template <class Step, class Job, class Watch>
void run_watched(const Step& step, const Job& job, std::int64_t chunk, const Block& block,
                 Watch& watch) {
    Block whole = block, rest = block;
    whole.row_end -= (block.row_end - block.row_begin) % Watch::tile_rows;
    rest.row_begin = whole.row_end;
    if (whole.row_begin < whole.row_end)
        TileGemm<Step, Job, Watch::tile_rows, tile_vectors, Watch>(step, job, chunk, whole, watch)
            .run();
    if (rest.row_begin < rest.row_end)
        TileGemm<Step, Job, 1, row_vectors, Watch>(step, job, chunk, rest, watch).run();
}

}  // namespace
}  // namespace abcdeep
