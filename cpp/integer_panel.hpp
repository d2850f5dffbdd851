// Panels of integers for the tiled GEMM: one or more terms to an element, one or more elements to a
// step. Zeros fill what a chunk or a group leaves open; they change no sum.
#pragma once

#include <algorithm>

#include "datapath.hpp"
#include "simd.hpp"

namespace abcdeep {
namespace {

// What an element holds: `terms` consecutive terms of one row or column. join() takes them widened
// to the element's size, scalars or vectors.
struct Bytes {
    using Word = std::uint32_t;
    static constexpr int terms = 4;
    template <class W>
    static W join(W a, W b, W c, W d) {
        return (a & 255u) | (b & 255u) << 8 | (c & 255u) << 16 | d << 24;
    }
};
struct Pairs {
    using Word = std::uint32_t;
    static constexpr int terms = 2;
    template <class W>
    static W join(W a, W b, W, W) {
        return (a & 65535u) | b << 16;
    }
};
template <class Word_>
struct Single {
    using Word = Word_;
    static constexpr int terms = 1;
    template <class W>
    static W join(W a, W, W, W) {
        return a;
    }
};
// One term twice, which broadcasts to 16-bit lanes at the cost of a load.
struct Twins {
    using Word = std::uint32_t;
    static constexpr int terms = 1;
    template <class W>
    static W join(W a, W, W, W) {
        return (a & 65535u) * 0x10001u;
    }
};

inline IntegerView turned(IntegerView x) {
    std::swap(x.row_stride, x.column_stride);
    return x;
}

// Which terms a step takes: `group` of them, but none beyond the end of its chunk.
class StepLayout {
  public:
    StepLayout(std::int64_t terms, std::int64_t chunk, std::int64_t group, int terms_of_element)
        : terms_(terms),
          chunk_(chunk > 0 && chunk < terms ? chunk : std::max<std::int64_t>(terms, 1)),
          group_(group),
          elements_((group + terms_of_element - 1) / terms_of_element),
          steps_of_chunk_((chunk_ + group - 1) / group),
          aligned_(group % terms_of_element == 0 && (chunk_ % group == 0 || chunk_ >= terms)) {}

    std::int64_t elements() const { return elements_; }
    std::int64_t group() const { return group_; }
    std::int64_t terms() const { return terms_; }
    std::int64_t steps_of_chunk() const { return steps_of_chunk_; }
    std::int64_t steps() const {
        return terms_ / chunk_ * steps_of_chunk_ + (terms_ % chunk_ + group_ - 1) / group_;
    }
    std::int64_t first_term(std::int64_t step) const {
        return step / steps_of_chunk_ * chunk_ + step % steps_of_chunk_ * group_;
    }
    std::int64_t end_term(std::int64_t step) const {
        const std::int64_t chunk_end = (step / steps_of_chunk_ + 1) * chunk_;
        return std::min({first_term(step) + group_, chunk_end, terms_});
    }
    // Steps of [begin, end) from `begin` on whose terms lie side by side, in whole elements.
    std::int64_t whole_steps(std::int64_t begin, std::int64_t end) const {
        return aligned_ ? std::max<std::int64_t>(std::min(end, terms_ / group_) - begin, 0) : 0;
    }

  private:
    std::int64_t terms_, chunk_, group_, elements_, steps_of_chunk_;
    bool aligned_;
};

template <class Kind, class T>
typename Kind::Word element(const T* a, const T* b, const T* c, const T* d) {
    using W = typename Kind::Word;
    return Kind::join(W(*a), W(*b), W(*c), W(*d));
}

// Element `from` of a line whose terms lie side by side.
template <class Kind, class T>
typename Kind::Word element_at(const T* from) {
    if constexpr (sizeof(T) * Kind::terms == sizeof(typename Kind::Word)) {
        typename Kind::Word word;
        std::memcpy(&word, from, sizeof word);
        return word;
    } else {
        constexpr int second = Kind::terms > 1, third = Kind::terms > 2 ? 2 : 0;
        return element<Kind>(from, from + second, from + third, from + 3 * (third > 0));
    }
}

using Quads = Vector<std::uint32_t, 16>;
using Octets = Vector<std::int16_t, 16>;
using Chars = Vector<std::uint8_t, 16>;

// `count` (4 or 8) integers as 16-bit ones.
template <int count, class T>
Octets widened(const T* from) {
    if constexpr (sizeof(T) * count == 16) {
        return load<Octets>(from);
    } else {
        Chars raw;
        if constexpr (sizeof(T) * count == 8)
            raw = Chars(Vector<std::uint64_t, 16>{load<std::uint64_t>(from), 0});
        else
            raw = Chars(Quads{load<std::uint32_t>(from), 0, 0, 0});
        if constexpr (sizeof(T) == 2) return Octets(raw);
        const Chars high = std::is_signed_v<T> ? raw : Chars{};
        const Chars pairs = __builtin_shufflevector(raw, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5,
                                                    21, 6, 22, 7, 23);
        return std::is_signed_v<T> ? Octets(pairs) >> 8 : Octets(pairs);
    }
}

inline Quads low_pairs(Octets a, Octets b) {
    return Quads(__builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11));
}
inline Quads high_pairs(Octets a, Octets b) {
    return Quads(__builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15));
}

