// The fast GEMM: register tiles of independent chains. A Step says what one term does to a sum, a
// Watch what is noted of it (tile_events.hpp).
//
// Operands are packed into panels (a: `rows` rows side by side, b: `vectors` vectors of columns),
// so that the inner loop reads both in order; a few rows alone read b where it lies. Long sums are
// cut into blocks of terms; running sums wait in memory between them. A Step may pack its operands
// itself (integer_tile.hpp): a term of this driver is then a step of `left_elements` and
// `right_elements` elements side by side.
#pragma once

#include <algorithm>

#include "datapath.hpp"
#include "gemm_lanes.hpp"
#include "simd.hpp"
#include "tile_draws.hpp"

namespace abcdeep {
namespace {

// A tile that fills the registers: sums, a vector of each operand and the constants.
inline constexpr int tile_rows = ABCDEEP_VECTOR_BYTES == 64   ? 8
                                 : ABCDEEP_VECTOR_BYTES == 32 ? 4
                                                              : 2;
inline constexpr int tile_vectors = 2;
// A tile for a few rows: enough chains to hide the latency of a step.
inline constexpr int row_vectors = ABCDEEP_VECTOR_BYTES == 64 ? 8 : 6;  // even

template <class Step>
concept PacksItself = requires { typename Step::Result; };

// Notes nothing. A Watch has a `Seen` for each tile, which the steps of a Step write to; `flush`
// comes after at most 2 longest_whole_chunk terms and merges.
struct NoWatch {
    template <int rows, int vectors>
    struct Seen {};

    template <class Seen>
    void open(Seen&) const {}
    template <class Seen>
    void close(const Seen&, const Block&) const {}
};

template <class Step, class Job, int rows, int vectors, class Watch = const NoWatch>
class TileGemm {
    using Draws = std::conditional_t<DrawingStep<Step>, StepDraws<Step, rows, vectors>,
                                     NoDraws<Step, rows, vectors>>;

    using V = typename Step::V;
    using Seen = typename Watch::template Seen<rows, vectors>;
    static constexpr bool watched = !std::is_same_v<Watch, const NoWatch>;
    using E = Element<V>;
    static constexpr bool packs_itself = PacksItself<Step>;
    static constexpr int width = lanes<V>, columns = width * vectors;
    static constexpr std::int64_t longest_whole_chunk = 2048;
    // A panel of cheap steps has to come from the nearest cache.
    static constexpr std::int64_t block_terms = packs_itself ? 256 : 512;

    struct Sums {
        V at[rows][vectors];
    };

    // Columns of b for one tile, term after term.
    struct Panel {
        const E* data;
        std::int64_t stride;
    };

  public:
    TileGemm(const Step& step, const Job& job, std::int64_t chunk, const Block& block, Watch& watch)
        : step_(step),
          job_(job),
          block_(block),
          chunk_(chunk > 0 && chunk < job.terms ? chunk : job.terms),
          row_tiles_((block.row_end - block.row_begin + rows - 1) / rows),
          column_tiles_((block.column_end - block.column_begin + columns - 1) / columns),
          depth_(std::min(job.terms, block_depth())),
          a_step_(rows * left_elements()),
          b_step_(columns * right_elements()),
          a_(row_tiles_ * a_step_ * depth_),
          b_(column_tiles_ * b_step_ * depth_),
          running_(row_tiles_ * column_tiles_),
          merged_(row_tiles_ * column_tiles_),
          draws_(step, job),
          watch_(watch),
          seen_(row_tiles_ * column_tiles_) {}

