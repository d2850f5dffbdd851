// Bindings: widths of accumulators, and spans of exponents.
#include "accumulator_widths.hpp"

#include "bindings.hpp"
#include "dispatch.hpp"
#include "exponent_spans.hpp"
#include "kernels.hpp"
#include "parallel.hpp"

namespace abcdeep {

void bind_accumulator_widths(nb::module_&) {}

}  // namespace abcdeep
