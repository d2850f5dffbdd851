// The largest magnitude of an array, as float bits: integers in the order of the magnitudes.
#include "kernels.hpp"
#include "narrow_lanes.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

std::uint32_t largest_magnitude(const float* x, std::int64_t count) {
    using S = SignedLanes;
    constexpr int n = lanes<S>;
    constexpr std::int32_t magnitude = 0x7FFFFFFF;
    S most[4] = {};
    std::int64_t i = 0;
    for (; i + 4 * n <= count; i += 4 * n) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) most[j] = larger(most[j], load<S>(x + i + j * n) & magnitude);
    }
    for (; i < count; i += n) {
        std::int32_t rest[n] = {};
        std::memcpy(rest, x + i, sizeof(float) * std::size_t(count - i < n ? count - i : n));
        most[0] = larger(most[0], load<S>(rest) & magnitude);
    }
    most[0] = larger(larger(most[0], most[1]), larger(most[2], most[3]));
    std::int32_t result = 0;
    for (int j = 0; j < n; ++j) result = most[0][j] > result ? most[0][j] : result;
    return std::uint32_t(result);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