// Columns joined at a time, 0: one by one.
template <class Kind, class T>
inline constexpr int joined_columns = Kind::terms == 4 ? (sizeof(T) == 1 ? 16 : 0)
                                      : Kind::terms == 2 || sizeof(typename Kind::Word) == 2 ? 8
                                                                                             : 0;

// Elements of `joined_columns` columns from n on; put(n, vector) takes them.
template <class Kind, class T, class Put>
void join_columns(const T* const (&rows)[4], int n, const Put& put) {
    if constexpr (Kind::terms == 4) {
        Octets low[2], high[2];
        for (int i = 0; i < 2; ++i) {
            const Chars a = load<Chars>(rows[2 * i] + n), b = load<Chars>(rows[2 * i + 1] + n);
            low[i] = Octets(__builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21,
                                                    6, 22, 7, 23));
            high[i] = Octets(__builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13,
                                                     29, 14, 30, 15, 31));
        }
        put(n, low_pairs(low[0], low[1])), put(n + 4, high_pairs(low[0], low[1]));
        put(n + 8, low_pairs(high[0], high[1])), put(n + 12, high_pairs(high[0], high[1]));
    } else if constexpr (Kind::terms == 2) {
        const Octets a = widened<8>(rows[0] + n), b = widened<8>(rows[1] + n);
        put(n, low_pairs(a, b)), put(n + 4, high_pairs(a, b));
    } else {
        put(n, widened<8>(rows[0] + n));
    }
}

// `steps` elements of each of four lines, transposed: those of a step side by side.
template <class Kind, class T>
void pack_four_lines(const T* line, std::int64_t line_stride, std::int64_t steps,
                     std::uint32_t flip, std::uint32_t* to, std::int64_t step_stride) {
    using V = Quads;
    const auto four = [&](std::int64_t i, std::int64_t t) {
        const T* from = line + i * line_stride + t * Kind::terms;
        if constexpr (sizeof(T) * Kind::terms == sizeof(std::uint32_t))
            return load<V>(from);
        else if constexpr (Kind::terms == 2)
            return V(widened<8>(from));
        else if constexpr (std::is_same_v<Kind, Twins>)
            return low_pairs(widened<4>(from), widened<4>(from));
        else
            return V{element_at<Kind>(from), element_at<Kind>(from + 1), element_at<Kind>(from + 2),
                     element_at<Kind>(from + 3)};
    };
    std::int64_t t = 0;
    for (; t + 4 <= steps; t += 4) {
        const V a = four(0, t), b = four(1, t), c = four(2, t), d = four(3, t);
        const V ab = __builtin_shufflevector(a, b, 0, 4, 1, 5),
                cd = __builtin_shufflevector(c, d, 0, 4, 1, 5),
                ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7),
                cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
        std::uint32_t* into = to + t * step_stride;
        store(into, __builtin_shufflevector(ab, cd, 0, 1, 4, 5) ^ flip);
        store(into + step_stride, __builtin_shufflevector(ab, cd, 2, 3, 6, 7) ^ flip);
        store(into + 2 * step_stride, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5) ^ flip);
        store(into + 3 * step_stride, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7) ^ flip);
    }
    for (; t < steps; ++t)
        for (int i = 0; i < 4; ++i)
            to[t * step_stride + i] =
                element_at<Kind>(line + i * line_stride + t * Kind::terms) ^ flip;
}

// Where element g of the line's step t goes: lines are side by side in vectors of `width`, and of
// each vector all elements of a step.
struct Places {
    std::int64_t lines, elements;
    int width;

