// Scaled elements to indices of their format: three ways that give the bits of round_to_index.
#pragma once

#include <cstddef>
#include <type_traits>

#include "block.hpp"
#include "narrow_lanes.hpp"
#include "rounding.hpp"

namespace abcdeep {
namespace {

// Magnitudes here are those of finite floats, none above the format's largest.

// Exponent fields of the magnitudes, those of subnormal results raised to the smallest normal's.
class IndexLayout {
  public:
    explicit IndexLayout(const Quantizer& q)
        : mantissa_bits(q.mantissa_bits),
          discard(23 - q.mantissa_bits),
          first_normal(std::int32_t(q.emin + 127) << 23) {}

    SignedLanes exponent(SignedLanes magnitude) const {
        return larger(magnitude & 0x7F800000, SignedLanes{} + first_normal);
    }
    // Index of the first number of the binade, less 2^M.
    WordLanes binade(SignedLanes exponent) const {
        return WordLanes(exponent - first_normal) >> discard;
    }

    int mantissa_bits, discard;
    std::int32_t first_normal;
};

// To nearest even by the processor: a power of two is added whose last bit is the element's, with
// the index of the binade in its low bits (docs/exactness.md, "Quantising").
class NearestIndex {
  public:
    explicit NearestIndex(const Quantizer& q)
        : layout_(q),
          power_((std::uint32_t(layout_.discard) << 23) -
                 (std::uint32_t(layout_.first_normal) >> layout_.discard)) {}

    static bool serves(const Quantizer& q) {
        bool nearest_even = q.stochastic == Stochastic::none;
        for (const auto& addend : q.addend) nearest_even &= addend[0] == 3 && addend[1] == 2;
        return nearest_even && q.mantissa_bits >= 1;
    }

    WordLanes operator()(SignedLanes magnitude, const std::uint32_t*) const {
        const WordLanes exponent = WordLanes(layout_.exponent(magnitude));
        const WordLanes power = exponent + (exponent >> layout_.discard) + power_;
        const FloatLanes sum = bits_as<FloatLanes>(magnitude) + bits_as<FloatLanes>(power);
        return bits_as<WordLanes>(sum) & 0x007FFFFFu;
    }

  private:
    IndexLayout layout_;
    std::uint32_t power_;
};

// The magnitude in units of the element's last bit, times 2^bits: S and nu of the definition, side
// by side in one integer. Scaling by a power of two is exact.
static inline FloatLanes in_units(const IndexLayout& layout, SignedLanes magnitude,
                                  SignedLanes exponent, int bits) {
    const std::int32_t unit = (254 + layout.mantissa_bits + bits) << 23;
    return bits_as<FloatLanes>(magnitude) * bits_as<FloatLanes>(SignedLanes(unit - exponent));
}

static inline SignedLanes truncated(FloatLanes x) {
    return __builtin_convertvector(x, SignedLanes);
}

// Rule A with 32 random bits: away iff floor(nu 2^32) + R carries.
class ExactIndex {
  public:
    explicit ExactIndex(const Quantizer& q) : layout_(q) {}

    static bool serves(const Quantizer& q) {
        return q.stochastic == Stochastic::a && q.random_bits == 32;
    }

    WordLanes operator()(SignedLanes magnitude, const std::uint32_t* random) const {
        const SignedLanes exponent = layout_.exponent(magnitude);
        const FloatLanes scaled = in_units(layout_, magnitude, exponent, 16);
        const SignedLanes high = truncated(scaled);
        const FloatLanes rest = scaled - __builtin_convertvector(high, FloatLanes);
        const SignedLanes low = truncated(rest * 65536.0f);
        const WordLanes fraction = (WordLanes(high) << 16) | WordLanes(low);
        const WordLanes carry = WordLanes(fraction > ~load<WordLanes>(random)) & 1u;
        return (WordLanes(high) >> 16) + carry + layout_.binade(exponent);
    }

  private:
    IndexLayout layout_;
};

// Rules A, B and C with few random bits.
class FewBitsIndex {
  public:
    explicit FewBitsIndex(const Quantizer& q)
        : layout_(q), bits_(q.random_bits + (q.stochastic == Stochastic::b)), rule_(q.stochastic) {}

