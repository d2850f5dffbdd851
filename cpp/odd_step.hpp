// A step of any float accumulator that rounds to even, to a side or stochastically: the exact
// result rounded to odd in float32 or float64, then to the format's bits, which is one rounding
// (docs/exactness.md, fact B).
//
// The neighbours of a result come from two directed roundings: of single instructions with AVX-512,
// elsewhere upward of the number and of its negative.
#pragma once

#include <limits>

#include "float_tile.hpp"
#include "rounding.hpp"

namespace abcdeep {
namespace {

#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
inline constexpr FloatRounding odd_environment = FloatRounding::nearest;
inline constexpr int rounded_down = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC,
                     rounded_up = _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC,
                     rounded_to_zero = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;

struct RoundedFloats {
    using V = Vector<float>;
    __m512 a, b, c;
    template <int mode>
    V multiply() const {
        return V(_mm512_mul_round_ps(a, b, mode));
    }
    template <int mode>
    V multiply_add() const {
        return V(_mm512_fmadd_round_ps(a, b, c, mode));
    }
    static V pick(V down, V up) {
        const __mmask16 odd = _mm512_test_epi32_mask(__m512i(up), _mm512_set1_epi32(1));
        return V(_mm512_mask_mov_ps(__m512(down), odd, __m512(up)));
    }
};
struct RoundedDoubles {
    using V = Vector<double>;
    __m512d a, b, c;
    template <int mode>
    V multiply() const {
        return V(_mm512_mul_round_pd(a, b, mode));
    }
    template <int mode>
    V multiply_add() const {
        return V(_mm512_fmadd_round_pd(a, b, c, mode));
    }
    static V pick(V down, V up) {
        const __mmask8 odd = _mm512_test_epi64_mask(__m512i(up), _mm512_set1_epi64(1));
        return V(_mm512_mask_mov_pd(__m512d(down), odd, __m512d(up)));
    }
};
inline RoundedFloats rounded(Vector<float> a, Vector<float> b, Vector<float> c) {
    return {__m512(a), __m512(b), __m512(c)};
}
inline RoundedDoubles rounded(Vector<double> a, Vector<double> b, Vector<double> c) {
    return {__m512d(a), __m512d(b), __m512d(c)};
}

// With float32's (or float64's) flush to zero, a number that only rounds to the smallest normal one
// is below it: what decides is the number rounded toward zero.
template <bool flush, class V>
V multiply_to_odd(V a, V b) {
    const auto x = rounded(a, b, a);
    const V odd = x.pick(x.template multiply<rounded_down>(), x.template multiply<rounded_up>());
    return flush ? select(x.template multiply<rounded_to_zero>() != V{}, odd, V{}) : odd;
}
template <bool flush, class V>
V multiply_add_to_odd(V a, V b, V c) {
    const auto x = rounded(a, b, c);
    const V odd =
        x.pick(x.template multiply_add<rounded_down>(), x.template multiply_add<rounded_up>());
    return flush ? select(x.template multiply_add<rounded_to_zero>() != V{}, odd, V{}) : odd;
}
#else
inline constexpr FloatRounding odd_environment = FloatRounding::upward;

// Sign changes on bits: the compiler moves those of numbers as if arithmetic rounded to nearest.
template <class V>
V negative(V x) {
    using U = BitsOf<V>;
    return bits_as<V>(bits_as<U>(x) ^ (U{} + (Element<U>(1) << (8 * sizeof(Element<U>) - 1))));
}

template <bool flush, class V>
V pick_odd(V up, V negative_down) {
    const V down = negative(negative_down);
    V odd;
#if defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    if constexpr (sizeof(Element<V>) == 4) {
        const __m256 last = _mm256_castsi256_ps(_mm256_slli_epi32(__m256i(up), 31));
        odd = V(_mm256_blendv_ps(__m256(down), __m256(up), last));
    } else {
        const __m256d last = _mm256_castsi256_pd(_mm256_slli_epi64(__m256i(up), 63));
        odd = V(_mm256_blendv_pd(__m256d(down), __m256d(up), last));
    }
#else
    const auto bits = bits_as<BitsOf<V>>(up) & Element<BitsOf<V>>(1);
    odd = select(bits != BitsOf<V>{}, up, down);
#endif
    // with flush to zero, the smallest normal number rounded up to zero is not above it
    return flush ? select(up == V{}, V{}, odd) : odd;
}

template <bool flush, class V>
V multiply_to_odd(V a, V b) {
    return pick_odd<flush>(a * b, negative(a) * b);
}

template <bool flush, class V>
V multiply_add_to_odd(V a, V b, V c) {
    return pick_odd<flush>(fused_multiply_add(a, b, c),
                           fused_multiply_add(negative(a), b, negative(c)));
}
#endif

// Rounders take the bits of a float that was rounded to odd, and random bits, to those of a number
// with the format's precision.

// To nearest even.
template <class V_>
class NearestEven {
  public:
    using V = V_;
    using U = BitsOf<V>;
    static constexpr bool draws = false;

