// float32 to a block format: largest magnitudes, scales, elements, a run of blocks at a time.
#include "block.hpp"
#include "block_lookup.hpp"
#include "block_rounding.hpp"
#include "block_runs.hpp"
#include "block_scales.hpp"
#include "float_environment.hpp"
#include "kernels.hpp"
#include "random_tile.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

constexpr int vector = lanes<WordLanes>;
constexpr int most_blocks = run_elements;
constexpr int row_capacity = int(most_block_columns);

struct Tile {
    alignas(64) float values[row_capacity];
    alignas(64) float scaled[row_capacity];
    alignas(64) std::uint32_t drawn[row_capacity];
    alignas(64) std::uint32_t random[row_capacity];
    alignas(64) std::uint32_t word[row_capacity];
    alignas(64) std::uint8_t codes[row_capacity];
    alignas(64) SignedLanes partial[run_elements / vector];  // largest magnitudes, by lane
    alignas(64) std::int32_t largest[most_blocks];
    alignas(64) std::uint32_t scale_random[most_blocks];
    alignas(64) std::uint32_t scale_code[2][most_blocks];
    alignas(64) float multiplier[2][most_blocks];
    alignas(64) std::int32_t bad[most_blocks];
    alignas(64) float scale[most_blocks];
    alignas(64) float error[2][most_blocks];
};

// Lane j: the largest lane of rows[j].
SignedLanes largest_of_rows(SignedLanes (&rows)[vector]) {
    constexpr auto all = std::make_index_sequence<vector>();
    for (int count = vector; count > 1; count /= 2)
        for (int i = 0; i < count / 2; ++i) {
            const SignedLanes a = rows[i], b = rows[i + count / 2];
            rows[i] = larger(interleave_halves<0>(a, b, all), interleave_halves<1>(a, b, all));
        }
    return rows[0];
}

class Quantise {
  public:
    Quantise(const BlockJob& job, Tile& tile)
        : job_(job), tile_(tile), power_scales_(job), rounded_scales_(job) {}

    void operator()(const BlockRun& run) {
        find_largest(run);
        find_scales(run);
        for (int r = 0; r < run.rows; ++r) {
            round_row(run, r, padded_row(run, r), tile_.multiplier[0], clipped_);
            store_codes(run, r);
        }
        store_scales(run);
    }

    std::int64_t clipped() const {
        std::int64_t sum = 0;
        for (int i = 0; i < vector; ++i) sum += clipped_[i];
        return sum;
    }
    bool failed() const { return failed_; }

  private:
    // The row's elements, each block a number of whole vectors, and zeros for those of a bad block.
    const float* padded_row(const BlockRun& run, int r) {
        const float* row = job_.values + (run.row + r) * job_.layout.columns + run.column;
        if (run.is_dense() && !any_bad_) return row;
        pad_row(run, row, tile_.values);
        if (any_bad_)
            for (int b = 0; b < run.blocks; ++b)
                if (tile_.bad[b])
                    for (int i = 0; i < run.step; ++i) tile_.values[b * run.step + i] = 0;
        return tile_.values;
    }

    void find_largest(const BlockRun& run) {
        any_bad_ = false;
        if (run.has_single_columns()) {
            find_largest_of_columns(run);
            return;
        }
        const int groups = (run.blocks + vector - 1) / vector;
        for (int b = 0; b < groups * vector; ++b) tile_.partial[b] = SignedLanes{};
        for (int r = 0; r < run.rows; ++r) {
            const float* values = padded_row(run, r);
            for (int b = 0; b < run.blocks; ++b) {
                SignedLanes largest = tile_.partial[b];
                for (int i = 0; i < run.step; i += vector)
                    largest =
                        larger(largest, load<SignedLanes>(values + b * run.step + i) & 0x7FFFFFFF);
                tile_.partial[b] = largest;
            }
        }
        for (int g = 0; g < groups; ++g) {
            SignedLanes rows[vector];
            for (int i = 0; i < vector; ++i) rows[i] = tile_.partial[g * vector + i];
            store(tile_.largest + g * vector, largest_of_rows(rows));
        }
    }

