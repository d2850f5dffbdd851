// Bindings: Philox blocks and random draws by logical index.
#include "bindings.hpp"
#include "dispatch.hpp"
#include "parallel.hpp"

namespace abcdeep {
namespace {

constexpr std::int64_t draws_per_piece = 1 << 16, blocks_per_piece = 1 << 14;

void philox_blocks(ArrayIn<std::uint32_t, 2> counters, ArrayIn<std::uint32_t, 2> keys, int rounds,
                   ArrayOut<std::uint32_t, 2> words, int threads) {
    const nb::gil_scoped_release release;
    const auto body = [&](std::int64_t begin, std::int64_t end) {
        kernels().philox_blocks(counters.data() + 4 * begin, keys.data() + 2 * begin, end - begin,
                                rounds, words.data() + 4 * begin);
    };
    parallel_ranges(std::int64_t(counters.shape(0)), blocks_per_piece, threads, body);
}

template <class Lane>
void random_lanes(std::uint64_t seed, std::uint32_t stream, std::uint32_t call, int bits,
                  std::uint64_t start, ArrayOut<Lane> out, int threads) {
    const nb::gil_scoped_release release;
    const auto body = [&](std::int64_t begin, std::int64_t end) {
        kernels().random_lanes({seed, stream, call}, bits, start + std::uint64_t(begin),
                               end - begin, out.data() + begin);
    };
    parallel_ranges(std::int64_t(out.size()), draws_per_piece, threads, body);
}

template <class Lane>
void bind_lanes(nb::module_& m) {
    m.def("random_lanes", &random_lanes<Lane>, "seed"_a, "stream"_a, "call"_a, "bits"_a, "start"_a,
          "out"_a.noconvert(), "threads"_a);
}

}  // namespace

void bind_random(nb::module_& m) {
    m.def("philox_blocks", &philox_blocks, "counters"_a.noconvert(), "keys"_a.noconvert(),
          "rounds"_a, "words"_a.noconvert(), "threads"_a);
    bind_lanes<std::uint8_t>(m);
    bind_lanes<std::uint16_t>(m);
    bind_lanes<std::uint32_t>(m);
}

}  // namespace abcdeep
