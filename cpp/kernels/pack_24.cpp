// 2:4 packing: two of four units and four bits of metadata, and back.
#include "pack_24.hpp"

#include <algorithm>

#include "kernels.hpp"
#include "narrow_lanes.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

using Bytes = PackedBytes;
using Halves = Vector<std::uint16_t>;
using Words = WordLanes;

constexpr int block_bytes = 128;  // dense bytes handled together
constexpr int vectors = block_bytes / int(sizeof(Bytes));
constexpr std::int64_t tile_bytes = 4096;

// A lane holds one group of four units.
template <int unit>
using Lane = std::conditional_t<unit == 1, std::uint32_t, std::uint64_t>;
template <int unit>
using Groups = Vector<Lane<unit>>;
template <int unit>
constexpr int block_groups = block_bytes / 4 / unit;
template <int unit>
constexpr int code_bytes = block_groups<unit> / 2;

// Ones in the bytes of elements of `test` bytes without a bit of `magnitude`.
template <int test>
static inline Bytes zero_elements(Bytes v, Words magnitude) {
    using T = std::conditional_t<test == 1, std::uint8_t,
                                 std::conditional_t<test == 2, std::uint16_t, std::uint32_t>>;
    const auto bits = bits_as<Vector<T>>(bits_as<Words>(v) & magnitude);
    return bits_as<Bytes>(bits == Vector<T>{});
}

// One bit for each unit of the block with a bit of `magnitude`; `test` bytes share what they have.
template <int unit, int test>
static inline void find_units(const Bytes (&v)[vectors], Words magnitude, std::uint8_t* units) {
#if defined(__AVX512BW__) && ABCDEEP_VECTOR_BYTES == 64
    for (int i = 0; i < vectors; ++i) {
        const __m512i x = __m512i(bits_as<Words>(v[i])), m = __m512i(magnitude);
        if constexpr (test == 1) {
            store(units + 8 * i, std::uint64_t(_mm512_test_epi8_mask(x, m)));
        } else if constexpr (test == 2) {
            store(units + 4 * i, std::uint32_t(_mm512_test_epi16_mask(x, m)));
        } else {
            const __m512i whole = _mm512_movm_epi32(_mm512_test_epi32_mask(x, m));
            store(units + 4 * i, std::uint32_t(_mm512_movepi16_mask(whole)));
        }
    }
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    if constexpr (unit == 1) {
        for (int i = 0; i < vectors; ++i)
            store(units + 4 * i, ~std::uint32_t(_mm256_movemask_epi8(
                                     __m256i(zero_elements<test>(v[i], magnitude)))));
    } else {
        for (int i = 0; i < vectors; i += 2) {
            const __m256i both =
                _mm256_packs_epi16(__m256i(zero_elements<test>(v[i], magnitude)),
                                   __m256i(zero_elements<test>(v[i + 1], magnitude)));
            store(units + 2 * i,
                  ~std::uint32_t(_mm256_movemask_epi8(_mm256_permute4x64_epi64(both, 0xD8))));
        }
    }
#elif defined(__SSE2__) && ABCDEEP_VECTOR_BYTES == 16
    if constexpr (unit == 1) {
        for (int i = 0; i < vectors; ++i)
            store(units + 2 * i,
                  std::uint16_t(~_mm_movemask_epi8(__m128i(zero_elements<test>(v[i], magnitude)))));
    } else {
        for (int i = 0; i < vectors; i += 2) {
            const __m128i both = _mm_packs_epi16(__m128i(zero_elements<test>(v[i], magnitude)),
                                                 __m128i(zero_elements<test>(v[i + 1], magnitude)));
            store(units + i, std::uint16_t(~_mm_movemask_epi8(both)));
        }
    }
#else
    for (int i = 0; i < vectors; ++i) {
        const Bytes zero = zero_elements<test>(v[i], magnitude);
        for (int j = 0; j < int(sizeof(Bytes)) / unit; ++j) {
            const int bit = i * int(sizeof(Bytes)) / unit + j;
            if (bit % 8 == 0) units[bit / 8] = 0;
            units[bit / 8] |= std::uint8_t((zero[j * unit] == 0) << (bit % 8));
        }
    }
#endif
}

// The low halves of the lanes of a and b, in order.
static inline Bytes low_halves(Groups<1> a, Groups<1> b) {
    const WordLanes both[2] = {a, b};
    return pack<std::uint16_t>(both);
}

template <std::size_t... i>
static inline Bytes even_words(Words a, Words b, std::index_sequence<i...>) {
    return bits_as<Bytes>(__builtin_shufflevector(a, b, (2 * int(i))...));
}