    void find_largest_of_columns(const BlockRun& run) {
        const int count = run.padded();
        for (int i = 0; i < count; ++i) tile_.largest[i] = 0;
        for (int r = 0; r < run.rows; ++r) {
            const float* values = padded_row(run, r);
            for (int i = 0; i < count; i += vector)
                store(tile_.largest + i, larger(load<SignedLanes>(tile_.largest + i),
                                                load<SignedLanes>(values + i) & 0x7FFFFFFF));
        }
    }

    void find_scales(const BlockRun& run) {
        if (job_.rule != ScaleRule::max) {
            SignedLanes bad{};
            for (int b = 0; b < run.blocks; b += vector) {
                const auto scale = power_scales_(load<SignedLanes>(tile_.largest + b));
                store(tile_.scale_code[0] + b, scale.code);
                store(tile_.multiplier[0] + b, scale.multiplier);
                store(tile_.bad + b, scale.bad);
                bad |= scale.bad;
            }
            any_bad_ = any(bad != SignedLanes{});
        } else if (job_.four_over_six != FourOverSix::none) {
            for (int widened = 0; widened < 2; ++widened)
                failed_ |= rounded_scales_.candidates(tile_.largest, run.row, run.blocks,
                                                      widened != 0, tile_.scale_code[widened],
                                                      tile_.multiplier[widened]);
            choose_scales(run);
        } else {
            if (job_.scale.stochastic != Stochastic::none) {
                const std::uint64_t first = job_.scale_random.words ? 0 : first_scale_draw;
                draw_random_bits(tile_.scale_random, job_.scale_random,
                                 first + std::uint64_t(run.first_block), run.blocks,
                                 job_.scale.random_bits);
            }
            failed_ |= rounded_scales_(tile_.largest, run.row, run.blocks, tile_.scale_random,
                                       tile_.scale_code[0], tile_.multiplier[0]);
        }
    }

    // Four over six: the candidate with the smaller error, summed in the order of the elements.
    void choose_scales(const BlockRun& run) {
        SignedLanes not_counted{};
        for (int b = 0; b < most_blocks; ++b) tile_.error[0][b] = tile_.error[1][b] = 0;
        for (int r = 0; r < run.rows; ++r) {
            const float* values = padded_row(run, r);
            for (int candidate = 0; candidate < 2; ++candidate) {
                round_row(run, r, values, tile_.multiplier[candidate], not_counted);
                find_errors(run, values, candidate);
                add_errors(run, tile_.error[candidate]);
            }
        }
        for (int b = 0; b < run.blocks; ++b)
            if (tile_.error[1][b] < tile_.error[0][b]) {
                tile_.scale_code[0][b] = tile_.scale_code[1][b];
                tile_.multiplier[0][b] = tile_.multiplier[1][b];
            }
    }

    // tile_.scaled = what each element of a row, whose words are in the tile, adds to the error.
    void find_errors(const BlockRun& run, const float* values, int candidate) {
        const bool squared = job_.four_over_six == FourOverSix::squared;
        const FloatLanes after = FloatLanes{} + job_.scaled_max;
        for (int b = 0; b < run.blocks; ++b)
            tile_.scale[b] = rounded_scales_.value(tile_.scale_code[candidate][b]);
        const Lookup<true> element(job_.element_values);
        for_row_vectors(run, tile_.scale, [&](int i, FloatLanes scale) {
            const FloatLanes unscaled = element(load<WordLanes>(tile_.word + i)) * scale;
            const FloatLanes value = FloatLanes(unscaled * job_.tensor_max) / after;
            const FloatLanes error = value - load<FloatLanes>(values + i);
            const auto magnitude = bits_as<FloatLanes>(bits_as<SignedLanes>(error) & 0x7FFFFFFF);
            store(tile_.scaled + i, squared ? FloatLanes(error * error) : magnitude);
        });
    }

    // In the order of the elements; blocks side by side, because each sum waits for itself.
    void add_errors(const BlockRun& run, float* sums) const {
        constexpr int side_by_side = 8;
        if (run.has_single_columns()) {
            for (int i = 0; i < run.padded(); i += vector)
                store(sums + i, load<FloatLanes>(sums + i) + load<FloatLanes>(tile_.scaled + i));
            return;
        }
        int b = 0;
        for (; b + side_by_side <= run.blocks; b += side_by_side)
            add_errors_of<side_by_side>(tile_.scaled + b * run.step, run.step, sums + b);
        for (; b < run.blocks; ++b)
            add_errors_of<1>(tile_.scaled + b * run.step, run.step, sums + b);
    }

