// Steps of integer accumulators for the tiled GEMM, on dot products of packed elements.
#pragma once

#include "fixed.hpp"
#include "integer_panel.hpp"
#include "run_tiles.hpp"

namespace abcdeep {
namespace {

using Lanes32 = Vector<std::int32_t>;

inline Lanes32 smaller(Lanes32 a, Lanes32 b) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return Lanes32(_mm512_min_epi32(__m512i(a), __m512i(b)));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return Lanes32(_mm256_min_epi32(__m256i(a), __m256i(b)));
#else
    return select(a < b, a, b);
#endif
}

inline Lanes32 larger(Lanes32 a, Lanes32 b) {
#if defined(__AVX512F__) && ABCDEEP_VECTOR_BYTES == 64
    return Lanes32(_mm512_max_epi32(__m512i(a), __m512i(b)));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
    return Lanes32(_mm256_max_epi32(__m256i(a), __m256i(b)));
#else
    return select(a > b, a, b);
#endif
}

inline Lanes32 add_modulo(Lanes32 a, Lanes32 b) {
    using U = Vector<std::uint32_t>;
    return Lanes32(U(a) + U(b));
}

// A dot product says what an element holds, and adds x * y to s modulo 2^32. `flip` is what the
// elements of a are packed with: a bit pattern that stands for an offset of every term.

// One product in a lane of 32 bits.
struct ProductDot {
    using Kind = Single<std::uint32_t>;
    static constexpr bool may_flip = false;
    static std::uint32_t flip(const IntegerJob&) { return 0; }
    static Lanes32 add(Lanes32 x, Lanes32 y, Lanes32 s) {
        using U = Vector<std::uint32_t>;
        return Lanes32(U(x) * U(y) + U(s));
    }
};

// Two products of 16-bit integers.
struct PairDot {
    using Kind = Pairs;
    static constexpr bool may_flip = false;
    static std::uint32_t flip(const IntegerJob&) { return 0; }
    static Lanes32 add(Lanes32 x, Lanes32 y, Lanes32 s) {
#if defined(__AVX512BW__) && ABCDEEP_VECTOR_BYTES == 64
        return add_modulo(s, Lanes32(_mm512_madd_epi16(__m512i(x), __m512i(y))));
#elif defined(__AVX2__) && ABCDEEP_VECTOR_BYTES == 32
        return add_modulo(s, Lanes32(_mm256_madd_epi16(__m256i(x), __m256i(y))));
#elif defined(__SSE2__) && ABCDEEP_VECTOR_BYTES == 16
        return add_modulo(s, Lanes32(_mm_madd_epi16(__m128i(x), __m128i(y))));
#else
        using U = Vector<std::uint32_t>;
        const U low = U(Lanes32(U(x) << 16) >> 16) * U(Lanes32(U(y) << 16) >> 16);
        return Lanes32(U(s) + low + U(x >> 16) * U(y >> 16));
#endif
    }
};

// Four products of bytes, one signed and one unsigned: y is the unsigned one if unsigned_right.
// Where both are signed, or both unsigned, 128 is added to, or taken from, every x.
template <bool unsigned_right>
struct ByteDot {
    using Kind = Bytes;
    static constexpr bool may_flip = true;
    static std::uint32_t flip(const IntegerJob& job) {
        const auto is_signed = [](const IntegerView& x) { return x.type == IntegerType::int8; };
        return is_signed(job.a) == is_signed(job.b) ? 0x80808080u : 0;
    }
    static Lanes32 add(Lanes32 x, Lanes32 y, Lanes32 s) {
        if constexpr (unsigned_right) std::swap(x, y);
#if defined(__AVX512VNNI__) && ABCDEEP_VECTOR_BYTES == 64
        return Lanes32(_mm512_dpbusd_epi32(__m512i(s), __m512i(x), __m512i(y)));
#elif defined(__AVXVNNI__) && ABCDEEP_VECTOR_BYTES == 32
        return Lanes32(_mm256_dpbusd_avx_epi32(__m256i(s), __m256i(x), __m256i(y)));
#else
        using U = Vector<std::uint32_t>;
        for (std::uint32_t shift = 0; shift < 32; shift += 8)
            s = add_modulo(
                s, Lanes32((U(x) >> shift & 255u) * U(Lanes32(U(y) << (24 - shift)) >> 24)));
        return s;
#endif
    }
};

// The range of a 32-bit accumulator.
class Limits32 {
  public:
    explicit Limits32(const IntegerTile& t)
        : lowest_(Lanes32{} + std::int32_t(t.saturate ? t.lowest : 0)),
          highest_(Lanes32{} + std::int32_t(t.saturate ? t.highest : 0)) {}

