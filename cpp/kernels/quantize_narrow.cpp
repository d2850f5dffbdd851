// float32 to the values, or the code words of at most 16 bits, of a format: from register to
// register, without a tile in between. Which jobs: quantizes_narrow.
#include "float_environment.hpp"
#include "kernels.hpp"
#include "narrow_lanes.hpp"
#include "rounding.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

using U = WordLanes;
using S = SignedLanes;
using V = FloatLanes;

constexpr std::uint32_t float_sign = 0x80000000u, float_infinity = 0x7F800000u;

// A code word comes with other bits above it.
template <bool codes>
constexpr std::uint32_t index_mask = codes ? 0x007FFFFFu : ~0u;

// A result for each sign.
struct SignedPattern {
    SignedPattern(const std::array<double, 2>& value, const std::array<std::uint64_t, 2>& code,
                  bool codes)
        : positive(codes ? std::uint32_t(code[0]) : bits_as<std::uint32_t>(float(value[0]))),
          difference(positive ^
                     (codes ? std::uint32_t(code[1]) : bits_as<std::uint32_t>(float(value[1])))) {}

    U operator()(U input) const { return (U(S(input) >> 31) & difference) ^ positive; }

    bool operator==(const SignedPattern&) const = default;

    std::uint32_t positive, difference;
};

// What tells the caller that some input has no result.
struct Failures {
    void operator|=(const Failures& other) {
        largest = larger(largest, other.largest);
        no_word |= other.no_word;
    }
    unsigned failed() const {
        return (any(largest > std::int32_t(float_infinity)) ? quantize_failed_nan : 0u) |
               (any(no_word != 0) ? quantize_failed_code : 0u);
    }

    S largest{};  // magnitude, where NaN is an error
    S no_word{};
};

// The rules of a format as far as loops differ by them. A branch on each of them for every vector
// costs as much as the arithmetic.
//   one_result     out of range, infinite and NaN are one result
//   signed_range   out of range and infinite are one result and its negative
//   flushed_range  the same, and numbers below 2^emin are flushed
//   any            every rule: also no negative zero, results without a word
enum class Rules { one_result, signed_range, flushed_range, any };

// What follows rounding: sign, values out of range, NaN.
template <bool codes, Rules rules, bool nan_is_error>
class Finish {
    static constexpr bool any_rules = rules == Rules::any;

  public:
    explicit Finish(const Quantizer& q)
        : overflow_(q.overflow_value, q.overflow_code, codes),
          infinite_(q.infinity_value, q.infinity_code, codes),
          nan_(codes ? std::uint32_t(q.nan_code) : bits_as<std::uint32_t>(float(q.nan_value))),
          sign_(codes ? std::uint32_t(q.sign_mask) : float_sign),
          sign_shift_(codes ? __builtin_clz(std::uint32_t(q.sign_mask)) : 0),
          negative_zero_(q.negative_zero) {}

    static Rules rules_of(const Quantizer& q) {
        const Finish f(q);
        const bool flush = q.underflow != Underflow::gradual;
        if (!f.negative_zero_ || f.infinite_ != f.overflow_ || (codes && q.code_offset != 0))
            return Rules::any;
        if (f.overflow_.difference == f.sign_)
            return flush ? Rules::flushed_range : Rules::signed_range;
        const bool one = f.overflow_.difference == 0 && f.nan_ == f.overflow_.positive;
        return one && !flush && !nan_is_error ? Rules::one_result : Rules::any;
    }

    // `magnitude`: of the input; `word`: the magnitude of the result, below bit 23 if a code word.
    template <class Mask>
    U operator()(U input, S magnitude, U word, Mask overflow, Failures& seen) const {
        U sign = (input >> sign_shift_) & sign_;
        if (any_rules && !negative_zero_)
            sign = select((word & index_mask<codes>) == 0u, U{}, sign);
        const std::int32_t infinite = float_infinity;
        if constexpr (nan_is_error) seen.largest = larger(seen.largest, magnitude);
        if constexpr (any_rules) {
            word = select(overflow, overflow_(input), word | sign);
            word = select(magnitude == infinite, infinite_(input), word);
        } else if constexpr (rules == Rules::one_result) {
            return select(overflow, U{} + overflow_.positive, word | sign);
        } else {
            word = select(overflow, U{} + overflow_.positive, word) | sign;
        }
        return nan_is_error ? word : select(magnitude > infinite, U{} + nan_, word);
    }

