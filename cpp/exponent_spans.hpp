// How far apart the exponents of the products of a step are: what a call of the kernel carries.
#pragma once

#include <cstdint>

namespace abcdeep {

inline constexpr std::int16_t zero_exponent = -16384;  // of an operand that is zero
inline constexpr int span_bins = 1024;

// Exponents of the operands, (rows x terms) and (columns x terms).
struct SpanJob {
    const std::int16_t* a = nullptr;
    const std::int16_t* b = nullptr;
    std::int64_t columns = 0, terms = 0;
    std::int64_t group = 1;          // terms of a step
    std::int64_t* counts = nullptr;  // steps by span: rows of span_bins
};

}  // namespace abcdeep
