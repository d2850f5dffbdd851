// Consecutive random words and narrower draws: Philox blocks side by side, one in each vector lane.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "format.hpp"
#include "philox.hpp"
#include "simd.hpp"

namespace abcdeep {

// word[j] lane l = word j of block[l], in the low 32 bits; the bits above are arbitrary.
template <class V>
static inline void random_blocks(const RandomAddress& address, V block, V (&word)[4]) {
    word[0] = block;
    word[1] = block >> 32;
    word[2] = V{} + address.stream;
    word[3] = V{} + address.call;
    philox_rounds(word, std::uint32_t(address.seed), std::uint32_t(address.seed >> 32), 10);
}

using RandomLanes = Vector<std::uint64_t>;

// Blocks of one tile, and the bytes in them.
static constexpr int random_tile_blocks = lanes<RandomLanes>;
static constexpr int random_tile_bytes = 16 * random_tile_blocks;

// Pairs of `a` and `b` from every second lane, as the unpack instructions make them: within 128
// bits.
template <int odd, class V, std::size_t... i>
static inline V interleave(V a, V b, std::index_sequence<i...>) {
    return __builtin_shufflevector(a, b, (i / 2 * 2 + odd + i % 2 * sizeof...(i))...);
}

namespace {

// Consecutive tiles, from the block `first_block` on.
class RandomTiles {
    using V = RandomLanes;
    static constexpr int n = random_tile_blocks;

  public:
    RandomTiles(const RandomAddress& address, std::uint64_t first_block) : address_(address) {
        // Even lanes hold the first half of the blocks and odd lanes the second, so that the
        // interleaved halves are in order.
        for (int i = 0; i < n; ++i) {
            block_[i] = first_block + std::uint64_t(i / 2 + i % 2 * (n / 2));
        }
    }

    // The words of the next tile in order, as two vectors.
    void next(V (&halves)[2]) {
        constexpr auto all = std::make_index_sequence<n>();
        V word[4];
        random_blocks(address_, block_, word);
        const std::uint64_t low = 0xFFFFFFFFu;
        const V words01 = (word[0] & low) | (word[1] << 32);
        const V words23 = (word[2] & low) | (word[3] << 32);
        halves[0] = interleave<0>(words01, words23, all);
        halves[1] = interleave<1>(words01, words23, all);
        block_ += std::uint64_t(n);
    }

    // The same as random_tile_bytes bytes.
    void next(unsigned char* bytes) {
        V halves[2];
        next(halves);
        store(bytes, halves[0]);
        store(bytes + sizeof(V), halves[1]);
    }

  private:
    RandomAddress address_;
    V block_;
};

}  // namespace

// bytes[0 .. count) = the random words read low end first, from byte 16 * block + skip on (skip <
// 16).
static inline void random_bytes(const RandomAddress& address, std::uint64_t block,
                                std::int64_t skip, std::int64_t count, void* bytes) {
    auto* out = static_cast<unsigned char*>(bytes);
    unsigned char tile[random_tile_bytes];
    RandomTiles tiles(address, block);
    if (skip != 0 && count > 0) {
        const std::int64_t take =
            count < random_tile_bytes - skip ? count : random_tile_bytes - skip;
        tiles.next(tile);
        std::memcpy(out, tile + skip, std::size_t(take));
        out += take;
        count -= take;
    }
    for (; count >= random_tile_bytes; count -= random_tile_bytes, out += random_tile_bytes) {
        tiles.next(out);
    }
    if (count > 0) {
        tiles.next(tile);
        std::memcpy(out, tile, std::size_t(count));
    }
}

// `count` draws of 8, 16 or 32 bits from draw number `first` on, in elements of that width.
static inline void random_draws(const RandomAddress& address, int bits, std::uint64_t first,
                                std::int64_t count, void* draws) {
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "draws are bytes of words");
    const std::uint64_t per_block = 128u / unsigned(bits);
    const int bytes = bits / 8;
    random_bytes(address, first / per_block, std::int64_t(first % per_block) * bytes, count * bytes,
                 draws);
}

// Width of the lane a draw of `bits` random bits comes from.
static inline int random_lane_bits(int bits) {
    return bits <= 1 ? 1 : bits <= 8 ? 8 : bits <= 16 ? 16 : 32;
}

// draws[i] = bit number first + i of the random words, as 0 or 1.
template <class T>
static inline void random_single_bits(const RandomAddress& address, std::uint64_t first,
                                      std::int64_t count, T* draws) {
    std::uint32_t words[64];
    std::uint64_t word = first / 32;
    int skip = int(first % 32);
    while (count > 0) {
        const std::int64_t wanted = (skip + count + 31) / 32;
        const int ready = wanted < 64 ? int(wanted) : 64;
        random_draws(address, 32, word, ready, words);
        word += std::uint64_t(ready);
        for (int i = 0; i < ready && count > 0; ++i) {
            const int take = count < 32 - skip ? int(count) : 32 - skip;
            const std::uint32_t rest = words[i] >> skip;
            for (int j = 0; j < take; ++j) {
                draws[j] = T((rest >> j) & 1u);
            }
            draws += take;
            count -= take;
            skip = 0;
        }
    }
}

// out[i] = draw number first + i of 8, 16 or 32 bits (the size of Lane), shifted right.
template <class Lane>
static inline void draw_from_lanes(std::uint32_t* out, const RandomAddress& address,
                                   std::uint64_t first, std::int64_t count, int shift) {
    constexpr int per_block = 16 / sizeof(Lane), per_tile = random_tile_bytes / sizeof(Lane);
    constexpr int capacity = 512 / sizeof(Lane);
    alignas(64) unsigned char bytes[512];
    while (count > 0) {
        const int skip = int(first % unsigned(per_block));
        const int take = count < capacity - skip ? int(count) : capacity - skip;
        RandomTiles tiles(address, first / unsigned(per_block));
        for (int done = 0; done < skip + take; done += per_tile) {
            tiles.next(bytes + done * int(sizeof(Lane)));
        }
        for (int i = 0; i < take; ++i) {
            out[i] = std::uint32_t(load<Lane>(bytes + (skip + i) * int(sizeof(Lane)))) >> shift;
        }
        out += take;
        first += std::uint64_t(take);
        count -= take;
    }
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
    const int lane_bits = random_lane_bits(bits), shift = lane_bits - bits;
    switch (lane_bits) {
        case 1:
            random_single_bits(address, first, count, out);
            break;
        case 8:
            draw_from_lanes<std::uint8_t>(out, address, first, count, shift);
            break;
        case 16:
            draw_from_lanes<std::uint16_t>(out, address, first, count, shift);
            break;
        default:
            draw_from_lanes<std::uint32_t>(out, address, first, count, shift);
    }
}

}  // namespace abcdeep
