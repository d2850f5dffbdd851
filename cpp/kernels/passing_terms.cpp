// Straight-through gradients of truncating accumulators: the chains again, in float32, and which of
// their terms let a gradient pass.
#include "gemm_lanes.hpp"
#include "kernels.hpp"
#include "truncate_step.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

using V = Vector<float>;
using U = Vector<std::uint32_t>;

// Sets `bit` in the lanes where a test holds.
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
using Test = __mmask16;
inline Test is_below(U x, U limit) { return _mm512_cmplt_epi32_mask(__m512i(x), __m512i(limit)); }
inline Test are_below(U x, U x_limit, U y, U y_limit) {
    return _mm512_mask_cmplt_epi32_mask(is_below(x, x_limit), __m512i(y), __m512i(y_limit));
}
inline Test differ(V x, V y) { return _mm512_cmp_ps_mask(__m512(x), __m512(y), _CMP_NEQ_UQ); }
inline U set_bit(U bits, Test test, U bit) {
    return U(_mm512_mask_or_epi32(__m512i(bits), test, __m512i(bits), __m512i(bit)));
}
#else
using Test = Vector<std::int32_t>;
inline Test is_below(U x, U limit) { return Test(x) < Test(limit); }
inline Test are_below(U x, U x_limit, U y, U y_limit) {
    return is_below(x, x_limit) & is_below(y, y_limit);
}
inline Test differ(V x, V y) { return x != y; }
inline U set_bit(U bits, Test test, U bit) { return bits | (U(test) & bit); }
#endif

// Marks what lets a gradient pass: a product and a sum in range, or, for `difference`, a step with
// an effect.
template <bool fused, bool clamp, bool difference>
class MarkingStep : public TruncateStep<fused, clamp> {
    using Base = TruncateStep<fused, clamp>;

  public:
    MarkingStep(const FloatTile& tile, const FloatDatapath& datapath)
        : Base(tile),
          magnitude_(this->mask_ & 0x7fffffffu),
          product_end_(bits_as<U>(this->product_limit_) +
                       std::uint32_t(!datapath.product_overflow_at_largest)),
          sum_end_(bits_as<U>(this->sum_limit_) +
                   std::uint32_t(!datapath.accumulator_overflow_at_largest)) {}

    // Whether no product of numbers of at most these magnitudes, as packed, leaves its range.
    bool products_fit(float a, float b) const {
        return fused || !clamp || magnitude(V{} + a * b)[0] < product_end_[0];
    }

    // fit: products stay in their range
    template <bool fit>
    V step(V a, V b, V s, U bit, U& passes) const {
        V sum, product{};
        if constexpr (fused) {
            sum = fused_multiply_add(a, b, s);
        } else {
            product = a * b;
            const V p = this->truncate(product, this->product_limit_, clamp && !fit);
            sum = fused_multiply_add(p, this->factor_, s);
        }
        const V next = this->truncate(sum, this->sum_limit_, clamp);
        if constexpr (difference)
            passes = set_bit(passes, differ(next, s), bit);
        else if constexpr (fit && clamp)
            passes = set_bit(passes, is_below(magnitude(sum), sum_end_), bit);
        else if constexpr (clamp)
            passes = set_bit(
                passes, are_below(magnitude(product), product_end_, magnitude(sum), sum_end_), bit);
        return next;
    }
    V merge(V r, V s, U bit, U& passes) const {
        const V sum = r + s;
        passes = set_bit(passes, is_below(magnitude(sum), sum_end_), bit);
        return this->truncate(sum, this->sum_limit_, true);
    }

    // What passes before anything is marked.
    static constexpr std::uint32_t unmarked = clamp || difference ? 0 : ~std::uint32_t(0);

  private:
    U magnitude(V x) const { return bits_as<U>(x) & magnitude_; }

    U magnitude_, product_end_, sum_end_;
};

// Register tiles of chains side by side: rows of `lane` and vectors of rows of `other`.
template <class Step>
class MarkedChains {
    static constexpr int width = lanes<V>, vectors = 2, columns = width * vectors;
    static constexpr int rows = tile_rows / 2, bits = GradientWords::terms;
    static_assert(GradientWords::columns % columns == 0);
    static_assert(GradientWords::row_multiple % rows == 0);

