// Comparisons of vectors of 32-bit lanes as masks, counts of their lanes, and the smaller and
// larger of two vectors.
#pragma once

#include "simd.hpp"

namespace abcdeep {
namespace {

// AVX-512 compares into one bit a lane, other instruction sets into lanes of all ones or zero.
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
using LaneMask = std::uint32_t;

inline std::uint32_t mask_bits(LaneMask mask) { return mask; }

inline LaneMask equal_lanes(Vector<float> x, Vector<float> y) {
    return _mm512_cmp_ps_mask(__m512(x), __m512(y), _CMP_EQ_OQ);
}
inline LaneMask unequal_lanes(Vector<float> x, Vector<float> y) {
    return _mm512_cmp_ps_mask(__m512(x), __m512(y), _CMP_NEQ_UQ);
}
// |x| >= limit
inline LaneMask large_lanes(Vector<float> x, Vector<float> limit) {
    return _mm512_cmp_ps_mask(_mm512_abs_ps(__m512(x)), __m512(limit), _CMP_GE_OQ);
}
inline LaneMask equal_lanes(Vector<std::int32_t> x, Vector<std::int32_t> y) {
    return _mm512_cmpeq_epi32_mask(__m512i(x), __m512i(y));
}
inline LaneMask above_lanes(Vector<std::int32_t> x, Vector<std::int32_t> y) {
    return _mm512_cmpgt_epi32_mask(__m512i(x), __m512i(y));
}
inline Vector<float> smaller(Vector<float> x, Vector<float> y) {
    return Vector<float>(_mm512_min_ps(__m512(x), __m512(y)));
}
inline Vector<float> larger(Vector<float> x, Vector<float> y) {
    return Vector<float>(_mm512_max_ps(__m512(x), __m512(y)));
}
#else
using LaneMask = Vector<std::int32_t>;

inline std::uint32_t mask_bits(LaneMask mask) {
#if defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return std::uint32_t(_mm256_movemask_ps(__m256(mask)));
#elif defined(__SSE2__) && ABCDEEP_VECTOR_BYTES == 16
    return std::uint32_t(_mm_movemask_ps(__m128(mask)));
#else
    std::uint32_t bits = 0;
    for (int j = 0; j < lanes<LaneMask>; ++j) bits |= std::uint32_t(mask[j] != 0) << j;
    return bits;
#endif
}

inline LaneMask equal_lanes(Vector<float> x, Vector<float> y) { return x == y; }
inline LaneMask unequal_lanes(Vector<float> x, Vector<float> y) { return x != y; }
inline LaneMask large_lanes(Vector<float> x, Vector<float> limit) {
    return bits_as<Vector<float>>(bits_as<Vector<std::uint32_t>>(x) & 0x7fffffffu) >= limit;
}
inline LaneMask equal_lanes(Vector<std::int32_t> x, Vector<std::int32_t> y) { return x == y; }
inline LaneMask above_lanes(Vector<std::int32_t> x, Vector<std::int32_t> y) { return x > y; }
inline Vector<float> smaller(Vector<float> x, Vector<float> y) {
#if defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return Vector<float>(_mm256_min_ps(__m256(x), __m256(y)));
#else
    return select(x < y, x, y);
#endif
}
inline Vector<float> larger(Vector<float> x, Vector<float> y) {
#if defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return Vector<float>(_mm256_max_ps(__m256(x), __m256(y)));
#else
    return select(x > y, x, y);
#endif
}
#endif

inline Vector<std::int32_t> smaller(Vector<std::int32_t> x, Vector<std::int32_t> y) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return Vector<std::int32_t>(_mm512_min_epi32(__m512i(x), __m512i(y)));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return Vector<std::int32_t>(_mm256_min_epi32(__m256i(x), __m256i(y)));
#else
    return select(x < y, x, y);
#endif
}
inline Vector<std::int32_t> larger(Vector<std::int32_t> x, Vector<std::int32_t> y) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return Vector<std::int32_t>(_mm512_max_epi32(__m512i(x), __m512i(y)));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return Vector<std::int32_t>(_mm256_max_epi32(__m256i(x), __m256i(y)));
#else
    return select(x > y, x, y);
#endif
}

inline Vector<std::uint32_t> larger(Vector<std::uint32_t> x, Vector<std::uint32_t> y) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return Vector<std::uint32_t>(_mm512_max_epu32(__m512i(x), __m512i(y)));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return Vector<std::uint32_t>(_mm256_max_epu32(__m256i(x), __m256i(y)));
#else
    return select(x > y, x, y);
#endif
}

inline std::int64_t count_lanes(LaneMask mask) { return __builtin_popcount(mask_bits(mask)); }

inline std::int64_t sum_of(Vector<std::uint32_t> v) {
    std::int64_t sum = 0;
    for (int j = 0; j < lanes<Vector<std::uint32_t>>; ++j) sum += v[j];
    return sum;
}

// Counts the lanes of masks; less than 2^32 masks.
class LaneCount {
  public:
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    void add(LaneMask mask) { count_ += __builtin_popcount(mask); }
    std::int64_t sum() const { return count_; }

  private:
    std::int64_t count_ = 0;
#else
    void add(LaneMask mask) { counts_ -= Vector<std::uint32_t>(mask); }
    std::int64_t sum() const { return sum_of(counts_); }

  private:
    Vector<std::uint32_t> counts_ = {};
#endif
};

// Counts the lanes of a mask, and those of three parts of it. `flush` at least every 2^16 - 1
// masks.
class PartCounts {
  public:
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    void add(LaneMask all, LaneMask first, LaneMask second, LaneMask third) {
        counts_[0] += __builtin_popcount(all);
        counts_[1] += __builtin_popcount(all & first);
        counts_[2] += __builtin_popcount(all & second);
        counts_[3] += __builtin_popcount(all & third);
    }
    void flush() {}
    std::int64_t sum(int part) const { return counts_[part]; }

  private:
    std::int64_t counts_[4] = {};
#else
    // Two counts of 16 bits in a lane.
    void add(LaneMask all, LaneMask first, LaneMask second, LaneMask third) {
        pairs_[0] -= H(all & halves(all, first));
        pairs_[1] -= H(all & halves(second, third));
    }
    void flush() {
        for (int i = 0; i < 2; ++i) {
            counts_[2 * i] += U(pairs_[i]) & std::uint32_t(0xffff);
            counts_[2 * i + 1] += U(pairs_[i]) >> std::uint32_t(16);
            pairs_[i] = H{};
        }
    }
    std::int64_t sum(int part) const { return sum_of(counts_[part]); }

  private:
    using H = Vector<std::uint16_t>;
    using U = Vector<std::uint32_t>;

    // The low half of each lane of `low`, the high half of that of `high`.
    static LaneMask halves(LaneMask low, LaneMask high) {
#if defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
        return LaneMask(_mm256_blend_epi16(__m256i(low), __m256i(high), 0xaa));
#else
        return (low & 0xffff) | (high & ~0xffff);
#endif
    }

    H pairs_[2] = {};
    U counts_[4] = {};
#endif
};

}  // namespace
}  // namespace abcdeep
