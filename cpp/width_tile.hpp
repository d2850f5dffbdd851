// Exact partial sums of a tile of dot products, and the widths that hold them.
#pragma once

#include <algorithm>
#include <bit>

#include "accumulator_widths.hpp"
#include "datapath.hpp"
#include "gemm_lanes.hpp"
#include "lane_masks.hpp"
#include "simd.hpp"

namespace abcdeep {
namespace {

template <class V>
V lower_of(V a, V b) {
    if constexpr (sizeof(Element<V>) == 4) return smaller(a, b);
    return select(a < b, a, b);
}
template <class V>
V upper_of(V a, V b) {
    if constexpr (sizeof(Element<V>) == 4) return larger(a, b);
    return select(a > b, a, b);
}

// Bits of a two's complement number, or of an unsigned one, that holds lowest <= 0 <= highest.
template <class E>
int width_of(E lowest, E highest, bool is_signed) {
    using U = std::make_unsigned_t<E>;
    if (is_signed) return std::bit_width(U(std::max(E(~lowest), highest))) + 1;
    return lowest < 0 ? no_width : std::bit_width(U(highest));
}

// What a lane of an operand holds: a number; one of 16 bits, the upper half zero; or two of those,
// terms that no partial sum parts.
enum class Packing { whole, half, pair };

// Products of lanes, those of a pair added.
template <class V, Packing packing>
V products(V a, V b) {
    if constexpr (packing != Packing::whole) {
        static_assert(sizeof(Element<V>) == 4);
#if defined(__AVX512BW__) && ABCDEEP_VECTOR_BYTES == 64
        return V(_mm512_madd_epi16(__m512i(a), __m512i(b)));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
        return V(_mm256_madd_epi16(__m256i(a), __m256i(b)));
#elif defined(__SSE2__) && ABCDEEP_VECTOR_BYTES == 16
        return V(_mm_madd_epi16(__m128i(a), __m128i(b)));
#else
        return ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
    }
    return a * b;
}

// sum + max(p, 0)
template <class V>
V add_positive(V sum, V p) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    if constexpr (sizeof(Element<V>) == 4)  // a port that larger() does not use
        return V(_mm512_mask_add_epi32(__m512i(sum),
                                       _mm512_cmpgt_epi32_mask(__m512i(p), _mm512_setzero_si512()),
                                       __m512i(sum), __m512i(p)));
#endif
    return sum + upper_of(p, V{});
}

// every_order: also what the widths beyond the first two need.
template <class V, Packing packing, bool every_order>
class WidthTile {
    using E = Element<V>;
    static constexpr int width = lanes<V>, vectors = 2, columns = vectors * width, rows = 2;
    static constexpr int in_lane = packing == Packing::pair ? 2 : 1;
    static constexpr std::int64_t depth = 256;  // lanes of terms of a panel

    // Of one row and one vector of columns.
    struct State {
        V chunk{}, smallest{}, largest{};  // of the sum of a chunk
        V merged{}, positive{};            // sums of chunks, of positive terms
        V top{}, bottom{};                 // largest and smallest term
    };
    struct RowRange {
        std::int64_t begin, end;
    };

  public:
    WidthTile(const IntegerJob& job, const WidthJob& widths, WidthTotals& totals)
        : job_(job),
          widths_(widths),
          totals_(totals),
          terms_((job.terms + in_lane - 1) / in_lane),
          group_((widths.group + in_lane - 1) / in_lane),
          chunk_(widths.chunk > 0 && widths.chunk < job.terms ? widths.chunk / in_lane : terms_) {}

    void run(const Block& block) {
        const std::int64_t row_tiles = (block.row_end - block.row_begin + rows - 1) / rows;
        const Scratch<State> states(row_tiles * rows * vectors);
        const Scratch<E> panel(depth * columns), left(row_tiles * rows * terms_);
        for (std::int64_t i = 0; i < row_tiles; ++i)
            pack_left(left + i * rows * terms_, block.row_begin + i * rows, block.row_end);
        for (std::int64_t n = block.column_begin; n < block.column_end; n += columns) {
            const int valid = int(std::min<std::int64_t>(columns, block.column_end - n));
            for (std::int64_t m = 0; m < row_tiles * rows; ++m)
                open(states + m * vectors, block.row_begin + m, n, valid, block.row_end);
            for (std::int64_t k = 0; k < terms_; k += depth) {
                const std::int64_t end = std::min(terms_, k + depth);
                pack_right(panel, n, valid, k, end);
                for (std::int64_t i = 0; i < row_tiles; ++i)
                    terms(left + (i * terms_ + k) * rows, panel, states + i * rows * vectors, k,
                          end, {block.row_begin + i * rows, block.row_end}, valid);
            }
            for (std::int64_t m = block.row_begin; m < block.row_end; ++m)
                close(states + (m - block.row_begin) * vectors, m, n, valid);
        }
        for (const auto& table : counts_)
            for (int bits = 0; bits < width_bins; ++bits) {
                totals_.positive[bits] += table[bits];
                totals_.negative[bits] += table[width_bins + bits];
            }
    }

