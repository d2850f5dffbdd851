// Transposable 2:4 masks: the best of the 90 patterns of each block; lanes are blocks.
#include <algorithm>

#include "double_lanes.hpp"
#include "float_environment.hpp"
#include "kernels.hpp"
#include "lane_masks.hpp"
#include "patterns_24.hpp"
#include "transposable_block.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

using I = Vector<std::int32_t>;
using U = Vector<std::uint32_t>;
using V = Vector<float>;

constexpr int width = lanes<V>;
constexpr int blocks_at_once = width, columns_at_once = 4 * width;

// A weight is 16 bits of the block's largest, floored, above 12 bits that say where it is: three
// for each row, in which columns 0 to 3 count 4, 2, 1 and 0. So the sum of a pattern also holds
// the codes of its rows, 6 for columns 0 and 1 down to 1 for columns 2 and 3.
constexpr int code_bits = 12, unit = 1 << code_bits;
constexpr int column_codes[4] = {4, 2, 1, 0};
constexpr int code_shift(int row) { return 9 - 3 * row; }

// Flooring loses less than 8 units of a sum, codes and the rounding of float64 less than one more.
constexpr int certain = 10 * unit;

// The bytes of a row's mask by its code.
constexpr std::uint32_t kept_bytes(int code) {
    for (const auto& pair : row_pairs)
        if (column_codes[pair[0]] + column_codes[pair[1]] == code)
            return 1u << 8 * pair[0] | 1u << 8 * pair[1];
    return 0;
}
alignas(64) constexpr std::uint32_t kept_words[16] = {
    kept_bytes(0), kept_bytes(1), kept_bytes(2), kept_bytes(3), kept_bytes(4), kept_bytes(5),
    kept_bytes(6), kept_bytes(7), kept_bytes(0), kept_bytes(1), kept_bytes(2), kept_bytes(3),
    kept_bytes(4), kept_bytes(5), kept_bytes(6), kept_bytes(7)};

// kept_words of the low three bits of each lane.
I kept_lanes(I codes) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return I(_mm512_permutexvar_epi32(__m512i(codes), __m512i(load<I>(kept_words))));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return I(_mm256_permutevar8x32_epi32(__m256i(load<I>(kept_words)), __m256i(codes)));
#else
    I words;
    for (int i = 0; i < width; ++i) words[i] = std::int32_t(kept_words[codes[i] & 7]);
    return words;
#endif
}

I truncated(V x) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return I(_mm512_maskz_cvttps_epi32(__mmask16(-1), __m512(x)));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return I(_mm256_cvttps_epi32(__m256(x)));
#else
    return __builtin_convertvector(x, I);
#endif
}

// Weights that are not finite may overflow.
I plus(I x, I y) { return I(U(x) + U(y)); }

// Rows become columns within every four lanes.
template <int half, std::size_t... i>
V interleave_quarters(V a, V b, std::index_sequence<i...>) {
    return __builtin_shufflevector(
        a, b, (int(i) / 4 * 4 + half * 2 + int(i) % 4 / 2 + int(i) % 2 * width)...);
}

void transpose_quarters(V (&v)[4]) {
    constexpr auto all = std::make_index_sequence<width>();
    for (int stage = 0; stage < 2; ++stage) {
        const V next[4] = {
            interleave_quarters<0>(v[0], v[2], all), interleave_quarters<1>(v[0], v[2], all),
            interleave_quarters<0>(v[1], v[3], all), interleave_quarters<1>(v[1], v[3], all)};
        for (int i = 0; i < 4; ++i) v[i] = next[i];
    }
}

// Lane 4 h + k, where the transposition left block k * width / 4 + h, to the lane of its block.
template <std::size_t... i>
I in_block_order(I x, std::index_sequence<i...>) {
    constexpr int pieces = width / 4;
    return __builtin_shufflevector(x, x, (int(i) % pieces * 4 + int(i) / pieces)...);
}

// gcc 12 takes the operand that the unmasked intrinsics leave undefined for a read of it.
I greater(I x, I y) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return I(_mm512_maskz_max_epi32(__mmask16(-1), __m512i(x), __m512i(y)));
#else
    return larger(x, y);
#endif
}
I lesser(I x, I y) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return I(_mm512_maskz_min_epi32(__mmask16(-1), __m512i(x), __m512i(y)));
#else
    return smaller(x, y);
#endif
}

struct Best {
    I first, second;

    void meet(I other_first) {
        second = greater(second, lesser(first, other_first));
        first = greater(first, other_first);
    }
    void meet(Best other) {
        second = greater(second, other.second);
        meet(other.first);
    }
};

