// Maximum-weight masks with n in every row and column of a block: dual sweeps, then shortest paths.
#pragma once

#include "sort_lanes.hpp"
#include "transposable_block.hpp"

namespace abcdeep {
namespace {

// One block of m x m weights, m <= size; all numbers are integers below 2^53 (docs).
template <int size>
class TransposableSolver {
  public:
    static constexpr int width = lanes<DoubleLanes>, groups = size / width;
    // Larger blocks leave more paths to search; sweeps are cheap beside these.
    static constexpr int sweeps = size == 8 ? 2 : size == 16 ? 3 : 4;

    TransposableSolver(int n, int m) : n_(n), m_(m), valid_(~0u >> (32 - m)) {}

    template <class T>
    bool load_block(const T* from, std::int64_t step) {
        if (!scaled_weights(from, step, m_, weights_[0], size)) return false;
        for (int i = 0; i < size; i += width)
            for (int j = 0; j < size; j += width) {
                DoubleLanes tile[width];
                for (int k = 0; k < width; ++k) tile[k] = load<DoubleLanes>(weights_[i + k] + j);
                transpose(tile);
                for (int k = 0; k < width; ++k) store(transposed_[j + k] + i, tile[k]);
            }
        return true;
    }

    void solve() {
        for (int j = 0; j < size; ++j) v_[j] = 0;
        for (int sweep = 0; sweep < sweeps; ++sweep) {
            thresholds(transposed_, v_, u_);
            thresholds(weights_, u_, v_);
        }
        thresholds(transposed_, v_, u_);
        keep_largest();
        while (over_ != 0) augment();
    }

    const std::uint32_t* rows() const { return rows_; }
    const double* u() const { return u_; }
    const double* v() const { return v_; }

  private:
    // For every lane of the lines: out = a number between the n-th and the (n+1)-th largest of
    // lines[k][lane] - subtract[k].
    void thresholds(const double (&lines)[size][size], const double* subtract, double* out) {
        for (int g = 0; g < size; g += width) {
            if (g >= m_) break;
            DoubleLanes x[size];
#pragma GCC unroll 32
            for (int k = 0; k < size; ++k)
                x[k] = k < m_ ? load<DoubleLanes>(lines[k] + g) - subtract[k]
                              : DoubleLanes{} - std::numeric_limits<double>::infinity();
            sort_lanes(x);
            const DoubleLanes high = x[n_ - 1], low = x[n_];
            constexpr double integers = 0x1.8p52;  // adding it rounds to an integer
            store(out + g, (high + low) * 0.5 + integers - integers);
            store(nth_ + g, high);
        }
    }

    // The n largest of each row of weights - v, the first ones of equals.
    void keep_largest() {
        for (int j = 0; j < size; ++j) columns_[j] = 0;
        for (int i = 0; i < m_; ++i) {
            std::uint32_t above = 0, equals = 0;
            const DoubleLanes nth = DoubleLanes{} + nth_[i];
#pragma GCC unroll 16
            for (int g = 0; g < size; g += width) {
                const DoubleLanes x =
                    load<DoubleLanes>(weights_[i] + g) - load<DoubleLanes>(v_ + g);
                above |= bits_of(below(nth, x)) << g;
                equals |= bits_of(equal(nth, x)) << g;
            }
            std::uint32_t kept = above & valid_;
            equals &= valid_;
            for (int count = std::popcount(kept); count < n_; ++count) {
                kept |= equals & -equals;
                equals &= equals - 1;
            }
            rows_[i] = kept;
            for (; kept != 0; kept &= kept - 1) columns_[std::countr_zero(kept)] |= 1u << i;
        }
        over_ = under_ = 0;
        for (int j = 0; j < m_; ++j) {
            over_ |= std::uint32_t(std::popcount(columns_[j]) > n_) << j;
            under_ |= std::uint32_t(std::popcount(columns_[j]) < n_) << j;
        }
    }

