// Bindings: datapath structs and the GEMM kernels over batches, cut into rectangles of outputs.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "dispatch.hpp"
#include "parallel.hpp"

namespace abcdeep {
namespace {

using Offsets = ArrayIn<std::int64_t>;

// A batch of matrices: a view of them all, and where each starts, in elements.
template <class View>
struct Batch {
    View whole;
    const std::int64_t* offsets = nullptr;

    View operator[](std::int64_t i) const {
        View one = whole;
        if (!one.data) return one;
        if constexpr (std::is_same_v<View, IntegerView>)
            one.data = with_type(one.data, one.type,
                                 [&](auto* x) -> const void* { return x + offsets[i]; });
        else
            one.data += offsets[i];
        return one;
    }
};

IntegerType integer_type(const AnyIn& array) {
    const bool is_signed = array.dtype().code == std::uint8_t(nb::dlpack::dtype_code::Int);
    if (array.itemsize() == 1) return is_signed ? IntegerType::int8 : IntegerType::uint8;
    return is_signed ? IntegerType::int16 : IntegerType::uint16;
}

template <class View>
Batch<View> batch_of(const AnyIn& array, const Offsets& offsets, std::int64_t rows,
                     std::int64_t columns) {
    View view;
    view.data = static_cast<decltype(view.data)>(array.data());
    view.row_stride = rows, view.column_stride = columns;
    if constexpr (std::is_same_v<View, IntegerView>) view.type = integer_type(array);
    return {view, offsets.data()};
}

// Everything of one call, as Python sets it up; the bindings below fill in operands and run it.
template <class Job_, class Datapath_, auto Kernels::* general>
struct Gemm {
    using Job = Job_;
    using Datapath = Datapath_;
    static constexpr auto kernel = general;
    Job job;
    Datapath datapath;
    EventTotals totals;
    std::int64_t batches = 0;
    Batch<decltype(Job::a)> a, b;
    Batch<decltype(Job::c)> c;
};
using FloatGemm = Gemm<FloatJob, FloatDatapath, &Kernels::gemm_float_lanes>;
using IntegerGemm = Gemm<IntegerJob, IntegerDatapath, &Kernels::gemm_integer_lanes>;

void merge(EventTotals& into, const EventTotals& from) {
    for (int e = 0; e < event_counts; ++e) into.counts[e] += from.counts[e];
    if (!from.any) return;
    into.smallest = into.any ? std::min(into.smallest, from.smallest) : from.smallest;
    into.largest = into.any ? std::max(into.largest, from.largest) : from.largest;
    into.any = true;
}

// kernel(job, block, totals) over every rectangle of every matrix of the batch.
template <class G, class Kernel>
void run_blocks(G& gemm, std::int64_t block_rows, std::int64_t block_columns, int threads,
                const Kernel& kernel) {
    const auto& whole = gemm.job;
    const std::int64_t row_blocks = (whole.rows + block_rows - 1) / block_rows;
    const std::int64_t column_blocks = (whole.columns + block_columns - 1) / block_columns;
    const std::int64_t blocks = row_blocks * column_blocks, plane = whole.rows * whole.columns;
    std::mutex mutex;
    parallel_for(gemm.batches * blocks, threads, [&](std::int64_t piece) {
        const std::int64_t i = piece / blocks, block = piece % blocks;
        auto job = whole;
        job.a = gemm.a[i], job.b = gemm.b[i], job.c = gemm.c[i];
        job.first_output += std::uint64_t(i * plane);
        job.out = static_cast<char*>(whole.out) + i * plane * whole.out_bytes();
        if (job.table.counts) job.table.counts += i * plane, job.table.extremes += i * plane;
        const std::int64_t m = block / column_blocks * block_rows,
                           n = block % column_blocks * block_columns;
        const Block rectangle{m, std::min(m + block_rows, job.rows), n,
                              std::min(n + block_columns, job.columns)};
        EventTotals totals;
        kernel(job, rectangle, totals);
        if (job.event_level) {
            const std::lock_guard lock(mutex);
            merge(gemm.totals, totals);
        }
    });
}

using SummaryValues = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>;

// What the planner looks at: (largest, smallest nonzero less one, lowest bit of the significands),
// coarse enough that operands of the same kind often share a plan. `largest` is rounded up to four
// significand bits, the smallest down to its power of two.
SummaryValues coarse(const OperandSummary& s) {
    constexpr std::uint32_t infinite = 0x7f800000u, fine = (1u << 20) - 1;
    std::uint32_t largest = s.largest;
    if (largest < infinite) largest = std::min((largest + fine) & ~fine, infinite - 1);
    std::uint32_t least = s.smallest_less_one;
    if (least != ~0u) least = std::max((least + 1) & infinite, 1u) - 1;
    return {largest, least, s.significand & (0u - s.significand)};
}

void summarise_batch(const Batch<MatrixView<const float>>& batch, std::int64_t batches,
                     std::int64_t rows, std::int64_t columns, int threads, OperandSummary& all) {
    const std::int64_t grain =
        std::max<std::int64_t>(1, (1 << 18) / std::max<std::int64_t>(columns, 1));
    const std::int64_t pieces = (rows + grain - 1) / grain;
    std::mutex mutex;
    parallel_for(batches * pieces, threads, [&](std::int64_t i) {
        const std::int64_t first = i % pieces * grain;
        auto matrix = batch[i / pieces];
        matrix.data += first * matrix.row_stride;
        OperandSummary one;
        kernels().summarise(matrix, std::min(grain, rows - first), columns, one);
        const std::lock_guard lock(mutex);
        all.largest = std::max(all.largest, one.largest);
        all.smallest_less_one = std::min(all.smallest_less_one, one.smallest_less_one);
        all.significand |= one.significand;
    });
}

// Of all matrices of an operand.
SummaryValues summarise(AnyIn x, Offsets offsets, std::int64_t row_stride,
                        std::int64_t column_stride, std::int64_t rows, std::int64_t columns,
                        int threads) {
    const nb::gil_scoped_release release;
    OperandSummary all;
    summarise_batch(batch_of<MatrixView<const float>>(x, offsets, row_stride, column_stride),
                    std::int64_t(offsets.size()), rows, columns, threads, all);
    return coarse(all);
}

template <class G>
void run_lanes(G& gemm, int threads) {
    const nb::gil_scoped_release release;
    // at least a vector of the widest instruction set; a piece of work is short of a tenth of a
    // second
    const std::int64_t terms = std::max<std::int64_t>(gemm.job.terms, 1), steps = 1 << 21;
    const std::int64_t columns = std::clamp<std::int64_t>(steps / terms / 8 * 8, 8, 64);
    const std::int64_t rows = std::clamp<std::int64_t>(steps / (terms * columns), 1, 128);
    run_blocks(gemm, rows, columns, threads,
               [&](const auto& job, const Block& block, EventTotals& totals) {
                   (kernels().*G::kernel)(job, gemm.datapath, block, totals);
               });
}

// Outputs of one piece of work: a square whose operands stay in the cache, smaller where all
// threads would not get some, or a piece would take a tenth of a second.
std::int64_t tile_side(std::int64_t side, std::int64_t rows, std::int64_t columns,
                       std::int64_t terms, std::int64_t batches, int threads) {
    constexpr std::int64_t most_steps = std::int64_t(1) << 28;
    const std::int64_t wanted =
        threads == 1 ? 1 : 4 * std::int64_t(threads > 0 ? threads : default_threads());
    auto pieces = [&] {
        return batches * ((rows + side - 1) / side) * ((columns + side - 1) / side);
    };
    while (side > 32 && (pieces() < wanted || side * side * terms > most_steps)) side /= 2;
    return side;
}

// Where there are events to count, the planner takes only kernels with the twin `with_events`.
template <class G, class Tile, auto Kernels::* kernel, auto with_events = nullptr>
void run_tiles(G& gemm, const Tile& tile, int threads) {
    const nb::gil_scoped_release release;
    // A row of the result fills vectors, a column does not.
    const bool turned = gemm.job.columns < 32 && gemm.job.columns < gemm.job.rows;
    constexpr std::int64_t most = std::is_same_v<G, IntegerGemm> ? 512 : 256;  // narrow operands
    const std::int64_t side =
        tile_side(most, gemm.job.rows, gemm.job.columns, gemm.job.terms, gemm.batches, threads);
    const Tile turned_tile = tile.transposed();
    run_blocks(gemm, side, side, threads,
               [&](const auto& job, const Block& block, EventTotals& totals) {
                   auto run = [&](const auto& one, const Tile& t, const Block& outputs) {
                       if constexpr (!std::is_null_pointer_v<decltype(with_events)>)
                           if (one.event_level)
                               return (kernels().*with_events)(one, t, outputs, totals);
                       (kernels().*kernel)(one, t, outputs);
                   };
                   if (turned)
                       run(job.transposed(), turned_tile, block.transposed());
                   else
                       run(job, tile, block);
               });
}

// Plans of float32 matrices by their summaries: what a call like an earlier one needs.
class FloatCalls {
    using Matrix = nb::ndarray<nb::numpy, const float, nb::ndim<2>, nb::device::cpu>;

