// Terms, steps, groups and merges of any integer datapath, on vectors of 64-bit integers.
#pragma once

#include "fixed.hpp"
#include "gemm_lanes.hpp"

namespace abcdeep {
namespace {

// One narrow integer type on vectors of 64-bit integers.
class LaneLimiter {
  public:
    using V = Vector<std::int64_t>;

    explicit LaneLimiter(const FixedQuantizer& q)
        : q_(q), range_(integer_range(q.bits, q.is_signed, q.overflow)) {}

    template <class M>
    V limit(V v, M& overflowed) const {
        const V low = broadcast<V>(range_.lowest), high = broadcast<V>(range_.highest);
        overflowed = (v < low) | (v > high);
        const bool plain_wrap = q_.overflow == IntegerOverflow::wrap && q_.wrap_bits == 0;
        const bool clamps = q_.overflow == IntegerOverflow::saturate ||
                            q_.overflow == IntegerOverflow::saturate_symmetric;
        if (clamps) return select(v < low, low, select(v > high, high, v));
        if (plain_wrap) {
            const int drop = 64 - q_.bits;
            using U = Vector<std::uint64_t>;
            const U up = U(v) << std::uint64_t(drop);
            return q_.is_signed ? V(up) >> std::int64_t(drop) : V(up >> std::uint64_t(drop));
        }
        if (any(overflowed))
            for (int j = 0; j < lanes<V>; ++j) v[j] = limit_integer(v[j], q_);
        return v;
    }

  private:
    FixedQuantizer q_;
    IntegerRange range_;
};

class IntegerLanes {
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
          product_exact_(d.product_exact) {}

    int product_random_bits() const { return 0; }
    int step_random_bits() const { return 0; }
    int merge_random_bits() const { return 0; }

    V start(V c) const {
        Mask ignored;
        return accumulator_.limit(c, ignored);
    }
    void begin(V start) {
        running_ = start;
        prefix_out_ = Mask{};
    }
    // The exact sum says whether the result itself or only a prefix left the range.
    void finish(Events& events) const {
        Mask out;
        accumulator_.limit(running_, out);
        events.counts[overflowed_outputs] -=
            U((events.counts[accumulator_overflow] | events.counts[product_overflow]) != U{});
        events.count(transient, prefix_out_ & ~out);
        events.count(persistent, out);
    }

    V term(V a, V b, U, int level, Events& events) const {
        V p = a * b;
        if (product_exact_) return p;
        Mask over;
        p = product_.limit(p, over);
        if (level) events.count(product_overflow, over);
        return p;
    }

    V step(V p, V s, U, int level, Events& events) {
        if (level) {
            running_ = plus(running_, p);
            Mask out;
            accumulator_.limit(running_, out);
            prefix_out_ |= out;
        }
        return add(accumulator_, p, s, level, events);
    }
    V merge(V r, V s, U, int level, Events& events) const {
        return add(merge_, r, s, level, events);
    }

    void open_group(V) { products_ = V{}; }
    void add_to_group(V p) { products_ = plus(products_, p); }
    bool group_is_inexact() const { return false; }
    void open_exact_group(V) {}
    void add_to_exact_group(V) {}
    V close_group(V s, U random, int level, Events& events) {
        return step(products_, s, random, level, events);
    }

    V exact_merge(const std::int64_t* results, std::int64_t chunks, bool) const {
        V sum{};
        for (std::int64_t i = 0; i < chunks; ++i) sum = plus(sum, load<V>(results + i * lanes<V>));
        return sum;
    }

  private:
    // Only a start value of 63 bits can make a sum leave 64 bits; it then wraps.
    static V plus(V a, V b) { return V(U(a) + U(b)); }

    V add(const LaneLimiter& limiter, V p, V s, int level, Events& events) const {
        V sum = plus(p, s);
        Mask over;
        V next = limiter.limit(sum, over);
        if (level) {
            events.count(accumulator_overflow, over);
            events.partial_sum(sum, ~Mask{});
        }
        return next;
    }

    LaneLimiter product_, accumulator_, merge_;
    bool product_exact_;
    V running_{}, products_{};
    Mask prefix_out_{};
};

}  // namespace
}  // namespace abcdeep
