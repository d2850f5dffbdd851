// Bindings: Hadamard rotations.
#include <bit>
#include <cmath>

#include "bindings.hpp"
#include "dispatch.hpp"
#include "hadamard.hpp"
#include "parallel.hpp"

namespace abcdeep {
namespace {

// Columns are fastest in long pieces of rows.
constexpr std::int64_t elements_per_piece = 1 << 15, elements_per_column_piece = 1 << 17;
// fl32(1 / sqrt(size)) of a power of two, in whatever rounding mode the caller left.
float inverse_root(std::int64_t size) {
    const int exponent = std::countr_zero(std::uint64_t(size)), odd = exponent % 2;
    return std::ldexp(odd ? 0x1.6a09e6p0f : 1.0f, -(exponent / 2 + odd));
}

// The groups are `size` elements `inner` apart. `signs`: a period and the margin after it.
void hadamard(ArrayIn<float> in, ArrayOut<float> out, std::int64_t size, std::int64_t inner,
              ArrayIn<std::uint32_t> signs, bool inverse, int threads) {
    const nb::gil_scoped_release release;
    HadamardJob job{in.data(), out.data(), size, inner, signs.data()};
    job.period = std::int64_t(signs.size()) - hadamard_sign_margin;
    job.inverse = inverse;
    job.scale = inverse_root(size);
    job.stream = out.data() != in.data() && out.nbytes() >= streamed_bytes;
    const std::int64_t piece = inner == 1 ? elements_per_piece : elements_per_column_piece;
    parallel_ranges(std::int64_t(in.size()) / size, piece / size, threads,
                    [&](auto begin, auto end) { kernels().hadamard(job, begin, end); });
}

}  // namespace

void bind_hadamard(nb::module_& m) {
    m.attr("hadamard_sign_margin") = hadamard_sign_margin;
    m.def("hadamard", &hadamard, "x"_a.noconvert(), "out"_a.noconvert(), "size"_a, "inner"_a,
          "signs"_a.noconvert(), "inverse"_a, "threads"_a);
}

}  // namespace abcdeep
