// Widths of accumulators from exact sums of 32 bits.
#include "kernels.hpp"
#include "width_tile.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

void accumulator_widths(const IntegerJob& job, const WidthJob& widths, const Block& block,
                        WidthTotals& totals) {
    using V = Vector<std::int32_t>;
    if (job.a.type == IntegerType::uint16 || job.b.type == IntegerType::uint16)
        WidthTile<V, false>(job, widths, totals).run(block);
    else
        WidthTile<V, true>(job, widths, totals).run(block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
