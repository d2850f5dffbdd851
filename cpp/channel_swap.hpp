// Search for a permutation of channels: what a call of the kernel carries.
#pragma once

#include <cstdint>

namespace abcdeep {

// Magnitudes are whole numbers so small that no sum of them rounds: the results do not depend on
// the order of the sums.
//
// members == null: out[i * channels + j] = sum over rows r of max(magnitudes[r][j], floors[i][r]),
//   for i in [begin, end): but for a constant, what group of channel i keeps with j in i's place.
// members: begin to end count pairs of groups; members[2 m p ...] are the channels of pair p.
//   out[p * choices + c] = the sum over rows of the n largest of the channels that choice c takes
//   for one group, plus those of the other channels.
struct SwapJob {
    const double* magnitudes = nullptr;  // rows x channels; with members, channels x rows
    std::int64_t rows = 0, channels = 0;
    const double* floors = nullptr;  // i x rows
    double* out = nullptr;
    const std::int64_t* members = nullptr;
    const std::uint8_t* chosen = nullptr;  // choices x 2m: the one group, then the other
    std::int64_t choices = 0;
    int n = 0, m = 0;
};

inline constexpr int swap_most_members = 16;   // 2m
inline constexpr int swap_most_choices = 512;  // C(2m, m) / 2 of m = 5 is 126; of m = 6, 462

}  // namespace abcdeep