    std::int64_t operator()(std::int64_t t, int line, std::int64_t g) const {
        return (t * lines + line / width * width) * elements + g * width + line % width;
    }
};

// Steps [begin, end) of lines [first, first + valid) of x, a line an output's row or column; the
// other lines become zero.
template <class Kind>
void pack_lines(const IntegerView& x, const std::int64_t* order, const StepLayout& layout,
                std::int64_t first, int valid, std::int64_t begin, std::int64_t end,
                typename Kind::Word flip, typename Kind::Word* to, const Places& places) {
    using Word = typename Kind::Word;
    const std::int64_t elements = layout.elements();
    const bool in_order = x.column_stride == 1 && !order;
    const std::int64_t whole = in_order ? layout.whole_steps(begin, end) : 0;
    with_type(x.data, x.type, [&](auto* data) {
        using T = std::remove_cvref_t<decltype(*data)>;
        const std::int64_t step_stride = places(1, 0, 0);
        for (int i = 0; i < int(places.lines); ++i) {
            if (i >= valid) {
                for (std::int64_t t = begin; t < end; ++t)
                    for (std::int64_t g = 0; g < elements; ++g) to[places(t - begin, i, g)] = 0;
                continue;
            }
            const T* line = data + (first + i) * x.row_stride;
            const T* from = line + begin * layout.group();
            std::int64_t t = begin + whole;
            bool packed = false;
            if constexpr (sizeof(Word) == 4)
                if (elements == 1 && places.width % 4 == 0 && i / 4 * 4 + 4 <= valid) {
                    packed = true;
                    if (i % 4 == 0)
                        pack_four_lines<Kind>(from, x.row_stride, whole, flip, to + places(0, i, 0),
                                              step_stride);
                }
            if (!packed)
                for (std::int64_t g = 0; g < elements; ++g) {
                    Word* into = to + places(0, i, g);
                    for (std::int64_t s = 0; s < whole; ++s)
                        into[s * step_stride] =
                            element_at<Kind>(from + s * layout.group() + g * Kind::terms) ^ flip;
                }
            for (; t < end; ++t) {
                const std::int64_t stop = layout.end_term(t);
                std::int64_t k = layout.first_term(t);
                for (std::int64_t g = 0; g < elements; ++g) {
                    T terms[4] = {};
                    for (int q = 0; q < Kind::terms && k < stop; ++q, ++k)
                        terms[q] = line[(order ? order[k] : k) * x.column_stride];
                    to[places(t - begin, i, g)] =
                        element<Kind>(terms, terms + 1, terms + 2, terms + 3) ^ flip;
                }
            }
        }
    });
}

// The same of lines that lie side by side in memory: term by term.
template <class Kind, int vectors, int width>
void pack_columns(const IntegerView& x, const std::int64_t* order, const StepLayout& layout,
                  std::int64_t first, int valid, std::int64_t begin, std::int64_t end,
                  std::int64_t elements_of_step, typename Kind::Word* to) {
    using Word = typename Kind::Word;
    constexpr int columns = vectors * width;
    const std::int64_t elements = layout.elements();
    with_type(x.data, x.type, [&](auto* data) {
        using T = std::remove_cvref_t<decltype(*data)>;
        constexpr int joined = joined_columns<Kind, T>;
        const T none[columns] = {};
        for (std::int64_t t = begin; t < end; ++t, to += columns * elements_of_step) {
            const std::int64_t stop = layout.end_term(t);
            std::int64_t k = layout.first_term(t);
            for (std::int64_t g = 0; g < elements; ++g) {
                const T* rows[4] = {none, none, none, none};
                for (int q = 0; q < Kind::terms && k < stop; ++q, ++k)
                    rows[q] = data + (order ? order[k] : k) * x.row_stride + first;
                const auto place = [&](int n) {
                    return to + (n / width * elements_of_step + g) * width + n % width;
                };
                int n = 0;
                if constexpr (joined > 0)
                    for (; n + joined <= valid; n += joined)
                        join_columns<Kind>(rows, n, [&](int m, auto v) { store(place(m), v); });
                for (; n < columns; ++n)
                    *place(n) = n < valid ? element<Kind>(rows[0] + n, rows[1] + n, rows[2] + n,
                                                          rows[3] + n)
                                          : Word(0);
            }
        }
    });
}

}  // namespace
}  // namespace abcdeep