  private:
    std::int64_t operand_index(std::int64_t k) const { return job_.order ? job_.order[k] : k; }

    // Lane k of an operand, whose term i is at(i).
    template <class At>
    E lane(std::int64_t k, const At& at) const {
        if constexpr (packing == Packing::whole) return E(at(operand_index(k)));
        if constexpr (packing == Packing::half) return E(at(operand_index(k)) & 0xffff);
        const std::int64_t first = k * in_lane, second = first + 1;
        const std::uint32_t low = std::uint32_t(at(operand_index(first))) & 0xffff;
        const std::uint32_t high =
            second < job_.terms ? std::uint32_t(at(operand_index(second))) << 16 : 0;
        return E(low | high);
    }

    // All terms of a tile's rows; a last odd row stands for two.
    void pack_left(E* to, std::int64_t first, std::int64_t row_end) const {
        with_type(job_.a.data, job_.a.type, [&](auto* data) {
            for (int i = 0; i < rows; ++i) {
                const std::int64_t m = std::min(first + i, row_end - 1);
                const auto* row = data + m * job_.a.row_stride;
                for (std::int64_t k = 0; k < terms_; ++k)
                    to[k * rows + i] = lane(k, [&](std::int64_t term) {
                        return std::int32_t(row[term * job_.a.column_stride]);
                    });
            }
        });
    }
    void pack_right(E* to, std::int64_t first, int valid, std::int64_t begin,
                    std::int64_t end) const {
        with_type(job_.b.data, job_.b.type, [&](auto* data) {
            for (std::int64_t k = begin; k < end; ++k, to += columns) {
                for (int n = 0; n < valid; ++n)
                    to[n] = lane(k, [&](std::int64_t term) {
                        return std::int32_t(
                            data[term * job_.b.row_stride + (first + n) * job_.b.column_stride]);
                    });
                for (int n = valid; n < columns; ++n) to[n] = 0;
            }
        });
    }

    void open(State* states, std::int64_t m, std::int64_t n, int valid, std::int64_t row_end) {
        for (int v = 0; v < vectors; ++v) {
            State state{};
            if (job_.c.data && m < row_end)
                for (int j = 0; j < width && v * width + j < valid; ++j)
                    state.chunk[j] = E(job_.c(m, n + v * width + j));
            state.smallest = lower_of(state.chunk, V{});
            state.largest = upper_of(state.chunk, V{});
            states[v] = state;
        }
    }

    // End of the group that holds term k of a chunk.
    std::int64_t group_end(std::int64_t k) const {
        const std::int64_t start = k / chunk_ * chunk_;
        return start + ((k - start) / group_ + 1) * group_;
    }

    void terms(const E* a, const E* b, State* states, std::int64_t begin, std::int64_t end,
               RowRange range, int valid) {
        State s[rows][vectors];
        for (int i = 0; i < rows; ++i)
            for (int j = 0; j < vectors; ++j) s[i][j] = states[i * vectors + j];
        bool counted = false;
        for (std::int64_t m = range.begin; m < range.end && m < range.begin + rows; ++m)
            counted |= widths_.counted && widths_.counted[m];
        for (std::int64_t k = begin; k < end;) {
            const std::int64_t chunk_end = std::min(terms_, (k / chunk_ + 1) * chunk_);
            const std::int64_t stop = std::min(end, chunk_end);
            while (k < stop) {
                const std::int64_t whole = (stop - k) / group_;
                if (!counted && whole > 0 && k + group_ == group_end(k)) {
                    const std::int64_t count = whole * group_;
                    const auto steps = group_ == 1   ? &WidthTile::whole_steps<1>
                                       : group_ == 2 ? &WidthTile::whole_steps<2>
                                                     : &WidthTile::whole_steps<0>;
                    (this->*steps)(a, b, s, whole);
                    k += count, a += count * rows, b += count * columns;
                    continue;
                }
                const std::int64_t step_end = std::min(group_end(k), chunk_end);
                const std::int64_t here = std::min(step_end, stop);
                for (; k < here; ++k, a += rows, b += columns) add(a, b, s);
                if (k < step_end) break;
                note(s);
                if (counted) count(s, range, valid);
            }
            if (k == chunk_end) merge(s);
        }
        for (int i = 0; i < rows; ++i)
            for (int j = 0; j < vectors; ++j) states[i * vectors + j] = s[i][j];
    }

