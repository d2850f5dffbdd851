// Fixed point: a real number to an integer, and the overflow modes of narrow integers.
#pragma once

#include "quantize.hpp"
#include "rounding.hpp"

namespace abcdeep {

namespace {

struct IntegerRange {
    std::int64_t lowest, highest;
};

inline IntegerRange integer_range(int bits, bool is_signed, IntegerOverflow overflow) {
    if (!is_signed) return {0, std::int64_t((std::uint64_t(1) << bits) - 1)};
    const std::int64_t highest = std::int64_t((std::uint64_t(1) << (bits - 1)) - 1);
    return {overflow == IntegerOverflow::saturate_symmetric ? -highest : -highest - 1, highest};
}

// The low `bits` bits of v as a number.
inline std::int64_t low_bits(std::uint64_t v, int bits, bool is_signed) {
    const int drop = 64 - bits;
    return is_signed ? std::int64_t(v << drop) >> drop : std::int64_t((v << drop) >> drop);
}

// WRAP and WRAP_SM with n saturated top bits (docs/formats.md, closed form equal to SystemC).
// Integer has at least one bit more than the format.
template <class Integer>
inline std::int64_t wrap_out_of_range(Integer value, const FixedQuantizer& q) {
    const std::uint64_t v = std::uint64_t(value);
    const int bits = q.bits, n = q.wrap_bits;
    const bool sign_magnitude = q.overflow == IntegerOverflow::wrap_sign_magnitude;
    if (n == 0) {
        if (!sign_magnitude) return low_bits(v, bits, q.is_signed);
        const std::uint64_t sign = std::uint64_t(value >> bits) & 1;
        const std::uint64_t invert = ((v >> (bits - 1)) & 1) != sign ? ~std::uint64_t(0) : 0;
        const std::uint64_t low = (v ^ invert) & ((std::uint64_t(1) << (bits - 1)) - 1);
        return low_bits(low | (sign << (bits - 1)), bits, true);
    }
    const std::uint64_t s = value < 0;
    const int kept = bits - n;
    std::uint64_t top;  // n bits
    if (q.is_signed)
        top = (s << (n - 1)) | (s ? 0 : (std::uint64_t(1) << (n - 1)) - 1);
    else
        top = s ? 0 : (std::uint64_t(1) << n) - 1;
    const std::uint64_t low_mask = (std::uint64_t(1) << kept) - 1;
    std::uint64_t low = v & low_mask;
    if (sign_magnitude && ((v >> kept) & 1) != (top & 1)) low ^= low_mask;
    return low_bits((top << kept) | low, bits, q.is_signed);
}

template <class Integer>
inline std::int64_t limit_integer(Integer v, const FixedQuantizer& q) {
    const IntegerRange range = integer_range(q.bits, q.is_signed, q.overflow);
    if (v >= range.lowest && v <= range.highest) return std::int64_t(v);
    const bool wraps =
        q.overflow == IntegerOverflow::wrap || q.overflow == IntegerOverflow::wrap_sign_magnitude;
    if (wraps && q.wrap_bits < q.bits) return wrap_out_of_range(v, q);
    if (q.overflow == IntegerOverflow::saturate_zero) return 0;
    return v < 0 ? range.lowest : range.highest;
}

// Holds the low 65 bits of any double's integer, which decide how the widest word wraps.
__extension__ typedef __int128 WideInteger;
inline constexpr WideInteger beyond_any_word = WideInteger(1) << 100;

// The integer nearest to x * 2^fraction_bits in the sense of q, within the range of q.
inline std::int64_t round_to_integer(double x, std::uint32_t random, const FixedQuantizer& q,
                                     unsigned& failed) {
    using E = std::uint64_t;
    const E bits = bits_as<E>(x);
    const bool negative = bits >> 63;
    const E magnitude = bits & (~E(0) >> 1);
    const E infinite = E(2047) << 52;
    if (magnitude == 0) return 0;
    if (magnitude >= infinite) {
        const bool wraps = q.overflow == IntegerOverflow::wrap ||
                           q.overflow == IntegerOverflow::wrap_sign_magnitude;
        if (magnitude > infinite)
            failed |= quantize_failed_nan;
        else if (wraps && q.wrap_bits < q.bits)
            failed |= quantize_failed_infinity;
        if (magnitude > infinite) return 0;
        return limit_integer(negative ? -beyond_any_word : beyond_any_word, q);
    }
    const E exponent = magnitude >> 52;
    E significand = (magnitude & ((E(1) << 52) - 1)) | (exponent ? E(1) << 52 : 0);
    const std::int64_t scale = std::int64_t(exponent ? exponent : 1) - 1075 + q.fraction_bits;
    if (scale >= 0) {
        WideInteger v = scale <= 64 ? WideInteger(significand) << scale : beyond_any_word;
        if (is_jam(q)) v |= 1;
        return limit_integer(negative ? -v : v, q);
    }
    E discard = E(-scale);
    if (discard > 62) {
        const E surplus = discard - 62 > 62 ? 62 : discard - 62;
        significand = (significand >> surplus) | ((significand & ((E(1) << surplus) - 1)) != 0);
        discard = 62;
    }
    E addend;
    if (q.stochastic != Stochastic::none) {
        addend = stochastic_addend<E>(significand, discard, random, q.stochastic, q.random_bits);
    } else {
        const E table[2][2] = {{q.addend[0][0], q.addend[0][1]}, {q.addend[1][0], q.addend[1][1]}};
        addend = deterministic_addend<E>(discard, (significand >> discard) & 1, negative, table);
    }
    const std::int64_t rounded = std::int64_t((significand * 2 + addend) >> (discard + 1));
    return limit_integer(negative ? -rounded : rounded, q);
}

}  // namespace
}  // namespace abcdeep
