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
inline std::int64_t wrap_out_of_range(std::uint64_t v, bool negative, const FixedQuantizer& q) {
    const int bits = q.bits, n = q.wrap_bits;
    const bool sign_magnitude = q.overflow == IntegerOverflow::wrap_sign_magnitude;
    if (n == 0) {
        if (!sign_magnitude) return low_bits(v, bits, q.is_signed);
        const std::uint64_t sign = (v >> bits) & 1;
        const std::uint64_t invert = ((v >> (bits - 1)) & 1) != sign ? ~std::uint64_t(0) : 0;
        const std::uint64_t low = (v ^ invert) & ((std::uint64_t(1) << (bits - 1)) - 1);
        return low_bits(low | (sign << (bits - 1)), bits, true);
    }
    const std::uint64_t s = negative;
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

// v is the value modulo 2^64; `beyond` says that the value itself does not fit in 64 bits.
inline std::int64_t limit_integer(std::int64_t v, bool negative, bool beyond,
                                  const FixedQuantizer& q) {
    const IntegerRange range = integer_range(q.bits, q.is_signed, q.overflow);
    if (!beyond && v >= range.lowest && v <= range.highest) return v;
    const bool wraps =
        q.overflow == IntegerOverflow::wrap || q.overflow == IntegerOverflow::wrap_sign_magnitude;
    if (wraps && q.wrap_bits < q.bits) return wrap_out_of_range(std::uint64_t(v), negative, q);
    if (q.overflow == IntegerOverflow::saturate_zero) return 0;
    return negative ? range.lowest : range.highest;
}

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
        return magnitude > infinite ? 0 : limit_integer(0, negative, true, q);
    }
    const E exponent = magnitude >> 52;
    E significand = (magnitude & ((E(1) << 52) - 1)) | (exponent ? E(1) << 52 : 0);
    const std::int64_t scale = std::int64_t(exponent ? exponent : 1) - 1075 + q.fraction_bits;
    E rounded;
    bool beyond = false;
    if (scale >= 0) {
        beyond = significand != 0 && scale > 10;
        rounded = scale < 64 ? significand << scale : 0;
    } else {
        E discard = E(-scale);
        if (discard > 62) {
            const E surplus = discard - 62 > 62 ? 62 : discard - 62;
            significand = (significand >> surplus) | ((significand & ((E(1) << surplus) - 1)) != 0);
            discard = 62;
        }
        E addend;
        if (q.stochastic != Stochastic::none) {
            addend =
                stochastic_addend<E>(significand, discard, random, q.stochastic, q.random_bits);
        } else {
            const E table[2][2] = {{q.addend[0][0], q.addend[0][1]},
                                   {q.addend[1][0], q.addend[1][1]}};
            addend =
                deterministic_addend<E>(discard, (significand >> discard) & 1, negative, table);
        }
        rounded = (significand * 2 + addend) >> (discard + 1);
    }
    if (scale >= 0 && is_jam(q)) rounded |= 1;
    return limit_integer(std::int64_t(negative ? 0 - rounded : rounded), negative, beyond, q);
}

}  // namespace
}  // namespace abcdeep
