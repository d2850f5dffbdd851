// Native vector types of the instruction set a kernel is compiled for, and what scalars share with
// them.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef ABCDEEP_VECTOR_BYTES
#define ABCDEEP_VECTOR_BYTES 16
#endif

namespace abcdeep {

template <class T, int bytes = ABCDEEP_VECTOR_BYTES>
struct VectorOf {
    typedef T type __attribute__((vector_size(bytes)));
};
template <class T, int bytes = ABCDEEP_VECTOR_BYTES>
using Vector = typename VectorOf<T, bytes>::type;

template <class V>
struct ElementOf {
    using type = std::remove_cvref_t<decltype(V{}[0])>;
};
template <class T>
    requires std::is_arithmetic_v<T>
struct ElementOf<T> {
    using type = T;
};
template <class V>
using Element = typename ElementOf<V>::type;

template <class V>
inline constexpr int lanes = sizeof(V) / sizeof(Element<V>);

// The same number of lanes with another element of the same size.
template <class V, class T>
struct RebindTo {
    typedef T type __attribute__((vector_size(sizeof(V))));
};
template <class V, class T>
    requires std::is_arithmetic_v<V>
struct RebindTo<V, T> {
    using type = T;
};
template <class V, class T>
using Rebind = typename RebindTo<V, T>::type;

// The unsigned integers as wide as the elements of V.
template <class V>
using BitsOf = Rebind<V, std::conditional_t<sizeof(Element<V>) == 4, std::uint32_t, std::uint64_t>>;

template <class To, class From>
static inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <class V, class T>
static inline V load(const T* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <class V, class T>
static inline void store(T* to, V v) {
    std::memcpy(to, &v, sizeof v);
}

template <class V>
static inline V broadcast(Element<V> x) {
    if constexpr (std::is_arithmetic_v<V>)
        return x;
    else
        return x - V{};  // keeps -0
}

// true lanes -> a, false lanes -> b; the mask is what a comparison of V returns
template <class M, class V>
static inline V select(M mask, V a, V b) {
    return mask ? a : b;
}

template <class M>
static inline bool any(M mask) {
    if constexpr (std::is_arithmetic_v<M>) {
        return mask;
    } else {
        bool found = false;
        for (int i = 0; i < lanes<M>; ++i) found |= mask[i] != 0;
        return found;
    }
}

// Fused multiply-add; true where the instruction set has one.
#if defined(__FMA__) || defined(__aarch64__)
inline constexpr bool has_fused_multiply_add = true;
#else
inline constexpr bool has_fused_multiply_add = false;
#endif

static inline Vector<float> fused_multiply_add(Vector<float> a, Vector<float> b, Vector<float> c) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return Vector<float>(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c)));
#elif defined(__FMA__) && ABCDEEP_VECTOR_BYTES == 32
    return Vector<float>(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c)));
#elif defined(__aarch64__)
    return Vector<float>(vfmaq_f32(float32x4_t(c), float32x4_t(a), float32x4_t(b)));
#else
    Vector<float> r{};
    for (int i = 0; i < lanes<Vector<float>>; ++i) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return r;
#endif
}

static inline Vector<double> fused_multiply_add(Vector<double> a, Vector<double> b,
                                                Vector<double> c) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return Vector<double>(_mm512_fmadd_pd(__m512d(a), __m512d(b), __m512d(c)));
#elif defined(__FMA__) && ABCDEEP_VECTOR_BYTES == 32
    return Vector<double>(_mm256_fmadd_pd(__m256d(a), __m256d(b), __m256d(c)));
#elif defined(__aarch64__)
    return Vector<double>(vfmaq_f64(float64x2_t(c), float64x2_t(a), float64x2_t(b)));
#else
    Vector<double> r{};
    for (int i = 0; i < lanes<Vector<double>>; ++i) r[i] = __builtin_fma(a[i], b[i], c[i]);
    return r;
#endif
}

