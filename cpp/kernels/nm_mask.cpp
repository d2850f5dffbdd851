// N:M magnitude masks.
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

unsigned nm_mask(const NmJob&, std::int64_t, std::int64_t) { return 0; }

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
