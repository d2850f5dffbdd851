// Philox4x32-10, the only source of randomness: a function of seed, stream, call and logical index.
#pragma once

#include <cstdint>

#include "host_device.hpp"

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

// One round on the four counter words. `Wide` holds 64-bit products: std::uint64_t here, and a
// vector of them where a kernel keeps several counters side by side.
template <class Word, class Wide>
static ABCDEEP_HOST_DEVICE inline void philox_round(Word& c0, Word& c1, Word& c2, Word& c3, Word k0,
                                                    Word k1) {
    const Wide p0 = Wide(0xD2511F53u) * Wide(c0);
    const Wide p1 = Wide(0xCD9E8D57u) * Wide(c2);
    c0 = Word(p1 >> 32) ^ c1 ^ k0;
    c1 = Word(p1);
    c2 = Word(p0 >> 32) ^ c3 ^ k1;
    c3 = Word(p0);
}

static ABCDEEP_HOST_DEVICE inline PhiloxBlock philox4x32(PhiloxBlock counter, std::uint32_t k0,
                                                         std::uint32_t k1, int rounds = 10) {
    auto& c = counter.word;
    for (int round = 0; round < rounds; ++round) {
        philox_round<std::uint32_t, std::uint64_t>(c[0], c[1], c[2], c[3], k0, k1);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return counter;
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
