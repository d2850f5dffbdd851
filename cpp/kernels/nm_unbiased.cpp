// Minimum-variance unbiased N:M sparsity: probabilities by water-filling, then systematic sampling;
// and the estimator for 2:4 that draws twice.
#include "float_environment.hpp"
#include "kernels.hpp"
#include "nm_lanes.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

// docs/nm.md, "Probabilities": q[i] / `whole` is the probability that element i is kept. Scaling
// the magnitudes by powers of two changes nothing but what underflows or overflows.
template <bool scaled, class V, int P>
static inline void water_fill(const V (&a)[P], int n, Element<V> whole, V (&q)[P]) {
    using E = Element<V>;
    using M = MaskOf<V>;
    const V one = V{} + E(1);
    V active[P], m[P], r = V{} + E(n), nonzero = {};
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) {
        active[i] = magnitude(a[i]);
        nonzero += select(active[i] != E(0), one, V{});
    }
    const M many = nonzero > E(n);
    V sum;
    for (;;) {
        if constexpr (scaled)
            scale_to_largest(active, m);
        else
            std::copy_n(active, P, m);
        sum = tree_sum(m);
        V count = {};
#pragma GCC unroll 8
        for (int i = 0; i < P; ++i) count += select(r * m[i] >= sum, one, V{});
        const M some = many & (count > E(0)) & (count < r);
        if (!any_lane(some)) break;
#pragma GCC unroll 8
        for (int i = 0; i < P; ++i) {
            const M capped = some & (r * m[i] >= sum);
            active[i] = select(capped, V{}, active[i]);
        }
        r = select(some, r - count, r);
    }
    const V g = (r * whole) / sum;
    V total = {}, largest = m[0];
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) {
        const M is_active = active[i] != E(0);
        const V rounded = select(is_active, limited(round_up(g * m[i]), whole), V{});
        total += rounded;
        largest = larger_number(m[i], largest);
        q[i] = select(many & is_active, rounded, select(a[i] != E(0), V{} + whole, V{}));
    }
    // What rounding up has given in excess is taken from the first of the largest.
    V excess = select(many, total - r * whole, V{});
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) {
        const M is_largest = m[i] == largest;
        q[i] -= select(is_largest, excess, V{});
        excess = select(is_largest, V{}, excess);
    }
}

// X: a number of the array; E: one of the arithmetic.
template <class X, class E, int P>
[[gnu::noinline]] unsigned sample_groups(const NmJob& job, std::int64_t begin, std::int64_t end) {
    using V = Vector<E>;
    using M = MaskOf<V>;
    constexpr int bits = sizeof(E) == 4 ? 16 : 30;
    constexpr E whole = E(1 << bits), unit = 1 / whole;
    ResultTile<E, P> tile;
    Found<V> found;
    const bool with_probabilities = job.probabilities != nullptr;
    const auto step = [&](std::int64_t at, const Strides& s, int count,
                          const std::uint32_t* words) {
        load_groups(static_cast<const X*>(job.x) + at, s, count, tile.rows);
        for (int t = 0; t < count; ++t) tile.random[0][t] = E((1 << bits) - 1 - int(words[t]));
        for (int t = 0; t < count; t += lanes<V>) {
            V a[P], q[P];
            M extremes = {};
#pragma GCC unroll 8
            for (int i = 0; i < P; ++i) {
                a[i] = load<V>(&tile.rows[i][t]);
                extremes |= is_extreme<X>(a[i]);
            }
            const bool extreme = any_lane(extremes);
            if (extreme)
                water_fill<true>(a, job.n, whole, q);
            else
                water_fill<false>(a, job.n, whole, q);
            // Systematic sampling: kept is what takes the running sum to or past `whole`.
            V running = load<V>(&tile.random[0][t]), y[P];
            M kept = {};
#pragma GCC unroll 8
            for (int i = 0; i < P; ++i) {
                running += q[i];
                const M passed = running >= whole;
                running = select(passed, running - whole, running);
                const V p = q[i] * unit;
                y[i] = select(passed, as_stored<X>(a[i] / as_stored<X>(p)), V{});
                kept |= passed & Element<M>(std::uint32_t(1) << i);
                store(&tile.rows[i][t], y[i]);
                if (with_probabilities) store(&tile.probability[i][t], p);
            }
            // Numbers that are not extreme are finite, and so is what becomes of them.
            for (int i = 0; extreme && i < P; ++i) {
                found.input(a[i]);
                found.output(y[i]);
            }
            store(&tile.kept[t], kept);
        }
        store_results<X>(job, at, s, count, tile);
    };
    for_tiles<P>(job, begin, end, bits, 1, step);
    return found.flags();
}

