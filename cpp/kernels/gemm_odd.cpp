// Nearest-even float accumulators of at most 22 bits: binary32 results rounded to odd, then to the
// format's bits, which is one rounding (docs/exactness.md, fact B).
//
// The neighbours of a result come from two directed roundings: of single instructions with AVX-512,
// elsewhere upward of the number and of its negative.
#include "float_tile.hpp"
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

using V = ScaledStep::V;
using U = ScaledStep::U;

#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
constexpr FloatRounding environment_rounding = FloatRounding::nearest;

struct Neighbours {
    __m512 zero, down, up;
};

template <bool flush>
V odd(Neighbours x) {
    const __m512i one = _mm512_set1_epi32(1), up = _mm512_castps_si512(x.up);
    if constexpr (flush) {
        // neighbours differ in the last bit; a number that only rounds to 2^-126 is below it
        const __m512i down = _mm512_castps_si512(x.down), zero = _mm512_castps_si512(x.zero);
        const __m512i sticky = _mm512_ternarylogic_epi32(down, up, one, 0x28);  // (down ^ up) & 1
        return V(_mm512_castsi512_ps(_mm512_or_si512(zero, sticky)));
    }
    return V(_mm512_mask_mov_ps(x.down, _mm512_test_epi32_mask(up, one), x.up));
}

template <bool flush>
V multiply(V a, V b) {
    const __m512 x = __m512(a), y = __m512(b);
    return odd<flush>({_mm512_mul_round_ps(x, y, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC),
                       _mm512_mul_round_ps(x, y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC),
                       _mm512_mul_round_ps(x, y, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)});
}

template <bool flush>
V multiply_add(V a, V b, V c) {
    const __m512 x = __m512(a), y = __m512(b), z = __m512(c);
    return odd<flush>({_mm512_fmadd_round_ps(x, y, z, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC),
                       _mm512_fmadd_round_ps(x, y, z, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC),
                       _mm512_fmadd_round_ps(x, y, z, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)});
}
#else
constexpr FloatRounding environment_rounding = FloatRounding::upward;

// Sign changes on bits: the compiler takes them for free in arithmetic that rounds to nearest.
V negative(V x) { return bits_as<V>(bits_as<U>(x) ^ 0x80000000u); }

template <bool flush>
V odd(V up, V negative_down) {
    const V down = negative(negative_down);
#if defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    const __m256i last = _mm256_slli_epi32(__m256i(up), 31);
    const V x = V(_mm256_blendv_ps(__m256(down), __m256(up), _mm256_castsi256_ps(last)));
#else
    const V x = select((bits_as<U>(up) & 1u) != 0, up, down);
#endif
    return flush ? select(up == 0.0f, V{}, x) : x;  // -2^-126, rounded up to zero, is not above it
}

template <bool flush>
V multiply(V a, V b) {
    return odd<flush>(a * b, negative(a) * b);
}

template <bool flush>
V multiply_add(V a, V b, V c) {
    return odd<flush>(fused_multiply_add(a, b, c), fused_multiply_add(negative(a), b, negative(c)));
}
#endif

// Magnitudes past a limit: there are none, they saturate there, or they become Inf or NaN.
enum class Range { checked_before, saturate, replace };

bool saturates(const FloatTile& t) {
    return t.sum_overflow - t.sum_overflow == 0 && t.product_overflow - t.product_overflow == 0;
}

template <Range range>
class RangedStep : public ScaledStep {
  public:
    explicit RangedStep(const FloatTile& t)
        : ScaledStep(t),
          beyond_product_(beyond(t.product_overflow, product_limit_)),
          beyond_sum_(beyond(t.sum_overflow, sum_limit_)) {}

    V finish(V s) const {
        s = ScaledStep::finish(s);
        return range == Range::replace ? select(s == s, s, V{} + __builtin_nanf("")) : s;
    }

