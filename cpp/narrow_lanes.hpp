// Whole arrays through a function of one vector: aligned stores, narrow results packed together.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "simd.hpp"

namespace abcdeep {
namespace {

using WordLanes = Vector<std::uint32_t>;
using FloatLanes = Vector<float>;
using SignedLanes = Vector<std::int32_t>;
using PackedBytes = Vector<std::uint8_t>;

// gcc 12 does not find the instruction.
static inline SignedLanes larger(SignedLanes a, SignedLanes b) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return SignedLanes(_mm512_max_epi32(__m512i(a), __m512i(b)));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return SignedLanes(_mm256_max_epi32(__m256i(a), __m256i(b)));
#else
    return select(a > b, a, b);
#endif
}

// Vectors of 32-bit words that fill one vector of results.
template <class Out>
inline constexpr int group_vectors = 4 / sizeof(Out);
template <class Out>
inline constexpr int group_elements = group_vectors<Out> * lanes<WordLanes>;

// The low 8 or 16 bits of the words of a group, in order; 8 of them with zeros up to bit 16. The
// instructions that narrow within 128 bits are followed by one that puts the 32- or 64-bit pieces
// in order.
template <class Out>
static inline PackedBytes pack(const WordLanes (&word)[group_vectors<Out>]) {
#if defined(__AVX512BW__) && ABCDEEP_VECTOR_BYTES == 64
    const auto low_halves = [&word](int v) {
        const __m512i even =
            _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28,
                             26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
        return _mm512_permutex2var_epi16(__m512i(word[v]), even, __m512i(word[v + 1]));
    };
    if constexpr (sizeof(Out) == 2) {
        return bits_as<PackedBytes>(low_halves(0));
    } else {
        const __m512i pairs = _mm512_packus_epi16(low_halves(0), low_halves(2));
        const __m512i order = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
        return bits_as<PackedBytes>(_mm512_permutexvar_epi64(order, pairs));
    }
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    const WordLanes mask = WordLanes{} + (sizeof(Out) == 1 ? 0xFFu : 0xFFFFu);
    const __m256i a = _mm256_packus_epi32(__m256i(word[0] & mask), __m256i(word[1] & mask));
    if constexpr (sizeof(Out) == 2) {
        return bits_as<PackedBytes>(_mm256_permute4x64_epi64(a, 0xD8));
    } else {
        const __m256i b = _mm256_packus_epi32(__m256i(word[2] & mask), __m256i(word[3] & mask));
        const __m256i order = _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0);
        return bits_as<PackedBytes>(_mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b), order));
    }
#elif defined(__SSE2__) && ABCDEEP_VECTOR_BYTES == 16
    // Signed saturation: words of 16 bits are packed sign-extended.
    const auto low = [&word](int v) {
        if constexpr (sizeof(Out) == 1) return __m128i(word[v] & 0xFFu);
        return __m128i(SignedLanes(word[v] << 16) >> 16);
    };
    const __m128i a = _mm_packs_epi32(low(0), low(1));
    if constexpr (sizeof(Out) == 2) {
        return bits_as<PackedBytes>(a);
    } else {
        const __m128i b = _mm_packs_epi32(low(2), low(3));
        return bits_as<PackedBytes>(_mm_packus_epi16(a, b));
    }
#else
    constexpr int n = lanes<WordLanes>;
    Vector<Out> packed;
    for (int i = 0; i < group_elements<Out>; ++i) packed[i] = Out(word[i / n][i % n]);
    return bits_as<PackedBytes>(packed);
#endif
}

// lanes<WordLanes> numbers of 8 or 16 bits, one in each word. gcc 12 makes scalars of
// __builtin_convertvector.
template <class In>
static inline WordLanes widen(const In* from) {
    using Narrow = typename VectorOf<In, sizeof(In) * lanes<WordLanes>>::type;
    const Narrow narrow = load<Narrow>(from);
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    if constexpr (sizeof(In) == 1)
        return WordLanes(_mm512_cvtepu8_epi32(__m128i(narrow)));
    else
        return WordLanes(_mm512_cvtepu16_epi32(__m256i(narrow)));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    if constexpr (sizeof(In) == 1)
        return WordLanes(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bits_as<long long>(narrow))));
    else
        return WordLanes(_mm256_cvtepu16_epi32(__m128i(narrow)));