    template <int blocks>
    static void add_errors_of(const float* errors, int step, float* sums) {
        float sum[blocks];
        for (int j = 0; j < blocks; ++j) sum[j] = sums[j];
        for (int i = 0; i < step; ++i)
            for (int j = 0; j < blocks; ++j) sum[j] += errors[j * step + i];
        for (int j = 0; j < blocks; ++j) sums[j] = sum[j];
    }

    // tile_.word = the words of a row.
    void round_row(const BlockRun& run, int r, const float* values, const float* multiplier,
                   SignedLanes& clipped) {
        const Quantizer& q = job_.element;
        if (q.stochastic != Stochastic::none) draw(run, r);
        with_rounding(q, job_.general, [&](const auto& round) {
            if constexpr (std::is_same_v<decltype(round), const std::nullptr_t&>) {
                if (job_.rule != ScaleRule::max && q.stochastic == Stochastic::none)
                    scale_row<true>(run, values, multiplier, clipped);
                else
                    scale_row<false>(run, values, multiplier, clipped);
                round_general(tile_.scaled, tile_.random, tile_.word, run.padded(), q);
                for (int i = 0; i < run.padded(); i += vector)
                    store(tile_.word + i, word_of(load<WordLanes>(tile_.word + i),
                                                  load<WordLanes>(tile_.scaled + i)));
            } else if (job_.twos_complement || !q.negative_zero) {
                scale_and_round(run, values, multiplier, clipped, round,
                                [this](auto index, auto bits) { return word_of(index, bits); });
            } else {
                const auto sign_mask = std::uint32_t(q.sign_mask);
                const int sign_shift = __builtin_clz(sign_mask);
                scale_and_round(run, values, multiplier, clipped, round,
                                [sign_mask, sign_shift](WordLanes index, WordLanes bits) {
                                    return index | ((bits >> sign_shift) & sign_mask);
                                });
            }
        });
    }

    // A scaled element; -0 becomes +0 under rounded scales (docs/blocks.md).
    FloatLanes zero() const {
        return broadcast<FloatLanes>(job_.rule == ScaleRule::max ? 0.0f : -0.0f);
    }

    // Scaling, rounding and the word in one go.
    template <class Round, class Word>
    void scale_and_round(const BlockRun& run, const float* values, const float* multiplier,
                         SignedLanes& clipped, const Round round, const Word word_of) {
        const SignedLanes most = SignedLanes{} + bits_as<std::int32_t>(job_.element_max);
        const FloatLanes zero = this->zero();
        const std::uint32_t* const random = tile_.random;
        std::uint32_t* const words = tile_.word;
        SignedLanes count{};
        for_row_vectors(run, multiplier, [&](int i, FloatLanes factor) {
            const FloatLanes scaled = load<FloatLanes>(values + i) * factor + zero;
            SignedLanes magnitude = bits_as<SignedLanes>(scaled) & 0x7FFFFFFF;
            const auto above = magnitude > most;
            count -= SignedLanes(above);
            magnitude = select(above, most, magnitude);
            store(words + i, word_of(round(magnitude, random + i), bits_as<WordLanes>(scaled)));
        });
        clipped += count;
    }

    // Scaling alone. Directed modes tell the smallest numbers from zero: `keep_tiny`, under powers
    // of two, which do not make a number zero.
    template <bool keep_tiny>
    void scale_row(const BlockRun& run, const float* values, const float* multiplier,
                   SignedLanes& clipped) {
        const FloatLanes most = FloatLanes{} + job_.element_max, zero = this->zero();
        SignedLanes count{};
        for_row_vectors(run, multiplier, [&](int i, FloatLanes factor) {
            const FloatLanes value = load<FloatLanes>(values + i);
            FloatLanes scaled = value * factor + zero;
            if constexpr (keep_tiny) {
                constexpr std::uint32_t sign = 0x80000000u, tiny = 1u << 23;
                const WordLanes bits = bits_as<WordLanes>(scaled);
                const WordLanes given = bits_as<WordLanes>(value);
                const auto lost =
                    SignedLanes((bits & ~sign) < tiny) & SignedLanes((given & ~sign) != 0u);
                scaled = bits_as<FloatLanes>(select(lost, (given & sign) | tiny, bits));
            }
            count -= (bits_as<SignedLanes>(scaled) & 0x7FFFFFFF) > bits_as<SignedLanes>(most);
            store(tile_.scaled + i, clamp_magnitude(scaled, most));
        });
        clipped += count;
    }

