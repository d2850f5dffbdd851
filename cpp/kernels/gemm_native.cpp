// Binary32 accumulators to nearest even: the processor's own arithmetic, in the specified order.
#include "float_tile.hpp"
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

template <bool fused>
class NativeStep : public ScaledStep {
  public:
    using ScaledStep::ScaledStep;

    V step(V a, V b, V s) const {
        if constexpr (fused) return fused_multiply_add(a, b, s);
        return a * b + s;
    }
    V merge(V r, V s) const { return r + s; }
    float start(double c) const { return float(c) + 0.0f; }

    V finish(V s) const {
        s += V{};  // -0 becomes +0
        return select(s == s, s, V{} + __builtin_nanf(""));
    }
};

}  // namespace

bool fused_multiply_adds() { return has_fused_multiply_add; }

void gemm_native(const FloatJob& job, const FloatTile& tile, const Block& block) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    (tile.product_exact ? run_step<NativeStep<true>> : run_step<NativeStep<false>>)(job, tile,
                                                                                    block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
