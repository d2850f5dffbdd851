// Terms, steps, groups and merges of any float datapath, on vectors of doubles.
//
// A product of two float32 is a double. A sum is rounded to odd in double precision, so that the
// one rounding that follows, to at most 51 bits, is a rounding of the exact sum.
#pragma once

#include "exact_sum.hpp"
#include "gemm_lanes.hpp"
#include "rounding.hpp"

namespace abcdeep {
namespace {

// One quantiser on vectors of doubles.
class LaneRounder {
  public:
    using V = Vector<double>;
    using U = Vector<std::uint64_t>;

    LaneRounder(const Quantizer& q, bool overflow_at_largest)
        : grid_(q),
          stochastic_(q.stochastic != Stochastic::none),
          at_largest_(overflow_at_largest) {
        for (int s = 0; s < 2; ++s) {
            overflow_[s] = bits_as<std::uint64_t>(q.overflow_value[s]);
            infinity_[s] = bits_as<std::uint64_t>(q.infinity_value[s]);
        }
        nan_ = bits_as<std::uint64_t>(q.nan_value);
        largest_bits_ = index_to_bits<std::uint64_t>(grid_.max_index[0], grid_);
    }

    int random_bits() const { return stochastic_ ? grid_.random_bits : 0; }

    // x rounded; `overflowed` is set where x is out of range.
    template <class M>
    V round(V x, U random, M& overflowed) const {
        constexpr std::uint64_t infinite = std::uint64_t(2047) << 52;
        const U zero{};
        U bits = bits_as<U>(x);
        U negative = bits >> std::uint64_t(63);
        U magnitude = bits & (~std::uint64_t(0) >> 1);
        U finite = select(magnitude < infinite, magnitude, zero);
        U index = stochastic_ ? round_to_index<true>(finite, negative, random, grid_)
                              : round_to_index<false>(finite, negative, random, grid_);
        U sign = negative << std::uint64_t(63);
        U out = index_to_bits(index, grid_);
        out = select(index == zero, zero, out | sign);
        U limit = select(negative != zero, broadcast<U>(grid_.max_index[1]),
                         broadcast<U>(grid_.max_index[0]));
        auto over = index > limit;
        out = select(over, pick(negative, overflow_), out);
        overflowed = at_largest_ ? (finite >= largest_bits_) : over;
        out = select(magnitude == infinite, pick(negative, infinity_), out);
        out = select(magnitude > infinite, broadcast<U>(nan_), out);
        return bits_as<V>(out);
    }

    // Where |x| has reached the largest value of a format that saturates there.
    auto at_largest(V x) const {
        const U magnitude = bits_as<U>(x) & (~std::uint64_t(0) >> 1);
        return magnitude >= (at_largest_ ? largest_bits_ : ~std::uint64_t(0));
    }

  private:
    static U pick(U negative, const std::uint64_t (&patterns)[2]) {
        return select(negative != U{}, broadcast<U>(patterns[1]), broadcast<U>(patterns[0]));
    }

    Grid<std::uint64_t> grid_;
    bool stochastic_, at_largest_;
    std::uint64_t overflow_[2], infinity_[2], nan_, largest_bits_;
};

class FloatLanes {
  public:
    using Job = FloatJob;
    using Datapath = FloatDatapath;
    using V = Vector<double>;
    using U = Vector<std::uint64_t>;
    using Events = LaneEvents<V>;
    using Mask = Vector<std::int64_t>;
    static constexpr int width = lanes<V>;

