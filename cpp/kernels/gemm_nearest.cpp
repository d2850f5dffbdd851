// Nearest-even float accumulators of at most 10 mantissa bits with rounded products.
//
// The sum of two numbers of P <= 11 bits rounded to binary32 and again to P bits is rounded once
// (docs/exactness.md, fact D). A product that needs more than 24 bits is first rounded to odd.
#include "float_tile.hpp"
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

template <bool inexact_products, bool clamp>
class NearestStep : public ScaledStep {
  public:
    explicit NearestStep(const FloatTile& t)
        : ScaledStep(t),
          last_(U{} + (std::uint32_t(1) << (23 - t.mantissa_bits))),
          below_half_(U{} + ((std::uint32_t(1) << (22 - t.mantissa_bits)) - 1)),
          shift_(std::uint32_t(23 - t.mantissa_bits)) {}

    V step(V a, V b, V s) const {
        const V p = round(product(a, b), product_limit_, clamp);
        return round(fused_multiply_add(p, factor_, s), sum_limit_, clamp);
    }
    V merge(V r, V s) const { return round(r + s, sum_limit_, true); }

    float start(double c) const {
        // to odd in binary32 by way of truncation: c is any double
        const double scaled = c * sum_scale_;
        float f = float(scaled);
        if (double(f) != scaled) {
            std::uint32_t bits = bits_as<std::uint32_t>(f);
            if ((double(f) > scaled) == (scaled > 0)) --bits;  // away from zero: back
            f = bits_as<float>(bits | 1u);
        }
        if (__builtin_fabs(scaled) < 1.1754943508222875e-38) f = 0;
        return round(V{} + f, sum_limit_, true)[0];
    }

  private:
    V round(V x, V limit, bool limited) const {
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
        return limited ? clamp_magnitude(x, limit) : x;
    }

    static V product(V a, V b) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
        if constexpr (inexact_products) {
            const __m512 x = __m512(a), y = __m512(b);
            const __m512i zero =
                __m512i(_mm512_mul_round_ps(x, y, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC));
            const __m512i down =
                __m512i(_mm512_mul_round_ps(x, y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
            const __m512i up =
                __m512i(_mm512_mul_round_ps(x, y, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC));
            // neighbours differ in the last bit: (down ^ up) & 1 is the sticky bit
            const __m512i sticky = _mm512_ternarylogic_epi32(down, up, _mm512_set1_epi32(1), 0x28);
            return V(_mm512_castsi512_ps(_mm512_or_si512(zero, sticky)));
        }
#endif
        return a * b;
    }

    U last_, below_half_;
    std::uint32_t shift_;
};

}  // namespace

void gemm_nearest(const FloatJob& job, const FloatTile& tile, const Block& block) {
    const FloatEnvironment environment(FloatRounding::nearest, tile.flush);
    if (tile.inexact_products)
        (tile.clamp ? run_tile<NearestStep<true, true>>
                    : run_tile<NearestStep<true, false>>)(job, tile, block);
    else
        (tile.clamp ? run_tile<NearestStep<false, true>>
                    : run_tile<NearestStep<false, false>>)(job, tile, block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
