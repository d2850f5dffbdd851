// Nearest-even float accumulators: binary32 results with a sticky bit, rounded to the format's
// bits.
//
// A result rounded to odd in binary32 and then to P <= 22 bits is rounded once (docs/exactness.md,
// fact B). Products that fit 24 bits need no sticky bit, nor sums of two numbers of at most 11 bits
// (fact D); the first step that needs one takes AVX-512's rounding of single instructions.
#include "float_tile.hpp"
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

enum class Range { checked_before, saturate, replace };

#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
constexpr bool rounds_to_odd = true;

// The three directed results: neighbours differ in the last bit, so (down ^ up) & 1 is sticky.
inline Vector<float> to_odd(__m512 zero, __m512 down, __m512 up) {
    const __m512i sticky = _mm512_ternarylogic_epi32(
        _mm512_castps_si512(down), _mm512_castps_si512(up), _mm512_set1_epi32(1), 0x28);
    return Vector<float>(_mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(zero), sticky)));
}

inline Vector<float> multiply_to_odd(Vector<float> a, Vector<float> b) {
    const __m512 x = __m512(a), y = __m512(b);
    return to_odd(_mm512_mul_round_ps(x, y, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC),
                  _mm512_mul_round_ps(x, y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC),
                  _mm512_mul_round_ps(x, y, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC));
}

inline Vector<float> multiply_add_to_odd(Vector<float> a, Vector<float> b, Vector<float> c) {
    const __m512 x = __m512(a), y = __m512(b), z = __m512(c);
    return to_odd(_mm512_fmadd_round_ps(x, y, z, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC),
                  _mm512_fmadd_round_ps(x, y, z, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC),
                  _mm512_fmadd_round_ps(x, y, z, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC));
}
#else
// Never called: the planner asks rounds_to_odd first.
constexpr bool rounds_to_odd = false;
inline Vector<float> multiply_to_odd(Vector<float> a, Vector<float> b) { return a * b; }
inline Vector<float> multiply_add_to_odd(Vector<float> a, Vector<float> b, Vector<float> c) {
    return fused_multiply_add(a, b, c);
}
#endif

template <bool fused, bool odd_products, bool odd_sums, Range range>
class NearestStep : public ScaledStep {
  public:
    explicit NearestStep(const FloatTile& t)
        : ScaledStep(t),
          last_(U{} + (std::uint32_t(1) << (23 - t.mantissa_bits))),
          below_half_(U{} + ((std::uint32_t(1) << (22 - t.mantissa_bits)) - 1)),
          shift_(std::uint32_t(23 - t.mantissa_bits)),
          beyond_product_(beyond(t.product_overflow, product_limit_)),
          beyond_sum_(beyond(t.sum_overflow, sum_limit_)),
          flush_(t.flush) {}

    V step(V a, V b, V s) const {
        if constexpr (fused)
            return round<range>(multiply_add_to_odd(a, b, s), sum_limit_, beyond_sum_);
        const V exact = odd_products ? multiply_to_odd(a, b) : a * b;
        const V p = round<range>(exact, product_limit_, beyond_product_);
        return round<range>(sum(p, factor_, s), sum_limit_, beyond_sum_);
    }
    V merge(V r, V s) const {
        return round<Range::replace>(sum(r, V{} + 1.0f, s), sum_limit_, beyond_sum_);
    }

    float start(double c) const {
        const double scaled = c * sum_scale_;
        if (flush_ && __builtin_fabs(scaled) < 1.1754943508222875e-38) return 0;
        float f = float(scaled);
        if (double(f) != scaled) {  // to odd
            std::uint32_t bits = bits_as<std::uint32_t>(f);
            if ((double(f) > scaled) == (scaled > 0)) --bits;
            f = bits_as<float>(bits | 1u);
        }
        return round<Range::replace>(V{} + f, sum_limit_, beyond_sum_)[0];
    }

    V finish(V s) const {
        s = ScaledStep::finish(s);
        return select(s == s, s, V{} + __builtin_nanf(""));
    }

  private:
    static V sum(V p, V factor, V s) {
        return odd_sums ? multiply_add_to_odd(p, factor, s) : fused_multiply_add(p, factor, s);
    }

    // What a number past the limit becomes: the limit itself, Inf or NaN, as bits without sign.
    static U beyond(double overflow, V limit) {
        return overflow - overflow == 0 ? bits_as<U>(limit) : bits_as<U>(V{} + float(overflow));
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
        x = bits_as<V>(bits & mask_);
        if constexpr (how == Range::saturate) return clamp_magnitude(x, limit);
        if constexpr (how == Range::replace) {
            const U magnitude = bits_as<U>(x) & 0x7fffffffu, sign = bits_as<U>(x) & 0x80000000u;
            const auto over =
                (magnitude > bits_as<U>(limit)) & (magnitude <= 0x7f800000u);  // no NaN
            return bits_as<V>(select(over, beyond | sign, bits_as<U>(x)));
        }
        return x;
    }

    U last_, below_half_;
    std::uint32_t shift_;
    U beyond_product_, beyond_sum_;
    bool flush_;
};

template <bool fused, bool odd_products, bool odd_sums>
void run(const FloatJob& job, const FloatTile& tile, const Block& block) {
    const bool saturates = tile.sum_overflow - tile.sum_overflow == 0 &&
                           tile.product_overflow - tile.product_overflow == 0;
    if (!tile.clamp)
        run_tile<NearestStep<fused, odd_products, odd_sums, Range::checked_before>>(job, tile,
                                                                                    block);
    else if (saturates)
        run_tile<NearestStep<fused, odd_products, odd_sums, Range::saturate>>(job, tile, block);
    else
        run_tile<NearestStep<fused, odd_products, odd_sums, Range::replace>>(job, tile, block);
}

}  // namespace

bool float32_rounds_to_odd() { return rounds_to_odd; }

void gemm_nearest(const FloatJob& job, const FloatTile& tile, const Block& block) {
    const FloatEnvironment environment(FloatRounding::nearest, tile.flush);
    if (tile.product_exact)
        run<true, false, true>(job, tile, block);
    else if (tile.odd_sums)
        run<false, true, true>(job, tile, block);
    else if (tile.odd_products)
        run<false, true, false>(job, tile, block);
    else
        run<false, false, false>(job, tile, block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
