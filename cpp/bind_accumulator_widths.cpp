// Bindings: widths of accumulators, and spans of exponents.
#include "accumulator_widths.hpp"

#include <nanobind/stl/optional.h>

#include <algorithm>
#include <mutex>
#include <optional>

#include "bindings.hpp"
#include "dispatch.hpp"
#include "exponent_spans.hpp"
#include "kernels.hpp"
#include "parallel.hpp"

namespace abcdeep {
namespace {

using Bytes = ArrayIn<std::uint8_t>;

IntegerView view_of(const AnyIn& x) {
    const bool is_signed = x.dtype().code == std::uint8_t(nb::dlpack::dtype_code::Int);
    const bool wide = x.itemsize() == 2;
    return {x.data(), x.stride(0), x.stride(1),
            wide ? (is_signed ? IntegerType::int16 : IntegerType::uint16)
                 : (is_signed ? IntegerType::int8 : IntegerType::uint8)};
}

struct WidthTable {
    std::mutex mutex;
    WidthTotals totals;

    void merge(const WidthTotals& part) {
        const std::lock_guard<std::mutex> lock(mutex);
        totals.smallest = std::min(totals.smallest, part.smallest);
        totals.largest = std::max(totals.largest, part.largest);
        for (int b = 0; b < width_bins; ++b) {
            totals.negative[b] += part.negative[b];
            totals.positive[b] += part.positive[b];
        }
    }
};

// a (M, K), b (K, N): 8- or 16-bit integers of any strides. c: (M, N) of any strides. widths:
// (4, M, N). partial_sums: (2, width_bins) is added to. `wide`: sums may need more than 32 bits.
nb::tuple accumulator_widths(AnyIn a, AnyIn b, std::optional<AnyIn> c,
                             std::optional<ArrayIn<std::int64_t>> order, std::int64_t group,
                             std::int64_t chunk, bool is_signed, bool merges_exactly,
                             bool greedy_order, bool wide, std::optional<Bytes> counted,
                             ArrayOut<std::uint8_t, 3> widths, ArrayOut<std::int64_t, 2> partial_sums,
                             int threads) {
    WidthTable table;
    {
        const nb::gil_scoped_release release;
        IntegerJob job;
        job.rows = std::int64_t(a.shape(0)), job.terms = std::int64_t(a.shape(1));
        job.columns = std::int64_t(b.shape(1));
        job.a = view_of(a), job.b = view_of(b);
        if (c)
            job.c = {static_cast<const std::int64_t*>(c->data()), c->stride(0), c->stride(1)};
        job.order = order ? order->data() : nullptr;
        WidthJob one{.group = group,
                     .chunk = chunk,
                     .is_signed = is_signed,
                     .merges_exactly = merges_exactly,
                     .greedy_order = greedy_order,
                     .counted = counted ? counted->data() : nullptr};
        const std::int64_t plane = job.rows * job.columns;
        for (int kind = 0; kind < width_kinds; ++kind)
            one.widths[kind] = widths.data() + kind * plane;
        const auto kernel =
            wide || greedy_order ? kernels().accumulator_widths64 : kernels().accumulator_widths;
        // the packed rows of a piece stay in the second cache
        const std::int64_t terms = std::max<std::int64_t>(job.terms, 1);
        const std::int64_t rows = std::clamp<std::int64_t>((1 << 17) / terms / 2 * 2, 2, 64);
        const std::int64_t columns =
            std::clamp<std::int64_t>((1 << 24) / (rows * terms) / 32 * 32, 32, 1024);
        const std::int64_t across = (job.columns + columns - 1) / columns;
        const std::int64_t down = (job.rows + rows - 1) / rows;
        parallel_for(across * down, threads, [&](std::int64_t piece) {
            const std::int64_t m = piece / across * rows, n = piece % across * columns;
            const Block block{m, std::min(m + rows, job.rows), n,
                              std::min(n + columns, job.columns)};
            WidthTotals part;
            kernel(job, one, block, part);
            table.merge(part);
        });
        for (int bin = 0; bin < width_bins; ++bin) {
            partial_sums.data()[bin] += table.totals.negative[bin];
            partial_sums.data()[width_bins + bin] += table.totals.positive[bin];
        }
    }
    return nb::make_tuple(table.totals.smallest, table.totals.largest);
}

// widths (M, N) -> counts (N, width_bins) is added to; first (width_bins): the first place in memory
// of each width, if it is before what is there.
void count_widths(ArrayIn<std::uint8_t, 2> widths, ArrayOut<std::int64_t, 2> counts,
                  ArrayOut<std::int64_t> first) {
    const nb::gil_scoped_release release;
    const std::int64_t rows = std::int64_t(widths.shape(0)), columns = std::int64_t(widths.shape(1));
    std::int64_t* const seen = first.data();
    for (std::int64_t m = 0; m < rows; ++m)
        for (std::int64_t n = 0; n < columns; ++n) {
            const std::int64_t at = m * columns + n;
            const int width = widths.data()[at];
            ++counts.data()[n * width_bins + width];
            if (at < seen[width]) seen[width] = at;
        }
}

// Exponents a (M, K), b (N, K), zero_exponent for zeros -> steps by span, (M, span_bins).
void exponent_spans(ArrayIn<std::int16_t, 2> a, ArrayIn<std::int16_t, 2> b, std::int64_t group,
                    ArrayOut<std::int64_t, 2> counts, int threads) {
    const nb::gil_scoped_release release;
    const SpanJob job{.a = a.data(),
                      .b = b.data(),
                      .columns = std::int64_t(b.shape(0)),
                      .terms = std::int64_t(a.shape(1)),
                      .group = group,
                      .counts = counts.data()};
    parallel_ranges(std::int64_t(a.shape(0)), 1, threads,
                    [&](auto begin, auto end) { kernels().exponent_spans(job, begin, end); });
}

}  // namespace

void bind_accumulator_widths(nb::module_& m) {
    m.attr("WIDTH_BINS") = width_bins;
    m.attr("NO_WIDTH") = no_width;
    m.attr("SPAN_BINS") = span_bins;
    m.attr("ZERO_EXPONENT") = int(zero_exponent);
    m.def("accumulator_widths", &accumulator_widths, "a"_a.noconvert(), "b"_a.noconvert(),
          "c"_a.none().noconvert(), "order"_a.none().noconvert(), "group"_a, "chunk"_a,
          "is_signed"_a, "merges_exactly"_a, "greedy_order"_a, "wide"_a,
          "counted"_a.none().noconvert(), "widths"_a.noconvert(), "partial_sums"_a.noconvert(),
          "threads"_a);
    m.def("count_widths", &count_widths, "widths"_a.noconvert(), "counts"_a.noconvert(),
          "first"_a.noconvert());
    m.def("exponent_spans", &exponent_spans, "a"_a.noconvert(), "b"_a.noconvert(), "group"_a,
          "counts"_a.noconvert(), "threads"_a);
}

}  // namespace abcdeep
