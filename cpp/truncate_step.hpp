// One step of a truncating chain: binary32 rounding toward zero, then a mask (docs/exactness.md,
// fact A).
#pragma once

#include "float_tile.hpp"

namespace abcdeep {
namespace {

template <bool fused, bool clamp>
class TruncateStep : public ScaledStep {
  public:
    explicit TruncateStep(const FloatTile& t)
        : ScaledStep(t), mask_(U{} + (~std::uint32_t(0) << (23 - t.mantissa_bits))) {}

    V step(V a, V b, V s) const {
        if constexpr (fused) return truncate(fused_multiply_add(a, b, s), sum_limit_, clamp);
        const V p = truncate(a * b, product_limit_, clamp);
        return truncate(fused_multiply_add(p, factor_, s), sum_limit_, clamp);
    }
    V merge(V r, V s) const { return truncate(r + s, sum_limit_, true); }

    float start(double c) const {
        return truncate(V{} + truncated(c * sum_scale_), sum_limit_, true)[0];
    }

  protected:
    V truncate(V x, V limit, bool limited) const {
        x = masked(x, mask_);
        return limited ? clamp_magnitude(x, limit) : x;
    }

    U mask_;
};

}  // namespace
}  // namespace abcdeep
