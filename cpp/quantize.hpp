// What a call of the quantise, encode and decode kernels carries.
#pragma once

#include "format.hpp"

namespace abcdeep {

// Why an input has no result; the caller looks for the first culprit and raises.
inline constexpr unsigned quantize_failed_nan = 1;
inline constexpr unsigned quantize_failed_negative = 2;
inline constexpr unsigned quantize_failed_code = 4;
inline constexpr unsigned quantize_failed_infinity = 8;

// code_bytes: width of the code words, 0 for values of the input's type.
template <class Format>
struct QuantizeJobOf {
    const void* in = nullptr;
    void* out = nullptr;
    bool float64 = false;
    int code_bytes = 0;
    Format quantizer;
    RandomSource random;
};
using QuantizeJob = QuantizeJobOf<Quantizer>;
using FixedJob = QuantizeJobOf<FixedQuantizer>;

}  // namespace abcdeep
