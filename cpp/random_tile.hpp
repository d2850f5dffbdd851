// Consecutive random words, a tile at a time: Philox as a plain loop over counters side by side.
#pragma once

#include <cstdint>

#include "format.hpp"
#include "philox.hpp"

namespace abcdeep {

// Counters a tile holds, and the words that makes.
static constexpr int random_tile_blocks = 16;
static constexpr int random_tile_words = 4 * random_tile_blocks;

// words[0 .. 64) = the words with logical indices 4 * first_block onwards.
static inline void random_tile(const RandomAddress& address, std::uint64_t first_block,
                               std::uint32_t* words) {
    std::uint32_t c0[random_tile_blocks], c1[random_tile_blocks];
    std::uint32_t c2[random_tile_blocks], c3[random_tile_blocks];
    for (int i = 0; i < random_tile_blocks; ++i) {
        c0[i] = std::uint32_t(first_block + std::uint64_t(i));
        c1[i] = std::uint32_t((first_block + std::uint64_t(i)) >> 32);
        c2[i] = address.stream;
        c3[i] = address.call;
    }
    std::uint32_t k0 = std::uint32_t(address.seed);
    std::uint32_t k1 = std::uint32_t(address.seed >> 32);
    for (int round = 0; round < 10; ++round) {
        for (int i = 0; i < random_tile_blocks; ++i) {
            philox_round<std::uint32_t, std::uint64_t>(c0[i], c1[i], c2[i], c3[i], k0, k1);
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < random_tile_blocks; ++i) {
        words[4 * i + 0] = c0[i];
        words[4 * i + 1] = c1[i];
        words[4 * i + 2] = c2[i];
        words[4 * i + 3] = c3[i];
    }
}

// words[0 .. count) = the words with logical indices first, first + 1, ... (any first and count).
static inline void random_words(const RandomAddress& address, std::uint64_t first,
                                std::int64_t count, std::uint32_t* words) {
    std::uint32_t tile[random_tile_words];
    std::uint64_t block = first / 4;
    std::int64_t skip = std::int64_t(first % 4);
    while (count > 0) {
        if (skip == 0 && count >= random_tile_words) {
            random_tile(address, block, words);
            words += random_tile_words;
            count -= random_tile_words;
        } else {
            random_tile(address, block, tile);
            std::int64_t take = random_tile_words - skip;
            if (take > count) {
                take = count;
            }
            for (std::int64_t i = 0; i < take; ++i) {
                words[i] = tile[skip + i];
            }
            words += take;
            count -= take;
            skip = 0;
        }
        block += random_tile_blocks;
    }
}

// Width of the lane a draw of `bits` random bits comes from.
static inline int random_lane_bits(int bits) {
    return bits <= 1 ? 1 : bits <= 8 ? 8 : bits <= 16 ? 16 : 32;
}

// out[i] = the top `bits` bits of the lane with logical index first + i, as a number in
// [0, 2^bits); of the explicit words where the source has them.
static inline void draw_random_bits(std::uint32_t* out, const RandomSource& source,
                                    std::uint64_t first, std::int64_t count, int bits) {
    if (source.words) {
        for (std::int64_t i = 0; i < count; ++i) {
            out[i] = source.words[first + std::uint64_t(i)] >> (32 - bits);
        }
        return;
    }
    const RandomAddress address = {source.seed, source.stream, source.call};
    const int lane_bits = random_lane_bits(bits);
    if (lane_bits == 32) {
        random_words(address, first, count, out);
        for (std::int64_t i = 0; i < count; ++i) {
            out[i] >>= 32 - bits;
        }
        return;
    }
    const int lanes_per_word = 32 / lane_bits;
    const std::uint32_t mask = (1u << lane_bits) - 1;
    std::uint32_t words[random_tile_words];
    while (count > 0) {
        const std::int64_t skip = std::int64_t(first % std::uint64_t(lanes_per_word));
        const std::int64_t available = random_tile_words * lanes_per_word - skip;
        const std::int64_t take = count < available ? count : available;
        random_words(address, first / std::uint64_t(lanes_per_word),
                     (skip + take + lanes_per_word - 1) / lanes_per_word, words);
        for (std::int64_t i = 0; i < take; ++i) {
            const unsigned lane = unsigned(skip + i);
            const unsigned shift = lane % unsigned(lanes_per_word) * unsigned(lane_bits);
            out[i] =
                ((words[lane / unsigned(lanes_per_word)] >> shift) & mask) >> (lane_bits - bits);
        }
        out += take;
        first += std::uint64_t(take);
        count -= take;
    }
}

}  // namespace abcdeep
