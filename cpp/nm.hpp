// N:M sparsity: what a call of the kernels carries.
#pragma once

#include <cstdint>

#include "format.hpp"

namespace abcdeep {

inline constexpr int nm_largest_group = 32;

// A strip of an array whose groups do not lie along its last axis: some columns, and as many groups
// of each line as a tile of random words serves.
inline constexpr int nm_strip_columns = 32, nm_strip_groups = 64;

// What a kernel found: an input that is not finite, a result beyond the largest number, a group of
// two draws whose small elements float64 does not see beside its large ones.
inline constexpr unsigned nm_not_finite = 1, nm_overflow = 2, nm_too_wide = 4;

// Groups of `m` elements, `inner` apart, along an axis of `length` elements; the last group of a
// line may be short. Group g of line o * inner + c is number (o * inner + c) * groups() + g: the
// order with the axis innermost, by which random words are drawn. The kernels count groups in that
// order if `inner` is 1, otherwise strips.
struct NmJob {
    const void* x = nullptr;
    bool wide = false;  // float64 numbers, else float32
    int n = 0, m = 0;
    std::int64_t outer = 0, length = 0, inner = 1;

    bool nonzero_only = false;     // of nm_mask: zeros are never kept
    std::uint8_t* mask = nullptr;  // of the shape of x, as are the other results; null: not wanted

    // Of nm_unbiased.
    void* y = nullptr;              // of the dtype of x
    bool stream = false;            // y is too large to stay in a cache
    void* probabilities = nullptr;  // float32 for 16 bits, else float64
    int probability_bits = 16;
    bool two_draws = false;  // the approximate estimator for 2:4
    RandomSource random;

    std::int64_t groups() const { return (length + m - 1) / m; }

    // What the kernels count: groups, or strips of columns and groups of `inner` > 1.
    std::int64_t pieces() const {
        if (inner == 1) return outer * groups();
        const auto strips = [](std::int64_t size, std::int64_t one) {
            return (size + one - 1) / one;
        };
        return outer * strips(groups(), nm_strip_groups) * strips(inner, nm_strip_columns);
    }
};

}  // namespace abcdeep
