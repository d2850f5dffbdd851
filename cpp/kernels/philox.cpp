// Random words by logical index: raw Philox blocks, and draws of 32, 16, 8 and 1 bits.
#include <cstring>

#include "kernels.hpp"
#include "random_tile.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

void philox_blocks(const std::uint32_t* counters, const std::uint32_t* keys, std::int64_t count,
                   int rounds, std::uint32_t* words) {
    for (std::int64_t i = 0; i < count; ++i) {
        PhiloxBlock counter;
        std::memcpy(counter.word, counters + 4 * i, sizeof counter.word);
        const PhiloxBlock block = philox4x32(counter, keys[2 * i], keys[2 * i + 1], rounds);
        std::memcpy(words + 4 * i, block.word, sizeof block.word);
    }
}

// Draws narrower than a word: lane j sits in word j / lanes_per_word, low end first.
void random_lanes(const RandomAddress& address, int bits, std::uint64_t first, std::int64_t count,
                  void* lanes) {
    if (bits == 1) {
        random_single_bits(address, first, count, static_cast<std::uint8_t*>(lanes));
    } else {
        random_draws(address, bits, first, count, lanes);
    }
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
