// Bindings: N:M masks and unbiased N:M sparsity.
#include <nanobind/stl/optional.h>

#include <atomic>

#include "bindings.hpp"
#include "dispatch.hpp"
#include "nm.hpp"
#include "parallel.hpp"

namespace abcdeep {
namespace {

constexpr std::int64_t elements_per_piece = 1 << 15;

using Mask = std::optional<ArrayOut<bool>>;
using Numbers = std::optional<AnyOut>;
using Words = std::optional<ArrayIn<std::uint32_t>>;

NmJob make_job(const AnyIn& x, std::int64_t outer, std::int64_t length, std::int64_t inner, int n,
               int m) {
    NmJob job;
    job.x = x.data();
    job.wide = x.itemsize() == 8;
    job.n = n;
    job.m = m;
    job.outer = outer;
    job.length = length;
    job.inner = inner;
    return job;
}

std::uint8_t* bytes_of(const Mask& mask) {
    return mask ? reinterpret_cast<std::uint8_t*>(mask->data()) : nullptr;
}

// The flags of all pieces.
template <class Kernel>
unsigned run(const NmJob& job, int threads, const Kernel& kernel) {
    const std::int64_t columns = job.inner == 1 ? 1 : nm_strip_columns * nm_strip_groups;
    // A multiple of the groups that one block of random words serves.
    const std::int64_t grain = (elements_per_piece / (job.m * columns) + 8) / 8 * 8;
    std::atomic<unsigned> flags = 0;
    parallel_ranges(job.pieces(), grain, threads,
                    [&](auto begin, auto end) { flags |= kernel(job, begin, end); });
    return flags;
}

// `x`, contiguous, is float32 or float64 of shape (outer, length, inner).
unsigned nm_mask(AnyIn x, ArrayOut<bool> mask, std::int64_t outer, std::int64_t length,
                 std::int64_t inner, int n, int m, bool nonzero_only, int threads) {
    const nb::gil_scoped_release release;
    NmJob job = make_job(x, outer, length, inner, n, m);
    job.nonzero_only = nonzero_only;
    job.mask = reinterpret_cast<std::uint8_t*>(mask.data());
    return run(job, threads, kernels().nm_mask);
}

unsigned nm_unbiased(AnyIn x, AnyOut y, Mask mask, Numbers probabilities, std::int64_t outer,
                     std::int64_t length, std::int64_t inner, int n, int m, int probability_bits,
                     bool two_draws, std::uint64_t seed, std::uint32_t stream, std::uint32_t call,
                     Words words, int threads) {
    const nb::gil_scoped_release release;
    NmJob job = make_job(x, outer, length, inner, n, m);
    job.mask = bytes_of(mask);
    job.y = y.data();
    job.stream = y.data() != x.data() && y.nbytes() >= streamed_bytes;
    job.probabilities = probabilities ? probabilities->data() : nullptr;
    job.probability_bits = probability_bits;
    job.two_draws = two_draws;
    job.random = {seed, stream, call, words ? words->data() : nullptr};
    return run(job, threads, kernels().nm_unbiased);
}

}  // namespace

void bind_nm(nb::module_& m) {
    m.attr("nm_largest_group") = nm_largest_group;
    m.attr("nm_not_finite") = nm_not_finite;
    m.attr("nm_overflow") = nm_overflow;
    m.attr("nm_too_wide") = nm_too_wide;
    m.def("nm_mask", &nm_mask, "x"_a.noconvert(), "mask"_a.noconvert(), "outer"_a, "length"_a,
          "inner"_a, "n"_a, "m"_a, "nonzero_only"_a, "threads"_a);
    m.def("nm_unbiased", &nm_unbiased, "x"_a.noconvert(), "y"_a.noconvert(),
          "mask"_a.noconvert().none(), "probabilities"_a.noconvert().none(), "outer"_a, "length"_a,
          "inner"_a, "n"_a, "m"_a, "probability_bits"_a, "two_draws"_a, "seed"_a, "stream"_a,
          "call"_a, "words"_a.noconvert().none(), "threads"_a);
}

}  // namespace abcdeep
