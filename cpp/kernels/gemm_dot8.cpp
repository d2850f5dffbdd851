// Integer accumulators in 32-bit lanes, on exact sums of four products of bytes (VNNI).
#include "integer_tile.hpp"
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

void gemm_dot8(const IntegerJob& job, const IntegerTile& tile, const Block& block) {
    const bool unsigned_right = job.b.type == IntegerType::uint8;
    (unsigned_right ? run_dot<ByteDot<true>> : run_dot<ByteDot<false>>)(job, tile, block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
