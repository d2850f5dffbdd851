// Widths of accumulators from exact sums of 32 bits.
#include "kernels.hpp"
#include "width_tile.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

template <Packing packing>
void run(const IntegerJob& job, const WidthJob& widths, const Block& block, WidthTotals& totals) {
    using V = Vector<std::int32_t>;
    if (widths.every_order)
        WidthTile<V, packing, true>(job, widths, totals).run(block);
    else
        WidthTile<V, packing, false>(job, widths, totals).run(block);
}

}  // namespace

void accumulator_widths(const IntegerJob& job, const WidthJob& widths, const Block& block,
                        WidthTotals& totals) {
    using V = Vector<std::int32_t>;
    const bool whole = job.a.type == IntegerType::uint16 || job.b.type == IntegerType::uint16;
    const bool pairs = !widths.every_order && widths.group % 2 == 0 && widths.chunk % 2 == 0;
    if (whole)
        run<Packing::whole>(job, widths, block, totals);
    else if (pairs)
        WidthTile<V, Packing::pair, false>(job, widths, totals).run(block);
    else
        run<Packing::half>(job, widths, block, totals);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
