// Block formats: what a call of the kernels carries, and the float32 scale of a whole tensor.
#pragma once

#include <cstdint>

#include "format.hpp"

namespace abcdeep {

// How a block's scale follows from its largest magnitude (docs/blocks.md): powers of two, or the
// quotient by the largest element, rounded.
enum class ScaleRule : std::uint8_t { floor, ceil, max };
enum class FourOverSix : std::uint8_t { none, squared, absolute };

// A stack of matrices with contiguous rows, each cut into blocks; those at the right and the lower
// edge may be short. Blocks are numbered in the order of the array of their scales.
struct BlockLayout {
    std::int64_t matrices = 0, rows = 0, columns = 0;
    std::int64_t block_rows = 1, block_columns = 1;

    std::int64_t strips() const { return (rows + block_rows - 1) / block_rows; }
    std::int64_t blocks_of_strip() const { return (columns + block_columns - 1) / block_columns; }
    std::int64_t blocks() const { return matrices * strips() * blocks_of_strip(); }
};

inline constexpr std::int64_t most_block_columns = 4096;

// Fields are those of BlockFormat. Quantising reads `values` and writes codes, scale_codes and the
// two counters; decoding reads codes and scales and writes `decoded`.
struct BlockJob {
    BlockLayout layout;
    const float* values = nullptr;
    std::uint8_t* codes = nullptr;
    void* scale_codes = nullptr;  // bytes, or the bits of a float
    bool float_scales = false;
    std::int64_t* clipped = nullptr;  // elements above the largest, added up atomically
    int* failed = nullptr;            // set where a value that has to be finite is not

    Quantizer element, scale;
    bool twos_complement = false;
    float element_max = 0, scale_max = 0;
    ScaleRule rule = ScaleRule::floor;
    float headroom = 1;      // factor of the elements
    float scale_factor = 1;  // headroom / element_max
    // of the whole tensor, or of each row
    const float* encode_scale = nullptr;
    const float* decode_scale = nullptr;
    bool row_scaled = false;
    FourOverSix four_over_six = FourOverSix::none;
    float tensor_max = 0, scaled_max = 1;  // largest magnitude of the tensor, before and after
    RandomSource random, scale_random;
    bool general = false;  // the general rounding also where a faster one gives the same bits

    const std::uint8_t* decoded_codes = nullptr;
    const float* element_values = nullptr;  // of each of the 256 words
    bool few_words = false;                 // all below 16
    const float* scales = nullptr;
    float* decoded = nullptr;
};

// Where the draws of stochastic scale rounding begin; below it are those of the elements.
inline constexpr std::uint64_t first_scale_draw = std::uint64_t(1) << 63;

}  // namespace abcdeep
