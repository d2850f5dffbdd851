// Bindings: N:M masks and unbiased N:M sparsity.
#include "bindings.hpp"

namespace abcdeep {

void bind_nm(nb::module_&) {}

}  // namespace abcdeep
