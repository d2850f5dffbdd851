// Bindings: straight-through gradients over batches.
#include <algorithm>
#include <memory>

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

// Both gradients of every product of a batch, in rounds of a block of chains a thread: first the
// words that say which terms pass, then the sums. A sum meets the blocks in their order, and no
// other thread has its terms.
class TruncateRun {
    static constexpr std::int64_t most_rows = 128, most_words = 1 << 19;

  public:
    TruncateRun(const Gradient& first, const Gradient& second, const FloatTile& tile, int threads)
        : first_(first),
          second_(second),
          tile_(tile),
          threads_(threads > 0 ? threads : default_threads()),
          rows_(first.job.lane_rows),
          columns_(first.job.other_rows),
          words_(GradientWords::count(first.job.terms)),
          block_rows_(block_rows()) {}

    void run() const {
        constexpr std::int64_t small = 1 << 24;  // steps
        const bool whole = rows_ * columns_ * first_.job.terms <= small;
        if (whole && first_.batches > 1)
            parallel_for(first_.batches, threads_, [&](std::int64_t i) { product(i, 1); });
        else
            for (std::int64_t i = 0; i < first_.batches; ++i) product(i, threads_);
    }

  private:
    std::int64_t block_rows() const {
        const std::int64_t fit = most_words / (GradientWords::columns * words_);
        const std::int64_t rows = std::min({fit, most_rows, rows_});
        return std::max<std::int64_t>(
                   1, (rows + GradientWords::row_multiple - 1) / GradientWords::row_multiple) *
               GradientWords::row_multiple;
    }

    void product(std::int64_t i, int threads) const {
        const GradientJob first = first_.at(i), second = second_.at(i);
        const std::int64_t across =
            (columns_ + GradientWords::columns - 1) / GradientWords::columns;
        const std::int64_t blocks = (rows_ + block_rows_ - 1) / block_rows_ * across;
        const std::int64_t block_words = block_rows_ * GradientWords::columns * words_;
        const std::int64_t together = std::min<std::int64_t>(threads, blocks);
        const std::unique_ptr<std::uint32_t[]> words(new std::uint32_t[together * block_words]);
        const auto words_of = [&](std::int64_t t) {
            return GradientWords{words.get() + t % together * block_words, block_rows_};
        };
        const auto block = [&](std::int64_t t) {
            const std::int64_t m = t / across * block_rows_,
                               n = t % across * GradientWords::columns;
            return Block{m, std::min(m + block_rows_, rows_), n,
                         std::min(n + GradientWords::columns, columns_)};
        };
        const std::int64_t grain =
            threads == 1 ? words_ : std::max<std::int64_t>(1, words_ / (2 * threads));
        const std::int64_t parts = (words_ + grain - 1) / grain;
        for (std::int64_t t = 0; t < blocks; t += together) {
            const std::int64_t end = std::min(t + together, blocks);
            parallel_for(end - t, threads, [&](std::int64_t j) {
                kernels().passing_terms(first, first_.datapath, tile_, block(t + j),
                                        words_of(t + j));
            });
            parallel_for(2 * parts, threads, [&](std::int64_t j) {
                const std::int64_t begin = j / 2 * grain, stop = std::min(begin + grain, words_);
                for (std::int64_t b = t; b < end; ++b)
                    if (j % 2)
                        kernels().sum_gradient(second, block(b).transposed(), words_of(b), true,
                                               begin, stop);
                    else
                        kernels().sum_gradient(first, block(b), words_of(b), false, begin, stop);
            });
        }
    }

    const Gradient &first_, &second_;
    const FloatTile& tile_;
    int threads_;
    std::int64_t rows_, columns_, words_, block_rows_;
};

// A vector is of chains of the second operand: the longer one, if the other does not fill it.
void run_truncate(const Gradient& a, const Gradient& b, const FloatTile& tile, int threads) {
    const nb::gil_scoped_release release;
    const std::int64_t rows = a.job.lane_rows, columns = a.job.other_rows;
    if (rows * columns * a.job.terms == 0) return;
    if (columns < 32 && columns < rows)
        TruncateRun(b, a, tile.transposed(), threads).run();
    else
        TruncateRun(a, b, tile, threads).run();
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
    m.def("gradients_truncate", &run_truncate, "a"_a, "b"_a, "tile"_a, "threads"_a);
}

}  // namespace abcdeep