static inline Bytes low_halves(Groups<2> a, Groups<2> b) {
#if defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    const __m256 mixed = _mm256_shuffle_ps(__m256(a), __m256(b), 0x88);
    return bits_as<Bytes>(_mm256_permute4x64_epi64(__m256i(mixed), 0xD8));
#else
    return even_words(bits_as<Words>(a), bits_as<Words>(b),
                      std::make_index_sequence<lanes<Words>>());
#endif
}

// Numbers as wide as half a lane, one in each lane.
template <int unit>
static inline Groups<unit> widen_values(const std::uint8_t* from) {
    if constexpr (unit == 1) {
        return widen(reinterpret_cast<const std::uint16_t*>(from));
    } else {
        using Narrow = typename VectorOf<std::uint32_t, int(sizeof(Words)) / 2>::type;
        const Narrow narrow = load<Narrow>(from);
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
        return Groups<2>(_mm512_cvtepu32_epi64(__m256i(narrow)));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
        return Groups<2>(_mm256_cvtepu32_epi64(__m128i(narrow)));
#else
        Groups<2> v{};
        for (int i = 0; i < lanes<Groups<2>>; ++i) v[i] = narrow[i];
        return v;
#endif
    }
}

// The codes of the groups of vector number i of a block, one in the low bits of each lane.
template <int unit>
static inline Groups<unit> lane_codes(const std::uint64_t* codes, int i) {
    using G = Groups<unit>;
    using L = Lane<unit>;
    constexpr int count = lanes<G>;
    const std::uint64_t bits = codes[i * count / 16] >> (i * count % 16 * 4);
    G all = G{} + L(bits), shifts{};
    for (int j = 0; j < count; ++j) shifts[j] = L(j % 8 * 4);
    if constexpr (count == 16) {
        G first{};
        for (int j = 0; j < count; ++j) first[j] = j < 8 ? ~L(0) : L(0);
        all = (all & first) | ((G{} + L(bits >> 32)) & ~first);
    }
    return all >> shifts;
}

// in: block_bytes of dense units; out: half as many bytes. `tested`: where the units kept have
// bits.
template <int unit, int test>
static inline std::uint16_t pack_block(const PackJob& job, const std::uint8_t* in,
                                       const std::uint8_t* tested, Words magnitude,
                                       std::uint8_t* out, std::uint8_t* metadata) {
    using G = Groups<unit>;
    constexpr int bits = 8 * unit;
    constexpr auto low = Lane<unit>((std::uint64_t(1) << bits) - 1);
    Bytes v[vectors];
    for (int i = 0; i < vectors; ++i) v[i] = load<Bytes>(tested + i * int(sizeof(Bytes)));
    std::uint8_t units[2 * code_bytes<unit>];
    find_units<unit, test>(v, magnitude, units);
    std::uint64_t codes[code_bytes<unit> / 8] = {};
    std::uint16_t seen = 0;
    for (int i = 0; i < code_bytes<unit>; ++i) {
        const std::uint16_t code = job.codes[units[i]];
        seen |= code;
        codes[i / 8] |= std::uint64_t(code & 255) << (i % 8 * 8);
    }
    std::memcpy(metadata, codes, sizeof codes);
    for (int i = 0; i < vectors; i += 2) {
        G kept[2];
        for (int j = 0; j < 2; ++j) {
            const G x = load<G>(in + (i + j) * int(sizeof(G)));
            const G code = lane_codes<unit>(codes, i + j);
            const G first = x >> ((code & 3) * bits), second = x >> ((code >> 2 & 3) * bits);
            kept[j] = (first & low) | (second & low) << bits;
        }
        store(out + i / 2 * int(sizeof(Bytes)), low_halves(kept[0], kept[1]));
    }
    return seen;
}

template <int unit>
static inline void unpack_block(const std::uint8_t* in, const std::uint8_t* metadata,
                                std::uint8_t* out) {
    using G = Groups<unit>;
    constexpr int bits = 8 * unit;
    constexpr auto low = Lane<unit>((std::uint64_t(1) << bits) - 1);
    std::uint64_t codes[code_bytes<unit> / 8];
    std::memcpy(codes, metadata, sizeof codes);
    for (int i = 0; i < vectors; ++i) {
        const G x = widen_values<unit>(in + i * int(sizeof(G)) / 2);
        const G code = lane_codes<unit>(codes, i);
        store(out + i * int(sizeof(G)),
              (x & low) << ((code & 3) * bits) | (x >> bits) << ((code >> 2 & 3) * bits));
    }
}

