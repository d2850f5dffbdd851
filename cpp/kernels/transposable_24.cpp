// Transposable 2:4 masks.
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

unsigned transposable_24(const TransposableJob&, std::int64_t, std::int64_t) { return 0; }

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
