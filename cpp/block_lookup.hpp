// A table look-up in every lane.
#pragma once

#include <cstdint>

#include "narrow_lanes.hpp"

namespace abcdeep {
namespace {

// The values of as many words as fill a vector, from a table of 256 of which, if `few`, the words
// reach the first 16.
template <bool few>
class Lookup {
  public:
    explicit Lookup(const float* table) : table_(table) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
        low_ = load<FloatLanes>(table);
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
        low_ = load<FloatLanes>(table);
        high_ = load<FloatLanes>(table + 8);
#endif
    }

    FloatLanes operator()(WordLanes words) const {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
        const __m512i index = __m512i(words);
        if constexpr (few) return FloatLanes(_mm512_permutexvar_ps(index, __m512(low_)));
        return FloatLanes(_mm512_i32gather_ps(index, table_, 4));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
        const __m256i index = __m256i(words);
        if constexpr (few) {
            const __m256 low = _mm256_permutevar8x32_ps(__m256(low_), index);
            const __m256 high = _mm256_permutevar8x32_ps(__m256(high_), index);
            const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
            return FloatLanes(_mm256_blendv_ps(low, high, upper));
        }
        return FloatLanes(_mm256_i32gather_ps(table_, index, 4));
#else
        FloatLanes values;
        for (int i = 0; i < lanes<FloatLanes>; ++i) values[i] = table_[words[i]];
        return values;
#endif
    }

  private:
    const float* table_;
    FloatLanes low_{}, high_{};
};

}  // namespace
}  // namespace abcdeep
