// Bindings: transposable N:M masks.
#include <nanobind/stl/optional.h>

#include <atomic>
#include <optional>

#include "bindings.hpp"
#include "dispatch.hpp"
#include "parallel.hpp"
#include "transposable.hpp"

namespace abcdeep {
namespace {

constexpr std::int64_t elements_per_piece = 1 << 16;

using Duals = std::optional<ArrayOut<std::int64_t>>;

// x: float32 or float64 rows, out: bytes. method: the number of a TransposableMethod. search: the
// pattern search of 2:4, which has no duals. False if something is not finite.
bool transposable(AnyIn x, ArrayOut<std::uint8_t, 2> out, int n, int m, int method, bool search,
                  Duals u, Duals v, int threads) {
    const nb::gil_scoped_release release;
    const TransposableJob job{.in = x.data(),
                              .is_double = x.itemsize() == 8,
                              .out = out.data(),
                              .columns = std::int64_t(out.shape(1)),
                              .n = n,
                              .m = m,
                              .method = TransposableMethod(method),
                              .u = u ? u->data() : nullptr,
                              .v = v ? v->data() : nullptr};
    const auto kernel = search ? kernels().transposable_24 : kernels().transposable_mask;
    std::atomic<unsigned> wrong = 0;
    parallel_ranges(std::int64_t(out.size()) / (m * m), elements_per_piece / (m * m), threads,
                    [&](auto begin, auto end) { wrong |= kernel(job, begin, end); });
    return wrong == 0;
}

}  // namespace

void bind_transposable(nb::module_& m) {
    m.def("transposable", &transposable, "x"_a.noconvert(), "out"_a.noconvert(), "n"_a, "m"_a,
          "method"_a, "search"_a, "u"_a.none(), "v"_a.none(), "threads"_a);
}

}  // namespace abcdeep
