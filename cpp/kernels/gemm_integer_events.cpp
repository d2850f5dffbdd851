// Integer accumulators in 32-bit lanes, with events: every step is limited, the exact sums run
// beside.
#include <algorithm>

#include "fixed.hpp"
#include "kernels.hpp"
#include "lane_masks.hpp"
#include "run_tiles.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

using V = Vector<std::int32_t>;
using U = Vector<std::uint32_t>;

enum class Limit { saturate, wrap_signed, wrap_unsigned };

template <Limit limit_kind>
class LimitedStep {
  public:
    using V = abcdeep::ABCDEEP_ISA_NAMESPACE::V;

    explicit LimitedStep(const IntegerTile& t)
        : tile_(t),
          lowest_(V{} + std::int32_t(t.lowest)),
          highest_(V{} + std::int32_t(t.highest)),
          drop_(32 - t.bits) {}

    template <class T>
    T pack_a(T x) const {
        return x;
    }
    template <class T>
    T pack_b(T x) const {
        return x;
    }

    template <class Seen>
    V step(V a, V b, V s, Seen& seen, int i, int j) const {
        const V p = a * b;
        seen.term(p, i, j);
        return add(p, s, seen, i, j);
    }
    template <class Seen>
    V merge(V r, V s, Seen& seen, int i, int j) const {
        return add(r, s, seen, i, j);
    }
    std::int32_t start(std::int64_t c) const {
        if (limit_kind == Limit::saturate)
            return std::int32_t(std::clamp(c, tile_.lowest, tile_.highest));
        return std::int32_t(low_bits(std::uint32_t(c), tile_.bits, tile_.is_signed));
    }
    V finish(V s) const { return s; }

  private:
    template <class Seen>
    V add(V p, V s, Seen& seen, int i, int j) const {
        const V sum = p + s;
        V next;
        if constexpr (limit_kind == Limit::saturate)
            next = smaller(larger(sum, lowest_), highest_);
        else if constexpr (limit_kind == Limit::wrap_signed)
            next = V(U(sum) << drop_) >> std::int32_t(drop_);
        else
            next = sum & highest_;
        seen.sum(sum, next, i, j);
        return next;
    }

    const IntegerTile& tile_;
    V lowest_, highest_;
    std::uint32_t drop_;
};

// chunked: sums start anew in each chunk. Else a sum first leaves the range where the exact one
// does.
template <bool chunked>
class IntegerWatch {
  public:
    static constexpr int width = lanes<V>, tile_rows = ABCDEEP_VECTOR_BYTES == 64 ? 4 : 2;

    explicit IntegerWatch(const IntegerTile& t)
        : start_(std::uint32_t(-t.lowest)), length_(std::uint32_t(t.highest - t.lowest)) {}

    template <int rows, int vectors>
    struct Seen {
        LaneCount inside;
        std::int64_t steps;
        // Exact sums, less the lowest number of the range, modulo 2^32: in range are those that are
        // at most its length.
        U exact[rows][vectors], most[rows][vectors];
        V smallest[vectors], largest[vectors];
        LaneMask inside_always[rows][vectors];

        void term(V p, int i, int j) {
            exact[i][j] += U(p);
            most[i][j] = larger(most[i][j], exact[i][j]);
        }
        void sum(V sum, V next, int i, int j) {
            const LaneMask mask = equal_lanes(sum, next);
            inside.add(mask);
            ++steps;
            if constexpr (chunked) inside_always[i][j] &= mask;
            smallest[j] = smaller(smallest[j], sum);
            largest[j] = larger(largest[j], sum);
        }
        void flush() {}
    };

    template <int rows, int vectors>
    void open(Seen<rows, vectors>& seen) const {
        seen = Seen<rows, vectors>{};
        for (auto& row : seen.exact)
            for (U& v : row) v += start_;
        for (auto& row : seen.inside_always)
            for (LaneMask& mask : row) mask = equal_lanes(V{}, V{});
        for (V& v : seen.smallest) v += std::numeric_limits<std::int32_t>::max();
        for (V& v : seen.largest) v += std::numeric_limits<std::int32_t>::min();
    }

    template <int rows, int vectors>
    void close(const Seen<rows, vectors>& seen, const Block& rectangle) {
        // columns that fill up a tile stay at zero, in range
        counts_[accumulator_overflow] += seen.steps * width - seen.inside.sum();
        for (int i = 0; i < rows; ++i)
            for (int j = 0; j < vectors; ++j) {
                const std::uint32_t inside = mask_bits(seen.inside_always[i][j]);
                for (int n = 0; n < width; ++n) {
                    const bool out = seen.exact[i][j][n] > length_;
                    const bool prefix_out = seen.most[i][j][n] > length_;
                    counts_[persistent] += out;
                    counts_[transient] += prefix_out && !out;
                    counts_[overflowed_outputs] += chunked ? (inside >> n & 1) == 0 : prefix_out;
                }
            }
        for (int n = 0; n < int(rectangle.column_end - rectangle.column_begin); ++n) {
            smallest_ = std::min(smallest_, seen.smallest[n / width][n % width]);
            largest_ = std::max(largest_, seen.largest[n / width][n % width]);
        }
    }

    void totals(EventTotals& totals) const {
        std::copy_n(counts_, event_counts, totals.counts);
        totals.any = smallest_ <= largest_;
        if (totals.any) totals.smallest = smallest_, totals.largest = largest_;
    }

  private:
    std::uint32_t start_, length_;
    std::int64_t counts_[event_counts] = {};
    std::int32_t smallest_ = std::numeric_limits<std::int32_t>::max(),
                 largest_ = std::numeric_limits<std::int32_t>::min();
};

template <Limit limit, bool chunked>
void run(const IntegerJob& job, const IntegerTile& tile, const Block& block, EventTotals& totals) {
    const LimitedStep<limit> step(tile);
    IntegerWatch<chunked> watch(tile);
    run_watched(step, job, tile.chunk, block, watch);
    watch.totals(totals);
}

template <Limit limit>
void run_chunks(const IntegerJob& job, const IntegerTile& tile, const Block& block,
                EventTotals& totals) {
    (tile.chunk > 0 && tile.chunk < job.terms ? run<limit, true>
                                              : run<limit, false>)(job, tile, block, totals);
}

}  // namespace

void gemm_integer_events(const IntegerJob& job, const IntegerTile& tile, const Block& block,
                         EventTotals& totals) {
    (tile.saturate    ? run_chunks<Limit::saturate>
     : tile.is_signed ? run_chunks<Limit::wrap_signed>
                      : run_chunks<Limit::wrap_unsigned>)(job, tile, block, totals);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
