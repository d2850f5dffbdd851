// How wide a two's complement or unsigned accumulator each dot product needs: what a call carries.
#pragma once

#include <cstdint>

namespace abcdeep {

// Of a dot product: bits that hold the partial sums in the given order, the sum alone, the partial
// sums in every order, and those of the greedy order.
enum WidthKind { given_width, final_width, any_order_width, greedy_width, width_kinds };

inline constexpr int width_bins = 66;  // widths 0..64, and no_width
inline constexpr int no_width = 65;    // of a negative number in an unsigned accumulator

struct WidthJob {
    std::int64_t group = 1;      // terms of a step
    std::int64_t chunk = 0;      // terms of a partial sum; 0: all
    bool is_signed = true;       // accumulator
    bool merges_exactly = false;  // the sums of chunks are added elsewhere: they do not count
    bool greedy_order = false;   // partial sums of the greedy order instead of the given one
    const std::uint8_t* counted = nullptr;  // rows whose partial sums are counted; null: none
    std::uint8_t* widths[width_kinds] = {};  // (m, n) at [m * columns + n]
};

// Over a rectangle of outputs.
struct WidthTotals {
    std::int64_t smallest = 0, largest = 0;  // of the partial sums, zero included
    std::int64_t negative[width_bins] = {}, positive[width_bins] = {};  // partial sums by bits
};

}  // namespace abcdeep
