// Transposable N:M masks.
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

unsigned transposable_mask(const TransposableJob&, std::int64_t, std::int64_t) { return 0; }

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
