// Straight-through gradients of known passing terms: float32 sums over the rows of the other
// operand, in their order, on vectors over terms.
#include "float_environment.hpp"
#include "gemm_lanes.hpp"
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

using V = Vector<float>;

constexpr int width = lanes<V>, terms = GradientWords::terms, vectors = terms / width;
constexpr int rows = width == 16 ? 8 : width == 8 ? 2 : 1;

// Adds a vector of terms where the bits of its part of a word are set.
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
struct PassingSum {
    V operator()(V sum, V term, const std::uint32_t* word, int v) const {
        std::uint16_t bits;
        std::memcpy(&bits, reinterpret_cast<const char*>(word) + 2 * v, sizeof bits);
        return V(_mm512_mask_add_ps(__m512(sum), bits, __m512(sum), __m512(term)));
    }
};
#else
class PassingSum {
    using U = Vector<std::uint32_t>;

  public:
    PassingSum() {
        for (int bits = 0; bits < 1 << width; ++bits)
            for (int j = 0; j < width; ++j) masks_[bits][j] = -std::uint32_t(bits >> j & 1);
    }
    V operator()(V sum, V term, const std::uint32_t* word, int v) const {
        const U mask = masks_[*word >> (v * width) & ((1 << width) - 1)];
        return sum + bits_as<V>(bits_as<U>(term) & mask);
    }

  private:
    U masks_[1 << width];
};
#endif

// `transposed`: rows of `lane` are columns of the words.
template <bool transposed>
class GradientSums {
    static constexpr std::int64_t lane_step = transposed ? 1 : GradientWords::columns,
                                  other_step = transposed ? GradientWords::columns : 1;

  public:
    GradientSums(const GradientJob& job, const Block& block, const GradientWords& words)
        : job_(job),
          block_(block),
          words_(words),
          height_(block.row_end - block.row_begin),
          depth_(block.column_end - block.column_begin),
          gradient_((height_ + rows) * depth_),
          other_(depth_ * terms) {
        for (std::int64_t l = 0; l < height_; l += rows)
            for (std::int64_t s = 0; s < depth_; ++s)
                for (int i = 0; i < rows; ++i)
                    gradient_[l * depth_ + s * rows + i] =
                        l + i < height_
                            ? job.gradient(block.row_begin + l + i, block.column_begin + s)
                            : 0.0f;
    }

    void run(std::int64_t begin, std::int64_t end) {
        for (std::int64_t g = begin; g < end; ++g) {
            const int valid = int(std::min<std::int64_t>(terms, job_.terms - g * terms));
            pack_other(g, valid);
            for (std::int64_t l = 0; l < height_; l += rows) sum(g, l, valid);
        }
    }

  private:
    std::int64_t place(std::int64_t k) const { return job_.order ? job_.order[k] : k; }

    void pack_other(std::int64_t g, int valid) {
        const auto& other = job_.other;
        if (other.row_stride == 1)
            for (int k = 0; k < valid; ++k) {
                const float* from = &other(block_.column_begin, place(g * terms + k));
                for (std::int64_t s = 0; s < depth_; ++s) other_[s * terms + k] = from[s];
            }
        else
            for (std::int64_t s = 0; s < depth_; ++s)
                for (int k = 0; k < valid; ++k)
                    other_[s * terms + k] = other(block_.column_begin + s, place(g * terms + k));
        for (std::int64_t s = 0; s < depth_; ++s)
            std::fill_n(other_ + s * terms + valid, terms - valid, 0.0f);
    }

    // The terms of word g of the gradients of rows l, l + 1, ...
    void sum(std::int64_t g, std::int64_t l, int valid) const {
        const int count = int(std::min<std::int64_t>(rows, height_ - l));
        alignas(64) float sums[rows][terms] = {};
        const auto each = [&](auto&& apply) {
            for (int i = 0; i < count; ++i) {
                const std::int64_t row = block_.row_begin + l + i;
                if (job_.out.column_stride == 1 && !job_.order && valid == terms)
                    apply(sums[i], &job_.out(row, g * terms), terms);
                else
                    for (int k = 0; k < valid; ++k)
                        apply(&sums[i][k], &job_.out(row, place(g * terms + k)), 1);
            }
        };
        each([](float* sum, float* out, int n) { std::copy_n(out, n, sum); });
        const float *gradient = gradient_ + l * depth_, *other = other_;
        const std::uint32_t* word = transposed ? words_.row(g, 0) + l : words_.row(g, l);
        V s[rows][vectors];
        for (int i = 0; i < rows; ++i)
            for (int v = 0; v < vectors; ++v) s[i][v] = load<V>(&sums[i][v * width]);
        for (std::int64_t n = 0; n < depth_;
             ++n, gradient += rows, other += terms, word += other_step) {
#pragma GCC unroll 8
            for (int i = 0; i < rows; ++i) {
                const V one = broadcast<V>(gradient[i]);
#pragma GCC unroll 8
                for (int v = 0; v < vectors; ++v)
                    s[i][v] =
                        add_(s[i][v], one * load<V>(other + v * width), word + i * lane_step, v);
            }
        }
        for (int i = 0; i < rows; ++i)
            for (int v = 0; v < vectors; ++v) {
                const V nan = V{} + __builtin_nanf("");
                store(&sums[i][v * width], select(s[i][v] == s[i][v], s[i][v], nan));
            }
        each([](float* sum, float* out, int n) { std::copy_n(sum, n, out); });
    }

    const GradientJob& job_;
    const Block& block_;
    const GradientWords& words_;
    PassingSum add_;
    std::int64_t height_, depth_;
    Scratch<float> gradient_, other_;
};

template <bool transposed>
[[gnu::noinline]] void run(const GradientJob& job, const Block& block, const GradientWords& words,
                           std::int64_t begin, std::int64_t end) {
    GradientSums<transposed>(job, block, words).run(begin, end);
}

}  // namespace

void sum_gradient(const GradientJob& job, const Block& block, const GradientWords& words,
                  bool transposed, std::int64_t begin, std::int64_t end) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    (transposed ? run<true> : run<false>)(job, block, words, begin, end);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
