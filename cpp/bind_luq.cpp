// Bindings: largest magnitudes and logarithmic unbiased quantisation.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <atomic>

#include "bindings.hpp"
#include "dispatch.hpp"
#include "luq.hpp"
#include "parallel.hpp"

namespace abcdeep {
namespace {

constexpr std::int64_t elements_per_piece = 1 << 15;

using Words = std::optional<ArrayIn<std::uint32_t>>;
using WordRule = std::pair<std::uint32_t, std::uint32_t>;

// maxima[g] = float bits of the largest magnitude of row g.
void largest_magnitudes(ArrayIn<float, 2> x, ArrayOut<std::uint32_t> maxima, int threads) {
    const nb::gil_scoped_release release;
    const auto rows = std::int64_t(x.shape(0)), columns = std::int64_t(x.shape(1));
    const auto kernel = kernels().largest_magnitude;
    if (columns < elements_per_piece) {
        const std::int64_t grain = elements_per_piece / (columns + 1) + 1;
        parallel_ranges(rows, grain, threads, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t row = begin; row < end; ++row)
                maxima.data()[row] = kernel(x.data() + row * columns, columns);
        });
        return;
    }
    for (std::int64_t row = 0; row < rows; ++row) {
        std::atomic<std::uint32_t> most = 0;
        parallel_ranges(columns, elements_per_piece, threads,
                        [&](std::int64_t begin, std::int64_t end) {
                            const auto here = kernel(x.data() + row * columns + begin, end - begin);
                            auto seen = most.load();
                            while (here > seen && !most.compare_exchange_weak(seen, here)) {
                            }
                        });
        maxima.data()[row] = most;
    }
}

void luq_alphas(ArrayIn<std::uint32_t> maxima, ArrayOut<std::uint32_t> alphas, int levels,
                bool power_of_two) {
    for (std::size_t i = 0; i < maxima.size(); ++i)
        alphas.data()[i] = luq_alpha(maxima.data()[i], levels, power_of_two);
}

// `out`: float32 values or uint8 code words.
void luq(ArrayIn<float> x, AnyOut out, ArrayIn<std::uint32_t> alphas, std::int64_t inner,
         int levels, int samples, bool grow, WordRule below, WordRule above, std::uint64_t seed,
         std::uint32_t stream, std::uint32_t call, Words words, int threads) {
    const nb::gil_scoped_release release;
    const LuqJob job{.x = x.data(),
                     .out = out.data(),
                     .size = std::int64_t(x.size()),
                     .codes = out.itemsize() == 1,
                     .grow = grow,
                     .stream = out.data() != x.data() && out.nbytes() >= streamed_bytes,
                     .alphas = alphas.data(),
                     .groups = std::int64_t(alphas.size()),
                     .inner = inner,
                     .levels = levels,
                     .samples = samples,
                     .below = {below.first, below.second},
                     .above = {above.first, above.second},
                     .random = {seed, stream, call, words ? words->data() : nullptr}};
    const std::int64_t grain = elements_per_piece / samples / 4 * 4 + 512;
    parallel_ranges(job.size, grain, threads,
                    [&](auto begin, auto end) { kernels().luq(job, begin, end); });
}

}  // namespace

void bind_luq(nb::module_& m) {
    m.def("largest_magnitudes", &largest_magnitudes, "x"_a.noconvert(), "maxima"_a.noconvert(),
          "threads"_a);
    m.def("luq_alphas", &luq_alphas, "maxima"_a.noconvert(), "alphas"_a.noconvert(), "levels"_a,
          "power_of_two"_a);
    m.def("luq", &luq, "x"_a.noconvert(), "out"_a.noconvert(), "alphas"_a.noconvert(), "inner"_a,
          "levels"_a, "samples"_a, "grow"_a, "below"_a, "above"_a, "seed"_a, "stream"_a, "call"_a,
          "words"_a.none(), "threads"_a);
}

}  // namespace abcdeep
