// What the fast float kernels share: scaled packing, limits, and the size of their register tiles.
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
    // accumulators, a vector of each operand and the constants fill the registers: 32, or 16
    static constexpr int rows = ABCDEEP_VECTOR_BYTES == 64 ? 8 : ABCDEEP_VECTOR_BYTES == 32 ? 4 : 2;
    static constexpr int vectors = 2;

    explicit ScaledStep(const FloatTile& t)
        : mask_(U{} + (~std::uint32_t(0) << (23 - t.mantissa_bits))),
          product_limit_(V{} + float(__builtin_ldexp(t.product_limit, t.scale_a + t.scale_b))),
          sum_limit_(V{} + float(__builtin_ldexp(t.sum_limit, t.sum_scale))),
          factor_(V{} + power_of_two(t.product_to_sum)),
          scale_a_(power_of_two(t.scale_a)),
          scale_b_(power_of_two(t.scale_b)),
          sum_scale_(__builtin_ldexp(1.0, t.sum_scale)),
          unscale_(V{} + power_of_two(-t.sum_scale)) {}

    float pack_a(float x) const { return x * scale_a_; }
    float pack_b(float x) const { return x * scale_b_; }

    // Back to the format's own scale; adding zero turns -0 into +0.
    V finish(V s) const { return s * unscale_ + V{}; }

  protected:
    U mask_;
    V product_limit_, sum_limit_, factor_;
    float scale_a_, scale_b_;
    double sum_scale_;
    V unscale_;
};

// Runs a Step in its floating-point environment; not inlined, so that nothing moves out of it.
template <class Step>
[[gnu::noinline]] void run_tile(const FloatJob& job, const FloatTile& tile, const Block& block) {
    const Step step(tile);
    TileGemm<Step, FloatJob>(step, job, tile.chunk, block).run();
}

}  // namespace
}  // namespace abcdeep
