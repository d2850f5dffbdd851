// Integer accumulators in 32-bit lanes, on exact sums of two products of 16-bit operands.
#include "integer_tile.hpp"
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

void gemm_dot16(const IntegerJob& job, const IntegerTile& tile, const Block& block) {
    run_dot<PairDot>(job, tile, block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