  protected:
    template <Range how>
    static V limit(V x, V limit, U beyond) {
        if constexpr (how == Range::saturate) return clamp_magnitude(x, limit);
        if constexpr (how == Range::replace) {
            const U magnitude = bits_as<U>(x) & 0x7fffffffu, sign = bits_as<U>(x) & 0x80000000u;
            const auto over =
                (magnitude > bits_as<U>(limit)) & (magnitude <= 0x7f800000u);  // no NaN
            return bits_as<V>(select(over, beyond | sign, bits_as<U>(x)));
        }
        return x;
    }

    U beyond_product_, beyond_sum_;

  private:
    // What a number past the limit becomes: the limit itself, Inf or NaN, as bits without sign.
    static U beyond(double overflow, V limit) {
        return overflow - overflow == 0 ? bits_as<U>(limit) : bits_as<U>(V{} + float(overflow));
    }
};

template <bool fused, bool flush, Range range>
class OddStep : public RangedStep<range> {
  public:
    explicit OddStep(const FloatTile& t)
        : RangedStep<range>(t),
          last_(U{} + (std::uint32_t(1) << (23 - t.mantissa_bits))),
          below_half_(U{} + ((std::uint32_t(1) << (22 - t.mantissa_bits)) - 1)),
          shift_(std::uint32_t(23 - t.mantissa_bits)) {}

    V step(V a, V b, V s) const {
        if constexpr (fused)
            return round<range>(multiply_add<flush>(a, b, s), this->sum_limit_, this->beyond_sum_);
        const V p =
            round<range>(multiply<flush>(a, b), this->product_limit_, this->beyond_product_);
        return sum<range>(p, this->factor_, s);
    }
    V merge(V r, V s) const { return sum<Range::replace>(r, V{} + 1.0f, s); }

    float start(double c) const {
        const double scaled = c * this->sum_scale_;
        if (flush && __builtin_fabs(scaled) < 0x1p-126) return 0;
        const float f = ScaledStep::truncated(scaled);
        const bool inexact = double(f) != scaled;
        const V odd = V{} + bits_as<float>(bits_as<std::uint32_t>(f) | inexact);
        return round<Range::replace>(odd, this->sum_limit_, this->beyond_sum_)[0];
    }

  private:
    template <Range how>
    V sum(V p, V factor, V s) const {
        return round<how>(multiply_add<flush>(p, factor, s), this->sum_limit_, this->beyond_sum_);
    }

    template <Range how>
    V round(V x, V limit, U beyond) const {
        U bits = bits_as<U>(x);
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
        const __m512i u = __m512i(bits);
        const __mmask16 odd = _mm512_test_epi32_mask(u, __m512i(last_));
        const __m512i up = _mm512_add_epi32(u, __m512i(below_half_));
        bits = U(_mm512_mask_add_epi32(up, odd, up, _mm512_set1_epi32(1)));
#else
        bits += below_half_ + ((bits >> shift_) & 1u);
#endif
        return this->template limit<how>(bits_as<V>(bits & this->mask_), limit, beyond);
    }

    U last_, below_half_;
    std::uint32_t shift_;
};

template <bool fused, bool flush>
void run(const FloatJob& job, const FloatTile& tile, const Block& block) {
    if (!tile.clamp)
        run_step<OddStep<fused, flush, Range::checked_before>>(job, tile, block);
    else if (saturates(tile))
        run_step<OddStep<fused, flush, Range::saturate>>(job, tile, block);
    else
        run_step<OddStep<fused, flush, Range::replace>>(job, tile, block);
}

}  // namespace

void gemm_odd(const FloatJob& job, const FloatTile& tile, const Block& block) {
    const FloatEnvironment environment(environment_rounding, tile.flush);
    if (tile.product_exact)
        (tile.flush ? run<true, true> : run<true, false>)(job, tile, block);
    else
        (tile.flush ? run<false, true> : run<false, false>)(job, tile, block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