    explicit FloatLanes(const FloatDatapath& d)
        : product_(d.product, d.product_overflow_at_largest),
          accumulator_(d.accumulator, d.accumulator_overflow_at_largest),
          merge_(d.merge, d.merge_overflow_at_largest),
          product_exact_(d.product_exact),
          float32_steps_(d.float32_steps),
          exact_start_(d.exact_start),
          merge_to_odd_(d.merge_to_odd),
          a_is_masked_(d.a_is_masked ? ~Mask{} : Mask{}),
          b_is_masked_(d.b_is_masked ? ~Mask{} : Mask{}) {
        Quantizer start = d.accumulator;
        if (start.stochastic != Stochastic::none) {
            start.stochastic = Stochastic::none;
            start.addend = nearest_even_addend;
        }
        start_ = LaneRounder(start, false);
    }

    int product_random_bits() const { return product_exact_ ? 0 : product_.random_bits(); }
    int step_random_bits() const { return accumulator_.random_bits(); }
    int merge_random_bits() const { return merge_.random_bits(); }

    V start(V c) const {
        if (exact_start_) return c + 0.0;  // -0 becomes +0
        Mask ignored;
        return start_.round(c, U{}, ignored);
    }
    void begin(V) {}
    void finish(Events& events) const {
        events.counts[overflowed_outputs] -=
            U((events.counts[accumulator_overflow] | events.counts[product_overflow]) != U{});
    }

    V product(V a, V b, U random, Mask& over) const {
        const V exact = a * b;
        over = Mask{};
        if (product_exact_) return exact;
        if (!float32_steps_) return product_.round(exact, random, over);
        const V single = through_float32(exact);
        const V p = product_.round(single, random, over);
        over |= finite(exact) & ~finite(single);
        return p;
    }
    // Where a rounded product p = Q(a * b) is as large as the format's largest, or a * b is Inf or
    // NaN: no gradient passes.
    Mask product_at_largest(V a, V b, V p) const {
        return product_exact_ ? Mask{} : Mask(product_.at_largest(p)) | ~finite(a * b);
    }

    V term(V a, V b, U random, int level, Events& events) {
        Mask over;
        skipped_ = (a_is_masked_ & is_negative_zero(a)) | (b_is_masked_ & is_negative_zero(b));
        all_skipped_ &= skipped_;
        V p = product(a, b, random, over);
        if (level && !product_exact_) {
            events.count(product_overflow, over);
            if (level > 1) {
                events.count(product_underflow, (a != 0.0) & (b != 0.0) & (p == 0.0));
                events.count(nonfinite, finite(a) & finite(b) & ~finite(p));
            }
        }
        return p;
    }

    // The sums alone, with the mask of those out of range, Inf or NaN.
    V accumulate(V p, V s, U random, Mask& over) const {
        return sum(accumulator_, p, s, random, over);
    }
    V accumulate_merge(V r, V s, U random, Mask& over) const {
        return sum(merge_, r, s, random, over);
    }

    V step(V p, V s, U random, int level, Events& events) const {
        return add(accumulator_, p, s, random, level, events, skipped_);
    }
    V merge(V r, V s, U random, int level, Events& events) const {
        return add(merge_, r, s, random, level, events, Mask{});
    }

    void open_group(V s) {
        total_ = s;
        products_ = V{};
        lost_ = U{};
        all_skipped_ = ~Mask{};
    }
    void add_to_group(V p) {
        V error, product_error;
        total_ = two_sum(total_, p, error);
        products_ = two_sum(products_, p, product_error);
        lost_ |= bits_as<U>(error) | bits_as<U>(product_error);
    }
    bool group_is_inexact() const { return any((lost_ << std::uint64_t(1)) != U{}); }
    void open_exact_group(V s) {
        for (int j = 0; j < width; ++j) {
            exact_total_[j].clear();
            exact_products_[j].clear();
            exact_total_[j].add(s[j]);
        }
        exact_ = true;
    }
    void add_to_exact_group(V p) {
        for (int j = 0; j < width; ++j) {
            exact_total_[j].add(p[j]);
            exact_products_[j].add(p[j]);
        }
    }
    V close_group(V s, U random, int level, Events& events) {
        V error{};
        if (exact_) {
            V lost{};
            for (int j = 0; j < width; ++j) {
                double one;
                total_[j] = exact_total_[j].rounded(one);
                error[j] = one;
                products_[j] = exact_products_[j].rounded(one);
                lost[j] = one;
            }
            products_ = round_to_odd(products_, lost);
            exact_ = false;
        }
        return round_sum(accumulator_, round_to_odd(total_, error), products_, s, random, level,
                         events, total_, error, all_skipped_);
    }

