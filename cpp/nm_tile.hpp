// Groups of N:M sparsity side by side, one in each vector lane: loading, storing, walking through
// an array.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>

#include "narrow_lanes.hpp"
#include "nm.hpp"
#include "random_tile.hpp"

namespace abcdeep {
namespace {

// Groups of a tile of at most `P` elements each: what fills a few KiB.
template <int P>
inline constexpr int tile_groups = P >= 32          ? 32
                                   : 1024 / P > 256 ? 256
                                                    : 1024 / P;

// Where element i of group t lies: at t * group + i * element. One of the two is 1. Only the first
// `present` elements exist, the others are virtual zeros.
struct Strides {
    std::int64_t group, element;
    int present;
};

// rows[i][t] = element i of group t; 0 for what does not exist, up to P elements.
template <class X, class E, int P>
void load_groups(const X* x, const Strides& s, int count, E (&rows)[P][tile_groups<P>]) {
    constexpr int n = lanes<Vector<E>>;
    if (count < tile_groups<P> || s.present < P) std::memset(rows, 0, sizeof rows);
    if (s.group == 1) {
        for (int i = 0; i < s.present; ++i)
            for (int t = 0; t < count; ++t) rows[i][t] = E(x[i * s.element + t]);
        return;
    }
    int t = 0;
    if constexpr (std::is_same_v<X, E> && P > 1) {
        if (s.group == P && s.present == P) {
            for (; t + n <= count; t += n) {
                Vector<E> v[P];
#pragma GCC unroll 8
                for (int i = 0; i < P; ++i) {
                    v[i] = load<Vector<E>>(x + t * P + i * n);
                }
                perfect_shuffle<std::countr_zero(unsigned(n))>(v);
#pragma GCC unroll 8
                for (int i = 0; i < P; ++i) {
                    store(&rows[i][t], v[i]);
                }
            }
        }
    }
    for (; t < count; ++t)
        for (int i = 0; i < s.present; ++i) rows[i][t] = E(x[t * s.group + i]);
}

// The inverse, of the elements that exist. stream: x is too large to stay in a cache.
template <class X, class E, int P>
void store_groups(X* x, const Strides& s, int count, const E (&rows)[P][tile_groups<P>],
                  bool stream = false) {
    constexpr int n = lanes<Vector<E>>;
    if (s.group == 1) {
        for (int i = 0; i < s.present; ++i)
            for (int t = 0; t < count; ++t) x[i * s.element + t] = X(rows[i][t]);
        return;
    }
    const bool past_caches = stream && reinterpret_cast<std::uintptr_t>(x) % sizeof(Vector<E>) == 0;
    int t = 0;
    if constexpr (std::is_same_v<X, E> && P > 1) {
        if (s.group == P && s.present == P) {
            for (; t + n <= count; t += n) {
                Vector<E> v[P];
#pragma GCC unroll 8
                for (int i = 0; i < P; ++i) {
                    v[i] = load<Vector<E>>(&rows[i][t]);
                }
                perfect_shuffle<std::countr_zero(unsigned(P))>(v);
#pragma GCC unroll 8
                for (int i = 0; i < P; ++i) {
                    if (past_caches)
                        store_past_caches(x + t * P + i * n, bits_as<WordLanes>(v[i]));
                    else
                        store(x + t * P + i * n, v[i]);
                }
            }
        }
    }
    for (; t < count; ++t)
        for (int i = 0; i < s.present; ++i) x[t * s.group + i] = X(rows[i][t]);
}

// Bytes 0 or 1 of the low 8 bits.
static inline std::uint64_t bytes_of_bits(std::uint32_t bits) {
    const std::uint64_t one_bit_each = (bits & 0xFFu) * 0x0101010101010101u & 0x8040201008040201u;
    return (one_bit_each + 0x7F7F7F7F7F7F7F7Fu) >> 7 & 0x0101010101010101u;
}

// The mask of groups whose kept elements are the bits of `kept`.
static inline void store_mask(std::uint8_t* mask, const Strides& s, int count,
                              const std::uint32_t* kept) {
    if (s.group == 1) {
        for (int i = 0; i < s.present; ++i)
            for (int t = 0; t < count; ++t)
                mask[i * s.element + t] = std::uint8_t(kept[t] >> i & 1u);
    } else if (s.group == 4 && s.present == 4) {
        for (int t = 0; t < count; ++t) {
            // Bit i times 2^(7 i) is bit 8 i.
            const std::uint32_t bytes = (kept[t] & 15u) * 0x00204081u & 0x01010101u;
            std::memcpy(mask + 4 * t, &bytes, sizeof bytes);
        }
    } else if (s.group % 8 == 0 && s.present == s.group) {
        for (int t = 0; t < count; ++t)
            for (int i = 0; i < s.present; i += 8) {
                const std::uint64_t bytes = bytes_of_bits(kept[t] >> i);
                std::memcpy(mask + t * s.group + i, &bytes, sizeof bytes);
            }
    } else {
        for (int t = 0; t < count; ++t)
            for (int i = 0; i < s.present; ++i)
                mask[t * s.group + i] = std::uint8_t(kept[t] >> i & 1u);
    }
}

// Calls tile(offset of the first element, strides, groups, words) for groups or strips [begin, end)
// of the job. `words`: `per_group` random words of `bits` bits a group, or null for 0 bits.
template <int P, class Tile>
void for_tiles(const NmJob& job, std::int64_t begin, std::int64_t end, int bits, int per_group,
               const Tile& tile) {
    const std::int64_t groups = job.groups();
    const int rest = int(job.length - (groups - 1) * job.m);  // elements of a line's last group
    if (job.inner == 1) {
        // The first tile ends where vectors of results are aligned, if they ever are.
        const auto address = reinterpret_cast<std::uintptr_t>(job.y);
        const std::size_t bytes = std::size_t(job.m) * (job.wide ? 8 : 4);
        int until_aligned = 0;
        for (int g = 1; job.stream && g < 16 && until_aligned == 0; ++g)
            if ((address + (std::size_t(begin) + std::size_t(g)) * bytes) % 64 == 0)
                until_aligned = g;
        std::uint32_t words[2 * tile_groups<P>];
        for (std::int64_t at = begin; at < end;) {
            const std::int64_t line = at / groups, group = at % groups;
            const bool tail = rest < job.m && group == groups - 1;
            // Lines without a short group follow each other without a seam.
            const std::int64_t left = rest == job.m ? end - at
                                      : tail        ? 1
                                                    : std::min(end - at, groups - 1 - group);
            const int most = at == begin && until_aligned ? until_aligned : tile_groups<P>;
            const int count = int(std::min<std::int64_t>(left, most));
            if (bits)
                draw_random_bits(words, job.random, std::uint64_t(at * per_group),
                                 std::int64_t(count) * per_group, bits);
            const Strides strides = {job.m, 1, tail ? rest : job.m};
            tile(line * job.length + group * job.m, strides, count, bits ? words : nullptr);
            at += count;
        }
        return;
    }
    constexpr int columns = nm_strip_columns, most = nm_strip_groups;
    std::uint32_t drawn[columns][2 * most], words[2 * columns];
    const std::int64_t across = (job.inner + columns - 1) / columns;
    const std::int64_t along = (groups + most - 1) / most;
    for (std::int64_t strip = begin; strip < end; ++strip) {
        const std::int64_t column = strip % across * columns;
        const std::int64_t first = strip / across % along * most, o = strip / across / along;
        const int count = int(std::min<std::int64_t>(columns, job.inner - column));
        const int tall = int(std::min<std::int64_t>(most, groups - first));
        for (int c = 0; bits && c < count; ++c) {
            const std::int64_t group = (o * job.inner + column + c) * groups + first;
            draw_random_bits(drawn[c], job.random, std::uint64_t(group * per_group),
                             std::int64_t(tall) * per_group, bits);
        }
        for (int g = 0; g < tall; ++g) {
            for (int c = 0; bits && c < count; ++c)
                for (int w = 0; w < per_group; ++w)
                    words[c * per_group + w] = drawn[c][g * per_group + w];
            const int present = first + g == groups - 1 ? rest : job.m;
            tile((o * job.length + (first + g) * job.m) * job.inner + column,
                 Strides{1, job.inner, present}, count, bits ? words : nullptr);
        }
    }
}

// f(the number of elements that P stands for) for the smallest power of two P >= m.
template <class F>
auto with_padded_size(int m, const F& f) {
    using std::integral_constant;
    if (m <= 1) return f(integral_constant<int, 1>());
    if (m <= 2) return f(integral_constant<int, 2>());
    if (m <= 4) return f(integral_constant<int, 4>());
    if (m <= 8) return f(integral_constant<int, 8>());
    if (m <= 16) return f(integral_constant<int, 16>());
    return f(integral_constant<int, 32>());
}

}  // namespace
}  // namespace abcdeep