    using Tile = U[rows][vectors];

  public:
    MarkedChains(const Step& step, const GradientJob& job, std::int64_t chunk, const Block& block,
                 const GradientWords& words)
        : step_(step),
          job_(job),
          block_(block),
          words_(words),
          chunk_(chunk > 0 && chunk < job.terms ? chunk : job.terms),
          merges_((job.terms + chunk_ - 1) / chunk_),
          recursive_(job.estimator == Estimator::recursive_overflow),
          lane_((block.row_end - block.row_begin + rows) * job.terms),
          other_(columns * job.terms),
          merge_words_(GradientWords::count(merges_) * rows * vectors) {}

    void run() {
        const std::int64_t height = block_.row_end - block_.row_begin;
        pack_lane(height);
        const float lane_largest = largest(lane_, height * job_.terms);
        for (std::int64_t n = 0; n < block_.column_end - block_.column_begin; n += columns) {
            pack_other(block_.column_begin + n);
            const bool fit =
                step_.products_fit(lane_largest, largest(other_, columns * job_.terms));
            for (std::int64_t m = 0; m < height; m += rows) {
                if (fit)
                    chains<true>(m, n);
                else
                    chains<false>(m, n);
                if (merges_ > 1 || recursive_) close(m, n);
            }
        }
    }

  private:
    std::int64_t place(std::int64_t k) const { return job_.order ? job_.order[k] : k; }

    static float largest(const float* x, std::int64_t count) {
        std::uint32_t bits = 0;
        for (std::int64_t i = 0; i < count; ++i)
            bits = std::max(bits, bits_as<std::uint32_t>(x[i]) & 0x7fffffffu);
        return bits_as<float>(bits);
    }

    void pack_lane(std::int64_t height) {
        for (std::int64_t m = 0; m < height; ++m) {
            const float* from = &job_.lane(block_.row_begin + m, 0);
            float* to = lane_ + m * job_.terms;
            if (job_.lane.column_stride == 1 && !job_.order)
                for (std::int64_t k = 0; k < job_.terms; ++k) to[k] = step_.pack_a(from[k]);
            else
                for (std::int64_t k = 0; k < job_.terms; ++k)
                    to[k] = step_.pack_a(from[place(k) * job_.lane.column_stride]);
        }
        std::fill_n(lane_ + height * job_.terms, rows * job_.terms, 0.0f);
    }

    void pack_other(std::int64_t first) {
        const int valid = int(std::min<std::int64_t>(columns, block_.column_end - first));
        for (std::int64_t begin = 0; begin < job_.terms; begin += bits) {
            const std::int64_t end = std::min(job_.terms, begin + bits);
            if (job_.other.row_stride == 1) {
                for (std::int64_t k = begin; k < end; ++k) {
                    const float* from = &job_.other(first, place(k));
                    for (int n = 0; n < valid; ++n) other_[k * columns + n] = step_.pack_b(from[n]);
                }
            } else {
                for (int n = 0; n < valid; ++n)
                    for (std::int64_t k = begin; k < end; ++k)
                        other_[k * columns + n] = step_.pack_b(job_.other(first + n, place(k)));
            }
            for (std::int64_t k = begin; k < end; ++k)
                std::fill_n(other_ + k * columns + valid, columns - valid, 0.0f);
        }
    }

    void start(std::int64_t m, std::int64_t n, V (&sums)[rows][vectors]) const {
        for (auto& row : sums)
            for (V& v : row) v = V{};
        if (!job_.start.data) return;
        for (int i = 0; i < rows && block_.row_begin + m + i < block_.row_end; ++i)
            for (int j = 0; j < columns && block_.column_begin + n + j < block_.column_end; ++j)
                sums[i][j / width][j % width] =
                    step_.start(job_.start(block_.row_begin + m + i, block_.column_begin + n + j));
    }

