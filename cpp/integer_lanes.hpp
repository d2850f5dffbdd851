// Terms, steps, groups and merges of any integer datapath, on vectors of 64-bit integers.
#pragma once

#include "fixed.hpp"
#include "gemm_lanes.hpp"

namespace abcdeep {
namespace {

// One narrow integer type on vectors of 64-bit integers: multiples of 2^-fraction_bits, of which
// the register holds the quotient. 64 bits that wrap are the exact sum.
template <bool shifts>
class LaneLimiter {
  public:
    using V = Vector<std::int64_t>;
    using U = Vector<std::uint64_t>;

    explicit LaneLimiter(const FixedQuantizer& q)
        : q_(q),
          shift_(shifts ? -q.fraction_bits : 0),
          range_(integer_range(q.bits, q.is_signed, q.overflow)) {
        if (shift_ == 0) return;
        // 2a + b stands for a * 2^(shift-1) - b (rounding.hpp)
        for (int negative = 0; negative < 2; ++negative)
            for (int odd = 0; odd < 2; ++odd) {
                const std::uint64_t code = q.addend[negative][odd];
                addend_[negative][odd] = ((code >> 1) << (shift_ - 1)) - (code & 1);
            }
    }

    bool is_exact() const { return q_.bits == 64; }

    V outside(V v) const { return beyond(shifted(v)); }

    template <class M>
    [[gnu::always_inline]] V limit(V v, M& overflowed) const {
        v = shifted(v);
        overflowed = beyond(v);
        v = within(v, overflowed);
        if constexpr (!shifts) return v;
        return V(U(v) << std::uint64_t(shift_));
    }

  private:
    // The quotient of 2^shift, rounded.
    V shifted(V v) const {
        if (!shifts || shift_ == 0) return v;
        const V negative = v < V{};
        const U magnitude = select(negative, U{} - U(v), U(v));
        const V odd = ((magnitude >> std::uint64_t(shift_)) & 1) != U{};
        auto of_sign = [&](int n) {
            return select(odd, broadcast<U>(addend_[n][1]), broadcast<U>(addend_[n][0]));
        };
        const U rounded =
            (magnitude + select(negative, of_sign(1), of_sign(0))) >> std::uint64_t(shift_);
        return V(select(negative, U{} - rounded, rounded));
    }

    [[gnu::always_inline]] V beyond(V v) const {
        return (v < broadcast<V>(range_.lowest)) | (v > broadcast<V>(range_.highest));
    }

    template <class M>
    [[gnu::always_inline]] V within(V v, const M& overflowed) const {
        const V low = broadcast<V>(range_.lowest), high = broadcast<V>(range_.highest);
        const bool plain_wrap = q_.overflow == IntegerOverflow::wrap && q_.wrap_bits == 0;
        const bool clamps = q_.overflow == IntegerOverflow::saturate ||
                            q_.overflow == IntegerOverflow::saturate_symmetric;
        if (clamps) return select(v < low, low, select(v > high, high, v));
        if (plain_wrap) {
            const int drop = 64 - q_.bits;
            const U up = U(v) << std::uint64_t(drop);
            return q_.is_signed ? V(up) >> std::int64_t(drop) : V(up >> std::uint64_t(drop));
        }
        if (any(overflowed))
            for (int j = 0; j < lanes<V>; ++j) v[j] = limit_integer(v[j], q_);
        return v;
    }

    FixedQuantizer q_;
    int shift_;
    IntegerRange range_;
    std::uint64_t addend_[2][2] = {};
};

// Whether any format has a `shift` is known when this is compiled: each step is faster without.
template <bool shifts>
class IntegerLanes {
    using Limiter = LaneLimiter<shifts>;

  public:
    using Job = IntegerJob;
    using Datapath = IntegerDatapath;
    using V = Vector<std::int64_t>;
    using U = Vector<std::uint64_t>;
    using Events = LaneEvents<V>;
    using Mask = V;

    explicit IntegerLanes(const IntegerDatapath& d)
        : product_(d.product),
          accumulator_(d.accumulator),
          merge_(d.merge),
          node_(d.node),
          output_(d.output),
          product_exact_(d.product_exact),
          node_exact_(d.node_exact),
          output_exact_(d.output_exact) {}

    int product_random_bits() const { return 0; }
    int step_random_bits() const { return 0; }
    int merge_random_bits() const { return 0; }

    [[gnu::noinline]] V start(V c) const {
        Mask ignored;
        return accumulator_.limit(c, ignored);
    }
    void begin(V start) {
        running_ = start;
        prefix_out_ = Mask{};
    }
    // The exact sum says whether the result itself or only a prefix left the range.
    void finish(Events& events) const {
        const Mask out = first_limit().outside(running_);
        events.counts[overflowed_outputs] -=
            U((events.counts[accumulator_overflow] | events.counts[product_overflow]) != U{});
        events.count(transient, prefix_out_ & ~out);
        events.count(persistent, out);
    }

    [[gnu::always_inline]] V term(V a, V b, U, int level, Events& events) const {
        V p = a * b;
        if (product_exact_) return p;
        Mask over;
        p = product_.limit(p, over);
        if (level) events.count(product_overflow, over);
        return p;
    }

    [[gnu::always_inline]] V step(V p, V s, U, int level, Events& events) {
        if (level) {
            running_ = plus(running_, p);
            prefix_out_ |= first_limit().outside(running_);
        }
        return add(accumulator_, p, s, level, events);
    }
    [[gnu::noinline]] V merge(V r, V s, U, int level, Events& events) const {
        return add(merge_, r, s, level, events);
    }

    void open_group(V) { products_ = V{}; }
    void add_to_group(V p) { products_ = plus(products_, p); }
    bool group_is_inexact() const { return false; }
    void open_exact_group(V) {}
    void add_to_exact_group(V) {}
    V close_group(V s, U random, int level, Events& events) {
        return step(node(products_), s, random, level, events);
    }

    // A tree's leaves and inner sums; the sum of an exact group.
    [[gnu::noinline]] V node(V v) const {
        Mask ignored;
        return node_exact_ ? v : node_.limit(v, ignored);
    }
    V node(V left, V right) const { return node(plus(left, right)); }

    [[gnu::noinline]] V result(V sum) const {
        Mask ignored;
        return output_exact_ ? sum : output_.limit(sum, ignored);
    }

    V exact_merge(const std::int64_t* results, std::int64_t chunks, bool) const {
        V sum{};
        for (std::int64_t i = 0; i < chunks; ++i) sum = plus(sum, load<V>(results + i * lanes<V>));
        return sum;
    }

  private:
    // The first limit that a sum meets.
    const Limiter& first_limit() const {
        if (!accumulator_.is_exact()) return accumulator_;
        return merge_.is_exact() ? output_ : merge_;
    }

    // Only a start value of 63 bits can make a sum leave 64 bits; it then wraps.
    static V plus(V a, V b) { return V(U(a) + U(b)); }

    [[gnu::always_inline]] V add(const Limiter& limiter, V p, V s, int level,
                                 Events& events) const {
        V sum = plus(p, s);
        Mask over;
        V next = limiter.limit(sum, over);
        if (level && !limiter.is_exact()) {
            events.count(accumulator_overflow, over);
            events.partial_sum(sum, ~Mask{});
        }
        return next;
    }

    Limiter product_, accumulator_, merge_, node_, output_;
    bool product_exact_, node_exact_, output_exact_;
    V running_{}, products_{};
    Mask prefix_out_{};
};

}  // namespace
}  // namespace abcdeep
