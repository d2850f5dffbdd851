// N:M magnitude masks: an element is kept if fewer than N others of its group rank before it.
#include "kernels.hpp"
#include "nm_tile.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

// Magnitudes compare as integers: their bits, which the caller's flush-to-zero does not reach.
template <class E>
using Key = Vector<std::conditional_t<sizeof(E) == 4, std::int32_t, std::int64_t>>;

template <class E>
inline constexpr auto infinity_bits =
    sizeof(E) == 4 ? std::int64_t(0x7F800000) : std::int64_t(0x7FF0000000000000);

// Elements of larger magnitude rank first, equal ones by their index. Of each pair one ranks before
// the other: the number of those before i is P - 1 - i, less the later ones that i is before, and
// more the earlier ones.
template <class K, int P>
static inline void ranks(const K (&key)[P], K (&before)[P]) {
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) {
        before[i] = K{} + Element<K>(P - 1 - i);
    }
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i)
#pragma GCC unroll 8
        for (int j = i + 1; j < P; ++j) {
            const K first = key[i] >= key[j];  // -1 where i ranks before j
            before[i] += first;
            before[j] -= first;
        }
}

template <class E, int P>
[[gnu::noinline]] unsigned mask_groups(const NmJob& job, std::int64_t begin, std::int64_t end) {
    using K = Key<E>;
    constexpr int width = lanes<K>, most = tile_groups<P>;
    alignas(64) E rows[P][most];
    alignas(64) Element<K> bits[most];
    alignas(64) std::uint32_t kept[most];
    K largest = {};
    const E* x = static_cast<const E*>(job.x);
    for_tiles<P>(job, begin, end, 0, 0, [&](std::int64_t at, const Strides& s, int count, auto*) {
        load_groups(x + at, s, count, rows);
        for (int t = 0; t < count; t += width) {
            K key[P], before[P], keep = {};
#pragma GCC unroll 8
            for (int i = 0; i < P; ++i) {
                constexpr auto magnitude =
                    Element<K>(~Element<K>(0) ^ (Element<K>(1) << (8 * sizeof(E) - 1)));
                key[i] = load<K>(&rows[i][t]) & magnitude;
                largest = select(key[i] > largest, key[i], largest);
                if (i >= job.m) key[i] = K{} - 1;
            }
            ranks(key, before);
#pragma GCC unroll 8
            for (int i = 0; i < P; ++i) {
                K one = before[i] < Element<K>(job.n);
                if (job.nonzero_only) one &= key[i] != 0;
                keep |= one & Element<K>(std::uint32_t(1) << i);
            }
            store(bits + t, keep);
        }
        for (int t = 0; t < count; ++t) kept[t] = std::uint32_t(bits[t]);
        store_mask(job.mask + at, s, count, kept);
    });
    bool finite = true;
    for (int j = 0; j < width; ++j) finite &= largest[j] < infinity_bits<E>;
    return finite ? 0 : nm_not_finite;
}

}  // namespace

unsigned nm_mask(const NmJob& job, std::int64_t begin, std::int64_t end) {
    return with_padded_size(job.m, [&](auto size) {
        constexpr int P = decltype(size)::value;
        return job.wide ? mask_groups<double, P>(job, begin, end)
                        : mask_groups<float, P>(job, begin, end);
    });
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
