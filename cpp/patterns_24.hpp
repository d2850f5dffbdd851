// The 90 patterns of a transposable 2:4 block, and the 19 ways in which its halves meet.
#pragma once

#include <array>
#include <cstdint>

namespace abcdeep {
namespace {

// The pairs of columns that a row may keep, in order.
inline constexpr std::array<std::array<int, 2>, 6> row_pairs = {
    {{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}}};

// What the rows keep in each column, two bits a column.
constexpr int column_counts(int first, int second) {
    int counts = 0;
    for (int pair : {first, second})
        for (int column : row_pairs[std::size_t(pair)]) counts += 1 << 2 * column;
    return counts;
}

constexpr int two_each = 0xAA;

// Four row pairs with two kept in every column, lexicographic.
using Pattern24 = std::array<std::uint8_t, 4>;

constexpr auto make_patterns_24() {
    std::array<Pattern24, 90> patterns{};
    std::size_t count = 0;
    for (int a = 0; a < 6; ++a)
        for (int b = 0; b < 6; ++b)
            for (int c = 0; c < 6; ++c)
                for (int d = 0; d < 6; ++d)
                    if (column_counts(a, b) + column_counts(c, d) == two_each)
                        patterns[count++] = {std::uint8_t(a), std::uint8_t(b), std::uint8_t(c),
                                             std::uint8_t(d)};
    return patterns;
}
inline constexpr auto patterns_24 = make_patterns_24();
static_assert(patterns_24[89] == Pattern24{5, 5, 0, 0});

// Pairs of rows with the same column counts: 1, 2 or 6 of them on top, as many below that fill
// every column up to two.
struct HalfClass {
    int size;
    std::array<std::array<int, 2>, 6> top, bottom;
};

constexpr auto make_half_classes() {
    std::array<HalfClass, 19> classes{};
    std::size_t count = 0;
    for (int counts = 0; counts <= two_each; ++counts) {
        HalfClass found{};
        std::size_t bottoms = 0;
        for (int a = 0; a < 6; ++a)
            for (int b = 0; b < 6; ++b) {
                if (column_counts(a, b) == counts) found.top[std::size_t(found.size++)] = {a, b};
                if (column_counts(a, b) == two_each - counts) found.bottom[bottoms++] = {a, b};
            }
        if (found.size != 0) classes[count++] = found;
    }
    return classes;
}
inline constexpr auto half_classes = make_half_classes();

}  // namespace
}  // namespace abcdeep
