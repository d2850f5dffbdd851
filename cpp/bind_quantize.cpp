// Bindings: format structs, quantise, encode and decode.
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>

#include <atomic>

#include "bindings.hpp"
#include "dispatch.hpp"
#include "parallel.hpp"

namespace abcdeep {
namespace {

constexpr std::int64_t elements_per_piece = 1 << 15;

using AnyContiguous = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using Words = std::optional<ArrayIn<std::uint32_t>>;

template <class Job>
unsigned run(const Job& job, std::int64_t size, int threads,
             unsigned (*kernel)(const Job&, std::int64_t, std::int64_t)) {
    std::atomic<unsigned> failed = 0;
    parallel_ranges(size, elements_per_piece, threads,
                    [&](auto begin, auto end) { failed |= kernel(job, begin, end); });
    return failed;
}

// `general`: the general kernel also where a faster one gives the same bits.
unsigned quantize(AnyContiguous in, AnyOut out, int code_bytes, const Quantizer& format,
                  std::uint64_t seed, std::uint32_t stream, std::uint32_t call, Words words,
                  int threads, bool general) {
    const nb::gil_scoped_release release;
    const RandomSource random{seed, stream, call, words ? words->data() : nullptr};
    const bool streamed = out.data() != in.data() && out.nbytes() >= streamed_bytes;
    const QuantizeJob job{in.data(), out.data(), in.itemsize() == 8, code_bytes, format,
                          random,    streamed};
    const bool narrow = !general && quantizes_narrow(job);
    return run(job, std::int64_t(in.size()), threads,
               narrow ? kernels().quantize_narrow : kernels().quantize);
}

unsigned quantize_fixed(AnyContiguous in, AnyOut out, int code_bytes, const FixedQuantizer& format,
                        std::uint64_t seed, std::uint32_t stream, std::uint32_t call, Words words,
                        int threads) {
    const nb::gil_scoped_release release;
    const RandomSource random{seed, stream, call, words ? words->data() : nullptr};
    const FixedJob job{in.data(), out.data(), in.itemsize() == 8, code_bytes, format, random};
    return run(job, std::int64_t(in.size()), threads, kernels().quantize_fixed);
}

void decode(AnyContiguous codes, AnyOut out, const Quantizer& format, int threads, bool general) {
    const nb::gil_scoped_release release;
    const QuantizeJob job{
        codes.data(), out.data(), out.itemsize() == 8,           int(codes.itemsize()),
        format,       {},         out.nbytes() >= streamed_bytes};
    const auto kernel = !general && is_narrow(job) ? kernels().decode_narrow : kernels().decode;
    parallel_ranges(std::int64_t(codes.size()), elements_per_piece, threads,
                    [&](auto begin, auto end) { kernel(job, begin, end); });
}

// A field that Python sees as its integer value.
template <auto field, class Class>
void enum_field(Class& bound, const char* name) {
    using Struct = typename Class::Type;
    using Enum = std::remove_cvref_t<decltype(Struct{}.*field)>;
    bound.def_prop_rw(
        name, [](const Struct& s) { return int(s.*field); },
        [](Struct& s, int value) { s.*field = Enum(value); });
}

}  // namespace

void bind_quantize(nb::module_& m) {
    nb::class_<Quantizer> q(m, "Quantizer");
    q.def(nb::init<>());
    q.def_rw("mantissa_bits", &Quantizer::mantissa_bits).def_rw("emin", &Quantizer::emin);
    q.def_rw("max_index", &Quantizer::max_index)
        .def_rw("odd_first_code", &Quantizer::odd_first_code);
    q.def_rw("negative_zero", &Quantizer::negative_zero)
        .def_rw("nan_is_error", &Quantizer::nan_is_error);
    q.def_rw("addend", &Quantizer::addend).def_rw("random_bits", &Quantizer::random_bits);
    q.def_rw("overflow_value", &Quantizer::overflow_value)
        .def_rw("infinity_value", &Quantizer::infinity_value);
    q.def_rw("overflow_code", &Quantizer::overflow_code)
        .def_rw("infinity_code", &Quantizer::infinity_code);
    q.def_rw("nan_value", &Quantizer::nan_value).def_rw("nan_code", &Quantizer::nan_code);
    q.def_rw("code_offset", &Quantizer::code_offset).def_rw("sign_mask", &Quantizer::sign_mask);
    q.def_rw("padding_bits", &Quantizer::padding_bits).def_rw("has_zero", &Quantizer::has_zero);
    q.def_rw("infinity_magnitude_code", &Quantizer::infinity_magnitude_code);
    q.def_rw("zero_code_only", &Quantizer::zero_code_only)
        .def_rw("sign_only_is_nan", &Quantizer::sign_only_is_nan);
    enum_field<&Quantizer::underflow>(q, "underflow");
    enum_field<&Quantizer::stochastic>(q, "stochastic");
    enum_field<&Quantizer::negative>(q, "negative");

    nb::class_<FixedQuantizer> f(m, "FixedQuantizer");
    f.def(nb::init<>());
    f.def_rw("bits", &FixedQuantizer::bits).def_rw("fraction_bits", &FixedQuantizer::fraction_bits);
    f.def_rw("is_signed", &FixedQuantizer::is_signed)
        .def_rw("wrap_bits", &FixedQuantizer::wrap_bits);
    f.def_rw("addend", &FixedQuantizer::addend).def_rw("random_bits", &FixedQuantizer::random_bits);
    enum_field<&FixedQuantizer::overflow>(f, "overflow");
    enum_field<&FixedQuantizer::stochastic>(f, "stochastic");

    m.def("quantize", &quantize, "x"_a.noconvert(), "out"_a.noconvert(), "code_bytes"_a, "format"_a,
          "seed"_a, "stream"_a, "call"_a, "words"_a.none(), "threads"_a, "general"_a = false);
    m.def("quantize_fixed", &quantize_fixed, "x"_a.noconvert(), "out"_a.noconvert(), "code_bytes"_a,
          "format"_a, "seed"_a, "stream"_a, "call"_a, "words"_a.none(), "threads"_a);
    m.def(
        "quantizes_narrow",
        [](const Quantizer& format, int code_bytes) {
            QuantizeJob job;
            job.quantizer = format;
            job.code_bytes = code_bytes;
            return quantizes_narrow(job);
        },
        "format"_a, "code_bytes"_a);
    m.def("decode", &decode, "codes"_a.noconvert(), "out"_a.noconvert(), "format"_a, "threads"_a,
          "general"_a = false);
}

}  // namespace abcdeep
