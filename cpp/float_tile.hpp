// What the fast float kernels share: scaled packing, limits, and how a Step is run.
#pragma once

#include "float_environment.hpp"
#include "run_tiles.hpp"

namespace abcdeep {
namespace {

// Brings scaled terms and sums so far up that no difference of them underflows.
inline constexpr float widening = 0x1p32f;

// Numbers of type V (float32, or float64 where that is too narrow), scaled by powers of two.
template <class V_>
class Scaled {
  public:
    using V = V_;
    using E = Element<V>;

    explicit Scaled(const FloatTile& t)
        : factor_(V{} + power_of_two(t.product_to_sum)),
          scale_a_(power_of_two(t.scale_a)),
          scale_b_(power_of_two(t.scale_b)),
          product_scale_(t.scale_a + t.scale_b),
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
    static E power_of_two(int exponent) { return E(__builtin_ldexp(1.0, exponent)); }
    E scaled_product(double x) const { return E(__builtin_ldexp(x, product_scale_)); }
    E scaled_sum(double x) const { return E(x * sum_scale_); }

    // x toward zero, in any environment
    static E truncated(double x) {
        using U = BitsOf<E>;
        const E f = E(x);
        const bool away = __builtin_fabs(double(f)) > __builtin_fabs(x);
        return away ? bits_as<E>(U(bits_as<U>(f) - 1)) : f;
    }

    V factor_;
    E scale_a_, scale_b_;
    int product_scale_;
    double sum_scale_;
    V unscale_;
};

class ScaledStep : public Scaled<Vector<float>> {
  public:
    using U = BitsOf<V>;

    explicit ScaledStep(const FloatTile& t)
        : Scaled<Vector<float>>(t),
          product_limit_(V{} + scaled_product(t.product_limit)),
          sum_limit_(V{} + scaled_sum(t.sum_limit)) {}

  protected:
    V product_limit_, sum_limit_;
};

// Runs a Step in its floating-point environment; not inlined, so that nothing moves out of it.
template <class Step>
[[gnu::noinline]] void run_step(const FloatJob& job, const FloatTile& tile, const Block& block) {
    const Step step(tile);
    run_tiles(step, job, tile.chunk, block);
}

}  // namespace
}  // namespace abcdeep
