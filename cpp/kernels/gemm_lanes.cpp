// The general GEMM kernels: float datapaths on doubles, integer datapaths on 64-bit integers.
#include "gemm_lanes.hpp"

#include "float_environment.hpp"
#include "float_lanes.hpp"
#include "integer_lanes.hpp"
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

[[gnu::noinline]] void run_float(const FloatJob& job, const FloatDatapath& datapath,
                                 const Block& block, EventTotals& totals) {
    LaneGemm<FloatLanes>(job, datapath, totals).run(block);
}

}  // namespace

void gemm_float_lanes(const FloatJob& job, const FloatDatapath& datapath, const Block& block,
                      EventTotals& totals) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    run_float(job, datapath, block, totals);
}

void gemm_integer_lanes(const IntegerJob& job, const IntegerDatapath& datapath, const Block& block,
                        EventTotals& totals) {
    const auto& d = datapath;
    bool shifts = false;
    for (const FixedQuantizer* q : {&d.product, &d.accumulator, &d.merge, &d.node, &d.output})
        shifts |= q->fraction_bits != 0;
    if (shifts)
        LaneGemm<IntegerLanes<true>>(job, d, totals).run(block);
    else
        LaneGemm<IntegerLanes<false>>(job, d, totals).run(block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
