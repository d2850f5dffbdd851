// Widths of accumulators from exact sums of 64 bits, and those of the greedy order.
#include "kernels.hpp"
#include "width_tile.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

// Replaces the width in the given order by that of the greedy one: a positive term while the sum is
// at most zero, else a negative one, as long as there are both.
class GreedyOrder {
  public:
    GreedyOrder(const IntegerJob& job, const WidthJob& widths, WidthTotals& totals)
        : job_(job), widths_(widths), totals_(totals), terms_(job.terms) {}

    void run(const Block& block) {
        for (std::int64_t m = block.row_begin; m < block.row_end; ++m)
            for (std::int64_t n = block.column_begin; n < block.column_end; ++n) output(m, n);
    }

  private:
    void output(std::int64_t m, std::int64_t n) {
        const std::int64_t count = job_.terms;
        for (std::int64_t k = 0; k < count; ++k)
            terms_[k] = std::int64_t(job_.a(m, k)) * job_.b(k, n);
        std::int64_t sum = job_.c.data ? job_.c(m, n) : 0;
        std::int64_t smallest = std::min<std::int64_t>(sum, 0);
        std::int64_t largest = std::max<std::int64_t>(sum, 0);
        std::int64_t positive = 0, negative = 0;
        while (true) {
            while (positive < count && terms_[positive] <= 0) ++positive;
            while (negative < count && terms_[negative] >= 0) ++negative;
            if (positive == count && negative == count) break;
            const bool rises = negative == count || (positive < count && sum <= 0);
            sum += terms_[rises ? positive++ : negative++];
            smallest = std::min(smallest, sum);
            largest = std::max(largest, sum);
            if (widths_.counted && widths_.counted[m]) count_sum(sum);
        }
        widths_.widths[given_width][m * job_.columns + n] =
            std::uint8_t(width_of(smallest, largest, widths_.is_signed));
        totals_.smallest = std::min(totals_.smallest, smallest);
        totals_.largest = std::max(totals_.largest, largest);
    }
    void count_sum(std::int64_t sum) {
        ++(sum < 0 ? totals_.negative : totals_.positive)[std::bit_width(
            sum < 0 ? -std::uint64_t(sum) : std::uint64_t(sum))];
    }

    const IntegerJob& job_;
    const WidthJob& widths_;
    WidthTotals& totals_;
    Scratch<std::int64_t> terms_;
};

}  // namespace

void accumulator_widths64(const IntegerJob& job, const WidthJob& widths, const Block& block,
                          WidthTotals& totals) {
    using V = Vector<std::int64_t>;
    if (!widths.greedy_order) return WidthTile<V, false>(job, widths, totals).run(block);
    WidthTotals given;  // its partial sums are those of another order
    WidthJob others = widths;
    others.counted = nullptr;
    WidthTile<V, false>(job, others, given).run(block);
    GreedyOrder(job, widths, totals).run(block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