    // Sum of the chunk results, rounded once to nearest even: by the conversion to float32 or by
    // what follows (then it is rounded to odd here), or here.
    V exact_merge(const double* results, std::int64_t chunks, bool is_double) {
        V sum{}, error{};
        for (int j = 0; j < width; ++j) {
            exact_total_[j].clear();
            for (std::int64_t i = 0; i < chunks; ++i) exact_total_[j].add(results[i * width + j]);
            double one;
            sum[j] = exact_total_[j].rounded(one);
            error[j] = one;
        }
        if (!is_double || merge_to_odd_) sum = round_to_odd(sum, error);
        return select(sum == sum, sum, V{} + __builtin_nan(""));
    }

  private:
    static Mask finite(V x) { return (x - x) == V{}; }
    static Mask is_negative_zero(V x) { return bits_as<U>(x) == std::uint64_t(1) << 63; }

    static V through_float32(V x) {
        using Half = Vector<float, sizeof(V) / 2>;
        return __builtin_convertvector(__builtin_convertvector(x, Half), V);
    }

    V sum(const LaneRounder& rounder, V p, V s, U random, Mask& over) const {
        V error;
        const V nearest = two_sum(p, s, error);
        // two binary32 numbers: rounding their sum to double first changes nothing (53 >= 2 * 24 +
        // 2)
        const V total = float32_steps_ ? through_float32(nearest) : round_to_odd(nearest, error);
        const V next = rounder.round(total, random, over);
        over |= ~finite(total);
        return next;
    }

    V add(const LaneRounder& rounder, V p, V s, U random, int level, Events& events,
          Mask skipped) const {
        V error;
        const V sum = two_sum(p, s, error);
        const V total = float32_steps_ ? through_float32(sum) : round_to_odd(sum, error);
        return round_sum(rounder, total, p, s, random, level, events, sum, error, skipped);
    }

    // `sum` + `error` is the exact sum, `total` what is rounded. Steps on Inf and NaN are no
    // events.
    V round_sum(const LaneRounder& rounder, V total, V p, V s, U random, int level, Events& events,
                V sum, V error, Mask skipped) const {
        Mask over;
        V next = rounder.round(total, random, over);
        if (level) {
            const Mask counted = finite(p) & finite(s);
            over |= finite(sum) & ~finite(total);  // in binary32
            // A skipped step changes nothing but a start value that no step has rounded yet.
            events.count(accumulator_overflow, over & counted & ~(skipped & (next == s)));
            events.partial_sum(sum, counted);
            if (level > 1) {
                const Mask added = counted & (p != 0.0);
                events.count(accumulator_underflow, counted & (sum != 0.0) & (next == 0.0));
                events.count(swamped, added & (next == s));
                events.count(rounded, counted & ((next != sum) | (error != 0.0)));
                events.count(absorbed, added & (s != 0.0) & (next == p));
                events.count(nonfinite, counted & ~finite(next));
            }
        }
        return next;
    }

    LaneRounder product_, accumulator_, merge_;
    LaneRounder start_ = LaneRounder(Quantizer(), false);
    bool product_exact_, float32_steps_, exact_start_, merge_to_odd_;
    Mask a_is_masked_, b_is_masked_;
    Mask skipped_{}, all_skipped_{};  // the terms of the step, all terms of the group
    V total_{}, products_{};
    U lost_{};
    bool exact_ = false;
    ExactSum exact_total_[width], exact_products_[width];
};

}  // namespace
}  // namespace abcdeep
