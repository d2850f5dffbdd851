// Integer accumulators in 32-bit lanes, a product in each.
#include "integer_tile.hpp"
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

void gemm_integer(const IntegerJob& job, const IntegerTile& tile, const Block& block) {
    run_dot<ProductDot>(job, tile, block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
