// Arithmetic on groups side by side, as docs/nm.md defines it; results on their way to memory.
#pragma once

#include "nm_tile.hpp"

namespace abcdeep {
namespace {

// What comparisons of vectors of floats give: -1 or 0.
template <class V>
using MaskOf = Rebind<V, std::conditional_t<sizeof(Element<V>) == 4, std::int32_t, std::int64_t>>;

template <class E>
inline constexpr int mantissa_bits = sizeof(E) == 4 ? 23 : 52;
template <class E>
inline constexpr int exponent_bias = sizeof(E) == 4 ? 127 : 1023;

template <class V>
static inline V magnitude(V x) {
    using U = BitsOf<V>;
    return bits_as<V>(bits_as<U>(x) & (~Element<U>(0) >> 1));
}

// 2^exponent.
template <class V>
inline constexpr auto power_of_two = [](int exponent) {
    using E = Element<V>;
    return bits_as<E>(Element<BitsOf<V>>(exponent + exponent_bias<E>) << mantissa_bits<E>);
};

// Neither 0 nor of a magnitude with which sums, and quotients by them, are within the normal
// numbers of the array.
template <class X, class V>
static inline MaskOf<V> is_extreme(V x) {
    using U = BitsOf<V>;
    constexpr int range = sizeof(X) == 4 ? 96 : 900;
    const auto bits_of = [](int exponent) {
        return bits_as<Element<U>>(power_of_two<V>(exponent));
    };
    const U distance = bits_as<U>(magnitude(x)) - bits_of(-range);
    return (distance > bits_of(range) - bits_of(-range)) & (x != Element<V>(0));
}

template <class M>
static inline bool any_lane(M mask) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return _mm512_test_epi32_mask(bits_as<__m512i>(mask), bits_as<__m512i>(mask)) != 0;
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return _mm256_testz_si256(bits_as<__m256i>(mask), bits_as<__m256i>(mask)) == 0;
#elif defined(__SSE2__)
    return _mm_movemask_epi8(bits_as<__m128i>(mask)) != 0;
#else
    return any(mask);
#endif
}

// The larger and the smaller one; if x is NaN, y or NaN.
template <class V>
static inline V larger_number(V x, V y) {
    if constexpr (sizeof(Element<V>) == 4)
        return abcdeep::larger(x, y);
    else
        return select(x > y, x, y);
}
template <class V>
static inline V smaller_number(V x, V y) {
    return select(x < y, x, y);
}

// Neighbours first, level by level.
template <class V, int P>
static inline V tree_sum(const V (&m)[P]) {
    V sum[P];
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) {
        sum[i] = m[i];
    }
#pragma GCC unroll 5
    for (int size = P; size > 1; size /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < size / 2; ++i) sum[i] = sum[2 * i] + sum[2 * i + 1];
    return sum[0];
}

// m = x * 2^-E, E the exponent of the largest; x is not negative. What underflows is too small to
// matter: it counts as much as it has to in a sum of at least 1.
template <class V, int P>
static inline void scale_to_largest(const V (&x)[P], V (&m)[P]) {
    using E = Element<V>;
    using U = BitsOf<V>;
    constexpr int fraction = mantissa_bits<E>, bias = exponent_bias<E>;
    constexpr auto power = power_of_two<V>;
    constexpr int near = bias / 2, lift = sizeof(E) == 4 ? 64 : 512;
    V largest = x[0];
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) {
        largest = larger_number(x[i], largest);
    }
    V factor = V{} + E(1);
    // The exponent of a subnormal number is not in its bits, and 2^-127 is one.
    const V low = V{} + power(-near), high = V{} + power(near);
    if (any_lane((largest < low) | (largest > high))) {
        factor = select(largest < low, V{} + power(lift), factor);
        factor = select(largest > high, V{} + power(-lift), factor);
    }
    const U exponent = bits_as<U>(largest * factor) & (Element<U>(2 * bias + 1) << fraction);
    const V scale = bits_as<V>((Element<U>(2 * bias) << fraction) - exponent);
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) {
        m[i] = x[i] * factor * scale;
    }
}

// Up to the next integer; 0 <= x < 2^(mantissa bits - 1).
template <class V>
static inline V round_up(V x) {
    using E = Element<V>;
    constexpr E integers = E(std::int64_t(1) << mantissa_bits<E>);
    const V nearest = (x + integers) - integers;
    return nearest + select(nearest < x, V{} + E(1), V{});
}

// x in [1, most].
template <class V>
static inline V limited(V x, Element<V> most) {
    return larger_number(smaller_number(x, V{} + most), V{} + Element<V>(1));
}

// x rounded to a number of the array.
template <class X, class V>
static inline V as_stored(V x) {
    if constexpr (sizeof(X) == sizeof(Element<V>)) {
        return x;
    } else {
        using Narrow = typename VectorOf<X, sizeof(V) / 2>::type;
        return __builtin_convertvector(__builtin_convertvector(x, Narrow), V);
    }
}

// Whether inputs and outputs are numbers: their largest magnitudes. NaN is seen as bits.
template <class V>
class Found {
    using M = MaskOf<V>;
    using E = Element<V>;

  public:
    void input(V x) { input_ = larger_bits(input_, x); }
    void output(V y) { output_ = larger_bits(output_, y); }
    unsigned flags() const {
        constexpr auto infinity = Element<M>(2 * exponent_bias<E> + 1) << mantissa_bits<E>;
        unsigned flags = 0;
        for (int j = 0; j < lanes<M>; ++j) {
            if (input_[j] >= infinity) flags |= nm_not_finite;
            if (output_[j] >= infinity) flags |= nm_overflow;
        }
        return flags;
    }

  private:
    static M larger_bits(M most, V x) {
        const M bits = bits_as<M>(magnitude(x));
        return select(bits > most, bits, most);
    }
    M input_ = {}, output_ = {};
};

template <class E, int P>
struct ResultTile {
    alignas(64) E rows[P][tile_groups<P>];
    alignas(64) E probability[P][tile_groups<P>];
    alignas(64) E random[2][tile_groups<P>] = {};  // numbers where there are no groups, too
    alignas(64) Element<MaskOf<Vector<E>>> kept[tile_groups<P>];
};

template <class X, class E, int P>
void store_results(const NmJob& job, std::int64_t at, const Strides& s, int count,
                   const ResultTile<E, P>& tile) {
    store_groups(static_cast<X*>(job.y) + at, s, count, tile.rows, job.stream);
    if (job.probabilities)
        store_groups(static_cast<E*>(job.probabilities) + at, s, count, tile.probability);
    if (job.mask) {
        std::uint32_t kept[tile_groups<P>];
        for (int t = 0; t < count; ++t) kept[t] = std::uint32_t(tile.kept[t]);
        store_mask(job.mask + at, s, count, kept);
    }
}

}  // namespace
}  // namespace abcdeep