    // The word of an index, with the sign of `bits`.
    WordLanes word_of(WordLanes index, WordLanes bits) const {
        const auto sign_mask = std::uint32_t(job_.element.sign_mask);
        if (job_.twos_complement) {
            const WordLanes negative = WordLanes(SignedLanes(bits) >> 31);
            return ((index ^ negative) - negative) & 0xFFu;
        }
        const WordLanes sign = (bits >> __builtin_clz(sign_mask)) & sign_mask;
        return index | (job_.element.negative_zero ? sign : select(index == 0u, WordLanes{}, sign));
    }

    void draw(const BlockRun& run, int r) {
        const std::uint64_t first =
            std::uint64_t(run.row + r) * std::uint64_t(job_.layout.columns) +
            std::uint64_t(run.column);
        std::uint32_t* drawn = run.is_dense() ? tile_.random : tile_.drawn;
        const RandomSource& source = job_.random;
        const int bits = job_.element.random_bits;
        const RandomAddress address = {source.seed, source.stream, source.call};
        if (source.words == nullptr && bits == 32) {
            random_draws(address, 32, first, run.columns, drawn);
        } else if (source.words == nullptr && bits > 1 && bits <= 8) {
            random_draws(address, 8, first, run.columns, tile_.codes);
            for (int i = 0; i < run.columns; i += vector)
                store(drawn + i, widen(tile_.codes + i) >> (8 - bits));
        } else {
            draw_random_bits(drawn, source, first, run.columns, bits);
        }
        if (!run.is_dense()) pad_row(run, drawn, tile_.random);
    }

    void store_codes(const BlockRun& run, int r) {
        constexpr int group = group_elements<std::uint8_t>;
        std::uint8_t* row = job_.codes + (run.row + r) * job_.layout.columns + run.column;
        const int count = run.padded();
        const bool direct = run.is_dense() && count % group == 0;
        std::uint8_t* codes = direct ? row : tile_.codes;
        for (int i = 0; i < count; i += group) {
            WordLanes word[group_vectors<std::uint8_t>];
            for (int v = 0; v < group_vectors<std::uint8_t>; ++v)
                word[v] = load<WordLanes>(tile_.word + i + v * vector);
            store(codes + i, pack<std::uint8_t>(word));
        }
        if (!direct) unpad_row(run, codes, row);
    }

    void store_scales(const BlockRun& run) {
        if (job_.float_scales) {
            auto* out = static_cast<std::uint32_t*>(job_.scale_codes) + run.first_block;
            for (int b = 0; b < run.blocks; ++b) out[b] = tile_.scale_code[0][b];
        } else {
            auto* out = static_cast<std::uint8_t*>(job_.scale_codes) + run.first_block;
            for (int b = 0; b < run.blocks; ++b) out[b] = std::uint8_t(tile_.scale_code[0][b]);
        }
    }

    const BlockJob& job_;
    Tile& tile_;
    PowerScales power_scales_;
    RoundedScales rounded_scales_;
    SignedLanes clipped_{};
    bool any_bad_ = false, failed_ = false;
};

[[gnu::noinline]] void quantize_range(const BlockJob& job, std::int64_t begin, std::int64_t end) {
    Tile tile;
    Quantise quantise(job, tile);
    for_block_runs(job.layout, begin, end, [&](const BlockRun& run) { quantise(run); });
    __atomic_fetch_add(job.clipped, quantise.clipped(), __ATOMIC_RELAXED);
    if (quantise.failed()) __atomic_store_n(job.failed, 1, __ATOMIC_RELAXED);
}

}  // namespace

void quantize_blocks(const BlockJob& job, std::int64_t begin, std::int64_t end) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    quantize_range(job, begin, end);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
