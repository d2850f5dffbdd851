// Bindings: straight-through gradients over batches.
#include "bindings.hpp"
#include "dispatch.hpp"
#include "parallel.hpp"

namespace abcdeep {
namespace {

using Offsets = ArrayIn<std::int64_t>;

// A batch of gradient jobs that differ in where their matrices start.
struct Gradient {
    GradientJob job;
    FloatDatapath datapath;
    const std::int64_t *lane = nullptr, *other = nullptr, *gradient = nullptr, *start = nullptr,
                       *out = nullptr;
    std::int64_t batches = 0;

    GradientJob at(std::int64_t i) const {
        GradientJob one = job;
        one.lane.data += lane[i], one.other.data += other[i], one.gradient.data += gradient[i];
        one.out.data += out[i];
        if (start) one.start.data += start[i];
        one.first_output += std::uint64_t(i * job.lane_rows * job.other_rows);
        return one;
    }
};

template <auto view, auto where, class Array>
void set_view(Gradient& g, Array array, Offsets offsets, std::int64_t row_stride,
              std::int64_t column_stride) {
    auto& matrix = g.job.*view;
    using T = std::remove_pointer_t<decltype(matrix.data)>;
    matrix = {static_cast<T*>(array.data()), row_stride, column_stride};
    g.*where = offsets.data();
}

void set_sizes(Gradient& g, std::int64_t batches, std::int64_t lane_rows, std::int64_t other_rows,
               std::int64_t terms, int estimator) {
    g.batches = batches;
    g.job.lane_rows = lane_rows, g.job.other_rows = other_rows, g.job.terms = terms;
    g.job.estimator = Estimator(estimator);
}

void set_random(Gradient& g, std::uint64_t seed, std::uint32_t stream, std::uint32_t call,
                std::uint64_t first_output, std::uint64_t lane_stride, std::uint64_t other_stride) {
    g.job.random = {seed, stream, call, nullptr};
    g.job.first_output = first_output;
    g.job.lane_stride = lane_stride, g.job.other_stride = other_stride;
}

// Rows of `other` are taken in order, some at a time, so that no piece of work takes long.
void run(const Gradient& g, int threads) {
    const nb::gil_scoped_release release;
    constexpr std::int64_t lane_rows = 8, chain_steps = 1 << 21;
    const GradientJob& job = g.job;
    const std::int64_t pieces = (job.lane_rows + lane_rows - 1) / lane_rows;
    const std::int64_t other_rows =
        std::max<std::int64_t>(1, chain_steps / (lane_rows * std::max<std::int64_t>(job.terms, 1)));
    for (std::int64_t s = 0; s < job.other_rows; s += other_rows) {
        parallel_for(g.batches * pieces, threads, [&](std::int64_t piece) {
            const std::int64_t l = piece % pieces * lane_rows;
            const Block block{l, std::min(l + lane_rows, job.lane_rows), s,
                              std::min(s + other_rows, job.other_rows)};
            kernels().estimate_gradient(g.at(piece / pieces), g.datapath, block);
        });
    }
}

}  // namespace

void bind_gradient(nb::module_& m) {
    using Out = nb::ndarray<nb::device::cpu>;
    nb::class_<Gradient> g(m, "Gradient");
    g.def(nb::init<>()).def_rw("datapath", &Gradient::datapath);
    g.def("set_lane", &set_view<&GradientJob::lane, &Gradient::lane, AnyIn>);
    g.def("set_other", &set_view<&GradientJob::other, &Gradient::other, AnyIn>);
    g.def("set_gradient", &set_view<&GradientJob::gradient, &Gradient::gradient, AnyIn>);
    g.def("set_start", &set_view<&GradientJob::start, &Gradient::start, AnyIn>);
    g.def("set_out", &set_view<&GradientJob::out, &Gradient::out, Out>);
    g.def("set_sizes", &set_sizes, "batches"_a, "lane_rows"_a, "other_rows"_a, "terms"_a,
          "estimator"_a);
    g.def("set_random", &set_random, "seed"_a, "stream"_a, "call"_a, "first_output"_a,
          "lane_stride"_a, "other_stride"_a);
    g.def(
        "set_order", [](Gradient& one, Offsets order) { one.job.order = order.data(); },
        "order"_a.noconvert());
    g.def("run", &run, "threads"_a);
}

}  // namespace abcdeep