// Inlined, so that no pair is looked up at run time.
[[gnu::always_inline]] inline Best best_of(const I (&upper)[6], const I (&lower)[6],
                                           const std::array<std::array<int, 2>, 6>& pairs,
                                           int count) {
    const auto sum = [&](std::size_t i) { return plus(upper[pairs[i][0]], lower[pairs[i][1]]); };
    const I a = sum(0), b = sum(1);
    Best best{greater(a, b), lesser(a, b)};
#pragma GCC unroll 4
    for (std::size_t i = 2; i < std::size_t(count); i += 2) {
        const I c = sum(i), d = sum(i + 1);
        best.meet(Best{greater(c, d), lesser(c, d)});
    }
    return best;
}

// The largest sum of the patterns of one class and the second one.
template <std::size_t number>
void meet_class(const I (&pairs)[4][6], Best& best) {
    constexpr const HalfClass& half = half_classes[number];
    if constexpr (half.size == 1) {
        best.meet(plus(plus(pairs[0][half.top[0][0]], pairs[1][half.top[0][1]]),
                       plus(pairs[2][half.bottom[0][0]], pairs[3][half.bottom[0][1]])));
    } else {
        const Best top = best_of(pairs[0], pairs[1], half.top, half.size);
        const Best bottom = best_of(pairs[2], pairs[3], half.bottom, half.size);
        best.meet(Best{plus(top.first, bottom.first),
                       greater(plus(top.first, bottom.second), plus(top.second, bottom.first))});
    }
}

template <std::size_t... number>
Best best_patterns(const I (&pairs)[4][6], std::index_sequence<number...>) {
    Best best{I{}, I{}};
    (meet_class<number>(pairs, best), ...);
    return best;
}

// `blocks_at_once` blocks side by side. Returns the lanes whose best two patterns are too close to
// tell apart; lane `lane_of(b)` is block b. `most`: the largest magnitudes seen.
std::uint32_t search(const float* from, std::int64_t step, std::uint8_t* to, std::int64_t to_step,
                     I& most) {
    V x[4][4];
    I largest{};
#pragma GCC unroll 4
    for (int row = 0; row < 4; ++row) {
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k)
            x[row][k] = bits_as<V>(load<I>(from + row * step + k * width) & 0x7FFFFFFF);
        transpose_quarters(x[row]);
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) largest = greater(largest, bits_as<I>(x[row][k]));
    }
    most = greater(most, largest);
    // 2^(27 - E); with a smaller E than -100 there are fewer bits of the weights.
    const V scale = bits_as<V>((281u << 23) - U(greater(largest & 0x7F800000, I{} + (27 << 23))));
    I pairs[4][6];
#pragma GCC unroll 4
    for (int row = 0; row < 4; ++row) {
        I weight[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k)
            weight[k] =
                (truncated(x[row][k] * scale) & -unit) | (column_codes[k] << code_shift(row));
#pragma GCC unroll 6
        for (int p = 0; p < 6; ++p)
            pairs[row][p] =
                plus(weight[row_pairs[std::size_t(p)][0]], weight[row_pairs[std::size_t(p)][1]]);
    }
    const Best best = best_patterns(pairs, std::make_index_sequence<half_classes.size()>());
#pragma GCC unroll 4
    for (int row = 0; row < 4; ++row)
        store(to + row * to_step, in_block_order(kept_lanes(best.first >> code_shift(row)),
                                                 std::make_index_sequence<width>()));
    return mask_bits(above_lanes(I{} + certain, I(U(best.first) - U(best.second))));
}

constexpr int block_of_lane(int lane) { return lane % 4 * (width / 4) + lane / 4; }

// The number of the first pattern with the largest sum of its rows' pairs, added from the first on.
template <std::size_t... number>
DoubleLanes first_best(const DoubleLanes (&pairs)[4][6], std::index_sequence<number...>) {
    DoubleLanes best = DoubleLanes{} - 1.0, numbers{};
    const auto meet = [&](const Pattern24& rows, double pattern) {
        const DoubleLanes sum =
            pairs[0][rows[0]] + pairs[1][rows[1]] + pairs[2][rows[2]] + pairs[3][rows[3]];
        const DoubleMask above = below(best, sum);
        best = larger(sum, best);
        numbers = choose(above, DoubleLanes{} + pattern, numbers);
    };
    (meet(patterns_24[number], double(number)), ...);
    return numbers;
}

// Blocks whose 90 sums are compared in float64, as many at once as fill a vector.
template <class T>
class PlainSearch {
  public:
    explicit PlainSearch(const TransposableJob& job) : job_(job) {}

    // The number of the block's first element.
    void add(std::int64_t origin) {
        origins_[count_++] = origin;
        if (count_ == at_once) flush();
    }