  private:
    SignedPattern overflow_, infinite_;
    std::uint32_t nan_, sign_;
    int sign_shift_;
    bool negative_zero_;
};

// The first step and what it needs of the format, in float bits: bits of an index that is normal
// are linear in it.
struct Layout {
    explicit Layout(const Quantizer& q)
        : discard(23 - q.mantissa_bits),
          first_normal(std::uint32_t(q.emin + 127) << 23),
          flush(q.underflow != Underflow::gradual),
          code_offset(std::uint32_t(q.code_offset)) {}

    std::uint32_t bits_of(std::uint64_t index) const {
        return std::uint32_t(index << discard) + first_normal - (1u << 23);
    }

    int discard;
    std::uint32_t first_normal;
    bool flush;
    std::uint32_t code_offset;
};

// Rounding by the processor (to nearest even, toward zero). Adding 2^d units to a number makes its
// last kept bit the unit; below the smallest normal number, where the unit is constant, that one's
// units. docs/exactness.md, "Quantising".
template <bool codes, Rules rules, bool nan_is_error>
class AddPowerOfTwo {
  public:
    using Seen = Failures;

    AddPowerOfTwo(const Quantizer& q, bool nearest)
        : layout_(q),
          finish_(q),
          has_word_(!codes || q.code_offset == 0),
          // The smallest inputs that reach the index after max_index, 2^emin, and the one after.
          overflow_from_(first_reaching(q.max_index[0] + 1, nearest)),
          keep_from_(q.underflow == Underflow::flush_after
                         ? first_reaching(std::uint64_t(1) << q.mantissa_bits, nearest)
                         : layout_.first_normal),
          word_from_(first_reaching((std::uint64_t(1) << q.mantissa_bits) + 1, nearest)),
          power_(std::uint32_t(layout_.discard) << 23),
          first_word_(layout_.first_normal >> layout_.discard) {}

    U operator()(const float* from, std::int64_t, Failures& seen) const {
        const U input = load<U>(from);
        const S magnitude = S(input & ~float_sign);
        const S exponent =
            larger(S(input & float_infinity), S{} + std::int32_t(layout_.first_normal));
        U word;
        if constexpr (codes) {
            // The power's own low bits are the index of the first number of the binade, less 2^M.
            U power = U(exponent) + (U(exponent) >> layout_.discard) + (power_ - first_word_);
            word = bits_as<U>(V(bits_as<V>(magnitude) + bits_as<V>(power)));
        } else {
            const V power = bits_as<V>(U(exponent) + power_);
            word = bits_as<U>(V(V(bits_as<V>(magnitude) + power) - power));
        }
        constexpr bool any_rules = rules == Rules::any;
        if (rules == Rules::flushed_range || (any_rules && layout_.flush)) {
            const S kept = magnitude >= S{} + std::int32_t(keep_from_);
            if (codes && any_rules) word -= layout_.code_offset;
            word = select(kept, word, U{});
            if (any_rules && !has_word_)
                seen.no_word |= kept & (magnitude < S{} + std::int32_t(word_from_));
        }
        return finish_(input, magnitude, word, magnitude >= S{} + std::int32_t(overflow_from_),
                       seen);
    }

  private:
    std::uint32_t first_reaching(std::uint64_t index, bool nearest) const {
        const std::uint32_t bits = layout_.bits_of(index);
        return nearest ? bits - (1u << (layout_.discard - 1)) + std::uint32_t(index & 1) : bits;
    }

    Layout layout_;
    Finish<codes, rules, nan_is_error> finish_;
    bool has_word_;
    std::uint32_t overflow_from_, keep_from_, word_from_, power_, first_word_;
};

bool has_addend(const Quantizer& q, int even, int odd) {
    bool same = true;
    for (int s = 0; s < 2; ++s) same &= q.addend[s][0] == even && q.addend[s][1] == odd;
    return same;
}