  public:
    void add(SummaryValues a, SummaryValues b, const std::string& path, const FloatTile& tile) {
        static const std::map<std::string, Run> paths = {
            {"truncate", run_tiles<FloatGemm, FloatTile, &Kernels::gemm_truncate>},
            {"nearest", run_tiles<FloatGemm, FloatTile, &Kernels::gemm_nearest>},
            {"odd", run_tiles<FloatGemm, FloatTile, &Kernels::gemm_odd>},
            {"odd64", run_tiles<FloatGemm, FloatTile, &Kernels::gemm_odd64>},
            {"native", run_tiles<FloatGemm, FloatTile, &Kernels::gemm_native>}};
        constexpr std::size_t most = 64;
        if (plans_.size() >= most) plans_.clear();
        plans_[{a, b, &kernels()}] = {paths.at(path), tile};
    }

    // Whether out = a @ b could be computed; `out` is not looked at otherwise.
    bool run(Matrix a, Matrix b, ArrayOut<float, 2> out, int threads) const {
        const std::int64_t rows = a.shape(0), terms = a.shape(1), columns = b.shape(1);
        const bool fits = terms == std::int64_t(b.shape(0)) && rows == std::int64_t(out.shape(0)) &&
                          columns == std::int64_t(out.shape(1));
        if (!fits || rows * terms * columns == 0 || overlap(a, out) || overlap(b, out))
            return false;
        FloatGemm gemm;
        const std::int64_t start = 0;
        gemm.a = {{a.data(), a.stride(0), a.stride(1)}, &start};
        gemm.b = {{b.data(), b.stride(0), b.stride(1)}, &start};
        const auto summary = [threads](const auto& batch, std::int64_t m, std::int64_t n) {
            OperandSummary all;
            summarise_batch(batch, 1, m, n, threads, all);
            return coarse(all);
        };
        Key key{{}, {}, &kernels()};
        {
            const nb::gil_scoped_release release;
            std::get<0>(key) = summary(gemm.a, rows, terms);
            std::get<1>(key) = summary(gemm.b, terms, columns);
        }
        const auto found = plans_.find(key);
        if (found == plans_.end()) return false;
        const Call call = found->second;
        gemm.batches = 1;
        gemm.job.rows = rows, gemm.job.columns = columns, gemm.job.terms = terms;
        gemm.job.out = out.data();
        gemm.job.out_row_stride = columns;
        call.run(gemm, call.tile, threads);
        return true;
    }

