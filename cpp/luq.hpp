// Logarithmic unbiased quantisation: what a call of the kernel carries, and the spacing alpha.
#pragma once

#include <bit>

#include "format.hpp"

namespace abcdeep {

// An alpha below 2^-126 is kept times 2^64, marked by the sign bit. 0 stands for a maximum of 0.
inline constexpr std::uint32_t luq_lifted = 0x80000000u;

// alpha = m * 2^-(levels - 1), m the number with float bits `maximum`, or the next power of two.
// In integers: exact for subnormal m, and out of reach of the caller's flush-to-zero.
inline std::uint32_t luq_alpha(std::uint32_t maximum, int levels, bool power_of_two) {
    if (maximum == 0) return 0;
    int exponent = int(maximum >> 23);
    std::uint32_t fraction = maximum & 0x7FFFFFu;
    if (exponent == 0) {
        const int shift = std::countl_zero(fraction) - 8;
        fraction = (fraction << shift) & 0x7FFFFFu;
        exponent = 1 - shift;
    }
    if (power_of_two && fraction != 0) {
        fraction = 0;
        ++exponent;
    }
    exponent -= levels - 1;
    const bool lifted = exponent < 1;
    if (lifted) exponent += 64;
    return (lifted ? luq_lifted : 0u) | std::uint32_t(exponent) << 23 | fraction;
}

// What a random word w becomes before it is compared: (w & keep) | set. A deterministic rule keeps
// nothing and sets the word that makes the comparison its own.
struct LuqWord {
    std::uint32_t keep, set;
};

// alphas: those of elements i with i / inner % groups = 0, 1, ...
// below, above: the words where |x| < alpha (the sign is kept or zeroed) and elsewhere.
// stream: `out` is too large to stay in a cache.
struct LuqJob {
    const float* x;
    void* out;  // float values, or bytes that hold code words
    std::int64_t size;
    bool codes, grow, stream;
    const std::uint32_t* alphas;
    std::int64_t groups, inner;
    int levels, samples;
    LuqWord below, above;
    RandomSource random;
};

}  // namespace abcdeep
