// The step of truncating float accumulators: binary32 rounding toward zero, then a mask
// (docs/exactness.md, fact A).
#pragma once

#include "float_tile.hpp"
#include "lane_masks.hpp"

namespace abcdeep {
namespace {

// fused: products are not rounded. clamp: products and sums past the largest number become it.
template <bool fused, bool clamp>
class TruncateStep : public ScaledStep {
  public:
    explicit TruncateStep(const FloatTile& t)
        : ScaledStep(t),
          mask_(U{} + (~std::uint32_t(0) << (23 - t.mantissa_bits))),
          product_overflow_(overflow(product_limit_, t, t.product_overflow_at_largest)),
          sum_overflow_(overflow(sum_limit_, t, t.sum_overflow_at_largest)),
          wide_factor_(factor_ * widening) {}

    V step(V a, V b, V s) const {
        if constexpr (fused) return truncate(fused_multiply_add(a, b, s), sum_limit_, clamp);
        const V p = truncate(a * b, product_limit_, clamp);
        return truncate(fused_multiply_add(p, factor_, s), sum_limit_, clamp);
    }
    V merge(V r, V s) const { return truncate(r + s, sum_limit_, true); }

    // The same, noted (tile_events.hpp).
    template <class Seen>
    V step(V a, V b, V s, Seen& seen, int i, int j) const {
        LaneMask over{};
        if constexpr (fused) {
            return add<clamp>(a, b, s, [&] { return a * widening * b; }, over, seen, i, j);
        } else {
            V p = truncate(a * b);
            if constexpr (clamp) {
                over = seen.product_range(p, product_overflow_);
                p = clamp_magnitude(p, product_limit_);
            }
            seen.product(p);
            return add<clamp>(p, factor_, s, [&] { return p * wide_factor_; }, over, seen, i, j);
        }
    }
    template <class Seen>
    V merge(V r, V s, Seen& seen, int i, int j) const {
        return add<true>(r, V{} + 1.0f, s, [&] { return r * widening; }, LaneMask{}, seen, i, j);
    }

    float start(double c) const {
        return truncate(V{} + truncated(c * sum_scale_), sum_limit_, true)[0];
    }

  protected:
    // The smallest magnitude that is out of range.
    static V overflow(V limit, const FloatTile& t, bool at_largest) {
        const std::uint32_t ulp = std::uint32_t(1) << (23 - t.mantissa_bits);
        return at_largest ? limit : bits_as<V>(bits_as<U>(limit) + ulp);
    }

    V truncate(V x) const { return masked(x, mask_); }
    V truncate(V x, V limit, bool limited) const {
        return limited ? clamp_magnitude(truncate(x), limit) : truncate(x);
    }

    // u * v + s; `wide_term` gives u * v times `widening`, `over` says where the product
    // overflowed.
    template <bool limited, class Wide, class Seen>
    V add(V u, V v, V s, const Wide& wide_term, LaneMask over, Seen& seen, int i, int j) const {
        const V x = fused_multiply_add(u, v, s);
        V next = truncate(x);
        if constexpr (limited) {
            seen.sum_range(next, sum_overflow_, over, i, j);
            next = clamp_magnitude(next, sum_limit_);
        }
        seen.sum(u, v, s, x, j);
        if constexpr (Seen::rounding_too) seen.rounding(wide_term(), s, next);
        return next;
    }

    U mask_;
    V product_overflow_, sum_overflow_, wide_factor_;
};

}  // namespace
}  // namespace abcdeep