    static bool serves(const Quantizer& q) {
        return q.stochastic != Stochastic::none && q.stochastic != Stochastic::odd &&
               q.mantissa_bits + 2 + q.random_bits <= 22;
    }

    WordLanes operator()(SignedLanes magnitude, const std::uint32_t* random) const {
        const SignedLanes exponent = layout_.exponent(magnitude);
        const FloatLanes scaled = in_units(layout_, magnitude, exponent, bits_);
        WordLanes drawn = load<WordLanes>(random), units;
        if (rule_ == Stochastic::c) {
            units = bits_as<WordLanes>(FloatLanes(scaled + 8388608.0f)) & 0x007FFFFFu;
        } else {
            units = WordLanes(truncated(scaled));
            if (rule_ == Stochastic::b) drawn = drawn * 2u + 1u;
        }
        return ((units + drawn) >> bits_) + layout_.binade(exponent);
    }

  private:
    IndexLayout layout_;
    int bits_;
    Stochastic rule_;
};

// Every mode, by round_to_index on the layout of float or double.
template <class E, bool stochastic>
static inline void round_all(const float* scaled, const std::uint32_t* random, std::uint32_t* index,
                             int count, const Quantizer& q) {
    using U = Vector<E>;
    using F = typename FloatLayout<E>::Float;
    constexpr int n = lanes<U>;
    const Grid<E> grid(q);
    for (int i = 0; i < count; i += n) {
        F wide[n];
        E drawn[n] = {}, rounded[n];
        for (int j = 0; j < n; ++j) wide[j] = F(scaled[i + j]);
        if (stochastic)
            for (int j = 0; j < n; ++j) drawn[j] = random[i + j];
        const U bits = load<U>(wide);
        const U negative = bits >> E(FloatLayout<E>::width - 1);
        const U result =
            round_to_index<stochastic>(bits & (~E(0) >> 1), negative, load<U>(drawn), grid);
        store(rounded, select(result > grid.max_index[0], U{} + grid.max_index[0], result));
        for (int j = 0; j < n; ++j) index[i + j] = std::uint32_t(rounded[j]);
    }
}

static inline void round_general(const float* scaled, const std::uint32_t* random,
                                 std::uint32_t* index, int count, const Quantizer& q) {
    if (q.stochastic == Stochastic::none)
        round_all<std::uint32_t, false>(scaled, random, index, count, q);
    else if (q.random_bits <= 16)
        round_all<std::uint32_t, true>(scaled, random, index, count, q);
    else
        round_all<std::uint64_t, true>(scaled, random, index, count, q);
}

template <class Round>
static inline void round_magnitudes(const float* scaled, const std::uint32_t* random,
                                    std::uint32_t* index, int count, const Round& round) {
    for (int i = 0; i < count; i += lanes<WordLanes>) {
        const SignedLanes magnitude = load<SignedLanes>(scaled + i) & 0x7FFFFFFF;
        store(index + i, round(magnitude, random + i));
    }
}

// body(way) with the fastest way to round that serves the format; with nullptr where none does.
template <class Body>
static inline auto with_rounding(const Quantizer& q, bool general, const Body& body) {
    if (!general && NearestIndex::serves(q)) return body(NearestIndex(q));
    if (!general && ExactIndex::serves(q)) return body(ExactIndex(q));
    if (!general && FewBitsIndex::serves(q)) return body(FewBitsIndex(q));
    return body(nullptr);
}

// index[i] = the index that scaled[i] rounds to.
static inline void round_to_indices(const float* scaled, const std::uint32_t* random,
                                    std::uint32_t* index, int count, const Quantizer& q,
                                    bool general) {
    with_rounding(q, general, [&](const auto& round) {
        if constexpr (std::is_same_v<decltype(round), const std::nullptr_t&>)
            round_general(scaled, random, index, count, q);
        else
            round_magnitudes(scaled, random, index, count, round);
    });
}

}  // namespace
}  // namespace abcdeep
