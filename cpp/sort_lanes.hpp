// Sorting networks: each lane of an array of vectors of doubles, largest first.
#pragma once

#include <array>
#include <utility>

#include "double_lanes.hpp"

namespace abcdeep {
namespace {

// Batcher's odd-even merges of a power of two of numbers: exchange(a, b, k) for runs of k numbers
// from a and from b on, a < b.
template <class Exchange>
static constexpr void odd_even_merges(int size, const Exchange& exchange) {
    for (int p = 1; p < size; p *= 2)
        for (int k = p; k >= 1; k /= 2)
            for (int j = k % p; j + k < size; j += 2 * k)
                if ((j ^ (j + k)) < 2 * p) exchange(j, j + k, k);
}

template <int size>
constexpr auto sorting_network() {
    struct {
        std::size_t count = 0;
        std::array<std::pair<int, int>, size * 8> pairs{};
    } network;
    odd_even_merges(size, [&network](int a, int b, int run) {
        for (int i = 0; i < run; ++i) network.pairs[network.count++] = {a + i, b + i};
    });
    return network;
}

template <int size>
inline constexpr auto network = sorting_network<size>();

static inline void exchange_lanes(DoubleLanes& a, DoubleLanes& b) {
    const DoubleLanes high = larger(a, b), low = smaller(a, b);
    a = high;
    b = low;
}

template <int size, std::size_t... i>
static inline void sort_lanes(DoubleLanes (&x)[size], std::index_sequence<i...>) {
    (exchange_lanes(x[network<size>.pairs[i].first], x[network<size>.pairs[i].second]), ...);
}

// In registers, as far as they go.
template <int size>
static inline void sort_lanes(DoubleLanes (&x)[size]) {
    sort_lanes(x, std::make_index_sequence<network<size>.count>());
}

// In memory: x holds `size` vectors.
static inline void sort_lanes(double* x, int size) {
    odd_even_merges(size, [x](int a, int b, int run) {
        constexpr int width = lanes<DoubleLanes>;
        for (int i = 0; i < run * width; i += width) {
            DoubleLanes high = load<DoubleLanes>(x + a * width + i);
            DoubleLanes low = load<DoubleLanes>(x + b * width + i);
            exchange_lanes(high, low);
            store(x + a * width + i, high);
            store(x + b * width + i, low);
        }
    });
}

}  // namespace
}  // namespace abcdeep