    void flush() {
        if (count_ == 0) return;
        alignas(64) double weights[16][at_once] = {};
        for (int b = 0; b < count_; ++b) load_block(origins_[b], weights, b);
        DoubleLanes pairs[4][6];
        for (int row = 0; row < 4; ++row)
            for (int p = 0; p < 6; ++p)
                pairs[row][p] = load<DoubleLanes>(weights[4 * row + row_pairs[std::size_t(p)][0]]) +
                                load<DoubleLanes>(weights[4 * row + row_pairs[std::size_t(p)][1]]);
        const DoubleLanes numbers =
            first_best(pairs, std::make_index_sequence<patterns_24.size()>());
        for (int b = 0; b < count_; ++b) {
            std::uint8_t* out = job_.out + origins_[b];
            for (int row = 0; row < 4; ++row) {
                const auto& pair =
                    row_pairs[patterns_24[std::size_t(numbers[b])][std::size_t(row)]];
                std::uint8_t bytes[4] = {};
                bytes[pair[0]] = bytes[pair[1]] = 1;
                std::memcpy(out + row * job_.columns, bytes, 4);
            }
        }
        count_ = 0;
    }

  private:
    static constexpr int at_once = lanes<DoubleLanes>;

    void load_block(std::int64_t origin, double (&weights)[16][at_once], int lane) {
        const T* from = static_cast<const T*>(job_.in) + origin;
        // Sums of the largest doubles stay finite; what underflows is too small to matter then.
        double scale = 1;
        if constexpr (sizeof(T) == 8)
            if (largest_bits(from, job_.columns, 4) > magnitude_bits(0x1p1000)) scale = 0x1p-4;
        for (int row = 0; row < 4; ++row, from += job_.columns)
            for (int k = 0; k < 4; ++k) {
                const double x = double(from[k]) * scale;
                weights[4 * row + k][lane] = x < 0 ? -x : x;
            }
    }

    const TransposableJob& job_;
    std::int64_t origins_[at_once];
    int count_ = 0;
};

[[gnu::noinline]] unsigned search_floats(const TransposableJob& job, std::int64_t begin,
                                         std::int64_t end) {
    const float* in = static_cast<const float*>(job.in);
    PlainSearch<float> plain(job);
    I most{};
    TransposableJob::Cursor cursor(job, begin);
    for (std::int64_t block = begin; block < end; block += blocks_at_once) {
        const int count = int(std::min<std::int64_t>(blocks_at_once, end - block));
        std::int64_t origins[blocks_at_once];
        std::uint32_t unsure;
        if (count == blocks_at_once && count <= cursor.left()) {
            const std::int64_t origin = cursor.origin();
            for (int b = 0; b < count; ++b) origins[b] = origin + 4 * b;
            unsure = search(in + origin, job.columns, job.out + origin, job.columns, most);
            cursor.advance(count);
        } else {
            // Blocks from more than one strip of rows, or fewer than fill a vector.
            float gathered[4 * columns_at_once] = {};
            std::uint8_t found[4 * columns_at_once];
            for (int b = 0; b < count; ++b, cursor.advance(1)) {
                origins[b] = cursor.origin();
                for (int row = 0; row < 4; ++row)
                    std::memcpy(gathered + row * columns_at_once + 4 * b,
                                in + origins[b] + row * job.columns, 4 * sizeof(float));
            }
            unsure = search(gathered, columns_at_once, found, columns_at_once, most);
            for (int b = 0; b < count; ++b)
                for (int row = 0; row < 4; ++row)
                    std::memcpy(job.out + origins[b] + row * job.columns,
                                found + row * columns_at_once + 4 * b, 4);
        }
        for (; unsure != 0; unsure &= unsure - 1) {
            const int b = block_of_lane(std::countr_zero(unsure));
            if (b < count) plain.add(origins[b]);
        }
    }
    plain.flush();
    for (int i = 0; i < width; ++i)
        if (most[i] >= std::int32_t(infinity_bits<float>)) return transposable_nonfinite;
    return 0;
}

[[gnu::noinline]] unsigned search_doubles(const TransposableJob& job, std::int64_t begin,
                                          std::int64_t end) {
    PlainSearch<double> plain(job);
    std::uint64_t most = 0;
    TransposableJob::Cursor cursor(job, begin);
    for (std::int64_t block = begin; block < end; ++block, cursor.advance(1)) {
        const std::int64_t origin = cursor.origin();
        const double* from = static_cast<const double*>(job.in) + origin;
        most = std::max(most, largest_bits(from, job.columns, 4));
        plain.add(origin);
    }
    plain.flush();
    return most >= infinity_bits<double> ? transposable_nonfinite : 0;
}

}  // namespace

unsigned transposable_24(const TransposableJob& job, std::int64_t begin, std::int64_t end) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    return job.is_double ? search_doubles(job, begin, end) : search_floats(job, begin, end);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
