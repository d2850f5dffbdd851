// Kept magnitude of groups of channels: with another channel in a place, or two groups split anew.
#include "channel_swap.hpp"

#include <algorithm>

#include "double_lanes.hpp"
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

using V = DoubleLanes;

constexpr int width = lanes<V>;
constexpr int tile_rows = 4, tile_vectors = 3;
constexpr std::int64_t row_tile = 256;

// out += the sums of a tile of places and channels over `rows` rows. Like a product of matrices
// with a maximum in place of the multiplication.
template <int places>
void add_maxima(const double* x, std::int64_t channels, const double* floors, std::int64_t stride,
                std::int64_t rows, double* out) {
    V sums[places][tile_vectors];
    for (int i = 0; i < places; ++i)
        for (int j = 0; j < tile_vectors; ++j) sums[i][j] = load<V>(out + i * channels + j * width);
    for (std::int64_t r = 0; r < rows; ++r) {
        V magnitudes[tile_vectors];
        for (int j = 0; j < tile_vectors; ++j)
            magnitudes[j] = load<V>(x + r * channels + j * width);
        for (int i = 0; i < places; ++i) {
            const V floor = broadcast<V>(floors[i * stride + r]);
            for (int j = 0; j < tile_vectors; ++j)
                sums[i][j] = sums[i][j] + larger(magnitudes[j], floor);
        }
    }
    for (int i = 0; i < places; ++i)
        for (int j = 0; j < tile_vectors; ++j) store(out + i * channels + j * width, sums[i][j]);
}

void add_maxima(const SwapJob& job, std::int64_t begin, std::int64_t end, std::int64_t row,
                std::int64_t rows) {
    constexpr std::int64_t columns = tile_vectors * width;
    const std::int64_t whole = job.channels / columns * columns;
    for (std::int64_t i = begin; i < end;) {
        const std::int64_t places = end - i >= tile_rows ? tile_rows : 1;
        const double* floors = job.floors + i * job.rows + row;
        double* out = job.out + i * job.channels;
        const double* x = job.magnitudes + row * job.channels;
        for (std::int64_t j = 0; j < whole; j += columns) {
            if (places == tile_rows)
                add_maxima<tile_rows>(x + j, job.channels, floors, job.rows, rows, out + j);
            else
                add_maxima<1>(x + j, job.channels, floors, job.rows, rows, out + j);
        }
        for (std::int64_t place = 0; place < places; ++place)
            for (std::int64_t r = 0; r < rows; ++r)
                for (std::int64_t j = whole; j < job.channels; ++j)
                    out[place * job.channels + j] +=
                        std::max(x[r * job.channels + j], floors[place * job.rows + r]);
        i += places;
    }
}

// The sum of the n largest of m numbers in each lane; largest first in `kept`.
template <int most>
V sum_of_largest(const V* from, const std::uint8_t* chosen, int m, int n) {
    V kept[most] = {};
    for (int i = 0; i < m; ++i) {
        V x = from[chosen[i]];
        for (int k = 0; k < n; ++k) {
            const V least = smaller(kept[k], x);
            kept[k] = larger(kept[k], x);
            x = least;
        }
    }
    V sum = kept[0];
    for (int k = 1; k < n; ++k) sum = sum + kept[k];
    return sum;
}

template <int n_known>
void score_choices(const SwapJob& job, std::int64_t pair) {
    const int n = n_known ? n_known : job.n, members = 2 * job.m;
    const std::int64_t* channels = job.members + pair * members;
    V sums[swap_most_choices];
    for (std::int64_t c = 0; c < job.choices; ++c) sums[c] = V{};
    for (std::int64_t r = 0; r < job.rows; r += width) {
        const std::int64_t left = std::min<std::int64_t>(width, job.rows - r);
        V x[swap_most_members];
        for (int i = 0; i < members; ++i) {
            double row[width] = {};
            std::memcpy(row, job.magnitudes + channels[i] * job.rows + r,
                        std::size_t(left) * sizeof(double));
            x[i] = load<V>(row);
        }
        constexpr int most = n_known ? n_known : swap_most_members / 2;
        for (std::int64_t c = 0; c < job.choices; ++c) {
            const std::uint8_t* chosen = job.chosen + c * members;
            sums[c] = sums[c] + sum_of_largest<most>(x, chosen, job.m, n) +
                      sum_of_largest<most>(x, chosen + job.m, job.m, n);
        }
    }
    for (std::int64_t c = 0; c < job.choices; ++c) {
        double sum = 0;
        for (int i = 0; i < width; ++i) sum += sums[c][i];
        job.out[pair * job.choices + c] = sum;
    }
}

}  // namespace

void swap_gains(const SwapJob& job, std::int64_t begin, std::int64_t end) {
    if (job.members) {
        for (std::int64_t pair = begin; pair < end; ++pair) {
            if (job.n == 1)
                score_choices<1>(job, pair);
            else if (job.n == 2)
                score_choices<2>(job, pair);
            else
                score_choices<0>(job, pair);
        }
        return;
    }
    for (std::int64_t i = begin * job.channels; i < end * job.channels; ++i) job.out[i] = 0;
    for (std::int64_t row = 0; row < job.rows; row += row_tile)
        add_maxima(job, begin, end, row, std::min(row_tile, job.rows - row));
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