bool rounds_toward_zero(const Quantizer& q) { return has_addend(q, 0, 0); }

// Whether the processor has the rounding mode, and float32 the powers.
bool rounds_natively(const Quantizer& q) {
    const std::int64_t binades = std::int64_t(q.max_index[0] >> q.mantissa_bits);
    return q.emin + binades + 23 - q.mantissa_bits <= 127 && q.stochastic == Stochastic::none &&
           (has_addend(q, 3, 2) || rounds_toward_zero(q));
}

// Every other mode: an addend and a truncation in float bits (rounding.hpp). 2^emin is added to
// what lies below it, rounded to odd, so that the discarded bits are the same everywhere.
template <bool codes, bool nan_is_error>
class AddAddend {
  public:
    using Seen = Failures;

    explicit AddAddend(const Quantizer& q)
        : layout_(q),
          finish_(q),
          flush_after_(q.underflow == Underflow::flush_after),
          has_word_(!codes || q.code_offset == 0),
          largest_(codes ? std::uint32_t(q.max_index[0]) : layout_.bits_of(q.max_index[0])),
          rule_(q.stochastic),
          random_bits_(q.random_bits) {
        for (int negative = 0; negative < 2; ++negative)
            for (int odd = 0; odd < 2; ++odd) {
                const std::uint32_t code = q.addend[negative][odd];
                addend_[negative][odd] = ((code >> 1) << (layout_.discard - 1)) - (code & 1);
            }
    }

    // random[i]: 8 random bits for element i; null in a deterministic mode.
    const std::uint8_t* random = nullptr;

    U operator()(const float* from, std::int64_t i, Failures& seen) const {
        const U input = load<U>(from);
        const S magnitude = S(input & ~float_sign);
        const S first = S{} + std::int32_t(layout_.first_normal);
        const S below = magnitude < first;
        const V offset = bits_as<V>(layout_.flush ? S{} : select(below, first, S{}));
        const V shifted = bits_as<V>(magnitude) + offset;
        U bits = bits_as<U>(shifted);
        bits = select(V(shifted - offset) != bits_as<V>(magnitude), bits | 1u, bits);
        bits = rule_ == Stochastic::none ? add_deterministic(bits, input)
                                         : add(bits, widen(random + i));
        bits = (bits >> layout_.discard) << layout_.discard;
        U word;
        if constexpr (codes) {
            const S binade = first - (1 << 23);
            const U base = U(layout_.flush ? binade : select(below, first, binade));
            word = (bits - base) >> layout_.discard;
        } else {
            word = bits_as<U>(V(bits_as<V>(bits) - offset));
        }
        if (layout_.flush) {
            const S kept = flush_after_ ? S(bits) >= first : ~below;
            if (!has_word_) seen.no_word |= kept & (S(bits) == first);
            word = select(kept, word, U{});
            const S over = S(word) > S{} + std::int32_t(largest_);
            if (codes) word = select(kept, word - layout_.code_offset, U{});
            return finish_(input, magnitude, word, over, seen);
        }
        return finish_(input, magnitude, word, S(word) > S{} + std::int32_t(largest_), seen);
    }

  private:
    U add_deterministic(U bits, U input) const {
        const S odd = S(bits << (31 - layout_.discard)) >> 31, negative = S(input) >> 31;
        const U positive_addend = select(odd, U{} + addend_[0][1], U{} + addend_[0][0]);
        const U negative_addend = select(odd, U{} + addend_[1][1], U{} + addend_[1][0]);
        return bits + select(negative, negative_addend, positive_addend);
    }

    U add(U bits, U byte) const {
        const int surplus = layout_.discard - random_bits_;
        const U drawn = byte >> (8 - random_bits_);
        if (rule_ == Stochastic::b) return bits + ((drawn * 2u + 1u) << (surplus - 1));
        if (rule_ != Stochastic::a) {
            const U last = (bits >> surplus) & 1u;
            const U up = rule_ == Stochastic::c ? last : 1u - last;
            bits = ((bits + ((1u << (surplus - 1)) - 1u) + up) >> surplus) << surplus;
        }
        return bits + (drawn << surplus);
    }