    // Places past the last term let pass.
    void write(std::int64_t word, std::int64_t m, std::int64_t n, Tile& passes) const {
        const std::int64_t left = job_.terms - word * bits;
        const std::uint32_t past = left < bits ? ~std::uint32_t(0) << left : 0;
        for (int i = 0; i < rows; ++i)
            for (int j = 0; j < vectors; ++j)
                store(words_.row(word, m + i) + n + j * width, passes[i][j] | past);
        clear(passes);
    }
    static void clear(Tile& passes) {
        for (auto& row : passes)
            for (U& v : row) v = U{} + Step::unmarked;
    }

    // Terms [k, stop) of one chunk and word.
    template <bool fit>
    void steps(const float* a, std::int64_t k, std::int64_t stop, V (&sums)[rows][vectors],
               Tile& all_passes) const {
        V s[rows][vectors];  // in registers
        Tile passes;
        std::memcpy(s, sums, sizeof s);
        std::memcpy(passes, all_passes, sizeof passes);
        U bit = U{} + (std::uint32_t(1) << (k % bits));
        for (; k < stop; ++k) {
            V right[vectors];
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) right[v] = load<V>(other_ + k * columns + v * width);
#pragma GCC unroll 8
            for (int i = 0; i < rows; ++i) {
                const V left = broadcast<V>(a[i * job_.terms + k]);
#pragma GCC unroll 8
                for (int v = 0; v < vectors; ++v)
                    s[i][v] = step_.template step<fit>(left, right[v], s[i][v], bit, passes[i][v]);
            }
            bit += bit;
        }
        std::memcpy(sums, s, sizeof s);
        std::memcpy(all_passes, passes, sizeof passes);
    }

    // A set bit is a term that passes for its own step, or a merge that lets pass.
    template <bool fit>
    void chains(std::int64_t m, std::int64_t n) {
        V s[rows][vectors], merged[rows][vectors] = {};
        Tile passes, merge_passes = {};
        start(m, n, s);
        clear(passes);
        const std::int64_t terms = job_.terms;
        for (std::int64_t k = 0, j = 0; k < terms;) {
            const std::int64_t stop =
                std::min({terms, (j + 1) * chunk_, (k / bits + 1) * std::int64_t(bits)});
            steps<fit>(lane_ + m * terms, k, stop, s, passes);
            k = stop;
            if (k % bits == 0 || k == terms) write((k - 1) / bits, m, n, passes);
            if (merges_ > 1 && (k == (j + 1) * chunk_ || k == terms)) {
                const U bit = U{} + (std::uint32_t(1) << (j % bits));
                for (int i = 0; i < rows; ++i)
                    for (int v = 0; v < vectors; ++v) {
                        merged[i][v] = step_.merge(s[i][v], merged[i][v], bit, merge_passes[i][v]);
                        s[i][v] = V{};
                    }
                ++j;
                if (j % bits == 0 || k == terms) {
                    std::memcpy(merge_words_ + (j - 1) / bits, merge_passes, sizeof(Tile));
                    std::fill_n(&merge_passes[0][0], rows * vectors, U{});
                }
            }
        }
    }

    // Bits of the places of word g whose next place, too, is of the same chunk and word.
    std::uint32_t next_in_chunk(std::int64_t g) const {
        std::uint32_t ends = std::uint32_t(1) << (bits - 1);
        for (std::int64_t k = (g * bits / chunk_ + 1) * chunk_; k < (g + 1) * bits; k += chunk_)
            if (k > g * bits) ends |= std::uint32_t(1) << (k - 1 - g * bits);
        return ~ends;
    }

    // Bits of word g that are places [begin, end).
    static std::uint32_t range(std::int64_t g, std::int64_t begin, std::int64_t end) {
        const std::int64_t low = std::max<std::int64_t>(begin - g * bits, 0);
        const std::int64_t high = std::min<std::int64_t>(end - g * bits, bits);
        return std::uint32_t((std::uint64_t(1) << high) - (std::uint64_t(1) << low));
    }

    // Inverted, a set bit stops: terms pass that no merge stops and, recursively, no later step of
    // the chunk.
    void close(std::int64_t m, std::int64_t n) const {
        U after[rows][vectors] = {}, merge_stops[rows][vectors] = {};
        for (std::int64_t g = GradientWords::count(job_.terms) - 1; g >= 0; --g) {
            Tile x;
            for (int i = 0; i < rows; ++i)
                for (int v = 0; v < vectors; ++v)
                    x[i][v] = ~load<U>(words_.row(g, m + i) + n + v * width);
            if (recursive_) spread(g, x, after);
            if (merges_ > 1) {
                const std::int64_t last = std::min((g + 1) * bits, job_.terms) - 1;
                for (std::int64_t j = last / chunk_; j >= g * bits / chunk_; --j)
                    stop_chunk(j, range(g, j * chunk_, (j + 1) * chunk_), x, merge_stops);
            }
            for (int i = 0; i < rows; ++i)
                for (int v = 0; v < vectors; ++v)
                    store(words_.row(g, m + i) + n + v * width, ~x[i][v]);
        }
    }

    // From each set bit to all earlier places of its chunk.
    void spread(std::int64_t g, Tile& x, Tile& after) const {
        const bool continues = (g + 1) * bits < job_.terms && (g + 1) * bits % chunk_ != 0;
        const std::uint32_t carried = continues ? 1 : 0;
        U any_stop{};
        for (int i = 0; i < rows; ++i)
            for (int v = 0; v < vectors; ++v) {
                x[i][v] |= (after[i][v] & carried) << std::uint32_t(bits - 1);
                any_stop |= x[i][v];
            }
        if (any(any_stop != U{})) {
            std::uint32_t same = next_in_chunk(g);
            for (std::uint32_t distance = 1; distance < bits; distance *= 2) {
                for (int i = 0; i < rows; ++i)
                    for (int v = 0; v < vectors; ++v) x[i][v] |= (x[i][v] >> distance) & same;
                same &= same >> distance;
            }
        }
        for (int i = 0; i < rows; ++i)
            for (int v = 0; v < vectors; ++v) after[i][v] = x[i][v];
    }

    void stop_chunk(std::int64_t j, std::uint32_t places, Tile& x, Tile& merge_stops) const {
        const Tile& all = merge_words_[j / bits];
        for (int i = 0; i < rows; ++i)
            for (int v = 0; v < vectors; ++v) {
                const U own = (all[i][v] >> std::uint32_t(j % bits) & 1u) - 1u;
                merge_stops[i][v] = recursive_ ? merge_stops[i][v] | own : own;
                x[i][v] |= merge_stops[i][v] & places;
            }
    }

    const Step& step_;
    const GradientJob& job_;
    const Block& block_;
    const GradientWords& words_;
    std::int64_t chunk_, merges_;
    bool recursive_;
    Scratch<float> lane_, other_;
    Scratch<Tile> merge_words_;
};

