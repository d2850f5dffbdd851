// Blocks of transposable masks: scaled weights in, bytes of the mask out.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "transposable.hpp"

namespace abcdeep {
namespace {

// Weights are integers in units of 2^-40 of the power of two at or below the block's maximum.
constexpr int weight_bits = 40;

// The order of magnitudes is that of these integers.
static inline std::uint32_t magnitude_bits(float x) {
    return std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFu;
}
static inline std::uint64_t magnitude_bits(double x) {
    return std::bit_cast<std::uint64_t>(x) & 0x7FFFFFFFFFFFFFFFu;
}

template <class T>
using MagnitudeBits = decltype(magnitude_bits(T()));

template <class T>
constexpr MagnitudeBits<T> infinity_bits =
    std::bit_cast<MagnitudeBits<T>>(std::numeric_limits<T>::infinity());

// floor(log2) of a positive number.
static inline int exponent_of(double x) {
    const std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
    const int field = int(bits >> 52);
    return field != 0 ? field - 1023 : 63 - std::countl_zero(bits) - 1074;
}

static inline double power_of_two(int exponent) {
    return std::bit_cast<double>(std::uint64_t(exponent + 1023) << 52);
}

template <class T>
static inline MagnitudeBits<T> largest_bits(const T* from, std::int64_t step, int m) {
    MagnitudeBits<T> most = 0;
    for (int i = 0; i < m; ++i, from += step)
        for (int j = 0; j < m; ++j) {
            const auto bits = magnitude_bits(from[j]);
            most = bits > most ? bits : most;
        }
    return most;
}

// to[i * to_step + j] = floor(|w| 2^(40 - E)) of an m x m block; false if something is not finite.
template <class T>
static inline bool scaled_weights(const T* from, std::int64_t step, int m, double* to,
                                  int to_step) {
    const MagnitudeBits<T> most = largest_bits(from, step, m);
    if (most >= infinity_bits<T>) return false;
    const int shift = most == 0 ? 0 : weight_bits - exponent_of(double(std::bit_cast<T>(most)));
    // In two factors: that of the smallest doubles is too large for one.
    const int first = shift < 1000 ? shift : 1000;
    const double scale = power_of_two(first), rest = power_of_two(shift - first);
    constexpr double integers = 0x1p52;  // from here on doubles are integers
    for (int i = 0; i < m; ++i, from += step, to += to_step)
        for (int j = 0; j < m; ++j) {
            double x = double(from[j]) * scale;
            if constexpr (sizeof(T) == 8) x *= rest;
            x = x < 0 ? -x : x;
            const double nearest = x + integers - integers;
            to[j] = nearest > x ? nearest - 1 : nearest;
        }
    return true;
}

// Bytes of 0 and 1 from the low bits of each row.
static inline void write_rows(const std::uint32_t* rows, int m, std::uint8_t* out,
                              std::int64_t step) {
    for (int i = 0; i < m; ++i, out += step) {
        for (int j = 0; j < m; j += 8) {
            const std::uint64_t ones = 0x0101010101010101u;
            // Bit b of the byte to bit b of byte b; then every byte but zero has bit 7 set.
            const std::uint64_t spread = (rows[i] >> j & 0xFF) * ones & 0x8040201008040201u;
            std::uint64_t bytes = (spread + 0x7F * ones) >> 7 & ones;
            if constexpr (std::endian::native == std::endian::big) bytes = __builtin_bswap64(bytes);
            std::memcpy(out + j, &bytes, std::size_t(m - j < 8 ? m - j : 8));
        }
    }
}

}  // namespace
}  // namespace abcdeep