    Lanes32 limit(Lanes32 v) const { return smaller(larger(v, lowest_), highest_); }
    std::int32_t limit(std::int64_t v) const {
        return std::int32_t(std::clamp<std::int64_t>(v, lowest_[0], highest_[0]));
    }
    template <bool may_carry>
    Lanes32 add(Lanes32 p, Lanes32 s) const {
        const Lanes32 sum = add_modulo(p, s);
        if constexpr (!may_carry) return limit(sum);
        const Lanes32 beyond = (s >> 31) ^ 0x7fffffff;  // the end on the side of s
        return limit(select(((sum ^ p) & (sum ^ s)) < 0, beyond, sum));
    }

  private:
    Lanes32 lowest_, highest_;
};

// What the steps on 32-bit lanes share: packing. `elements` of a step, 0: any number. Where x may
// stand for another number, `in_step` says that a step of b ends with the difference; else it is
// taken off once for a block of terms.
template <class Dot, int elements, bool in_step>
class Packed32 {
    static constexpr bool offset_in_step = in_step && Dot::may_flip;

  public:
    using V = Lanes32;
    using Result = std::int32_t;
    using Word = std::uint32_t;

    Packed32(const IntegerJob& job, const IntegerTile& tile, std::int64_t group)
        : job_(job),
          layout_(job.terms, tile.saturate ? tile.chunk : 0, group, Dot::Kind::terms),
          limits_(tile),
          flip_(Dot::flip(job)) {}

    const StepLayout& layout() const { return layout_; }
    std::int64_t left_elements() const { return elements ? elements : layout_.elements(); }
    std::int64_t right_elements() const { return left_elements() + offset_in_step; }
    bool has_offset() const { return flip_ && !offset_in_step; }
    V add_offset(V b, V s) const { return Dot::add(V{} + std::int32_t(flip_), b, s); }
    V zero() const { return V{}; }

    template <int rows>
    void pack_left(std::int32_t* to, std::int64_t first, int valid, std::int64_t begin,
                   std::int64_t end) const {
        const std::int64_t count = left_elements();
        pack_lines<typename Dot::Kind>(job_.a, job_.order, layout_, first, valid, begin, end, flip_,
                                       reinterpret_cast<Word*>(to),
                                       {rows, count, count == 1 ? rows : 1});
    }

    template <int vectors>
    void pack_right(std::int32_t* to, std::int64_t first, int valid, std::int64_t begin,
                    std::int64_t end) const {
        constexpr int width = lanes<V>;
        const std::int64_t count = right_elements();
        Word* const words = reinterpret_cast<Word*>(to);
        if (job_.b.column_stride == 1)
            pack_columns<typename Dot::Kind, vectors, width>(job_.b, job_.order, layout_, first,
                                                             valid, begin, end, count, words);
        else
            pack_lines<typename Dot::Kind>(turned(job_.b), job_.order, layout_, first, valid, begin,
                                           end, 0, words, {vectors * width, count, width});
        if constexpr (!offset_in_step) return;
        for (std::int64_t i = 0; i < (end - begin) * vectors; ++i, to += count * width) {
            V offset{};
            for (std::int64_t g = 0; g < count - 1; ++g)
                offset = add_offset(load<V>(to + g * width), offset);
            store(to + (count - 1) * width, -offset);
        }
    }

