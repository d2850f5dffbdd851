// This instruction set's table: every kernel of the list, in the list's order.
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

extern const Kernels kernels;
const Kernels kernels = {
#define KERNEL(result, name, arguments) &name,
    ABCDEEP_KERNELS(KERNEL)
#undef KERNEL
};

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