template <bool fused, bool clamp, bool difference>
[[gnu::noinline]] void run(const GradientJob& job, const FloatDatapath& datapath,
                           const FloatTile& tile, const Block& block, const GradientWords& words) {
    using Step = MarkingStep<fused, clamp, difference>;
    const Step step(tile, datapath);
    MarkedChains<Step>(step, job, tile.chunk, block, words).run();
}

template <bool fused, bool clamp>
void run_estimator(const GradientJob& job, const FloatDatapath& datapath, const FloatTile& tile,
                   const Block& block, const GradientWords& words) {
    (job.estimator == Estimator::immediate_difference
         ? run<fused, clamp, true>
         : run<fused, clamp, false>)(job, datapath, tile, block, words);
}

}  // namespace

void passing_terms(const GradientJob& job, const FloatDatapath& datapath, const FloatTile& tile,
                   const Block& block, const GradientWords& words) {
    const FloatEnvironment environment(
        tile.nearest ? FloatRounding::nearest : FloatRounding::toward_zero, tile.flush);
    if (tile.product_exact)
        (tile.clamp ? run_estimator<true, true> : run_estimator<true, false>)(job, datapath, tile,
                                                                              block, words);
    else
        (tile.clamp ? run_estimator<false, true> : run_estimator<false, false>)(job, datapath, tile,
                                                                                block, words);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
