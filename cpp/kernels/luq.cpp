// Logarithmic unbiased quantisation: the levels alpha * 2^k, chosen at random or to nearest.
#include "luq.hpp"

#include <algorithm>

#include "float_environment.hpp"
#include "kernels.hpp"
#include "narrow_lanes.hpp"
#include "random_tile.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

using U = WordLanes;
using V = FloatLanes;

constexpr int tile = 512;  // elements between two visits to memory, where a vector is not enough
constexpr int width = lanes<U>;
constexpr std::uint32_t float_sign = 0x80000000u, float_infinity = 0x7F800000u, one = 0x3F800000u;

// alpha of each lane, the factors that keep it a normal number, and the highest |x| / alpha.
struct Spacing {
    Spacing(U bits, float highest_ratio) : alpha(bits & ~luq_lifted), highest(V{} + highest_ratio) {
        const auto lifted = bits >= luq_lifted;
        lift = select(lifted, V{} + 0x1p64f, V{} + 1.0f);
        lower = select(lifted, V{} + 0x1p-64f, V{} + 1.0f);
    }

    // |x| / alpha, rounded to float32. What a lifted x or a quotient loses below 2^-126 is below
    // every threshold. A power of two never goes up: clipped here, it stays the highest level.
    V ratio(U x) const {
        return clamp_magnitude(bits_as<V>(x & ~float_sign) * lift / bits_as<V>(alpha), highest);
    }

    U alpha;
    V lift, lower, highest;
};

float highest_ratio(const LuqJob& job) {
    return job.grow ? bits_as<float>(float_infinity) : float(1 << (job.levels - 1));
}

// floor(r * 2^32) where r < 1.
static inline U threshold(V r) {
    const V scaled = r * 0x1p32f;
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return U(_mm512_cvttps_epu32(__m512(scaled)));
#else
    // Conversions are to signed numbers; what r >= 1/2 gives is a multiple of 2^8.
    const U small = U(__builtin_convertvector(scaled, SignedLanes));
    const U large = U(__builtin_convertvector(r * 0x1p24f, SignedLanes)) << 8;
    return select(r < 0.5f, small, large);
#endif
}

static inline U changed(U word, const LuqWord& rule) { return (word & rule.keep) | rule.set; }

// 0x3F800000 or 0 where r < 1, else the exponent field of the power of two below or above r.
// The fraction of r carries into the exponent with the complement of a word less than it.
static inline U power(V r, U below, U above) {
    const U bits = bits_as<U>(r);
    const U rounded = (bits + (~above >> 9)) & float_infinity;
    const U kept = select(below < threshold(r), U{} + one, U{});
    return select(r < 1.0f, kept, rounded);
}

// The product of a power of two, given as its exponent field, and alpha, with the sign of x.
template <bool grow>
static inline U value(U field, U x, const Spacing& spacing) {
    U bits = field + (spacing.alpha - one);
    if constexpr (grow) bits = select(bits >= float_infinity, U{} + float_infinity, bits);
    const U signed_bits = bits | (x & float_sign);
    return select(field == 0u, U{}, bits_as<U>(bits_as<V>(signed_bits) * spacing.lower));
}

// Whole tiles of random words for elements of one alpha: from register to register.
template <bool stream>
[[gnu::noinline]] void round_group(const LuqJob& job, std::int64_t begin, std::int64_t count,
                                   std::uint32_t alpha) {
    const RandomAddress address = {job.random.seed, job.random.stream, job.random.call};
    const Spacing spacing(U{} + alpha, highest_ratio(job));
    const float* x = job.x + begin;
    float* out = static_cast<float*>(job.out) + begin;
    RandomTiles tiles(address, std::uint64_t(begin) / 4);
    for (std::int64_t i = 0; i < count; i += 2 * width) {
        RandomLanes words[2];
        tiles.next(words);
#pragma GCC unroll 2
        for (int part = 0; part < 2; ++part) {
            const U bits = load<U>(x + i + part * width);
            const U word = bits_as<U>(words[part]);
            const U field = power(spacing.ratio(bits), word, word);
            const U result = value<false>(field, bits, spacing);
            if constexpr (stream)
                store_past_caches(out + i + part * width, result);
            else
                store(out + i + part * width, result);
        }
    }
    if constexpr (stream) finish_streaming();
}

// Whether |x| / alpha is no float32 number, which only happens where nothing is clipped.
static inline auto beyond(V r, U alphas) { return bits_as<U>(r) == float_infinity && alphas != 0u; }

struct Tile {
    alignas(64) std::uint32_t x[tile];
    alignas(64) std::uint32_t alpha[tile];
    alignas(64) std::uint32_t words[tile];
    alignas(64) std::uint32_t out[tile];
};

void fill_alphas(const LuqJob& job, std::int64_t begin, int count, std::uint32_t* alpha) {
    std::int64_t group = begin / job.inner % job.groups, left = job.inner - begin % job.inner;
    for (int j = 0; j < count;) {
        int take;
        if (job.inner == 1) {
            take = int(std::min<std::int64_t>(job.groups - group, count - j));
            std::copy_n(job.alphas + group, take, alpha + j);
            group += take;
        } else {
            take = int(std::min<std::int64_t>(left, count - j));
            std::fill_n(alpha + j, take, job.alphas[group]);
            left = job.inner;
            ++group;
        }
        if (group == job.groups) group = 0;
        j += take;
    }
}

