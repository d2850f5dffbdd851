// Hadamard rotations: what a call of the kernel carries.
#pragma once

#include <cstdint>

namespace abcdeep {

inline constexpr std::int64_t hadamard_largest_size = 1024;

// What may be read of the signs beyond their period.
inline constexpr std::int64_t hadamard_sign_margin = 16;

// (1/sqrt n) H D x, or its inverse D H x / sqrt n, of the groups of `size` elements `inner` apart.
// Group g takes column g % inner of slab g / inner, which holds size * inner elements.
// signs[i] = the sign bit of position i of the axis: one period, then cyclically the margin.
// stream: `out` is too large to stay in a cache.
struct HadamardJob {
    const float* in = nullptr;
    float* out = nullptr;
    std::int64_t size = 0, inner = 1;
    const std::uint32_t* signs = nullptr;
    std::int64_t period = 0;
    bool inverse = false;
    float scale = 1;
    bool stream = false;
};

}  // namespace abcdeep
