// Philox4x32-10, the only source of randomness: a function of seed, stream, call and logical index.
#pragma once

#include <cstdint>

#include "host_device.hpp"
#include "wide_product.hpp"

namespace abcdeep {

// Which sequence: one stream per tensor, one call per step (caller-chosen).
struct RandomAddress {
    std::uint64_t seed;
    std::uint32_t stream;
    std::uint32_t call;
};

struct PhiloxBlock {
    std::uint32_t word[4];
};

// One round on the four counter words. `Word` is std::uint64_t or a vector of them, of which the
// low 32 bits count: the product needs the room, and the bits above it are never read.
template <class Word>
static ABCDEEP_HOST_DEVICE inline void philox_round(Word& c0, Word& c1, Word& c2, Word& c3,
                                                    std::uint32_t k0, std::uint32_t k1) {
    const Word p0 = low_product(c0, 0xD2511F53u);
    const Word p1 = low_product(c2, 0xCD9E8D57u);
    c0 = (p1 >> 32) ^ c1 ^ std::uint64_t(k0);
    c1 = p1;
    c2 = (p0 >> 32) ^ c3 ^ std::uint64_t(k1);
    c3 = p0;
}

template <class Word>
static ABCDEEP_HOST_DEVICE inline void philox_rounds(Word (&c)[4], std::uint32_t k0,
                                                     std::uint32_t k1, int rounds) {
    for (int round = 0; round < rounds; ++round) {
        philox_round(c[0], c[1], c[2], c[3], k0, k1);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

static ABCDEEP_HOST_DEVICE inline PhiloxBlock philox4x32(PhiloxBlock counter, std::uint32_t k0,
                                                         std::uint32_t k1, int rounds = 10) {
    std::uint64_t c[4] = {counter.word[0], counter.word[1], counter.word[2], counter.word[3]};
    philox_rounds(c, k0, k1, rounds);
    return {{std::uint32_t(c[0]), std::uint32_t(c[1]), std::uint32_t(c[2]), std::uint32_t(c[3])}};
}

// The four words with logical indices 4 * block ... 4 * block + 3.
static ABCDEEP_HOST_DEVICE inline PhiloxBlock random_block(const RandomAddress& address,
                                                           std::uint64_t block) {
    const PhiloxBlock counter = {
        {std::uint32_t(block), std::uint32_t(block >> 32), address.stream, address.call}};
    return philox4x32(counter, std::uint32_t(address.seed), std::uint32_t(address.seed >> 32));
}

// The word of one logical index. Where consecutive words are needed, see random_tile.hpp.
static ABCDEEP_HOST_DEVICE inline std::uint32_t random_word(const RandomAddress& address,
                                                            std::uint64_t index) {
    return random_block(address, index / 4).word[index % 4];
}

}  // namespace abcdeep
