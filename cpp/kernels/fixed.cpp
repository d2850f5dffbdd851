// Floats to fixed-point values or words, with the quantisation and overflow modes of SystemC and
// ap_fixed.
#include "fixed.hpp"

#include "float_environment.hpp"
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

template <class In>
[[gnu::noinline]] unsigned fixed_range(const FixedJob& job, std::int64_t begin, std::int64_t end) {
    const FixedQuantizer& q = job.quantizer;
    const In* in = static_cast<const In*>(job.in);
    const double quantum = __builtin_ldexp(1.0, -q.fraction_bits);
    unsigned failed = 0;
    for (std::int64_t i = begin; i < end; ++i) {
        std::uint32_t random = 0;
        if (q.stochastic != Stochastic::none)
            draw_random_bits(&random, job.random, i, 1, q.random_bits);
        std::int64_t v = round_to_integer(double(in[i]), random, q, failed);
        if (job.code_bytes == 0) {
            static_cast<In*>(job.out)[i] = In(double(v) * quantum);
            continue;
        }
        const std::uint64_t word = std::uint64_t(v);  // two's complement of the element's width
        switch (job.code_bytes) {
            case 1:
                static_cast<std::uint8_t*>(job.out)[i] = std::uint8_t(word);
                break;
            case 2:
                static_cast<std::uint16_t*>(job.out)[i] = std::uint16_t(word);
                break;
            case 4:
                static_cast<std::uint32_t*>(job.out)[i] = std::uint32_t(word);
                break;
            default:
                static_cast<std::uint64_t*>(job.out)[i] = word;
        }
    }
    return failed;
}

}  // namespace

unsigned quantize_fixed(const FixedJob& job, std::int64_t begin, std::int64_t end) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    return job.float64 ? fixed_range<double>(job, begin, end) : fixed_range<float>(job, begin, end);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
