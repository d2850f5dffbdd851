// Hadamard rotations of groups along an axis: butterflies in registers, then in a tile.
#include "hadamard.hpp"

#include <algorithm>
#include <utility>

#include "float_environment.hpp"
#include "kernels.hpp"
#include "narrow_lanes.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

using U = WordLanes;
using V = FloatLanes;

constexpr int width = lanes<V>;
constexpr int most_vectors = 8;  // transformed together in registers
constexpr std::int64_t line_tile = 4096, column_tile = 1 << 16;
static_assert(hadamard_sign_margin >= width);

// u + v and u - v of the lanes whose numbers differ in the bit `step`.
template <int step, std::size_t... i>
V lane_butterfly(V x, std::index_sequence<i...>) {
    const V other = __builtin_shufflevector(x, x, (int(i) ^ step)...);
    const V sum = x + other, difference = other - x;
    return __builtin_shufflevector(sum, difference, (int(i) & step ? int(i) + width : int(i))...);
}

template <int group, int step = 1>
V lane_butterflies(V x) {
    if constexpr (step < group) {
        x = lane_butterfly<step>(x, std::make_index_sequence<width>());
        return lane_butterflies<group, 2 * step>(x);
    } else {
        return x;
    }
}

template <int vectors>
void vector_butterflies(V (&v)[vectors]) {
#pragma GCC unroll 3
    for (int step = 1; step < vectors; step *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < vectors; ++i) {
            if (i & step) continue;
            const V sum = v[i] + v[i + step], difference = v[i] - v[i + step];
            v[i] = sum;
            v[i + step] = difference;
        }
    }
}

V with_signs(V x, U signs) { return bits_as<V>(bits_as<U>(x) ^ signs); }

template <int radix>
void butterfly_pass(float* buffer, std::int64_t size, std::int64_t step) {
    for (std::int64_t block = 0; block < size; block += radix * step) {
        for (std::int64_t j = block; j < block + step; j += width) {
            V v[radix];
#pragma GCC unroll 8
            for (int i = 0; i < radix; ++i) v[i] = load<V>(buffer + j + i * step);
            vector_butterflies(v);
#pragma GCC unroll 8
            for (int i = 0; i < radix; ++i) store(buffer + j + i * step, v[i]);
        }
    }
}

// The stages step, 2 step, ... below `size`; step is a multiple of the vector's width.
void butterflies(float* buffer, std::int64_t size, std::int64_t step) {
    while (step < size) {
        const std::int64_t left = size / step;
        if (left >= 8) {
            butterfly_pass<8>(buffer, size, step);
            step *= 8;
        } else if (left >= 4) {
            butterfly_pass<4>(buffer, size, step);
            step *= 4;
        } else {
            butterfly_pass<2>(buffer, size, step);
            step *= 2;
        }
    }
}

// The last multiplication; NaN is the quiet, positive one, whatever the butterflies made of it.
struct Finish {
    struct Seen {
        void operator|=(const Seen&) {}
    };

    U operator()(const float* from, std::int64_t, Seen&) const {
        const V x = load<V>(from) * scale;
        return select(x == x, bits_as<U>(x), U{} + 0x7FC00000u);
    }

    float scale;
};

void write(const Finish& finish, const float* from, float* to, std::int64_t count, bool stream) {
    Finish::Seen seen;
    if (stream)
        for_lanes<true>(from, to, count, finish, seen);
    else
        for_lanes<false>(from, to, count, finish, seen);
}

