// Number formats and rounding rules as plain data: what the kernels see of a format.
#pragma once

#include <array>
#include <cstdint>

namespace abcdeep {

// What happens below the smallest normal number (docs/formats.md, "Range").
enum class Underflow : std::uint8_t { gradual, flush_before, flush_after, cell };

// Where the rounding addend of a stochastic rule comes from (docs/formats.md, "Rounding").
enum class Stochastic : std::uint8_t { none, a, b, c, odd };

// What a negative input means: a value, an error, NaN (as for zero: a format of positive numbers).
enum class Negative : std::uint8_t { value, error, nan };

inline constexpr std::array<std::array<std::uint8_t, 2>, 2> nearest_even_addend = {
    {{3, 2}, {3, 2}}};

// One format with its rounding and range rules resolved. The magnitudes of a format, in increasing
// order, are numbered by an index: 0 is zero, k < 2^M the subnormal k * 2^(emin-M), and from 2^M on
// the normal numbers, 2^M a binade. Rounding computes an index; values and code words follow from
// it.
struct Quantizer {
    std::int32_t mantissa_bits = 23;
    std::int32_t emin = -126;                         // exponent of the smallest normal number
    std::array<std::uint64_t, 2> max_index = {0, 0};  // largest finite magnitude, per sign
    Underflow underflow = Underflow::gradual;
    bool odd_first_code = false;  // M = 0 and 2^emin has an even code: parity is flipped
    bool negative_zero = true;
    Negative negative = Negative::value;
    bool nan_is_error = false;

    // Deterministic rounding, [negative][odd]: 2a + b, read by rounding.hpp.
    std::array<std::array<std::uint8_t, 2>, 2> addend = nearest_even_addend;
    Stochastic stochastic = Stochastic::none;
    std::uint8_t random_bits = 0;

    // Results out of range, per sign, and of NaN: as values and as code words.
    std::array<double, 2> overflow_value = {0, 0}, infinity_value = {0, 0};
    std::array<std::uint64_t, 2> overflow_code = {0, 0}, infinity_code = {0, 0};
    double nan_value = 0;
    std::uint64_t nan_code = 0;

    // Code word of an index: (index - code_offset) << padding_bits (zero stays zero), OR sign_mask
    // if negative.
    std::uint64_t code_offset = 0, sign_mask = 0;
    std::int32_t padding_bits = 0;
    std::uint64_t infinity_magnitude_code = 0;  // 0: the format has no infinity
    bool has_zero = true;
    bool zero_code_only = false;    // every word with exponent code 0 is zero
    bool sign_only_is_nan = false;  // the word 1 0..0 is NaN
};

// A fixed-point format: value = integer * 2^-fraction_bits.
enum class IntegerOverflow : std::uint8_t {
    wrap,
    saturate,
    saturate_zero,
    saturate_symmetric,
    wrap_sign_magnitude
};

struct FixedQuantizer {
    std::int32_t bits = 8;
    std::int32_t fraction_bits = 0;
    bool is_signed = true;
    IntegerOverflow overflow = IntegerOverflow::wrap;
    std::int32_t wrap_bits = 0;
    std::array<std::array<std::uint8_t, 2>, 2> addend = {};
    Stochastic stochastic = Stochastic::none;
    std::uint8_t random_bits = 0;
};

// The addend of jam alone is 2^d, for an even last kept bit.
template <class Format>
constexpr bool is_jam(const Format& q) {
    return q.addend[0][0] == 4;
}

// Random words: explicit ones, or Philox lanes of a logical index (philox.hpp).
struct RandomSource {
    std::uint64_t seed = 0;
    std::uint32_t stream = 0, call = 0;
    const std::uint32_t* words = nullptr;  // explicit random bits, one word an element
};

}  // namespace abcdeep
