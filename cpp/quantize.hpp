// What a call of the quantise, encode and decode kernels carries, and which of them serves it.
#pragma once

#include "format.hpp"

namespace abcdeep {

// Why an input has no result; the caller looks for the first culprit and raises.
inline constexpr unsigned quantize_failed_nan = 1;
inline constexpr unsigned quantize_failed_negative = 2;
inline constexpr unsigned quantize_failed_code = 4;
inline constexpr unsigned quantize_failed_infinity = 8;

// code_bytes: width of the code words, 0 for values of the input's type.
// stream: `out` is too large to stay in a cache, so that writing past them saves reading it.
template <class Format>
struct QuantizeJobOf {
    const void* in = nullptr;
    void* out = nullptr;
    bool float64 = false;
    int code_bytes = 0;
    Format quantizer;
    RandomSource random;
    bool stream = false;
};
using QuantizeJob = QuantizeJobOf<Quantizer>;
using FixedJob = QuantizeJobOf<FixedQuantizer>;

// Whether the format's values are float32 numbers with the layout that the narrow kernels assume.
inline bool is_narrow(const QuantizeJob& job) {
    const Quantizer& q = job.quantizer;
    const bool words = job.code_bytes != 0;
    return !job.float64 && (!words || (job.code_bytes <= 2 && q.padding_bits == 0)) && q.has_zero &&
           q.mantissa_bits >= 1 && q.mantissa_bits <= 21 && q.emin >= -126;
}

// What serves deterministic modes whose addend is none of jam's, and draws of 2 to 8 random bits.
inline bool quantizes_narrow(const QuantizeJob& job) {
    const Quantizer& q = job.quantizer;
    const bool random = q.stochastic != Stochastic::none;
    const bool drawable = !job.random.words && q.random_bits >= 2 && q.random_bits <= 8 &&
                          q.mantissa_bits + q.random_bits <= 21;
    return is_narrow(job) && (random ? drawable : !is_jam(q)) && q.negative == Negative::value &&
           q.max_index[0] == q.max_index[1] && q.max_index[0] >> q.mantissa_bits != 0 &&
           q.underflow != Underflow::cell && (q.underflow == Underflow::gradual || q.emin > -126);
}

}  // namespace abcdeep