    void run() {
        start();
        for (std::int64_t k = 0; k < job_.terms; k += depth_) {
            const std::int64_t end = std::min(job_.terms, k + depth_);
            pack_a(k, end);
            for (std::int64_t j = 0; j < column_tiles_; ++j) {
                const bool direct = reads_directly(j);
                const Panel b = direct ? panel_in_place(j, k) : pack_b(j, k, end);
                if constexpr (packs_itself)
                    if (step_.has_offset()) subtract_offset(j, b.data, end - k);
                for (std::int64_t i = 0; i < row_tiles_; ++i) {
                    const std::int64_t t = i * column_tiles_ + j;
                    const E* a = a_ + i * a_step_ * depth_;
                    draws_.start(job_, chunk_, block_.row_begin + i * rows, first_column(j));
                    if (direct)
                        terms<true>(a, b, k, end, running_[t], merged_[t], seen_[t]);
                    else
                        terms<false>(a, b, k, end, running_[t], merged_[t], seen_[t]);
                }
            }
        }
        finish();
    }

  private:
    std::int64_t left_elements() const {
        if constexpr (packs_itself) return step_.left_elements();
        return 1;
    }
    std::int64_t right_elements() const {
        if constexpr (packs_itself) return step_.right_elements();
        return 1;
    }
    // What step() takes: the elements of one row, and of one vector of columns.
    auto left(const E* a) const {
        if constexpr (packs_itself)
            return step_.left(a);
        else
            return broadcast<V>(*a);
    }
    auto right(const E* b) const {
        if constexpr (packs_itself)
            return step_.right(b);
        else
            return load<V>(b);
    }
    V zero() const {
        if constexpr (packs_itself) return step_.zero();
        return V{};
    }

    std::int64_t block_depth() const {
        const std::int64_t elements = right_elements(), chunk = std::max<std::int64_t>(chunk_, 1);
        const std::int64_t depth = std::max<std::int64_t>(1, block_terms / elements);
        if (chunk > longest_whole_chunk / elements) return depth;
        return std::max<std::int64_t>(1, depth / chunk) * chunk;
    }

    std::int64_t operand_index(std::int64_t k) const { return job_.order ? job_.order[k] : k; }
    std::int64_t first_column(std::int64_t j) const { return block_.column_begin + j * columns; }

    // Packing costs as much as a few rows' steps.
    static constexpr bool operands_are_elements =
        !packs_itself && std::is_same_v<const E&, decltype(std::declval<const Job&>().b(0, 0))>;
    static constexpr bool may_read_directly = rows == 1 && operands_are_elements;
    Panel panel_in_place(std::int64_t j, std::int64_t k) const {
        if constexpr (may_read_directly)
            return {&job_.b(k, first_column(j)), job_.b.row_stride};
        else
            return {};
    }
    bool reads_directly(std::int64_t j) const {
        return may_read_directly && job_.b.column_stride == 1 && !job_.order &&
               first_column(j) + columns <= block_.column_end;
    }

    void start() {
        for (std::int64_t i = 0; i < row_tiles_ * column_tiles_; ++i) {
            for (int m = 0; m < rows; ++m)
                for (int v = 0; v < vectors; ++v)
                    running_[i].at[m][v] = merged_[i].at[m][v] = zero();
            watch_.open(seen_[i]);
        }
        if (!job_.c.data) return;
        for (std::int64_t m = block_.row_begin; m < block_.row_end; ++m)
            for (std::int64_t n = block_.column_begin; n < block_.column_end; ++n)
                line(running_, m, n)[0] = step_.start(job_.c(m, n));
    }

    // Where output (m, n) is kept, and after it the rest of its tile's row.
    E* line(Sums* sums, std::int64_t m, std::int64_t n) const {
        const std::int64_t i = m - block_.row_begin, j = n - block_.column_begin;
        Sums& tile = sums[i / rows * column_tiles_ + j / columns];
        return reinterpret_cast<E*>(&tile.at[i % rows][0]) + j % columns;
    }

    void pack_a(std::int64_t begin, std::int64_t end) {
        if constexpr (packs_itself) {
            for (std::int64_t i = 0; i < row_tiles_; ++i) {
                const std::int64_t first = block_.row_begin + i * rows;
                const int valid = int(std::min<std::int64_t>(rows, block_.row_end - first));
                step_.template pack_left<rows>(a_ + i * a_step_ * depth_, first, valid, begin, end);
            }
            return;
        } else {
            pack_terms_of_a(begin, end);
        }
    }