    // The loop that takes the time: its sums are in registers. Those of chunks stay in s.
    template <int group>  // 0: that of the job
    [[gnu::noinline]] void whole_steps(const E* a, const E* b, State (&s)[rows][vectors],
                                       std::int64_t count) const {
        State t[rows][vectors];
        copy(s, t);
        for (std::int64_t i = 0; i < count; ++i) {
            for (std::int64_t k = 0; k < (group > 0 ? group : group_); ++k, a += rows, b += columns)
                add(a, b, t);
            note(t);
        }
        copy(t, s);
    }
    // Vector by vector: a whole struct goes by way of memory.
    [[gnu::always_inline]] static void copy(const State (&from)[rows][vectors],
                                            State (&to)[rows][vectors]) {
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) {
                const State& x = from[i][j];
                State& y = to[i][j];
                y.chunk = x.chunk, y.smallest = x.smallest, y.largest = x.largest;
                if constexpr (every_order)
                    y.positive = x.positive, y.top = x.top, y.bottom = x.bottom;
            }
    }

    [[gnu::always_inline]] static void add(const E* a, const E* b, State (&s)[rows][vectors]) {
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) {
                State& one = s[i][j];
                const V p = products<V, packing>(broadcast<V>(a[i]), load<V>(b + j * width));
                one.chunk += p;
                if constexpr (!every_order) continue;
                one.positive = add_positive(one.positive, p);
                one.top = upper_of(one.top, p);
                one.bottom = lower_of(one.bottom, p);
            }
    }
    [[gnu::always_inline]] static void note(State (&s)[rows][vectors]) {
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) {
                s[i][j].smallest = lower_of(s[i][j].smallest, s[i][j].chunk);
                s[i][j].largest = upper_of(s[i][j].largest, s[i][j].chunk);
            }
    }

    // The sum of a chunk enters that of the chunks.
    void merge(State (&s)[rows][vectors]) const {
        for (auto& row : s)
            for (State& one : row) {
                one.merged += one.chunk;
                one.chunk = V{};
                if (widths_.merges_exactly) continue;
                one.smallest = lower_of(one.smallest, one.merged);
                one.largest = upper_of(one.largest, one.merged);
            }
    }

    // Neighbours are often equally long: each counts in a table of its own.
    void count(const State (&s)[rows][vectors], RowRange range, int valid) {
        using U = std::make_unsigned_t<E>;
        for (int i = 0; i < rows && range.begin + i < range.end; ++i) {
            if (!widths_.counted[range.begin + i]) continue;
            E sums[columns];
            U bins[columns];
            for (int j = 0; j < vectors; ++j) store(sums + j * width, s[i][j].chunk);
            for (int n = 0; n < columns; ++n) {
                const U sign = U(sums[n] >> (8 * sizeof(E) - 1));  // no branch on a random sign
                bins[n] = U(std::bit_width((U(sums[n]) ^ sign) - sign)) + (sign & width_bins);
            }
            for (int n = 0; n < valid; ++n) ++counts_[n % tables][bins[n]];
        }
    }

    void close(const State* states, std::int64_t m, std::int64_t n, int valid) {
        const std::int64_t at = m * job_.columns + n;
        E smallest = 0, largest = 0;
        for (int j = 0; j < valid; ++j) {
            const State& s = states[j / width];
            const int lane = j % width;
            const E start = job_.c.data ? E(job_.c(m, n + j)) : 0;
            const E sum = (job_.terms ? s.merged : s.chunk)[lane], positive = s.positive[lane];
            const E negative = sum - start - positive;
            const E low = std::min(start, E(0)), high = std::max(start, E(0));
            auto put = [&](WidthKind kind, E lowest, E highest) {
                widths_.widths[kind][at + j] =
                    std::uint8_t(width_of(lowest, highest, widths_.is_signed));
            };
            smallest = std::min(smallest, s.smallest[lane]);
            largest = std::max(largest, s.largest[lane]);
            put(given_width, s.smallest[lane], s.largest[lane]);
            put(final_width, std::min(sum, E(0)), std::max(sum, E(0)));
            if constexpr (!every_order) continue;
            E lowest = E(start + negative), highest = E(start + positive);
            if (chunk_ < terms_) {  // later chunks start from zero
                lowest = std::min(lowest, negative);
                highest = std::max(highest, positive);
            }
            put(any_order_width, std::min(low, lowest), std::max(high, highest));
            // A negative term is added to a sum of at least 1, a positive one to at most 0.
            put(greedy_width, std::min(std::min(low, sum), E(s.bottom[lane] + 1)),
                std::max(std::max(high, sum), s.top[lane]));
        }
        totals_.smallest = std::min<std::int64_t>(totals_.smallest, smallest);
        totals_.largest = std::max<std::int64_t>(totals_.largest, largest);
    }

    const IntegerJob& job_;
    const WidthJob& widths_;
    WidthTotals& totals_;
    static constexpr int tables = 4;
    std::int64_t counts_[tables][2 * width_bins] = {};  // positive, then negative sums
    // In lanes: a pair counts as one.
    std::int64_t terms_, group_, chunk_;
};

}  // namespace
}  // namespace abcdeep