// The random words of sample number `sample`, and some after them up to the end of the tile.
void draw_words(const LuqJob& job, int sample, std::int64_t begin, int count,
                std::uint32_t* words) {
    if ((job.below.keep | job.above.keep) == 0) return;
    const RandomSource& random = job.random;
    if (random.words) {
        std::copy_n(random.words + sample * job.size + begin, count, words);
        return;
    }
    const RandomAddress address = {random.seed, random.stream, random.call + unsigned(sample)};
    random_draws(address, 32, std::uint64_t(begin), count, words);
}

void round_tile(Tile& t, int count, const LuqJob& job) {
    for (int i = 0; i < count; i += width) {
        const U bits = load<U>(t.x + i), alphas = load<U>(t.alpha + i), word = load<U>(t.words + i);
        const Spacing spacing(alphas, highest_ratio(job));
        const V r = spacing.ratio(bits);
        U field = power(r, changed(word, job.below), changed(word, job.above));
        field = select(alphas == 0u, U{}, field);
        U result;
        if (job.codes) {
            const U code = ((field - one) >> 23) + 1u + (bits >> 31 << 3);
            result = select(field == 0u, U{}, code);
        } else {
            result = value<true>(field, bits, spacing);
            result = select(beyond(r, alphas), U{} + float_infinity, result);
        }
        store(t.out + i, result);
    }
}

// The mean of the samples. Their sum is a small integer times a power of two, exact in float64: of
// 0 and 1 where |x| < alpha, else of two powers, of which the upper counts twice.
void average_tile(Tile& t, std::int64_t begin, int count, const LuqJob& job) {
    alignas(64) float r[tile], sum[tile], unit[tile], lower[tile], mean[tile];
    for (int i = 0; i < tile; i += width) {
        const Spacing spacing(load<U>(t.alpha + i), highest_ratio(job));
        const V ratio = spacing.ratio(load<U>(t.x + i));
        const auto below = ratio < 1.0f;
        const U power = bits_as<U>(ratio) & float_infinity;
        store(r + i, ratio);
        store(sum + i, select(below, V{}, V{} + float(job.samples)));
        store(unit + i, select(below, U{} + one, power));
        store(lower + i, spacing.lower);
    }
    for (int sample = 0; sample < job.samples; ++sample) {
        draw_words(job, sample, begin, count, t.words);
        for (int i = 0; i < count; i += width) {
            const U word = load<U>(t.words + i), ratio = load<U>(r + i);
            const U field =
                power(bits_as<V>(ratio), changed(word, job.below), changed(word, job.above));
            const U not_up = select(ratio < one, U{}, ratio & float_infinity);
            store(sum + i, select(field > not_up, load<V>(sum + i) + 1.0f, load<V>(sum + i)));
        }
    }
    const double samples = job.samples;
    for (int i = 0; i < tile; ++i) {
        const double alpha = double(bits_as<float>(t.alpha[i] & ~luq_lifted)) * double(lower[i]);
        mean[i] = float(double(sum[i]) * double(unit[i]) * alpha / samples);
    }
    for (int i = 0; i < count; i += width) {
        const U alphas = load<U>(t.alpha + i), sign = load<U>(t.x + i) & float_sign;
        U result = select(load<V>(sum + i) == 0.0f, U{}, load<U>(mean + i) | sign);
        result = select(beyond(load<V>(r + i), alphas), U{} + float_infinity, result);
        store(t.out + i, select(alphas == 0u, U{}, result));
    }
}

void round_any(const LuqJob& job, std::int64_t begin, std::int64_t end, Tile& t) {
    for (std::int64_t i = begin; i < end; i += tile) {
        const int count = int(std::min<std::int64_t>(tile, end - i));
        std::memcpy(t.x, job.x + i, sizeof(float) * std::size_t(count));
        fill_alphas(job, i, count, t.alpha);
        if (job.samples > 1) {
            average_tile(t, i, count, job);
        } else {
            draw_words(job, 0, i, count, t.words);
            round_tile(t, count, job);
        }
        if (job.codes) {
            std::uint8_t* out = static_cast<std::uint8_t*>(job.out) + i;
            for (int j = 0; j < count; ++j) out[j] = std::uint8_t(t.out[j]);
        } else {
            std::memcpy(static_cast<float*>(job.out) + i, t.out,
                        sizeof(float) * std::size_t(count));
        }
    }
}

[[gnu::noinline]] void round_range(const LuqJob& job, std::int64_t begin, std::int64_t end) {
    constexpr std::int64_t step = 2 * width;
    const bool plain = !job.codes && !job.grow && job.samples == 1 && !job.random.words &&
                       (job.below.keep & job.above.keep) == ~0u;
    Tile t = {};
    if (!plain || job.inner < 8 * step) return round_any(job, begin, end, t);
    const auto* out = static_cast<const float*>(job.out);
    while (begin < end) {
        const std::int64_t group_end = std::min(end, begin + job.inner - begin % job.inner);
        const std::uint32_t alpha = job.alphas[begin / job.inner % job.groups];
        std::int64_t first = (begin + 3) / 4 * 4;
        const auto aligned = [&] {
            return reinterpret_cast<std::uintptr_t>(out + first) % sizeof(U) == 0;
        };
        for (int k = 0; k < width && !aligned(); k += 4) first += 4;
        const std::int64_t count = (group_end - first) / step * step;
        if (alpha == 0 || count <= 0) {
            round_any(job, begin, group_end, t);
        } else {
            round_any(job, begin, first, t);
            (job.stream && aligned() ? round_group<true> : round_group<false>)(job, first, count,
                                                                               alpha);
            round_any(job, first + count, group_end, t);
        }
        begin = group_end;
    }
}

}  // namespace

void luq(const LuqJob& job, std::int64_t begin, std::int64_t end) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    round_range(job, begin, end);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
