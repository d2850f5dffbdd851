// What the fast float GEMM notes of its steps under events: counts, one flag an output, extremes.
#pragma once

#include <algorithm>

#include "float_tile.hpp"
#include "lane_masks.hpp"

namespace abcdeep {
namespace {

// Rows of a tile: notes take registers too.
inline constexpr int noted_rows = ABCDEEP_VECTOR_BYTES == 64 ? 8 : 2;

// Counts and extremes of a block of outputs. Extremes are of sums as float32 truncates them: each
// tile's too, as the exact extremes lie in the tiles that share the block's.
template <bool all>
class FloatWatch {
    using V = Vector<float>;

  public:
    static constexpr int width = lanes<V>, tile_rows = noted_rows;

    template <int rows, int vectors>
    struct Seen {
        static constexpr bool rounding_too = all;
        LaneCount products_over, sums_over, products;  // that are not zero
        PartCounts inexact;
        V smallest[vectors], largest[vectors];
        LaneMask over[rows][vectors];

        LaneMask product_range(V p, V overflow) {
            const LaneMask mask = large_lanes(p, overflow);
            products_over.add(mask);
            return mask;
        }
        void sum_range(V sum, V overflow, LaneMask product_over, int i, int j) {
            const LaneMask mask = large_lanes(sum, overflow);
            sums_over.add(mask);
            over[i][j] |= product_over | mask;
        }
        void product(V p) {
            if constexpr (all) products.add(unequal_lanes(p, V{}));
        }
        void sum(V, V, V, V x, int j) {
            smallest[j] = smaller(x, smallest[j]);
            largest[j] = larger(x, largest[j]);
        }
        // docs/exactness.md, "Events in float32": only an inexact step can be one of the others.
        void rounding(V wide_term, V s, V next) {
            const V wide_next = next * widening;
            inexact.add(unequal_lanes(wide_next - s * widening, wide_term), equal_lanes(next, V{}),
                        equal_lanes(next, s), equal_lanes(wide_next, wide_term));
        }
        void flush() {
            if constexpr (all) inexact.flush();
        }
    };

    struct Extent {
        Block rectangle;
        float smallest, largest;
    };

    explicit FloatWatch(const Block& block)
        : extents_(((block.row_end - block.row_begin) / noted_rows + noted_rows) *
                   ((block.column_end - block.column_begin) / (2 * width) + 1)) {}

    template <class S>
    void open(S& seen) const {
        seen = S{};
        for (V& v : seen.smallest) v += __builtin_inff();
        for (V& v : seen.largest) v -= __builtin_inff();
    }

    template <int rows, int vectors>
    void close(const Seen<rows, vectors>& seen, const Block& rectangle) {
        counts_[product_overflow] += seen.products_over.sum();
        counts_[accumulator_overflow] += seen.sums_over.sum();
        counts_[rounded] += seen.inexact.sum(0);
        counts_[accumulator_underflow] += seen.inexact.sum(1);
        counts_[swamped] += seen.inexact.sum(2);
        counts_[absorbed] += seen.inexact.sum(3);
        products_ += seen.products.sum();
        for (const auto& row : seen.over)
            for (LaneMask mask : row) counts_[overflowed_outputs] += count_lanes(mask);
        Extent extent{rectangle, __builtin_inff(), -__builtin_inff()};
        for (int n = 0; n < int(rectangle.column_end - rectangle.column_begin); ++n) {
            extent.smallest = std::min(extent.smallest, seen.smallest[n / width][n % width]);
            extent.largest = std::max(extent.largest, seen.largest[n / width][n % width]);
        }
        smallest_ = std::min(smallest_, extent.smallest);
        largest_ = std::max(largest_, extent.largest);
        extents_[tiles_++] = extent;
    }

    const std::int64_t* counts() const { return counts_; }
    std::int64_t products() const { return products_; }
    float smallest() const { return smallest_; }
    float largest() const { return largest_; }
    const Extent* begin() const { return extents_; }
    const Extent* end() const { return extents_ + tiles_; }

  private:
    std::int64_t counts_[event_counts] = {}, products_ = 0, tiles_ = 0;
    float smallest_ = __builtin_inff(), largest_ = -__builtin_inff();
    Scratch<Extent> extents_;
};

// The exact extremes among the sums that float32 truncates to the block's.
class ExtremeFinder {
    using V = Vector<float>;

  public:
    static constexpr int tile_rows = noted_rows;

    ExtremeFinder(float smallest, float largest)
        : float_smallest_(V{} + smallest), float_largest_(V{} + largest) {}

    template <int rows, int vectors>
    struct Seen {
        static constexpr bool rounding_too = false;
        ExtremeFinder* finder;

        LaneMask product_range(V, V) { return LaneMask{}; }
        void sum_range(V, V, LaneMask, int, int) {}
        void product(V) {}
        void sum(V u, V v, V s, V x, int j) {
            const std::uint32_t bits = mask_bits(equal_lanes(x, finder->float_smallest_) |
                                                 equal_lanes(x, finder->float_largest_));
            if (bits) finder->look(u, v, s, bits, j * lanes<V>);
        }
        void flush() {}
    };

    template <class S>
    void open(S& seen) {
        seen.finder = this;
    }
    template <class S>
    void close(const S&, const Block&) const {}

    // The tile looked at from now on.
    void enter(const Block& rectangle) { valid_ = rectangle.column_end - rectangle.column_begin; }

    double smallest() const { return smallest_; }
    double largest() const { return largest_; }

  private:
    [[gnu::noinline]] void look(V u, V v, V s, std::uint32_t bits, int first) {
        const FloatEnvironment environment(FloatRounding::nearest, false);
        note(u, v, s, bits, first);
    }
    [[gnu::noinline]] void note(V u, V v, V s, std::uint32_t bits, int first) {
        for (int n = 0; n < lanes<V> && first + n < valid_; ++n) {
            if (!(bits >> n & 1)) continue;
            const double sum = double(u[n]) * double(v[n]) + double(s[n]);
            smallest_ = std::min(smallest_, sum);
            largest_ = std::max(largest_, sum);
        }
    }

    V float_smallest_, float_largest_;
    double smallest_ = __builtin_inf(), largest_ = -__builtin_inf();
    std::int64_t valid_ = 0;
};

}  // namespace
}  // namespace abcdeep