  private:
    using Run = void (*)(FloatGemm&, const FloatTile&, int);
    using Key = std::tuple<SummaryValues, SummaryValues, const Kernels*>;
    struct Call {
        Run run;
        FloatTile tile;
    };

    static std::pair<const float*, const float*> extent(const float* data, std::int64_t rows,
                                                        std::int64_t columns, std::int64_t row,
                                                        std::int64_t column) {
        const std::int64_t m = (rows - 1) * row, n = (columns - 1) * column, none = 0;
        return {data + std::min(m, none) + std::min(n, none),
                data + std::max(m, none) + std::max(n, none)};
    }

    static bool overlap(const Matrix& x, const ArrayOut<float, 2>& out) {
        const auto [first, last] =
            extent(x.data(), x.shape(0), x.shape(1), x.stride(0), x.stride(1));
        return out.data() <= last && first < out.data() + out.size();
    }

    std::map<Key, Call> plans_;
};

template <auto field, class G>
void set_batch(G& gemm, AnyIn array, Offsets offsets, std::int64_t row_stride,
               std::int64_t column_stride) {
    auto& batch = gemm.*field;
    batch = batch_of<decltype(batch.whole)>(array, offsets, row_stride, column_stride);
}

template <class G>
void set_output(G& gemm, AnyOut out, std::int64_t batches, std::int64_t rows, std::int64_t columns,
                std::int64_t terms) {
    gemm.batches = batches;
    gemm.job.rows = rows, gemm.job.columns = columns, gemm.job.terms = terms;
    gemm.job.out = out.data();
    gemm.job.out_row_stride = columns;
    gemm.job.wide_out = out.itemsize() == 8;
}

template <class G>
void set_random(G& gemm, std::uint64_t seed, std::uint32_t stream, std::uint32_t call,
                std::uint64_t first_output) {
    gemm.job.random = {seed, stream, call, nullptr};
    gemm.job.first_output = first_output;
}

template <class G>
void set_events(G& gemm, int level, std::optional<ArrayOut<std::int64_t, 2>> counts,
                std::optional<ArrayOut<double, 2>> extremes) {
    gemm.job.event_level = level;
    if (counts) gemm.job.table = {counts->data(), extremes->data(), std::int64_t(counts->shape(1))};
}

template <class G>
nb::tuple totals(const G& gemm) {
    nb::list counts;
    for (auto count : gemm.totals.counts) counts.append(count);
    return nb::make_tuple(counts, gemm.totals.smallest, gemm.totals.largest);
}

template <class G>
auto bind_gemm(nb::module_& m, const char* name) {
    nb::class_<G> g(m, name);
    g.def(nb::init<>()).def_rw("datapath", &G::datapath);
    g.def("set_a", &set_batch<&G::a, G>, "a"_a.noconvert(), "offsets"_a, "row_stride"_a,
          "column_stride"_a);
    g.def("set_b", &set_batch<&G::b, G>, "b"_a.noconvert(), "offsets"_a, "row_stride"_a,
          "column_stride"_a);
    g.def("set_c", &set_batch<&G::c, G>, "c"_a.noconvert(), "offsets"_a, "row_stride"_a,
          "column_stride"_a);
    g.def("set_output", &set_output<G>, "out"_a.noconvert(), "batches"_a, "rows"_a, "columns"_a,
          "terms"_a);
    g.def(
        "set_order", [](G& gemm, Offsets order) { gemm.job.order = order.data(); },
        "order"_a.noconvert());
    g.def("set_random", &set_random<G>, "seed"_a, "stream"_a, "call"_a, "first_output"_a);
    g.def("set_events", &set_events<G>, "level"_a, "counts"_a.none(), "extremes"_a.none());
    g.def("run_lanes", &run_lanes<G>, "threads"_a);
    g.def("totals", &totals<G>);
    return g;
}

template <class D, class Class>
void bind_common_fields(Class& d) {
    d.def(nb::init<>()).def_rw("product_exact", &D::product_exact).def_rw("product", &D::product);
    d.def_rw("accumulator", &D::accumulator).def_rw("merge", &D::merge);
    d.def_rw("group", &D::group).def_rw("chunk", &D::chunk);
    d.def_prop_rw(
        "merge_exact", [](const D& x) { return x.merge_kind == Merge::exact; },
        [](D& x, bool exact) { x.merge_kind = exact ? Merge::exact : Merge::quantized; });
    d.def_prop_rw(
        "merge_order", [](const D& x) { return int(x.merge_order); },
        [](D& x, int order) { x.merge_order = MergeOrder(order); });
}

}  // namespace

void bind_matmul(nb::module_& m) {
    nb::class_<FloatDatapath> f(m, "FloatDatapath");
    bind_common_fields<FloatDatapath>(f);
    f.def_rw("float32_steps", &FloatDatapath::float32_steps);
    f.def_rw("exact_start", &FloatDatapath::exact_start);
    f.def_rw("exact_chunks", &FloatDatapath::exact_chunks);
    f.def_rw("merge_to_odd", &FloatDatapath::merge_to_odd);
    f.def_rw("product_overflow_at_largest", &FloatDatapath::product_overflow_at_largest);
    f.def_rw("accumulator_overflow_at_largest", &FloatDatapath::accumulator_overflow_at_largest);
    f.def_rw("merge_overflow_at_largest", &FloatDatapath::merge_overflow_at_largest);
    f.def_rw("a_is_masked", &FloatDatapath::a_is_masked);
    f.def_rw("b_is_masked", &FloatDatapath::b_is_masked);
    nb::class_<IntegerDatapath> i(m, "IntegerDatapath");
    bind_common_fields<IntegerDatapath>(i);
    i.def_rw("node", &IntegerDatapath::node).def_rw("output", &IntegerDatapath::output);
    i.def_rw("tree", &IntegerDatapath::tree).def_rw("node_exact", &IntegerDatapath::node_exact);
    i.def_rw("output_exact", &IntegerDatapath::output_exact);
    m.def("summarise", &summarise, "x"_a.noconvert(), "offsets"_a.noconvert(), "row_stride"_a,
          "column_stride"_a, "rows"_a, "columns"_a, "threads"_a);
    nb::class_<FloatTile> t(m, "FloatTile");
    t.def(nb::init<>()).def_rw("mantissa_bits", &FloatTile::mantissa_bits);
    t.def_rw("product_exact", &FloatTile::product_exact).def_rw("clamp", &FloatTile::clamp);
    t.def_rw("flush", &FloatTile::flush).def_rw("nearest", &FloatTile::nearest);
    t.def_rw("product", &FloatTile::product).def_rw("sum", &FloatTile::sum);
    t.def_rw("start", &FloatTile::start);
    t.def_rw("chunk", &FloatTile::chunk).def_rw("product_floor", &FloatTile::product_floor);
    t.def_rw("sum_floor", &FloatTile::sum_floor);
    t.def_rw("scale_a", &FloatTile::scale_a).def_rw("scale_b", &FloatTile::scale_b);
    t.def_rw("product_to_sum", &FloatTile::product_to_sum)
        .def_rw("sum_scale", &FloatTile::sum_scale);
    t.def_rw("product_overflow", &FloatTile::product_overflow);
    t.def_rw("sum_overflow", &FloatTile::sum_overflow);
    t.def_rw("product_overflow_at_largest", &FloatTile::product_overflow_at_largest)
        .def_rw("sum_overflow_at_largest", &FloatTile::sum_overflow_at_largest);
    t.def_rw("largest_term", &FloatTile::largest_term).def_rw("term_bits", &FloatTile::term_bits);
    t.def_rw("lowest_term", &FloatTile::lowest_term).def_rw("lowest_sum", &FloatTile::lowest_sum);
    t.def_rw("product_limit", &FloatTile::product_limit).def_rw("sum_limit", &FloatTile::sum_limit);
    nb::class_<IntegerTile> u(m, "IntegerTile");
    u.def(nb::init<>())
        .def_rw("bits", &IntegerTile::bits)
        .def_rw("is_signed", &IntegerTile::is_signed);
    u.def_rw("saturate", &IntegerTile::saturate).def_rw("chunk", &IntegerTile::chunk);
    u.def_rw("may_carry", &IntegerTile::may_carry).def_rw("group", &IntegerTile::group);
    u.def_rw("lowest", &IntegerTile::lowest).def_rw("highest", &IntegerTile::highest);
    m.def("has_fused_multiply_add", [] { return kernels().fused_multiply_adds(); });
    m.def("has_byte_dot_products", &has_byte_dot_products);
    auto float_gemm = bind_gemm<FloatGemm>(m, "FloatGemm");
    float_gemm.def(
        "run_truncate",
        &run_tiles<FloatGemm, FloatTile, &Kernels::gemm_truncate, &Kernels::gemm_truncate_events>,
        "tile"_a, "threads"_a);
    float_gemm.def("run_nearest", &run_tiles<FloatGemm, FloatTile, &Kernels::gemm_nearest>,
                   "tile"_a, "threads"_a);
    float_gemm.def("run_odd", &run_tiles<FloatGemm, FloatTile, &Kernels::gemm_odd>, "tile"_a,
                   "threads"_a);
    float_gemm.def("run_odd64", &run_tiles<FloatGemm, FloatTile, &Kernels::gemm_odd64>, "tile"_a,
                   "threads"_a);
    float_gemm.def("run_native", &run_tiles<FloatGemm, FloatTile, &Kernels::gemm_native>, "tile"_a,
                   "threads"_a);
    nb::class_<FloatCalls> calls(m, "FloatCalls");
    calls.def(nb::init<>()).def("add", &FloatCalls::add, "a"_a, "b"_a, "path"_a, "tile"_a);
    calls.def("run", &FloatCalls::run, "a"_a.noconvert(), "b"_a.noconvert(), "out"_a.noconvert(),
              "threads"_a);
    auto integer_gemm = bind_gemm<IntegerGemm>(m, "IntegerGemm");
    integer_gemm.def(
        "run_integer",
        &run_tiles<IntegerGemm, IntegerTile, &Kernels::gemm_integer, &Kernels::gemm_integer_events>,
        "tile"_a, "threads"_a);
    integer_gemm.def("run_integer16",
                     &run_tiles<IntegerGemm, IntegerTile, &Kernels::gemm_integer16>, "tile"_a,
                     "threads"_a);
    integer_gemm.def("run_dot16", &run_tiles<IntegerGemm, IntegerTile, &Kernels::gemm_dot16>,
                     "tile"_a, "threads"_a);
    integer_gemm.def("run_dot8", &run_tiles<IntegerGemm, IntegerTile, &Kernels::gemm_dot8>,
                     "tile"_a, "threads"_a);
}

}  // namespace abcdeep