    // Moves one kept element from a column that holds too many to one that holds too few, along a
    // shortest path of reduced weights; nodes are columns and rows.
    void augment() {
        const DoubleLanes infinite = DoubleLanes{} + std::numeric_limits<double>::infinity();
        DoubleLanes column_open[groups], row_open[groups], column_from[groups], row_from[groups];
        alignas(64) double column_done[size], row_done[size];
#pragma GCC unroll 16
        for (int g = 0; g < groups; ++g) {
            column_open[g] = row_open[g] = infinite;
            column_from[g] = row_from[g] = DoubleLanes{};
            store(column_done + g * width, infinite);
            store(row_done + g * width, infinite);
        }
        std::uint32_t columns_left = valid_ & ~over_, rows_left = valid_;
        const auto leave_column = [&](int j, double distance) {
            column_done[j] = distance;
            const DoubleLanes base = DoubleLanes{} + (distance - v_[j]), from = DoubleLanes{} + j;
            const std::uint32_t to = columns_[j] & rows_left;
#pragma GCC unroll 16
            for (int g = 0; g < groups; ++g) {
                const DoubleLanes next = base + load<DoubleLanes>(transposed_[j] + g * width) -
                                         load<DoubleLanes>(u_ + g * width);
                const DoubleMask nearer = mask_of(to >> g * width) & below(next, row_open[g]);
                row_open[g] = choose(nearer, next, row_open[g]);
                row_from[g] = choose(nearer, from, row_from[g]);
            }
        };
        const auto leave_row = [&](int i, double distance) {
            row_done[i] = distance;
            const DoubleLanes base = DoubleLanes{} + (distance + u_[i]), from = DoubleLanes{} + i;
            const std::uint32_t to = ~rows_[i] & columns_left;
#pragma GCC unroll 16
            for (int g = 0; g < groups; ++g) {
                const DoubleLanes next = base + load<DoubleLanes>(v_ + g * width) -
                                         load<DoubleLanes>(weights_[i] + g * width);
                const DoubleMask nearer = mask_of(to >> g * width) & below(next, column_open[g]);
                column_open[g] = choose(nearer, next, column_open[g]);
                column_from[g] = choose(nearer, from, column_from[g]);
            }
        };
        for (std::uint32_t left = over_; left != 0; left &= left - 1)
            leave_column(std::countr_zero(left), 0);
        double distance;
        int target;
        for (;;) {
            DoubleLanes least = infinite;
#pragma GCC unroll 16
            for (int g = 0; g < groups; ++g)
                least = smaller(least, smaller(column_open[g], row_open[g]));
            distance = smallest_lane(least);
            least = DoubleLanes{} + distance;
            std::uint32_t columns = 0;
#pragma GCC unroll 16
            for (int g = 0; g < groups; ++g)
                columns |= bits_of(equal(column_open[g], least)) << g * width;
            if (columns != 0) {
                const int j = std::countr_zero(columns);
                if (under_ >> j & 1) {
                    target = j;
                    break;
                }
                const std::uint32_t bit = 1u << j;
                columns_left &= ~bit;
#pragma GCC unroll 16
                for (int g = 0; g < groups; ++g)
                    column_open[g] = choose(mask_of(bit >> g * width), infinite, column_open[g]);
                leave_column(j, distance);
            } else {
                std::uint32_t rows = 0;
#pragma GCC unroll 16
                for (int g = 0; g < groups; ++g)
                    rows |= bits_of(equal(row_open[g], least)) << g * width;
                const std::uint32_t bit = rows & -rows;
                rows_left &= ~bit;
#pragma GCC unroll 16
                for (int g = 0; g < groups; ++g)
                    row_open[g] = choose(mask_of(bit >> g * width), infinite, row_open[g]);
                leave_row(std::countr_zero(rows), distance);
            }
        }
        // The reduced weights keep their signs: nodes nearer than the target come as far as it is.
#pragma GCC unroll 16
        for (int g = 0; g < size; g += width) {
            const DoubleLanes zero{}, far = DoubleLanes{} + distance;
            store(v_ + g, load<DoubleLanes>(v_ + g) +
                              larger(far - load<DoubleLanes>(column_done + g), zero));
            store(u_ + g,
                  load<DoubleLanes>(u_ + g) - larger(far - load<DoubleLanes>(row_done + g), zero));
        }
        alignas(64) double columns_from[size], rows_from[size];
#pragma GCC unroll 16
        for (int g = 0; g < groups; ++g) {
            store(columns_from + g * width, column_from[g]);
            store(rows_from + g * width, row_from[g]);
        }
        int j = target;
        const auto flip = [&](int i, int k) {
            rows_[i] ^= 1u << k;
            columns_[k] ^= 1u << i;
        };
        do {
            const int i = int(columns_from[j]);
            flip(i, j);
            j = int(rows_from[i]);
            flip(i, j);
        } while (!(over_ >> j & 1));
        if (std::popcount(columns_[j]) == n_) over_ &= ~(1u << j);
        if (std::popcount(columns_[target]) == n_) under_ &= ~(1u << target);
    }

    alignas(64) double weights_[size][size] = {}, transposed_[size][size];
    alignas(64) double u_[size] = {}, v_[size] = {}, nth_[size] = {};
    std::uint32_t rows_[size], columns_[size], over_, under_;
    int n_, m_;
    std::uint32_t valid_;
};

}  // namespace
}  // namespace abcdeep
