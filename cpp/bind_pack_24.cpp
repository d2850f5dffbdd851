// Bindings: 2:4 packing and the search for a permutation of channels.
#include "bindings.hpp"

namespace abcdeep {

void bind_pack_24(nb::module_&) {}

}  // namespace abcdeep
