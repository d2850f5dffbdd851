// Truncating float accumulators in binary32.
#include "kernels.hpp"
#include "truncate_step.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

void gemm_truncate(const FloatJob& job, const FloatTile& tile, const Block& block) {
    const FloatEnvironment environment(
        tile.nearest ? FloatRounding::nearest : FloatRounding::toward_zero, tile.flush);
    if (tile.product_exact)
        (tile.clamp ? run_step<TruncateStep<true, true>>
                    : run_step<TruncateStep<true, false>>)(job, tile, block);
    else
        (tile.clamp ? run_step<TruncateStep<false, true>>
                    : run_step<TruncateStep<false, false>>)(job, tile, block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
