// Products of 32-bit numbers with all 64 bits, in a scalar or in every lane of a vector.
#pragma once

#include <cstdint>

#include "host_device.hpp"
#include "simd.hpp"

#if defined(__SSE2__) && !defined(__CUDACC__)
#include <immintrin.h>
#endif

namespace abcdeep {

// The low 32 bits of `a` times `b`; what the upper bits of `a` hold does not matter.
static ABCDEEP_HOST_DEVICE inline std::uint64_t low_product(std::uint64_t a, std::uint32_t b) {
    return std::uint64_t(std::uint32_t(a)) * b;
}

#if !defined(__CUDACC__)

// Where there is no instruction of this shape, or the compiler finds it.
template <class V>
    requires(!std::is_arithmetic_v<V>)
static inline V low_product(V a, std::uint32_t b) {
    return (a & std::uint64_t(0xFFFFFFFF)) * std::uint64_t(b);
}

// vpmuludq, which gcc 12 does not find: it multiplies 64-bit lanes by three such products.
#if defined(__SSE2__)
static inline Vector<std::uint64_t, 16> low_product(Vector<std::uint64_t, 16> a, std::uint32_t b) {
    return bits_as<Vector<std::uint64_t, 16>>(
        _mm_mul_epu32(bits_as<__m128i>(a), _mm_set1_epi64x(std::int64_t(b))));
}
#endif
#if defined(__AVX2__)
static inline Vector<std::uint64_t, 32> low_product(Vector<std::uint64_t, 32> a, std::uint32_t b) {
    return bits_as<Vector<std::uint64_t, 32>>(
        _mm256_mul_epu32(bits_as<__m256i>(a), _mm256_set1_epi64x(std::int64_t(b))));
}
#endif
#if defined(__AVX512F__)
static inline Vector<std::uint64_t, 64> low_product(Vector<std::uint64_t, 64> a, std::uint32_t b) {
    return bits_as<Vector<std::uint64_t, 64>>(
        _mm512_mul_epu32(bits_as<__m512i>(a), _mm512_set1_epi64(std::int64_t(b))));
}
#endif

#endif  // !__CUDACC__

}  // namespace abcdeep