// Groups of consecutive elements: `count` elements from number `first` on. The stages below `group`
// stay within a vector; `vectors` of these are transformed together.
template <int group, int vectors>
[[gnu::noinline]] void rotate_lines(const HadamardJob& job, std::int64_t first,
                                    std::int64_t count) {
    alignas(64) float buffer[line_tile];
    constexpr std::int64_t block = vectors * width;
    const Finish finish{job.scale};
    std::int64_t position = first % job.period;
    const auto next = [&job, &position](std::int64_t step) {
        position += step;
        while (position >= job.period) position -= job.period;
    };
    for (std::int64_t done = 0; done < count; done += line_tile) {
        const std::int64_t size = std::min(line_tile, count - done);
        const float* in = job.in + first + done;
        const std::int64_t start = position;
        float padded[block] = {};
        for (std::int64_t i = 0; i < size; i += block) {
            const float* from = in + i;
            if (i + block > size) {
                std::memcpy(padded, from, std::size_t(size - i) * sizeof(float));
                from = padded;
            }
            V v[vectors];
#pragma GCC unroll 8
            for (int k = 0; k < vectors; ++k) {
                v[k] = load<V>(from + k * width);
                if (!job.inverse)
                    v[k] = with_signs(v[k], load<U>(job.signs + position + k * width));
                v[k] = lane_butterflies<group>(v[k]);
            }
            vector_butterflies(v);
#pragma GCC unroll 8
            for (int k = 0; k < vectors; ++k) {
                if (job.inverse && job.size <= block)
                    v[k] = with_signs(v[k], load<U>(job.signs + position + k * width));
                store(buffer + i + k * width, v[k]);
            }
            next(block);
        }
        if (job.size > block) {
            for (std::int64_t i = 0; i < size; i += job.size)
                butterflies(buffer + i, job.size, block);
            if (job.inverse) {
                position = start;
                for (std::int64_t i = 0; i < size; i += width, next(width))
                    store(buffer + i,
                          with_signs(load<V>(buffer + i), load<U>(job.signs + position)));
            }
        }
        write(finish, buffer, job.out + first + done, size, job.stream);
    }
}

void rotate_lines(const HadamardJob& job, std::int64_t begin, std::int64_t end) {
    const std::int64_t first = begin * job.size, count = (end - begin) * job.size;
    if constexpr (width > 8)
        if (job.size == 8) return rotate_lines<8, 1>(job, first, count);
    if constexpr (width > 4)
        if (job.size == 4) return rotate_lines<4, 1>(job, first, count);
    if (job.size == 2) return rotate_lines<2, 1>(job, first, count);
    switch (job.size / width) {
        case 1:
            return rotate_lines<width, 1>(job, first, count);
        case 2:
            return rotate_lines<width, 2>(job, first, count);
        case 4:
            return rotate_lines<width, 4>(job, first, count);
        default:
            return rotate_lines<width, most_vectors>(job, first, count);
    }
}

// Columns [begin, end) of one slab: each row of a tile holds one element of each group.
[[gnu::noinline]] void rotate_columns(const HadamardJob& job, std::int64_t slab, std::int64_t begin,
                                      std::int64_t end) {
    alignas(64) float buffer[column_tile + hadamard_largest_size * width];
    const std::int64_t most = column_tile / job.size;
    const std::int64_t origin = slab * job.size * job.inner;
    const std::uint32_t* signs = job.signs + slab * job.size % job.period;
    for (std::int64_t column = begin; column < end; column += most) {
        const std::int64_t columns = std::min(most, end - column);
        // A vector more than a power of two: rows at one address modulo 4096 would wait for each
        // other.
        const std::int64_t step = (columns + width - 1) / width * width + width;
        for (std::int64_t row = 0; row < job.size; ++row) {
            const float* from = job.in + origin + row * job.inner + column;
            float* to = buffer + row * step;
            const U sign = U{} + (job.inverse ? 0 : signs[row]);
            store(to + step - 2 * width, V{});
            store(to + step - width, V{});
            std::memcpy(to, from, std::size_t(columns) * sizeof(float));
            for (std::int64_t i = 0; i < step; i += width)
                store(to + i, with_signs(load<V>(to + i), sign));
        }
        butterflies(buffer, job.size * step, step);
        for (std::int64_t row = 0; row < job.size; ++row) {
            const bool negative = job.inverse && signs[row] != 0;
            write(Finish{negative ? -job.scale : job.scale}, buffer + row * step,
                  job.out + origin + row * job.inner + column, columns,
                  job.stream && columns >= 128);
        }
    }
}

}  // namespace

void hadamard(const HadamardJob& job, std::int64_t begin, std::int64_t end) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    if (job.inner == 1) {
        rotate_lines(job, begin, end);
    } else {
        for (std::int64_t group = begin; group < end;) {
            const std::int64_t slab = group / job.inner, column = group % job.inner;
            const std::int64_t columns = std::min(job.inner - column, end - group);
            rotate_columns(job, slab, column, column + columns);
            group += columns;
        }
    }
    if (job.stream) finish_streaming();
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