    void pack_terms_of_a(std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = 0; i < row_tiles_ * rows; ++i) {
            E* to = a_ + i / rows * rows * depth_ + i % rows;
            const std::int64_t m = block_.row_begin + i, count = end - begin;
            if (m >= block_.row_end)
                for (std::int64_t k = 0; k < count; ++k) to[k * rows] = E(0);
            else if (job_.order)
                for (std::int64_t k = 0; k < count; ++k)
                    to[k * rows] = step_.pack_a(E(job_.a(m, job_.order[begin + k])));
            else
                for (std::int64_t k = 0; k < count; ++k)
                    to[k * rows] = step_.pack_a(E(job_.a(m, begin + k)));
        }
    }

    Panel pack_b(std::int64_t j, std::int64_t begin, std::int64_t end) {
        E* const panel = b_ + j * b_step_ * depth_;
        const std::int64_t first = first_column(j);
        const int valid = int(std::min<std::int64_t>(columns, block_.column_end - first));
        if constexpr (packs_itself)
            step_.template pack_right<vectors>(panel, first, valid, begin, end);
        else
            pack_terms_of_b(panel, first, valid, begin, end);
        return {panel, b_step_};
    }

    // Of a packing that stands for other numbers: the difference, once for all rows.
    void subtract_offset(std::int64_t j, const E* b, std::int64_t count) {
        V offset[vectors]{};
        for (std::int64_t k = 0; k < count; ++k, b += columns)
            for (int v = 0; v < vectors; ++v)
                offset[v] = step_.add_offset(load<V>(b + v * width), offset[v]);
        for (std::int64_t t = j; t < row_tiles_ * column_tiles_; t += column_tiles_)
            for (auto& row : running_[t].at)
                for (int v = 0; v < vectors; ++v) row[v] -= offset[v];
    }

    void pack_terms_of_b(E* panel, std::int64_t first, int valid, std::int64_t begin,
                         std::int64_t end) {
        if (job_.b.row_stride == 1 && !job_.order)
            pack_transposed(panel, first, valid, begin, end);
        else
            for (std::int64_t k = begin; k < end; ++k) {
                E* to = panel + (k - begin) * columns;
                const std::int64_t row = operand_index(k);
                auto b = job_.b;
                if (b.column_stride == 1) {
                    b.column_stride = 1;  // known to the loop
                    for (int n = 0; n < valid; ++n) to[n] = step_.pack_b(E(b(row, first + n)));
                } else {
                    for (int n = 0; n < valid; ++n) to[n] = step_.pack_b(E(b(row, first + n)));
                }
                for (int n = valid; n < columns; ++n) to[n] = E(0);
            }
    }

    // Of columns whose terms lie side by side, in squares.
    void pack_transposed(E* panel, std::int64_t first, int valid, std::int64_t begin,
                         std::int64_t end) {
        auto b = job_.b;
        b.row_stride = 1;  // known to the loops
        for (std::int64_t k = begin; k < end; k += width)
            for (int n = 0; n < columns; n += width) {
                E* to = panel + (k - begin) * columns + n;
                const int depth = int(std::min<std::int64_t>(width, end - k));
                if constexpr (operands_are_elements)
                    if (depth == width && n + width <= valid) {
                        V square[width];
                        for (int j = 0; j < width; ++j) square[j] = load<V>(&b(k, first + n + j));
                        transpose(square);
                        for (int i = 0; i < width; ++i)
                            store(to + i * columns, step_.pack_b(square[i]));
                        continue;
                    }
                for (int j = 0; j < width; ++j)
                    for (int i = 0; i < depth; ++i)
                        to[i * columns + j] =
                            n + j < valid ? step_.pack_b(E(b(k + i, first + n + j))) : E(0);
            }
    }

