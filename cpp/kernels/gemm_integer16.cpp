// Accumulators that saturate after every product, in 16-bit lanes.
//
// A sum s is kept as s + 32767 - highest: the saturating addition of the processor is then the
// upper limit, and a maximum the lower one, unless that is the processor's too. A product fits 16
// bits, and so the addition's own lower limit is never above the accumulator's.
#include "integer_panel.hpp"
#include "kernels.hpp"
#include "run_tiles.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

using Lanes16 = Vector<std::int16_t>;
using Unsigned16 = Vector<std::uint16_t>;

Lanes16 add_saturated(Lanes16 a, Lanes16 b) {
#if defined(__AVX512BW__) && ABCDEEP_VECTOR_BYTES == 64
    return Lanes16(_mm512_adds_epi16(__m512i(a), __m512i(b)));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return Lanes16(_mm256_adds_epi16(__m256i(a), __m256i(b)));
#elif defined(__SSE2__) && ABCDEEP_VECTOR_BYTES == 16
    return Lanes16(_mm_adds_epi16(__m128i(a), __m128i(b)));
#else
    const Lanes16 sum = Lanes16(Unsigned16(a) + Unsigned16(b));
    return select(((sum ^ a) & (sum ^ b)) < 0, (a >> 15) ^ std::int16_t(0x7fff), sum);
#endif
}

Lanes16 larger(Lanes16 a, Lanes16 b) {
#if defined(__AVX512BW__) && ABCDEEP_VECTOR_BYTES == 64
    return Lanes16(_mm512_max_epi16(__m512i(a), __m512i(b)));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return Lanes16(_mm256_max_epi16(__m256i(a), __m256i(b)));
#elif defined(__SSE2__) && ABCDEEP_VECTOR_BYTES == 16
    return Lanes16(_mm_max_epi16(__m128i(a), __m128i(b)));
#else
    return select(a > b, a, b);
#endif
}

template <bool is_signed, bool limits_low>
class SaturatingStep {
  public:
    using V = Lanes16;
    using Result = std::conditional_t<is_signed, std::int16_t, std::uint16_t>;

    SaturatingStep(const IntegerJob& job, const IntegerTile& t)
        : job_(job),
          layout_(job.terms, t.chunk, 1, 1),
          lowest_(t.lowest),
          highest_(t.highest),
          bias_(V{} + std::int16_t(32767 - t.highest)),
          low_(V{} + std::int16_t(32767 - t.highest + t.lowest)) {}

    std::int64_t left_elements() const { return 2; }
    std::int64_t right_elements() const { return 1; }
    bool has_offset() const { return false; }
    V add_offset(V, V s) const { return s; }
    V zero() const { return bias_; }

    template <int rows>
    void pack_left(std::int16_t* to, std::int64_t first, int valid, std::int64_t begin,
                   std::int64_t end) const {
        pack_lines<Twins>(job_.a, job_.order, layout_, first, valid, begin, end, 0,
                          reinterpret_cast<std::uint32_t*>(to), {rows, 1, rows});
    }
    template <int vectors>
    void pack_right(std::int16_t* to, std::int64_t first, int valid, std::int64_t begin,
                    std::int64_t end) const {
        constexpr int columns = vectors * lanes<V>;
        using Kind = Single<std::uint16_t>;
        auto* const words = reinterpret_cast<std::uint16_t*>(to);
        if (job_.b.column_stride == 1)
            pack_columns<Kind, vectors, lanes<V>>(job_.b, job_.order, layout_, first, valid, begin,
                                                  end, 1, words);
        else
            pack_lines<Kind>(turned(job_.b), job_.order, layout_, first, valid, begin, end, 0,
                             words, {columns, 1, columns});
    }

    V left(const std::int16_t* a) const {
        return V(broadcast<Vector<std::int32_t>>(load<std::int32_t>(a)));
    }
    V right(const std::int16_t* b) const { return load<V>(b); }
    V step(V a, V b, V s) const {
        return limit(add_saturated(s, V(Unsigned16(a) * Unsigned16(b))));
    }
    V merge(V r, V s) const {
        const V addend = V(Unsigned16(r) - Unsigned16(bias_));
        if constexpr (is_signed) return limit(add_saturated(s, addend));
        const Unsigned16 sum = Unsigned16(s) + Unsigned16(addend);  // no carry: s - 2^15 unsigned
        return select(V((Unsigned16(s) ^ 0x8000) > ~Unsigned16(addend)) != 0, V{} + 32767, V(sum));
    }
    std::int16_t start(std::int64_t c) const {
        return std::int16_t(std::clamp(c, lowest_, highest_) + 32767 - highest_);
    }
    V finish(V s) const { return V(Unsigned16(s) - Unsigned16(bias_)); }

  private:
    V limit(V s) const {
        if constexpr (limits_low) s = larger(s, low_);
        return s;
    }

    const IntegerJob& job_;
    StepLayout layout_;
    std::int64_t lowest_, highest_;
    V bias_, low_;
};

template <bool is_signed, bool limits_low>
void run(const IntegerJob& job, const IntegerTile& tile, const Block& block) {
    run_tiles(SaturatingStep<is_signed, limits_low>(job, tile), job, tile.chunk, block);
}

}  // namespace

void gemm_integer16(const IntegerJob& job, const IntegerTile& tile, const Block& block) {
    const bool limits_low = tile.highest - tile.lowest < 0xffff;
    if (tile.is_signed)
        (limits_low ? run<true, true> : run<true, false>)(job, tile, block);
    else
        (limits_low ? run<false, true> : run<false, false>)(job, tile, block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
