// Vectors of doubles: comparisons as masks, masks from and to bits, smaller and larger ones.
#pragma once

#include "simd.hpp"

namespace abcdeep {
namespace {

using DoubleLanes = Vector<double>;

// AVX-512 compares into one bit a lane, other instruction sets into lanes of all ones or zero.
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
using DoubleMask = std::uint8_t;

// gcc 12 warns of the unmasked intrinsics; the instructions are the same.
constexpr __mmask8 every_lane = 0xFF;

static inline DoubleMask mask_of(std::uint32_t bits) { return DoubleMask(bits); }
static inline std::uint32_t bits_of(DoubleMask mask) { return mask; }
static inline DoubleMask below(DoubleLanes x, DoubleLanes y) {
    return _mm512_cmp_pd_mask(__m512d(x), __m512d(y), _CMP_LT_OQ);
}
static inline DoubleMask equal(DoubleLanes x, DoubleLanes y) {
    return _mm512_cmp_pd_mask(__m512d(x), __m512d(y), _CMP_EQ_OQ);
}
static inline DoubleLanes choose(DoubleMask mask, DoubleLanes x, DoubleLanes y) {
    return DoubleLanes(_mm512_mask_mov_pd(__m512d(y), mask, __m512d(x)));
}
static inline DoubleLanes smaller(DoubleLanes x, DoubleLanes y) {
    return DoubleLanes(_mm512_maskz_min_pd(every_lane, __m512d(x), __m512d(y)));
}
static inline DoubleLanes larger(DoubleLanes x, DoubleLanes y) {
    return DoubleLanes(_mm512_maskz_max_pd(every_lane, __m512d(x), __m512d(y)));
}
static inline double smallest_lane(DoubleLanes x) {
    x = smaller(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3));
    x = smaller(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5));
    x = smaller(x, __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6));
    return x[0];
}
#else
using DoubleMask = Vector<std::int64_t>;

template <int... lane>
static inline DoubleMask mask_of(std::uint32_t bits, std::integer_sequence<int, lane...>) {
    const DoubleMask own = {(std::int64_t(1) << lane)...};
    return ((DoubleMask{} + std::int64_t(bits)) & own) == own;
}
static inline DoubleMask mask_of(std::uint32_t bits) {
    return mask_of(bits, std::make_integer_sequence<int, lanes<DoubleLanes> >());
}
static inline std::uint32_t bits_of(DoubleMask mask) {
#if defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return std::uint32_t(_mm256_movemask_pd(__m256d(mask)));
#elif defined(__SSE2__) && ABCDEEP_VECTOR_BYTES == 16
    return std::uint32_t(_mm_movemask_pd(__m128d(mask)));
#else
    std::uint32_t bits = 0;
    for (int j = 0; j < lanes<DoubleMask>; ++j) bits |= std::uint32_t(mask[j] != 0) << j;
    return bits;
#endif
}
static inline DoubleMask below(DoubleLanes x, DoubleLanes y) { return x < y; }
static inline DoubleMask equal(DoubleLanes x, DoubleLanes y) { return x == y; }
static inline DoubleLanes choose(DoubleMask mask, DoubleLanes x, DoubleLanes y) {
    return select(mask, x, y);
}
static inline DoubleLanes smaller(DoubleLanes x, DoubleLanes y) {
#if defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return DoubleLanes(_mm256_min_pd(__m256d(x), __m256d(y)));
#elif defined(__SSE2__) && ABCDEEP_VECTOR_BYTES == 16
    return DoubleLanes(_mm_min_pd(__m128d(x), __m128d(y)));
#else
    return select(x < y, x, y);
#endif
}
static inline DoubleLanes larger(DoubleLanes x, DoubleLanes y) {
#if defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return DoubleLanes(_mm256_max_pd(__m256d(x), __m256d(y)));
#elif defined(__SSE2__) && ABCDEEP_VECTOR_BYTES == 16
    return DoubleLanes(_mm_max_pd(__m128d(x), __m128d(y)));
#else
    return select(x > y, x, y);
#endif
}
static inline double smallest_lane(DoubleLanes x) {
    double least = x[0];
    for (int j = 1; j < lanes<DoubleLanes>; ++j) least = x[j] < least ? x[j] : least;
    return least;
}
#endif

}  // namespace
}  // namespace abcdeep
