// The fast GEMM: register tiles of independent chains. A Step says what one term does to a sum.
//
// Operands are packed into panels (a: `rows` rows side by side, b: `vectors` vectors of columns),
// so that the inner loop reads both in order. Long sums are cut into blocks of terms; running sums
// wait in memory between them.
#pragma once

#include <algorithm>

#include "datapath.hpp"
#include "gemm_lanes.hpp"
#include "simd.hpp"

namespace abcdeep {
namespace {

template <class Step, class Job>
class TileGemm {
    using V = typename Step::V;
    using E = Element<V>;
    static constexpr int width = lanes<V>, rows = Step::rows, vectors = Step::vectors;
    static constexpr int columns = width * vectors;
    static constexpr std::int64_t block_terms = 1024, longest_whole_chunk = 4096;

    struct Sums {
        V at[rows][vectors];
    };

  public:
    TileGemm(const Step& step, const Job& job, std::int64_t chunk, const Block& block)
        : step_(step),
          job_(job),
          block_(block),
          chunk_(chunk > 0 && chunk < job.terms ? chunk : job.terms),
          row_tiles_((block.row_end - block.row_begin + rows - 1) / rows),
          column_tiles_((block.column_end - block.column_begin + columns - 1) / columns),
          depth_(std::min(job.terms, block_depth())),
          a_(row_tiles_ * rows * depth_),
          b_(column_tiles_ * columns * depth_),
          running_(row_tiles_ * column_tiles_),
          merged_(row_tiles_ * column_tiles_) {}

    void run() {
        start();
        for (std::int64_t k = 0; k < job_.terms; k += depth_) {
            const std::int64_t end = std::min(job_.terms, k + depth_);
            pack(k, end);
            for (std::int64_t j = 0; j < column_tiles_; ++j)
                for (std::int64_t i = 0; i < row_tiles_; ++i)
                    terms(a_ + i * rows * depth_, b_ + j * columns * depth_, k, end,
                          running_[i * column_tiles_ + j], merged_[i * column_tiles_ + j]);
        }
        finish();
    }

  private:
    std::int64_t block_depth() const {
        if (chunk_ > longest_whole_chunk) return block_terms;
        return std::max<std::int64_t>(1, block_terms / std::max<std::int64_t>(chunk_, 1)) *
               std::max<std::int64_t>(chunk_, 1);
    }

    std::int64_t operand_index(std::int64_t k) const { return job_.order ? job_.order[k] : k; }

    void start() {
        for (std::int64_t i = 0; i < row_tiles_ * column_tiles_; ++i)
            running_[i] = merged_[i] = Sums{};
        if (!job_.c.data) return;
        for (std::int64_t m = block_.row_begin; m < block_.row_end; ++m)
            for (std::int64_t n = block_.column_begin; n < block_.column_end; ++n)
                lane(running_, m, n) = step_.start(job_.c(m, n));
    }

    // Where output (m, n) is kept.
    E& lane(Sums* sums, std::int64_t m, std::int64_t n) const {
        const std::int64_t i = m - block_.row_begin, j = n - block_.column_begin;
        Sums& tile = sums[i / rows * column_tiles_ + j / columns];
        return reinterpret_cast<E*>(&tile.at[i % rows][0])[j % columns];
    }

    void pack(std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = 0; i < row_tiles_ * rows; ++i) {
            E* to = a_ + i / rows * rows * depth_ + i % rows;
            const std::int64_t m = block_.row_begin + i;
            for (std::int64_t k = begin; k < end; ++k, to += rows)
                *to = m < block_.row_end ? step_.pack_a(job_.a(m, operand_index(k))) : E(0);
        }
        for (std::int64_t j = 0; j < column_tiles_; ++j) {
            E* to = b_ + j * columns * depth_;
            const std::int64_t first = block_.column_begin + j * columns;
            const int valid = int(std::min<std::int64_t>(columns, block_.column_end - first));
            for (std::int64_t k = begin; k < end; ++k, to += columns) {
                const std::int64_t row = operand_index(k);
                for (int n = 0; n < valid; ++n) to[n] = step_.pack_b(job_.b(row, first + n));
                for (int n = valid; n < columns; ++n) to[n] = E(0);
            }
        }
    }

    // Terms [begin, end) of the sums of one tile; at the end of each chunk its sum is merged.
    void terms(const E* a, const E* b, std::int64_t begin, std::int64_t end, Sums& running,
               Sums& merged) const {
        const bool merges = chunk_ < job_.terms;
        Sums s = running;
        for (std::int64_t k = begin; k < end;) {
            const std::int64_t stop = std::min(end, (k / chunk_ + 1) * chunk_);
            for (; k < stop; ++k, a += rows, b += columns) {
                V right[vectors];
#pragma GCC unroll 8
                for (int j = 0; j < vectors; ++j) right[j] = load<V>(b + j * width);
#pragma GCC unroll 8
                for (int i = 0; i < rows; ++i) {
                    const V left = broadcast<V>(a[i]);
#pragma GCC unroll 8
                    for (int j = 0; j < vectors; ++j)
                        s.at[i][j] = step_.step(left, right[j], s.at[i][j]);
                }
            }
            if (merges && (k % chunk_ == 0 || k == job_.terms)) {
                for (int i = 0; i < rows; ++i)
                    for (int j = 0; j < vectors; ++j) {
                        merged.at[i][j] = step_.merge(s.at[i][j], merged.at[i][j]);
                        s.at[i][j] = V{};
                    }
            }
        }
        running = s;
    }

    void finish() {
        Sums* sums = chunk_ < job_.terms ? merged_ : running_;
        for (std::int64_t i = 0; i < row_tiles_ * column_tiles_; ++i)
            for (auto& row : sums[i].at)
                for (V& v : row) v = step_.finish(v);
        for (std::int64_t m = block_.row_begin; m < block_.row_end; ++m)
            for (std::int64_t n = block_.column_begin; n < block_.column_end; ++n)
                job_.write(m, n, lane(sums, m, n));
    }

    const Step& step_;
    const Job& job_;
    const Block& block_;
    std::int64_t chunk_, row_tiles_, column_tiles_, depth_;
    Scratch<E> a_, b_;
    Scratch<Sums> running_, merged_;
};

}  // namespace
}  // namespace abcdeep
