// Float accumulators on float64 rounded to odd: wide formats, and many random bits.
#include "kernels.hpp"
#include "odd_step.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

void gemm_odd64(const FloatJob& job, const FloatTile& tile, const Block& block) {
    run_odd<AnyRounding<Vector<double>>>(job, tile, block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
