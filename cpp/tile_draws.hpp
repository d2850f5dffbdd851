// Random bits for a register tile of outputs: Philox blocks with one output in each vector lane.
#pragma once

#include "random_tile.hpp"

namespace abcdeep {
namespace {

// U: a vector of unsigned integers, one for each of the outputs side by side.
template <class U, int rows, int vectors>
class TileDraws {
    using E = Element<U>;
    using Wide = RandomLanes;
    static constexpr int width = lanes<U>;

  public:
    // bits = 0: there are none.
    TileDraws(const RandomSource& source, std::uint32_t call, int bits)
        : address_{source.seed, source.stream, call},
          bits_(bits),
          lane_bits_(random_lane_bits(std::max(bits, 2))),
          per_block_(128 / lane_bits_),
          mask_(bits == 32 ? ~std::uint32_t(0) : (std::uint32_t(1) << bits) - 1) {}

    // Output (i, j) of the tile is number `first` + i * row_stride + j * column_stride; its draws
    // have the logical indices number * per_output + k.
    void start(std::uint64_t first, std::int64_t row_stride, std::int64_t column_stride,
               std::int64_t per_output) {
        if (!bits_) return;
        for (int i = 0; i < rows; ++i)
            for (int j = 0; j < vectors; ++j) {
                Lanes& at = lanes_[i][j];
                for (int l = 0; l < width; ++l) {
                    const std::uint64_t output = first + std::uint64_t(i * row_stride) +
                                                 std::uint64_t((j * width + l) * column_stride);
                    const std::uint64_t index = output * std::uint64_t(per_output);
                    const int skip = int(index % unsigned(per_block_)) * lane_bits_;
                    at.block[l % parts][l / parts] = index / unsigned(per_block_);
                    at.skipped_words[l] = E(skip / 32);
                    at.skipped_bits[l] = E(skip % 32);
                }
            }
        aligned_ = per_output % per_block_ == 0;
        filled_ = -1;
    }

    // Draws number k of all outputs come next.
    void advance(std::int64_t k) {
        if (!bits_) return;
        const std::int64_t block = k / per_block_;
        const int bit = int(k % per_block_) * lane_bits_;
        word_ = bit / 32;
        shift_ = bit % 32 + lane_bits_ - bits_;
        if (block == filled_) return;
        for (auto& row : lanes_)
            for (Lanes& at : row) fill(at, block);
        filled_ = block;
    }

    U draw(int i, int j) const {
        if (!bits_) return U{};
        return (lanes_[i][j].words[word_] >> E(shift_)) & E(mask_);
    }

  private:
    static constexpr int parts = sizeof(Wide) / lanes<Wide> / sizeof(E);  // lanes in a 64-bit one

    struct Lanes {
        Wide block[parts];  // of draw 0: lane l in part l % parts
        U skipped_words, skipped_bits;
        U words[4], next[4];
    };

    // One Philox block for each lane.
    void raw_words(const Lanes& at, std::int64_t block, U (&words)[4]) const {
        Wide part[parts][4];
        for (int p = 0; p < parts; ++p)
            random_blocks(address_, at.block[p] + std::uint64_t(block), part[p]);
        const std::uint64_t low = 0xFFFFFFFFu;
        for (int w = 0; w < 4; ++w) {
            Wide both = part[0][w] & low;
            if constexpr (parts == 2) both |= part[1][w] << std::uint64_t(32);
            words[w] = bits_as<U>(both);
        }
    }

    void fill(Lanes& at, std::int64_t block) {
        if (aligned_) return raw_words(at, block, at.words);
        U w[8];
        if (block == filled_ + 1 && filled_ >= 0)
            std::memcpy(w, at.next, sizeof at.next);
        else
            raw_words(at, block, reinterpret_cast<U(&)[4]>(w));
        raw_words(at, block + 1, at.next);
        std::memcpy(w + 4, at.next, sizeof at.next);
        // from the bit where a lane's draws begin: whole words first
        for (int step = 1; step <= 2; ++step)
            for (int n = 0; n + step < 8; ++n)
                w[n] = select((at.skipped_words & E(step)) != U{}, w[n + step], w[n]);
        for (int n = 0; n < 4; ++n) {
            const U high = (w[n + 1] << E(1)) << (E(31) - at.skipped_bits);
            at.words[n] = ((w[n] >> at.skipped_bits) | high) & E(0xFFFFFFFFu);
        }
    }

    RandomAddress address_;
    int bits_, lane_bits_, per_block_;
    std::uint32_t mask_;
    bool aligned_ = false;
    std::int64_t filled_ = -1;
    int word_ = 0, shift_ = 0;
    Lanes lanes_[rows][vectors];
};

// What a Step gets besides its numbers: nothing, or random bits.
template <class Step, int rows, int vectors>
struct NoDraws {
    using V = typename Step::V;
    template <class Job>
    NoDraws(const Step&, const Job&) {}
    template <class Job>
    void start(const Job&, std::int64_t, std::int64_t, std::int64_t) {}
    void advance(std::int64_t) {}
    void advance_merge(std::int64_t) {}
    template <class A, class B>
    V step(const Step& step, A a, B b, V s, int, int) const {
        return step.step(a, b, s);
    }
    V merge(const Step& step, V r, V s, int, int) const { return step.merge(r, s); }
};

template <class Step, int rows, int vectors>
class StepDraws {
    using V = typename Step::V;
    using Draws = TileDraws<BitsOf<V>, rows, vectors>;

  public:
    template <class Job>
    StepDraws(const Step& step, const Job& job)
        : product_(job.random, 3 * job.random.call, step.product_random_bits()),
          sum_(job.random, 3 * job.random.call + 1, step.sum_random_bits()),
          merge_(job.random, 3 * job.random.call + 2, step.sum_random_bits()) {}

    template <class Job>
    void start(const Job& job, std::int64_t chunk, std::int64_t m, std::int64_t n) {
        const std::uint64_t first = job.first_output + std::uint64_t(job.place(m, n));
        for (Draws* draws : {&product_, &sum_})
            draws->start(first, job.out_row_stride, job.out_column_stride, job.terms);
        merge_.start(first, job.out_row_stride, job.out_column_stride,
                     (job.terms + chunk - 1) / std::max<std::int64_t>(chunk, 1));
    }
    void advance(std::int64_t k) {
        product_.advance(k);
        sum_.advance(k);
    }
    void advance_merge(std::int64_t chunk) { merge_.advance(chunk); }
    V step(const Step& step, V a, V b, V s, int i, int j) const {
        return step.step(a, b, s, product_.draw(i, j), sum_.draw(i, j));
    }
    V merge(const Step& step, V r, V s, int i, int j) const {
        return step.merge(r, s, merge_.draw(i, j));
    }

  private:
    Draws product_, sum_, merge_;
};

template <class Step>
concept DrawingStep = requires { requires Step::draws; };

}  // namespace
}  // namespace abcdeep
