// Greedy transposable masks: elements in the order of their magnitude; lanes are blocks.
#pragma once

#include <algorithm>
#include <bit>

#include "sort_lanes.hpp"
#include "transposable_block.hpp"

namespace abcdeep {
namespace {

// Blocks at once, `lanes<DoubleLanes>` of them.
template <class T>
class GreedyBlocks {
  public:
    static constexpr int at_once = lanes<DoubleLanes>;

    // heavy: keeps an element, heaviest first, while its row and its column hold less than n.
    // Otherwise prunes, lightest first, while its row or its column lacks zeros. Equal ones: the
    // first in row-major order first.
    GreedyBlocks(int n, int m, bool heavy)
        : m_(m), room_(heavy ? n : m - n), count_(m * m), heavy_(heavy) {
        size_ = int(std::bit_ceil(unsigned(count_)));
        std::fill(keys_, keys_ + size_ * at_once, -1.0);  // sorted last
        for (int i = 0, e = 0; i < m; ++i)
            for (int j = 0; j < m; ++j, ++e) row_of_[e] = std::uint8_t(i);
    }

    // False if something is not finite.
    bool load_block(int lane, const T* from, std::int64_t step) {
        double* key = keys_ + lane;
        MagnitudeBits<T> most = 0;
        for (int i = 0, e = 0; i < m_; ++i, from += step)
            for (int j = 0; j < m_; ++j, ++e) {
                const MagnitudeBits<T> bits = magnitude_bits(from[j]);
                most = std::max(most, bits);
                const std::int64_t leading = std::int64_t(bits >> dropped_bits);
                const std::int64_t order = heavy_ ? leading : most_leading - leading;
                key[e * at_once] = double(order << index_bits | (most_index - e));
            }
        return most < infinity_bits<T>;
    }

    void sort() {
        if (size_ != 16) return sort_lanes(keys_, size_);
        DoubleLanes keys[16];
        for (int e = 0; e < 16; ++e) keys[e] = load<DoubleLanes>(keys_ + e * at_once);
        sort_lanes(keys);
        for (int e = 0; e < 16; ++e) store(keys_ + e * at_once, keys[e]);
    }

    // Bits of the kept elements of a block's rows, after `sort`.
    void choose(int lane, const T* from, std::int64_t step, std::uint32_t* rows) const {
        std::uint16_t order[most_index + 1];
        const double* key = keys_ + lane;
        for (int e = 0; e < count_; ++e)
            order[e] = std::uint16_t(most_index - (std::int64_t(key[e * at_once]) & most_index));
        if constexpr (dropped_bits != 0) finish_order(order, from, step);
        int row_room[transposable_largest_size], column_room[transposable_largest_size];
        for (int i = 0; i < m_; ++i) {
            row_room[i] = column_room[i] = room_;
            rows[i] = heavy_ ? 0 : ~0u >> (32 - m_);
        }
        for (int e = 0; e < count_; ++e) {
            const int i = row_of_[order[e]], j = order[e] - i * m_;
            const bool row = row_room[i] > 0, column = column_room[j] > 0;
            const bool taken = heavy_ ? row & column : row | column;
            row_room[i] -= taken;
            column_room[j] -= taken;
            rows[i] ^= std::uint32_t(taken) << j;
        }
    }

  private:
    // A double holds integers of 53 bits: 43 of the magnitude, then the element's number, the
    // first element highest.
    static constexpr int index_bits = 10, most_index = (1 << index_bits) - 1;
    static constexpr int dropped_bits = sizeof(T) == 8 ? 20 : 0;
    static constexpr std::int64_t most_leading = std::int64_t(infinity_bits<T> >> dropped_bits);

    // By insertion: only elements with the same leading bits can be out of order.
    void finish_order(std::uint16_t* order, const T* from, std::int64_t step) const {
        const auto bits = [&](int e) { return magnitude_bits(from[e / m_ * step + e % m_]); };
        for (int e = 1; e < count_; ++e) {
            const std::uint16_t element = order[e];
            const MagnitudeBits<T> own = bits(element);
            int to = e;
            for (; to > 0; --to) {
                const int before = order[to - 1];
                const MagnitudeBits<T> other = bits(before);
                const bool in_order = own == other ? before < element : (own < other) == heavy_;
                if (in_order) break;
                order[to] = order[to - 1];
            }
            order[to] = element;
        }
    }

    alignas(64) double keys_[(most_index + 1) * at_once];
    std::uint8_t row_of_[most_index + 1];
    int m_, room_, count_, size_;
    bool heavy_;
};

}  // namespace
}  // namespace abcdeep
