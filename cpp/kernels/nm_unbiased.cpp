// Minimum-variance unbiased N:M sparsity.
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

unsigned nm_unbiased(const NmJob&, std::int64_t, std::int64_t) { return 0; }

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