    NearestEven(int mantissa_bits, const Quantizer&)
        : last_(U{} + (E(1) << discarded(mantissa_bits))),
          below_half_(U{} + ((E(1) << (discarded(mantissa_bits) - 1)) - 1)),
          kept_(U{} + (~E(0) << discarded(mantissa_bits))) {}

    V round(V x, U) const {
        U bits = bits_as<U>(x);
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
        if constexpr (sizeof(E) == 4) {
            const __m512i u = __m512i(bits), up = _mm512_add_epi32(u, __m512i(below_half_));
            const __mmask16 odd = _mm512_test_epi32_mask(u, __m512i(last_));
            bits = U(_mm512_mask_add_epi32(up, odd, up, _mm512_set1_epi32(1)));
            return bits_as<V>(bits & kept_);
        }
#endif
        bits += below_half_ + select((bits & last_) != U{}, U{} + E(1), U{});
        return bits_as<V>(bits & kept_);
    }

  private:
    using E = Element<U>;
    static int discarded(int mantissa_bits) { return FloatLayout<E>::mantissa - mantissa_bits; }

    U last_, below_half_, kept_;
};

// Any rule that treats both signs alike: an addition for the last bit that a first rounding keeps
// (of deterministic modes the only one; rules c and odd first round to the random bits), then the
// random bits, and all below the format's last bit is cut off (docs/formats.md, "Rounding").
template <class V_>
class AnyRounding {
  public:
    using V = V_;
    using U = BitsOf<V>;
    static constexpr bool draws = true;

    AnyRounding(int mantissa_bits, const Quantizer& q)
        : kept_(U{} + (~E(0) << (FloatLayout<E>::mantissa - mantissa_bits))) {
        const int discarded = FloatLayout<E>::mantissa - mantissa_bits;
        const bool stochastic = q.stochastic != Stochastic::none;
        const int below = stochastic ? discarded - q.random_bits : discarded;
        const bool first =
            !stochastic || q.stochastic == Stochastic::c || q.stochastic == Stochastic::odd;
        if (first && below > 0) {
            const bool to_odd = q.stochastic == Stochastic::odd;
            const int even_code = stochastic ? (to_odd ? 2 : 3) : q.addend[0][0];
            const int odd_code = stochastic ? (to_odd ? 3 : 2) : q.addend[0][1];
            last_ = U{} + (E(1) << below);
            even_ = U{} + half_of(even_code, below);
            odd_ = U{} + half_of(odd_code, below);
            first_kept_ = U{} + (~E(0) << below);
        }
        if (stochastic) random_shift_ = below;
        if (q.stochastic == Stochastic::b) centre_ = U{} + (E(1) << (below - 1));
    }

    V round(V x, U random) const {
        U bits = bits_as<U>(x);
        bits += select((bits & last_) != U{}, odd_, even_);
        bits = (bits & first_kept_) + (random << E(random_shift_)) + centre_;
        return bits_as<V>(bits & kept_);
    }

  private:
    using E = Element<U>;
    // The addend of rounding.hpp for `count` discarded bits, from twice it.
    static E half_of(int code, int count) {
        return E(((std::int64_t(code >> 1) << count) - (code & 1)) >> 1);
    }

    U kept_, last_{}, even_{}, odd_{}, first_kept_ = ~U{}, centre_{};
    int random_shift_ = 0;
};

// What becomes of numbers past the largest one: the largest itself, Inf or NaN, unless there is
// none.
template <class V, bool limited>
class Limit {
    using U = BitsOf<V>;
    using E = Element<U>;

