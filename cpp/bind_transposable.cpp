// Bindings: transposable N:M masks.
#include "bindings.hpp"

namespace abcdeep {

void bind_transposable(nb::module_&) {}

}  // namespace abcdeep