    // Terms [begin, end) of the sums of one tile; at the end of each chunk its sum is merged.
    template <bool direct>
    void terms(const E* a, Panel panel, std::int64_t begin, std::int64_t end, Sums& running,
               Sums& merged, Seen& tile_seen) {
        const bool merges = chunk_ < job_.terms;
        const std::int64_t in_a = left_elements(), in_b = right_elements();
        const E* b = panel.data;
        Sums s;
        copy(running, s);
        Seen seen = tile_seen;
        for (std::int64_t k = begin; k < end;) {
            const std::int64_t stop = std::min(end, (k / chunk_ + 1) * chunk_);
            for (; k < stop; ++k, a += rows * in_a, b += direct ? panel.stride : columns * in_b) {
                draws_.advance(k);
                decltype(right(b)) y[vectors];
#pragma GCC unroll 8
                for (int j = 0; j < vectors; ++j) {
                    y[j] = right(b + j * width * in_b);
                    if constexpr (direct && !packs_itself) y[j] = step_.pack_b(y[j]);
                }
#pragma GCC unroll 8
                for (int i = 0; i < rows; ++i) {
                    const auto x = left(a + i * in_a);
#pragma GCC unroll 8
                    for (int j = 0; j < vectors; ++j)
                        s.at[i][j] = step(x, y[j], s.at[i][j], seen, i, j);
                }
            }
            if (merges && (k % chunk_ == 0 || k == job_.terms)) {
                draws_.advance_merge((k - 1) / chunk_);
                for (int i = 0; i < rows; ++i)
                    for (int j = 0; j < vectors; ++j) {
                        merged.at[i][j] = merge(s.at[i][j], merged.at[i][j], seen, i, j);
                        s.at[i][j] = zero();
                    }
            }
        }
        if constexpr (watched) seen.flush();
        copy(s, running);
        tile_seen = seen;
    }

    template <class A, class B>
    V step(A a, B b, V s, Seen& seen, int i, int j) const {
        if constexpr (watched)
            return step_.step(a, b, s, seen, i, j);
        else
            return draws_.step(step_, a, b, s, i, j);
    }
    V merge(V r, V s, Seen& seen, int i, int j) const {
        if constexpr (watched)
            return step_.merge(r, s, seen, i, j);
        else
            return draws_.merge(step_, r, s, i, j);
    }

    // Vector by vector: a whole struct goes by way of memory.
    static void copy(const Sums& from, Sums& to) {
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) to.at[i][j] = from.at[i][j];
    }

    // The outputs of a tile.
    Block rectangle(std::int64_t t) const {
        const std::int64_t m = block_.row_begin + t / column_tiles_ * rows;
        const std::int64_t n = first_column(t % column_tiles_);
        return {m, std::min(m + rows, block_.row_end), n, std::min(n + columns, block_.column_end)};
    }

    void finish() {
        for (std::int64_t t = 0; t < row_tiles_ * column_tiles_; ++t)
            watch_.close(seen_[t], rectangle(t));
        Sums* sums = chunk_ < job_.terms ? merged_ : running_;
        for (std::int64_t i = 0; i < row_tiles_ * column_tiles_; ++i)
            for (auto& row : sums[i].at)
                for (V& v : row) v = step_.finish(v);
        for (std::int64_t m = block_.row_begin; m < block_.row_end; ++m)
            for (std::int64_t n = block_.column_begin; n < block_.column_end; n += columns) {
                const std::int64_t count = std::min<std::int64_t>(columns, block_.column_end - n);
                if constexpr (packs_itself)
                    job_.write(m, n, count,
                               reinterpret_cast<typename Step::Result*>(line(sums, m, n)));
                else
                    job_.write(m, n, count, line(sums, m, n));
            }
    }

    const Step& step_;
    const Job& job_;
    const Block& block_;
    std::int64_t chunk_, row_tiles_, column_tiles_, depth_;
    std::int64_t a_step_, b_step_;  // elements of one term in a panel
    Scratch<E> a_, b_;
    Scratch<Sums> running_, merged_;
    Draws draws_;
    Watch& watch_;
    Scratch<Seen> seen_;
};

}  // namespace
}  // namespace abcdeep
