// Widths of accumulators.
#include "accumulator_widths.hpp"

#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

void accumulator_widths(const IntegerJob&, const WidthJob&, const Block&, WidthTotals&) {}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
