// Exact sums of doubles: an error-free transformation, and a fixed-point register wide enough for
// any.
#pragma once

#include "simd.hpp"

namespace abcdeep {
namespace {

// a + b = sum + error exactly (Knuth). V is double or a vector of doubles, rounding to nearest.
template <class V>
inline V two_sum(V a, V b, V& error) {
    V sum = a + b;
    V b_part = sum - a;
    V a_part = sum - b_part;
    error = (a - a_part) + (b - b_part);
    return sum;
}

// sum rounded to nearest, with its error, to the same sum rounded to odd: sticky in the last bit,
// so that rounding it again to at most 51 bits is one rounding of the exact sum.
template <class V>
inline V round_to_odd(V sum, V error) {
    using U = Rebind<V, std::uint64_t>;
    const U zero{};
    U bits = bits_as<U>(sum), error_bits = bits_as<U>(error);
    U magnitude = error_bits << std::uint64_t(1);
    // Inf and NaN have no error worth looking at
    U finite = select((bits << std::uint64_t(1)) < (std::uint64_t(2047) << 53), U{} + 1, zero);
    U even_inexact = select(magnitude != zero, (~bits) & finite, zero) & std::uint64_t(1);
    U same_sign = ((bits ^ error_bits) >> std::uint64_t(63)) ^ std::uint64_t(1);
    return bits_as<V>(bits + ((even_inexact & same_sign) << std::uint64_t(1)) - even_inexact);
}

// A two's complement register from 2^-1152 to 2^1152: the sum of any 2^60 doubles, exactly.
class ExactSum {
  public:
    void clear() {
        for (auto& limb : limbs_) limb = 0;
        special_ = 0;
    }

    void add(double x) {
        const std::uint64_t bits = bits_as<std::uint64_t>(x);
        const int exponent = int(bits >> 52) & 2047;
        if (exponent == 2047) {
            special_ += x;
            return;
        }
        std::uint64_t significand = bits & ((std::uint64_t(1) << 52) - 1);
        if (exponent) significand |= std::uint64_t(1) << 52;
        const int position = (exponent ? exponent : 1) - 1075 + origin;
        const unsigned __int128 shifted = (unsigned __int128)(significand) << (position % 64);
        const std::uint64_t low = std::uint64_t(shifted), high = std::uint64_t(shifted >> 64);
        int i = position / 64;
        if (bits >> 63) {
            bool borrow = __builtin_sub_overflow(limbs_[i], low, &limbs_[i]);
            borrow = subtract(++i, high, borrow);
            while (borrow && ++i < count) borrow = subtract(i, 0, borrow);
        } else {
            bool carry = __builtin_add_overflow(limbs_[i], low, &limbs_[i]);
            carry = add_limb(++i, high, carry);
            while (carry && ++i < count) carry = add_limb(i, 0, carry);
        }
    }

    // The sum rounded to nearest even in double precision.
    double rounded() const {
        if (special_ != 0) return special_;
        std::uint64_t magnitude[count];
        const bool negative = limbs_[count - 1] >> 63;
        bool carry = negative;
        for (int i = 0; i < count; ++i) {
            magnitude[i] = negative ? ~limbs_[i] : limbs_[i];
            carry = carry && ++magnitude[i] == 0;
        }
        int top = count - 1;
        while (top >= 0 && magnitude[top] == 0) --top;
        if (top < 0) return 0.0;
        // 64 bits from the leading one, the rest sticky
        const int lead = __builtin_clzll(magnitude[top]);
        std::uint64_t head = magnitude[top] << lead;
        bool sticky = false;
        if (top > 0) {
            if (lead) head |= magnitude[top - 1] >> (64 - lead);
            sticky = (magnitude[top - 1] << lead) != 0;
            for (int i = top - 2; i >= 0; --i) sticky |= magnitude[i] != 0;
        }
        const int exponent = top * 64 + 63 - lead - origin;  // of the leading one
        // 53 bits, or fewer where they end at 2^-1074, below which no double reaches
        const int drop = exponent < -1022 ? 11 + (-1022 - exponent) : 11;
        std::uint64_t kept = head >> drop;
        const std::uint64_t rest = head << (64 - drop), half = std::uint64_t(1) << 63;
        kept += rest > half || (rest == half && (sticky || (kept & 1)));
        const double value = __builtin_ldexp(double(kept), exponent - 63 + drop);
        return negative ? -value : value;
    }

    // The same, and the sign of what it leaves: sum = rounded + error, for round_to_odd.
    double rounded(double& error) {
        const double value = rounded();
        add(-value);
        error = special_ != 0 ? 0.0 : rounded();
        return value;
    }

  private:
    static constexpr int count = 36, origin = 1152;

    bool add_limb(int i, std::uint64_t x, bool carry) {
        if (i >= count) return false;
        bool overflow = __builtin_add_overflow(limbs_[i], x, &limbs_[i]);
        return __builtin_add_overflow(limbs_[i], std::uint64_t(carry), &limbs_[i]) || overflow;
    }
    bool subtract(int i, std::uint64_t x, bool borrow) {
        if (i >= count) return false;
        bool overflow = __builtin_sub_overflow(limbs_[i], x, &limbs_[i]);
        return __builtin_sub_overflow(limbs_[i], std::uint64_t(borrow), &limbs_[i]) || overflow;
    }

    std::uint64_t limbs_[count] = {};
    double special_ = 0;  // sum of the infinities and NaN met
};

}  // namespace
}  // namespace abcdeep