// Elements that are not kept become zero, and `tested` has every bit of the others.
template <class T>
void apply_mask(const std::uint8_t* in, const std::uint8_t* kept, std::int64_t size,
                std::uint8_t* masked, std::uint8_t* tested) {
    for (std::int64_t i = 0; i < size / std::int64_t(sizeof(T)); ++i) {
        const T all = kept[i] != 0 ? T(~T(0)) : T(0);
        const T x = T(load<T>(in + i * sizeof(T)) & all);
        store(masked + i * sizeof(T), x);
        store(tested + i * sizeof(T), all);
    }
}

// A run of `size` dense bytes from number `first` on, of 4-bit codes in order.
template <int unit, int test>
[[gnu::noinline]] std::uint16_t pack_run(const PackJob& job, std::int64_t first, std::int64_t size,
                                         std::uint8_t* metadata) {
    alignas(64) std::uint8_t masked[tile_bytes], tested[tile_bytes];
    Words magnitude = Words{} + (job.kept ? ~0u : job.magnitude);
    std::uint16_t seen = 0;
    for (std::int64_t done = 0; done < size; done += tile_bytes) {
        const std::int64_t left = std::min(tile_bytes, size - done);
        const std::uint8_t *from = job.in + first + done, *bits = from;
        if (job.kept) {
            const std::uint8_t* kept = job.kept + (first + done) / job.element_bytes;
            if (job.element_bytes == 1)
                apply_mask<std::uint8_t>(from, kept, left, masked, tested);
            else if (job.element_bytes == 2)
                apply_mask<std::uint16_t>(from, kept, left, masked, tested);
            else
                apply_mask<std::uint32_t>(from, kept, left, masked, tested);
            from = masked;
            bits = tested;
        }
        std::uint8_t* out = job.out + (first + done) / 2;
        std::uint8_t* codes = metadata + done / 8 / unit;
        const std::int64_t whole = left / block_bytes * block_bytes;
        for (std::int64_t i = 0; i < whole; i += block_bytes)
            seen |= pack_block<unit, test>(job, from + i, bits + i, magnitude, out + i / 2,
                                           codes + i / 8 / unit);
        if (whole < left) {
            std::uint8_t rest[block_bytes] = {}, rest_bits[block_bytes] = {};
            std::uint8_t rest_out[block_bytes / 2], rest_codes[code_bytes<unit>];
            std::memcpy(rest, from + whole, std::size_t(left - whole));
            std::memcpy(rest_bits, bits + whole, std::size_t(left - whole));
            seen |= pack_block<unit, test>(job, rest, rest_bits, magnitude, rest_out, rest_codes);
            std::memcpy(out + whole / 2, rest_out, std::size_t(left - whole) / 2);
            std::memcpy(codes + whole / 8 / unit, rest_codes, std::size_t(left - whole) / 8 / unit);
        }
    }
    return seen;
}

std::uint16_t check_codes(const PackJob& job, const std::uint8_t* metadata, std::int64_t size) {
    std::uint16_t seen = 0;
    for (std::int64_t i = 0; i < size; ++i) seen |= job.codes[metadata[i]];
    return seen;
}

template <int unit>
[[gnu::noinline]] void unpack_run(const PackJob& job, std::int64_t first, std::int64_t size,
                                  const std::uint8_t* metadata) {
    const std::uint8_t* in = job.in + first / 2;
    std::uint8_t* out = job.out + first;
    const std::int64_t whole = size / block_bytes * block_bytes;
    for (std::int64_t i = 0; i < whole; i += block_bytes)
        unpack_block<unit>(in + i / 2, metadata + i / 8 / unit, out + i);
    if (whole < size) {
        std::uint8_t rest[block_bytes / 2] = {}, codes[code_bytes<unit>] = {};
        std::uint8_t rest_out[block_bytes];
        std::memcpy(rest, in + whole / 2, std::size_t(size - whole) / 2);
        std::memcpy(codes, metadata + whole / 8 / unit, std::size_t(size - whole) / 8 / unit);
        unpack_block<unit>(rest, codes, rest_out);
        std::memcpy(out + whole, rest_out, std::size_t(size - whole));
    }
}

// Codes of a tile of rows, a stream of its own for each, and the words of metadata they are.
constexpr std::int64_t stream_bytes = tile_bytes / 8;
using Streams = std::uint8_t[reordered_rows][stream_bytes];

