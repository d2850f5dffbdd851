// Truncating float accumulators in binary32, with events.
#include "kernels.hpp"
#include "tile_events.hpp"
#include "truncate_step.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

int exponent_of(double x) { return int(bits_as<std::uint64_t>(x) >> 52 & 2047) - 1023; }

// Numbers with `bits` bits after the first, none below 2^lowest.
struct Addend {
    double largest;
    int lowest, bits;

    int lowest_beside(const Addend& other, double sum) const {
        const double least = sum - other.largest;
        return least > 0 ? std::max(lowest, exponent_of(least) - bits) : lowest;
    }
};

// Whether no sum of two, of this magnitude or a little more, has more than 24 bits.
bool fits(const Addend& x, const Addend& y, double sum) {
    const int lowest = std::min(x.lowest_beside(y, sum), y.lowest_beside(x, sum));
    return exponent_of(sum) - lowest < 24;
}

// Whether every sum that float32 truncates to x is x.
bool is_exact(float x, const FloatTile& t) {
    if (x == 0) return false;
    const Addend term{__builtin_ldexp(t.largest_term, t.sum_scale), t.lowest_term, t.term_bits};
    const Addend sum{__builtin_ldexp(t.sum_limit, t.sum_scale), t.lowest_sum, t.mantissa_bits};
    const double magnitude = __builtin_fabs(double(x));
    return fits(term, sum, magnitude) && fits(sum, sum, magnitude);
}

// Terms of a block with two factors that are not zero.
std::int64_t nonzero_terms(const FloatJob& job, const Block& block) {
    std::int64_t terms = 0;
    for (std::int64_t i = 0; i < job.terms; ++i) {
        const std::int64_t k = job.order ? job.order[i] : i;
        std::int64_t left = 0, right = 0;
        for (std::int64_t m = block.row_begin; m < block.row_end; ++m) left += job.a(m, k) != 0;
        for (std::int64_t n = block.column_begin; n < block.column_end; ++n)
            right += job.b(k, n) != 0;
        terms += left * right;
    }
    return terms;
}

template <bool fused, bool clamp, bool all>
[[gnu::noinline]] void run(const FloatJob& job, const FloatTile& tile, const Block& block,
                           EventTotals& totals) {
    const TruncateStep<fused, clamp> step(tile);
    FloatWatch<all> watch(block);
    run_watched(step, job, tile.chunk, block, watch);
    std::copy_n(watch.counts(), event_counts, totals.counts);
    if (all && !fused)
        totals.counts[product_underflow] = nonzero_terms(job, block) - watch.products();
    totals.any = watch.smallest() <= watch.largest();
    if (!totals.any) return;
    const double unscale = __builtin_ldexp(1.0, -tile.sum_scale);
    totals.smallest = double(watch.smallest()) * unscale;
    totals.largest = double(watch.largest()) * unscale;
    const bool low = !is_exact(watch.smallest(), tile), high = !is_exact(watch.largest(), tile);
    if (!low && !high) return;
    const TruncateStep<fused, true> again(tile);
    ExtremeFinder finder(watch.smallest(), watch.largest());
    for (const auto& extent : watch)
        if ((low && extent.smallest == watch.smallest()) ||
            (high && extent.largest == watch.largest())) {
            finder.enter(extent.rectangle);
            run_watched(again, job, tile.chunk, extent.rectangle, finder);
        }
    if (low) totals.smallest = finder.smallest() * unscale;
    if (high) totals.largest = finder.largest() * unscale;
}

template <bool fused, bool clamp>
void run_level(const FloatJob& job, const FloatTile& tile, const Block& block,
               EventTotals& totals) {
    (job.event_level > 1 ? run<fused, clamp, true> : run<fused, clamp, false>)(job, tile, block,
                                                                               totals);
}

}  // namespace

void gemm_truncate_events(const FloatJob& job, const FloatTile& tile, const Block& block,
                          EventTotals& totals) {
    const FloatEnvironment environment(FloatRounding::toward_zero, tile.flush);
    if (tile.product_exact)
        (tile.clamp ? run_level<true, true> : run_level<true, false>)(job, tile, block, totals);
    else
        (tile.clamp ? run_level<false, true> : run_level<false, false>)(job, tile, block, totals);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