  public:
    Limit(double largest, double overflow)
        : largest_(bits_as<U>(V{} + Element<V>(largest))),
          beyond_(overflow - overflow == 0 ? largest_ : bits_as<U>(V{} + Element<V>(overflow))) {}

    V apply(V x) const {
        if constexpr (!limited) return x;
        const U sign = U{} + (E(1) << (8 * sizeof(E) - 1));
        const U infinite = bits_as<U>(V{} + Element<V>(__builtin_inf()));
        const U bits = bits_as<U>(x), magnitude = bits & ~sign;
        const auto over = (magnitude > largest_) & (magnitude <= infinite);  // no NaN
        return bits_as<V>(select(over, beyond_ | (bits & sign), bits));
    }

  private:
    U largest_, beyond_;
};

template <class Rounding, bool fused, bool flush, bool limited>
class OddStep : public Scaled<typename Rounding::V> {
  public:
    using V = typename Rounding::V;
    using U = BitsOf<V>;
    using E = Element<V>;
    static constexpr bool draws = Rounding::draws;

    explicit OddStep(const FloatTile& t)
        : Scaled<V>(t),
          product_rounding_(t.mantissa_bits, t.product),
          sum_rounding_(t.mantissa_bits, t.sum),
          start_rounding_(t.mantissa_bits, t.start),
          product_limit_(this->scaled_product(t.product_limit), t.product_overflow),
          sum_limit_(this->scaled_sum(t.sum_limit), t.sum_overflow),
          any_limit_(this->scaled_sum(t.sum_limit), t.sum_overflow),
          product_bits_(t.product_exact ? 0 : t.product.random_bits),
          sum_bits_(t.sum.random_bits) {}

    int product_random_bits() const { return product_bits_; }
    int sum_random_bits() const { return sum_bits_; }

    V step(V a, V b, V s, U product_random = U{}, U sum_random = U{}) const {
        if constexpr (fused) return round(multiply_add_to_odd<flush>(a, b, s), sum_random);
        const V exact = multiply_to_odd<flush>(a, b);
        const V p = product_limit_.apply(product_rounding_.round(exact, product_random));
        return round(multiply_add_to_odd<flush>(p, this->factor_, s), sum_random);
    }

    V merge(V r, V s, U random = U{}) const {
        const V exact = multiply_add_to_odd<flush>(r, V{} + E(1), s);
        return any_limit_.apply(sum_rounding_.round(exact, random));
    }

    E start(double c) const {
        const double back = 1 / this->sum_scale_;
        if (flush && __builtin_fabs(c) < std::numeric_limits<E>::min() * back) return 0;
        E x = this->truncated(c * this->sum_scale_);  // which may underflow
        if (__builtin_fabs(double(x) * back) > __builtin_fabs(c))
            x = bits_as<E>(Element<U>(bits_as<Element<U>>(x) - 1));
        const Element<U> inexact = double(x) * back != c;  // to odd
        const V odd = V{} + bits_as<E>(Element<U>(bits_as<Element<U>>(x) | inexact));
        return any_limit_.apply(start_rounding_.round(odd, U{}))[0];
    }

    V finish(V s) const {
        s = Scaled<V>::finish(s);
        return select(s == s, s, V{} + E(__builtin_nan("")));
    }

  private:
    V round(V x, U random) const { return sum_limit_.apply(sum_rounding_.round(x, random)); }

    Rounding product_rounding_, sum_rounding_, start_rounding_;
    Limit<V, limited> product_limit_, sum_limit_;
    Limit<V, true> any_limit_;
    int product_bits_, sum_bits_;
};

template <class Rounding, bool fused, bool flush>
void run_limited(const FloatJob& job, const FloatTile& tile, const Block& block) {
    (tile.clamp ? run_step<OddStep<Rounding, fused, flush, true>>
                : run_step<OddStep<Rounding, fused, flush, false>>)(job, tile, block);
}

template <class Rounding>
void run_odd(const FloatJob& job, const FloatTile& tile, const Block& block) {
    const FloatEnvironment environment(odd_environment, tile.flush);
    if (tile.product_exact)
        (tile.flush ? run_limited<Rounding, true, true>
                    : run_limited<Rounding, true, false>)(job, tile, block);
    else
        (tile.flush ? run_limited<Rounding, false, true>
                    : run_limited<Rounding, false, false>)(job, tile, block);
}

}  // namespace
}  // namespace abcdeep
