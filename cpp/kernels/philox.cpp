// Random words by logical index: raw Philox blocks, and draws of 32, 16, 8 and 1 bits.
#include <bit>
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
    static_assert(std::endian::native == std::endian::little, "lanes are read as bytes of words");
    if (bits == 32) {
        random_words(address, first, count, static_cast<std::uint32_t*>(lanes));
        return;
    }
    const std::int64_t lanes_per_word = 32 / bits;
    auto* out = static_cast<unsigned char*>(lanes);
    std::uint32_t words[random_tile_words];
    while (count > 0) {
        const std::uint64_t word = first / std::uint64_t(lanes_per_word);
        const std::int64_t skip = std::int64_t(first % std::uint64_t(lanes_per_word));
        const std::int64_t available = random_tile_words * lanes_per_word - skip;
        const std::int64_t take = count < available ? count : available;
        random_words(address, word, (skip + take + lanes_per_word - 1) / lanes_per_word, words);
        if (bits == 1) {
            for (std::int64_t i = 0; i < take; ++i) {
                out[i] = (words[(skip + i) / 32] >> ((skip + i) % 32)) & 1u;
            }
            out += take;
        } else {
            const std::int64_t bytes = bits / 8;
            std::memcpy(out, reinterpret_cast<unsigned char*>(words) + skip * bytes,
                        std::size_t(take * bytes));
            out += take * bytes;
        }
        first += std::uint64_t(take);
        count -= take;
    }
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