// The first element that is not zero and whose running sum is above u, else the last one that is
// not zero: -1 in its lane.
template <class V>
static inline void draw(const V (&chance)[4], V u, MaskOf<V> (&drawn)[4]) {
    using M = MaskOf<V>;
    V sum = {};
    M open = ~M{};
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        sum += chance[i];
        drawn[i] = open & (chance[i] != 0.0) & (u < sum);
        open &= ~drawn[i];
    }
#pragma GCC unroll 4
    for (int i = 3; i >= 0; --i) {
        const M last = open & (chance[i] != 0.0);
        drawn[i] |= last;
        open &= ~last;
    }
}

// docs/nm.md, "Two draws".
template <class X>
[[gnu::noinline]] unsigned draw_twice(const NmJob& job, std::int64_t begin, std::int64_t end) {
    using V = Vector<double>;
    using M = MaskOf<V>;
    ResultTile<double, 4> tile;
    Found<V> found;
    unsigned flags = 0;
    const auto step = [&](std::int64_t at, const Strides& s, int count,
                          const std::uint32_t* words) {
        load_groups(static_cast<const X*>(job.x) + at, s, count, tile.rows);
        for (int t = 0; t < count; ++t)
            for (int k = 0; k < 2; ++k) tile.random[k][t] = words[2 * t + k] * 0x1p-32;
        for (int t = 0; t < count; t += lanes<V>) {
            V a[4], x[4], m[4], others[4], share[4], ratio[4], nonzero = {};
            for (int i = 0; i < 4; ++i) {
                a[i] = load<V>(&tile.rows[i][t]);
                found.input(a[i]);
                x[i] = magnitude(a[i]);
            }
            scale_to_largest(x, m);
            const V sum = tree_sum(m);
            for (int i = 0; i < 4; ++i) {
                nonzero += select(x[i] != 0.0, V{} + 1.0, V{});
                share[i] = m[i] / sum;
                others[i] = (m[i == 0 ? 1 : 0] + m[i <= 1 ? 2 : 1]) + m[i <= 2 ? 3 : 2];
                ratio[i] = share[i] / others[i];
            }
            M first[4], second[4], kept = {}, lost = {};
            draw(share, load<V>(&tile.random[0][t]), first);
            V rest = {}, chance[4];
            for (int i = 0; i < 4; ++i) rest = select(first[i], others[i], rest);
            for (int i = 0; i < 4; ++i) chance[i] = select(first[i], V{}, m[i] / rest);
            draw(chance, load<V>(&tile.random[1][t]), second);
            const M few = nonzero <= 2.0;
            for (int i = 0; i < 4; ++i) {
                const V sum_of_others =
                    (ratio[i == 0 ? 1 : 0] + ratio[i <= 1 ? 2 : 1]) + ratio[i <= 2 ? 3 : 2];
                const M present = x[i] != 0.0;
                const V p =
                    select(few, select(present, V{} + 1.0, V{}), share[i] + m[i] * sum_of_others);
                const M keep = select(few, present, first[i] | second[i]);
                lost |= present & ~((p > 0.0) & (p < 2.0));
                const V y = select(keep, as_stored<X>(a[i] / p), V{});
                found.output(y);
                kept |= keep & std::int64_t(1 << i);
                store(&tile.rows[i][t], y);
                store(&tile.probability[i][t], p);
            }
            if (any_lane(lost)) flags |= nm_too_wide;
            store(&tile.kept[t], kept);
        }
        store_results<X>(job, at, s, count, tile);
    };
    for_tiles<4>(job, begin, end, 32, 2, step);
    return found.flags() | flags;
}

}  // namespace

unsigned nm_unbiased(const NmJob& job, std::int64_t begin, std::int64_t end) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    const auto run = [&](auto size) {
        constexpr int P = decltype(size)::value;
        if (job.wide) return sample_groups<double, double, P>(job, begin, end);
        return job.probability_bits == 16 ? sample_groups<float, float, P>(job, begin, end)
                                          : sample_groups<float, double, P>(job, begin, end);
    };
    const unsigned flags = !job.two_draws ? with_padded_size(job.m, run)
                           : job.wide     ? draw_twice<double>(job, begin, end)
                                          : draw_twice<float>(job, begin, end);
    if (job.stream) finish_streaming();
    return flags;
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