// c - a * b, rounded once.
static inline Vector<float> fused_negated_multiply_add(Vector<float> a, Vector<float> b,
                                                       Vector<float> c) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return Vector<float>(_mm512_fnmadd_ps(__m512(a), __m512(b), __m512(c)));
#elif defined(__FMA__) && ABCDEEP_VECTOR_BYTES == 32
    return Vector<float>(_mm256_fnmadd_ps(__m256(a), __m256(b), __m256(c)));
#else
    return fused_multiply_add(-a, b, c);
#endif
}

// Bits of x where `mask` has them. With AVX-512 by the float instruction: arithmetic on floats
// waits for results of the integer one that `&` on vectors of integers becomes.
static inline Vector<float> masked(Vector<float> x, Vector<std::uint32_t> mask) {
#if defined(__AVX512DQ__) && ABCDEEP_VECTOR_BYTES == 64
    return Vector<float>(_mm512_and_ps(__m512(x), __m512(mask)));
#else
    return bits_as<Vector<float>>(bits_as<Vector<std::uint32_t>>(x) & mask);
#endif
}

static inline Vector<float> either_bits(Vector<float> x, Vector<float> y) {
#if defined(__AVX512DQ__) && ABCDEEP_VECTOR_BYTES == 64
    return Vector<float>(_mm512_or_ps(__m512(x), __m512(y)));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return Vector<float>(_mm256_or_ps(__m256(x), __m256(y)));
#else
    using U = Vector<std::uint32_t>;
    return bits_as<Vector<float>>(bits_as<U>(x) | bits_as<U>(y));
#endif
}

// Every second element of the first (half = 0) or second halves of a and b, in turn.
template <int half, class V, std::size_t... i>
static inline V interleave_halves(V a, V b, std::index_sequence<i...>) {
    constexpr int n = int(sizeof...(i));
    return __builtin_shufflevector(a, b, (half * n / 2 + int(i) / 2 + int(i) % 2 * n)...);
}

// The flat index of an element (number of the vector, then lane) rotates left by `stages` bits;
// there are a power of two of vectors, two or more.
template <int stages, int count, class V>
static inline void perfect_shuffle(V (&v)[count]) {
    constexpr auto all = std::make_index_sequence<lanes<V>>();
#pragma GCC unroll 6
    for (int stage = 0; stage < stages; ++stage) {
        V next[count];
#pragma GCC unroll 16
        for (int i = 0; i < count / 2; ++i) {
            next[2 * i] = interleave_halves<0>(v[i], v[i + count / 2], all);
            next[2 * i + 1] = interleave_halves<1>(v[i], v[i + count / 2], all);
        }
#pragma GCC unroll 32
        for (int i = 0; i < count; ++i) v[i] = next[i];
    }
}

// Rows become columns.
template <class V>
static inline void transpose(V (&rows)[lanes<V>]) {
    perfect_shuffle<std::countr_zero(unsigned(lanes<V>))>(rows);
}

// The larger one; neither is NaN.
static inline Vector<float> larger(Vector<float> x, Vector<float> y) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return Vector<float>(_mm512_max_ps(__m512(x), __m512(y)));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return Vector<float>(_mm256_max_ps(__m256(x), __m256(y)));
#else
    return select(x > y, x, y);
#endif
}

// x limited to [-limit, limit]; x is not NaN.
static inline Vector<float> clamp_magnitude(Vector<float> x, Vector<float> limit) {
#if defined(__AVX512DQ__) && ABCDEEP_VECTOR_BYTES == 64
    return Vector<float>(
        _mm512_range_ps(__m512(x), __m512(limit), 2));  // least magnitude, sign of x
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    const __m256 high = __m256(limit), low = _mm256_sub_ps(_mm256_setzero_ps(), high);
    return Vector<float>(_mm256_max_ps(_mm256_min_ps(__m256(x), high), low));
#else
    return select(x > limit, limit, select(x < -limit, -limit, x));
#endif
}

}  // namespace abcdeep