    Layout layout_;
    Finish<codes, Rules::any, nan_is_error> finish_;
    bool flush_after_, has_word_;
    std::uint32_t largest_;
    Stochastic rule_;
    int random_bits_;
    std::uint32_t addend_[2][2];
};

// A piece of the inputs at a time, with its random bits.
template <class Out, bool stream, class Step>
unsigned in_pieces(const QuantizeJob& job, std::int64_t begin, std::int64_t end, Step& round) {
    constexpr std::int64_t piece = 4096;
    alignas(64) std::uint8_t random[piece + lanes<U>] = {};
    const RandomAddress address = {job.random.seed, job.random.stream, job.random.call};
    const bool stochastic = job.quantizer.stochastic != Stochastic::none;
    if constexpr (requires { round.random; }) round.random = random;
    Failures seen;
    // All pieces but the first are aligned; random bytes are fastest from whole blocks on.
    const auto address_of_first = reinterpret_cast<std::uintptr_t>(job.in) / sizeof(float) + begin;
    std::int64_t count = piece - (stochastic ? 0 : address_of_first % lanes<U>);
    for (std::int64_t i = begin; i < end; i += count, count = piece) {
        const float* in = static_cast<const float*>(job.in) + i;
        count = std::min(count, end - i);
        if (stochastic) random_draws(address, 8, std::uint64_t(i), count, random);
        for_lanes<stream>(in, static_cast<Out*>(job.out) + i, count, round, seen);
    }
    if constexpr (stream) finish_streaming();
    return seen.failed();
}

template <class Out, bool stream, bool nan_is_error, Rules rules>
[[gnu::noinline]] unsigned round_natively(const QuantizeJob& job, std::int64_t begin,
                                          std::int64_t end) {
    const bool nearest = !rounds_toward_zero(job.quantizer);
    AddPowerOfTwo<sizeof(Out) != 4, rules, nan_is_error> round(job.quantizer, nearest);
    return in_pieces<Out, stream>(job, begin, end, round);
}

template <class Out, bool stream, bool nan_is_error>
[[gnu::noinline]] unsigned round_by_addend(const QuantizeJob& job, std::int64_t begin,
                                           std::int64_t end) {
    AddAddend<sizeof(Out) != 4, nan_is_error> round(job.quantizer);
    return in_pieces<Out, stream>(job, begin, end, round);
}

template <class Out, bool stream, bool nan_is_error>
unsigned quantize_by_rules(const QuantizeJob& job, std::int64_t begin, std::int64_t end) {
    const Quantizer& q = job.quantizer;
    const bool native = rounds_natively(q);
    const bool nearest = native && !rounds_toward_zero(q);
    const FloatEnvironment environment(
        nearest ? FloatRounding::nearest : FloatRounding::toward_zero, false);
    if (!native) return round_by_addend<Out, stream, nan_is_error>(job, begin, end);
    switch (Finish<sizeof(Out) != 4, Rules::any, nan_is_error>::rules_of(q)) {
        case Rules::one_result:
            return round_natively<Out, stream, false, Rules::one_result>(job, begin, end);
        case Rules::signed_range:
            return round_natively<Out, stream, nan_is_error, Rules::signed_range>(job, begin, end);
        case Rules::flushed_range:
            return round_natively<Out, stream, nan_is_error, Rules::flushed_range>(job, begin, end);
        default:
            return round_natively<Out, stream, nan_is_error, Rules::any>(job, begin, end);
    }
}

template <class Out, bool stream>
unsigned quantize_to(const QuantizeJob& job, std::int64_t begin, std::int64_t end) {
    return (job.quantizer.nan_is_error ? quantize_by_rules<Out, stream, true>
                                       : quantize_by_rules<Out, stream, false>)(job, begin, end);
}

}  // namespace

unsigned quantize_narrow(const QuantizeJob& job, std::int64_t begin, std::int64_t end) {
    if (job.code_bytes == 1) return quantize_to<std::uint8_t, false>(job, begin, end);
    if (job.code_bytes == 2) return quantize_to<std::uint16_t, false>(job, begin, end);
    return job.stream ? quantize_to<float, true>(job, begin, end)
                      : quantize_to<float, false>(job, begin, end);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