  protected:
    const IntegerJob& job_;
    StepLayout layout_;
    Limits32 limits_;
    Word flip_;
};

// Sums of whole chunks modulo 2^32; they wrap, or saturate, at the end of the chunk.
template <class Dot, bool saturate>
class ExactStep : public Packed32<Dot, 1, false> {
  public:
    using V = Lanes32;

    ExactStep(const IntegerJob& job, const IntegerTile& t)
        : Packed32<Dot, 1, false>(job, t, Dot::Kind::terms),
          bits_(t.bits),
          is_signed_(t.is_signed) {}

    V left(const std::int32_t* a) const { return broadcast<V>(*a); }
    V right(const std::int32_t* b) const { return load<V>(b); }
    V step(V a, V b, V s) const { return Dot::add(a, b, s); }
    V merge(V r, V s) const {
        if constexpr (!saturate) return add_modulo(r, s);
        return this->limits_.template add<true>(this->limits_.limit(r), s);
    }
    std::int32_t start(std::int64_t c) const {
        return saturate ? this->limits_.limit(c) : std::int32_t(std::uint32_t(std::uint64_t(c)));
    }
    V finish(V s) const {
        if constexpr (saturate) return this->limits_.limit(s);
        using U = Vector<std::uint32_t>;
        const int drop = 32 - bits_;
        return is_signed_ ? V(U(s) << drop) >> drop : V(U(s) << drop >> drop);
    }

  private:
    int bits_;
    bool is_signed_;
};

// Sums that saturate after every exact group; `elements` of a step, 0: any number.
template <class Dot, int elements, bool may_carry>
class GroupStep : public Packed32<Dot, elements, true> {
  public:
    using V = Lanes32;
    struct Elements {
        const std::int32_t* at;
    };

    GroupStep(const IntegerJob& job, const IntegerTile& t)
        : Packed32<Dot, elements, true>(job, t, t.group) {}

    Elements left(const std::int32_t* a) const { return {a}; }
    Elements right(const std::int32_t* b) const { return {b}; }
    V step(Elements a, Elements b, V s) const {
        const std::int64_t count = this->left_elements();
        V sum = Dot::may_flip ? load<V>(b.at + count * lanes<V>) : V{};
        for (std::int64_t g = 0; g < count; ++g)
            sum = Dot::add(broadcast<V>(a.at[g]), load<V>(b.at + g * lanes<V>), sum);
        return this->limits_.template add<may_carry>(sum, s);
    }
    V merge(V r, V s) const { return this->limits_.template add<true>(r, s); }
    std::int32_t start(std::int64_t c) const { return this->limits_.limit(c); }
    V finish(V s) const { return s; }
};

// A Step whose panels hold steps: the driver counts those.
template <class Step>
void run_packed(const IntegerJob& job, const IntegerTile& tile, const Block& block) {
    const Step step(job, tile);
    IntegerJob steps = job;
    steps.terms = step.layout().steps();
    run_tiles(step, steps, tile.chunk ? step.layout().steps_of_chunk() : 0, block);
}

template <class Dot>
void run_dot(const IntegerJob& job, const IntegerTile& tile, const Block& block) {
    auto run = run_packed<ExactStep<Dot, false>>;
    if (tile.saturate && !tile.group) {
        run = run_packed<ExactStep<Dot, true>>;
    } else if (tile.saturate) {
        const std::int64_t elements = (tile.group + Dot::Kind::terms - 1) / Dot::Kind::terms;
        if (elements == 1)
            run = tile.may_carry ? run_packed<GroupStep<Dot, 1, true>>
                                 : run_packed<GroupStep<Dot, 1, false>>;
        else if (elements == 2)
            run = tile.may_carry ? run_packed<GroupStep<Dot, 2, true>>
                                 : run_packed<GroupStep<Dot, 2, false>>;
        else
            run = tile.may_carry ? run_packed<GroupStep<Dot, 0, true>>
                                 : run_packed<GroupStep<Dot, 0, false>>;
    }
    run(job, tile, block);
}

}  // namespace
}  // namespace abcdeep
