// What the fast float kernels share: scaled packing, limits, and how a Step is run.
#pragma once

#include "float_environment.hpp"
#include "gemm_tile.hpp"

namespace abcdeep {
namespace {

inline float power_of_two(int exponent) { return float(__builtin_ldexp(1.0, exponent)); }

class ScaledStep {
  public:
    using V = Vector<float>;
    using U = Vector<std::uint32_t>;

    explicit ScaledStep(const FloatTile& t)
        : mask_(U{} + (~std::uint32_t(0) << (23 - t.mantissa_bits))),
          product_limit_(V{} + float(__builtin_ldexp(t.product_limit, t.scale_a + t.scale_b))),
          sum_limit_(V{} + float(__builtin_ldexp(t.sum_limit, t.sum_scale))),
          factor_(V{} + power_of_two(t.product_to_sum)),
          scale_a_(power_of_two(t.scale_a)),
          scale_b_(power_of_two(t.scale_b)),
          sum_scale_(__builtin_ldexp(1.0, t.sum_scale)),
          unscale_(V{} + power_of_two(-t.sum_scale)) {}

    // x: one element or a vector of them
    template <class T>
    T pack_a(T x) const {
        return x * scale_a_;
    }
    template <class T>
    T pack_b(T x) const {
        return x * scale_b_;
    }

    // Back to the format's own scale; adding zero turns -0 into +0.
    V finish(V s) const { return s * unscale_ + V{}; }

  protected:
    // x toward zero, in any environment
    static float truncated(double x) {
        const float f = float(x);
        const bool away = __builtin_fabs(double(f)) > __builtin_fabs(x);
        return away ? bits_as<float>(bits_as<std::uint32_t>(f) - 1) : f;
    }

    U mask_;
    V product_limit_, sum_limit_, factor_;
    float scale_a_, scale_b_;
    double sum_scale_;
    V unscale_;
};

// Runs a Step in its floating-point environment; not inlined, so that nothing moves out of it.
template <class Step>
[[gnu::noinline]] void run_step(const FloatJob& job, const FloatTile& tile, const Block& block) {
    const Step step(tile);
    run_tiles(step, job, tile.chunk, block);
}

}  // namespace
}  // namespace abcdeep