#elif defined(__SSE2__)
    const __m128i zero = _mm_setzero_si128();
    if constexpr (sizeof(In) == 1) {
        const __m128i bytes = _mm_cvtsi32_si128(bits_as<int>(narrow));
        return WordLanes(_mm_unpacklo_epi16(_mm_unpacklo_epi8(bytes, zero), zero));
    } else {
        return WordLanes(_mm_unpacklo_epi16(_mm_cvtsi64_si128(bits_as<long long>(narrow)), zero));
    }
#else
    return __builtin_convertvector(narrow, WordLanes);
#endif
}

template <class Out>
static inline void store_past_caches(Out* to, WordLanes v) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), __m512i(v));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), __m256i(v));
#elif defined(__SSE2__)
    _mm_stream_si128(reinterpret_cast<__m128i*>(to), __m128i(v));
#else
    store(to, v);
#endif
}

// After the last store of a piece of work.
static inline void finish_streaming() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

// out[i] = step(in + i, first + i), where step gives the words of lanes<WordLanes> inputs. What
// does not fill a vector, or precedes the first aligned one, is filled up with zeros.
template <bool stream, class In, class Out, class Step>
    requires(sizeof(Out) == 4)
static inline void for_lanes(const In* in, Out* out, std::int64_t count, const Step& step,
                             typename Step::Seen& seen, std::int64_t first = 0) {
    constexpr int n = lanes<WordLanes>;
    const auto part = [&](std::int64_t at, std::int64_t size) {
        In from[n] = {};
        Out to[n];
        std::memcpy(from, in + at, std::size_t(size) * sizeof(In));
        store(to, step(from, first + at, seen));
        std::memcpy(out + at, to, std::size_t(size) * sizeof(Out));
    };
    std::int64_t i = 0;
    const auto misaligned = reinterpret_cast<std::uintptr_t>(out) % sizeof(WordLanes);
    if (misaligned != 0) {
        i = std::min<std::int64_t>(count, (sizeof(WordLanes) - misaligned) / sizeof(Out));
        part(0, i);
    }
    // Copies without a pointer to them: the compiler keeps them in registers.
    const Step local = step;
    typename Step::Seen seen_here{};
    for (; i + n <= count; i += n) {
        if constexpr (stream)
            store_past_caches(out + i, local(in + i, first + i, seen_here));
        else
            store(out + i, local(in + i, first + i, seen_here));
    }
    seen |= seen_here;
    if (i < count) part(i, count - i);
}

// The same with the low bits of the words packed together, a tile at a time: a loop of one vector
// keeps its constants in registers, which one of four does not.
template <bool stream, class In, class Out, class Step>
    requires(sizeof(Out) < 4)
static inline void for_lanes(const In* in, Out* out, std::int64_t count, const Step& step,
                             typename Step::Seen& seen, std::int64_t first = 0) {
    constexpr int tile = 1024, elements = group_elements<Out>;
    alignas(64) std::uint32_t words[tile] = {};
    for (std::int64_t i = 0; i < count; i += tile) {
        const std::int64_t size = std::min<std::int64_t>(tile, count - i);
        for_lanes<false>(in + i, words, size, step, seen, first + i);
        for (std::int64_t j = 0; j < size; j += elements) {
            WordLanes word[group_vectors<Out>];
            for (int v = 0; v < group_vectors<Out>; ++v)
                word[v] = load<WordLanes>(words + j + v * lanes<WordLanes>);
            const PackedBytes packed = pack<Out>(word);
            if (j + elements <= size)
                store(out + i + j, packed);
            else
                std::memcpy(out + i + j, &packed, std::size_t(size - j) * sizeof(Out));
        }
    }
}

}  // namespace
}  // namespace abcdeep
