// Float accumulators on float32 rounded to odd.
#include "kernels.hpp"
#include "odd_step.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

void gemm_odd(const FloatJob& job, const FloatTile& tile, const Block& block) {
    (tile.nearest ? run_odd<NearestEven<Vector<float>>>
                  : run_odd<AnyRounding<Vector<float>>>)(job, tile, block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
