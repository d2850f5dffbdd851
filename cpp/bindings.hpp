// What the binding files share: one function each, and the array types they accept.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>

namespace nb = nanobind;
using namespace nb::literals;

namespace abcdeep {

// C-contiguous NumPy arrays on the CPU. Pass them with nb::arg(...).noconvert(), which is what
// makes the signature a check: nothing is cast or copied.
template <class Scalar, int dimensions = 1>
using ArrayIn =
    nb::ndarray<nb::numpy, const Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;
template <class Scalar, int dimensions = 1>
using ArrayOut =
    nb::ndarray<nb::numpy, Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;

// Any dtype and strides; Python passes what the kernel expects.
using AnyIn = nb::ndarray<nb::ro, nb::device::cpu>;
using AnyOut = nb::ndarray<nb::c_contig, nb::device::cpu>;

// Results of at least this size leave every cache before they could be read again.
inline constexpr std::size_t streamed_bytes = std::size_t(4) << 20;

void bind_accumulator_widths(nb::module_& m);
void bind_float_environment(nb::module_& m);
void bind_blocks(nb::module_& m);
void bind_gradient(nb::module_& m);
void bind_hadamard(nb::module_& m);
void bind_isa(nb::module_& m);
void bind_linalg(nb::module_& m);
void bind_luq(nb::module_& m);
void bind_matmul(nb::module_& m);
void bind_nm(nb::module_& m);
void bind_pack_24(nb::module_& m);
void bind_quantize(nb::module_& m);
void bind_random(nb::module_& m);
void bind_transposable(nb::module_& m);

}  // namespace abcdeep