// move(word of metadata, the same in a stream). Row `top` is the first of the tile; streams start
// at word number `column`, even.
template <class Word, class Move>
void for_words(const PackJob& job, std::int64_t top, std::int64_t count, std::int64_t column,
               std::int64_t words, Streams& streams, const Move& move) {
    const std::int64_t row_words = job.row_bytes / 8 / job.unit_bytes / std::int64_t(sizeof(Word));
    const std::int64_t matrix = top / job.rows;
    std::int64_t places[reordered_rows][2];
    for (std::int64_t r = 0; r < count; ++r)
        for (int odd = 0; odd < 2; ++odd)
            places[r][odd] = reordered_word(job.rows, (top + r) % job.rows, odd, sizeof(Word));
    std::uint8_t* origin = job.metadata + matrix * job.rows * row_words * sizeof(Word);
    for (std::int64_t i = 0; i < words; i += 2) {
        std::uint8_t* pair = origin + (column + i) * job.rows * std::int64_t(sizeof(Word));
        for (std::int64_t r = 0; r < count; ++r)
            for (int odd = 0; odd < 2; ++odd)
                move(pair + places[r][odd] * std::int64_t(sizeof(Word)),
                     &streams[r][(i + odd) * std::int64_t(sizeof(Word))]);
    }
}

template <class Word>
void scatter_words(const PackJob& job, std::int64_t top, std::int64_t count, std::int64_t column,
                   std::int64_t words, Streams& streams) {
    for_words<Word>(
        job, top, count, column, words, streams,
        [](std::uint8_t* to, const std::uint8_t* from) { std::memcpy(to, from, sizeof(Word)); });
}

template <class Word>
void gather_words(const PackJob& job, std::int64_t top, std::int64_t count, std::int64_t column,
                  std::int64_t words, Streams& streams) {
    for_words<Word>(
        job, top, count, column, words, streams,
        [](const std::uint8_t* from, std::uint8_t* to) { std::memcpy(to, from, sizeof(Word)); });
}

// work(first row, rows, first dense byte of a row, dense bytes) for tiles of reordered metadata,
// which do not cross matrices of an odd number of 16 rows.
template <class Work>
void for_tiles(const PackJob& job, std::int64_t begin, std::int64_t end, const Work& work) {
    for (std::int64_t top = begin; top < end;) {
        const std::int64_t bottom = (top / job.rows + 1) * job.rows;
        const std::int64_t count = std::min({reordered_rows, bottom - top, end - top});
        for (std::int64_t at = 0; at < job.row_bytes; at += tile_bytes)
            work(top, count, at, std::min(tile_bytes, job.row_bytes - at));
        top += count;
    }
}

template <int unit, int test>
std::uint16_t pack_rows(const PackJob& job, std::int64_t begin, std::int64_t end) {
    if (!job.reordered)
        return pack_run<unit, test>(job, begin * job.row_bytes, (end - begin) * job.row_bytes,
                                    job.metadata + begin * job.row_bytes / 8 / unit);
    std::uint16_t seen = 0;
    for_tiles(job, begin, end, [&](auto top, auto count, auto at, auto size) {
        alignas(64) Streams streams;
        for (std::int64_t r = 0; r < count; ++r)
            seen |= pack_run<unit, test>(job, (top + r) * job.row_bytes + at, size, streams[r]);
        const std::int64_t word = 8 * unit * job.word_bytes;
        if (job.word_bytes == 2)
            scatter_words<std::uint16_t>(job, top, count, at / word, size / word, streams);
        else
            scatter_words<std::uint32_t>(job, top, count, at / word, size / word, streams);
    });
    return seen;
}

template <int unit>
std::uint16_t unpack_rows(const PackJob& job, std::int64_t begin, std::int64_t end) {
    const std::int64_t codes = job.row_bytes / 8 / unit;
    if (!job.out) return check_codes(job, job.metadata + begin * codes, (end - begin) * codes);
    if (!job.reordered) {
        unpack_run<unit>(job, begin * job.row_bytes, (end - begin) * job.row_bytes,
                         job.metadata + begin * codes);
        return 0;
    }
    for_tiles(job, begin, end, [&](auto top, auto count, auto at, auto size) {
        alignas(64) Streams streams;
        const std::int64_t word = 8 * unit * job.word_bytes;
        if (job.word_bytes == 2)
            gather_words<std::uint16_t>(job, top, count, at / word, size / word, streams);
        else
            gather_words<std::uint32_t>(job, top, count, at / word, size / word, streams);
        for (std::int64_t r = 0; r < count; ++r)
            unpack_run<unit>(job, (top + r) * job.row_bytes + at, size, streams[r]);
    });
    return 0;
}

}  // namespace

unsigned pack_24(const PackJob& job, std::int64_t begin, std::int64_t end) {
    if (job.unit_bytes == 1) return pack_rows<1, 1>(job, begin, end) & packing_fault;
    if (job.test_bytes == 2) return pack_rows<2, 2>(job, begin, end) & packing_fault;
    return pack_rows<2, 4>(job, begin, end) & packing_fault;
}

unsigned unpack_24(const PackJob& job, std::int64_t begin, std::int64_t end) {
    if (job.unit_bytes == 1) return unpack_rows<1>(job, begin, end) & packing_fault;
    return unpack_rows<2>(job, begin, end) & packing_fault;
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
