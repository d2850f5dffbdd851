// Floats to the nearby values or code words of a float format: any format and rule, float32 or
// float64.
#include <algorithm>

#include "float_environment.hpp"
#include "kernels.hpp"
#include "quantize_special.hpp"
#include "rounding.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

constexpr int tile = 512;  // elements rounded between two visits to memory

template <class E>
struct Tile {
    alignas(64) typename FloatLayout<E>::Float in[tile];
    alignas(64) E out[tile];
    alignas(64) E random[tile];
};

template <class E, bool stochastic, bool codes>
unsigned round_tile(Tile<E>& t, int count, const Quantizer& q) {
    using U = Vector<E>;
    using Layout = FloatLayout<E>;
    constexpr E infinite = E(2 * Layout::bias + 1) << Layout::mantissa;
    constexpr E magnitude_mask = ~E(0) >> 1;
    const Grid<E> grid(q);
    const Special<E> special(q, codes);
    const U zero{};
    U failed_nan{}, failed_negative{}, failed_code{};

    for (int i = 0; i < count; i += lanes<U>) {
        U bits = load<U>(t.in + i);
        U negative = bits >> E(Layout::width - 1);
        U magnitude = bits & magnitude_mask;
        U finite = select(magnitude < infinite, magnitude, zero);
        U random{};
        if constexpr (stochastic) random = load<U>(t.random + i);
        U index = round_to_index<stochastic>(finite, negative, random, grid);
        if (!q.has_zero) index = select(index == zero, broadcast<U>(1), index);

        U out;
        if constexpr (codes) {
            out = select(index == zero, zero, (index - E(q.code_offset)) << E(q.padding_bits));
            if (q.has_zero && q.code_offset) failed_code |= U(index == E(q.code_offset));
        } else {
            out = index_to_bits(index, grid);
        }
        auto is_negative = negative != zero;
        U sign = select(is_negative, broadcast<U>(special.sign), zero);
        out |= q.negative_zero ? sign : select(index == zero, zero, sign);
        U largest =
            select(is_negative, broadcast<U>(grid.max_index[1]), broadcast<U>(grid.max_index[0]));
        out = select(index > largest,
                     select(is_negative, broadcast<U>(special.overflow[1]),
                            broadcast<U>(special.overflow[0])),
                     out);
        out = select(magnitude == infinite,
                     select(is_negative, broadcast<U>(special.infinity[1]),
                            broadcast<U>(special.infinity[0])),
                     out);
        auto nan = magnitude > infinite;
        if (q.negative == Negative::nan)
            out = select(magnitude == zero, broadcast<U>(special.nan),
                         select(is_negative, broadcast<U>(special.nan), out));
        if (q.negative == Negative::error)
            failed_negative |= select(nan, zero, select(magnitude == zero, zero, negative));
        out = select(nan, broadcast<U>(special.nan), out);
        failed_nan |= U(nan);
        store(t.out + i, out);
    }
    unsigned failed = 0;
    if (q.nan_is_error && any(failed_nan != zero)) failed |= quantize_failed_nan;
    if (any(failed_negative != zero)) failed |= quantize_failed_negative;
    if (any(failed_code != zero)) failed |= quantize_failed_code;
    return failed;
}

template <class T, class E>
void copy_out(const E* from, T* to, int count) {
    for (int i = 0; i < count; ++i) to[i] = T(from[i]);
}

template <class E>
void copy_codes(const E* from, void* to, std::int64_t first, int count, int bytes) {
    switch (bytes) {
        case 1:
            copy_out(from, static_cast<std::uint8_t*>(to) + first, count);
            break;
        case 2:
            copy_out(from, static_cast<std::uint16_t*>(to) + first, count);
            break;
        case 4:
            copy_out(from, static_cast<std::uint32_t*>(to) + first, count);
            break;
        default:
            copy_out(from, static_cast<std::uint64_t*>(to) + first, count);
    }
}

// E: the working width. In: the type of the input, and of the values that come out.
template <class E, class In>
[[gnu::noinline]] unsigned quantize_range(const QuantizeJob& job, std::int64_t begin,
                                          std::int64_t end) {
    using F = typename FloatLayout<E>::Float;
    const Quantizer& q = job.quantizer;
    const bool stochastic = q.stochastic != Stochastic::none;
    const auto run =
        stochastic ? (job.code_bytes ? round_tile<E, true, true> : round_tile<E, true, false>)
                   : (job.code_bytes ? round_tile<E, false, true> : round_tile<E, false, false>);
    const In* in = static_cast<const In*>(job.in);
    Tile<E> t = {};
    alignas(64) std::uint32_t random[tile];
    unsigned failed = 0;
    for (std::int64_t i = begin; i < end; i += tile) {
        const int count = int(std::min<std::int64_t>(tile, end - i));
        for (int j = 0; j < count; ++j) t.in[j] = F(in[i + j]);
        for (int j = count; j < tile; ++j) t.in[j] = 0;
        if (stochastic) {
            draw_random_bits(random, job.random, i, count, q.random_bits);
            for (int j = 0; j < count; ++j) t.random[j] = random[j];
        }
        failed |= run(t, count, q);
        if (job.code_bytes) {
            copy_codes(t.out, job.out, i, count, job.code_bytes);
        } else {
            In* out = static_cast<In*>(job.out) + i;
            for (int j = 0; j < count; ++j) out[j] = In(bits_as<F>(t.out[j]));
        }
    }
    return failed;
}

}  // namespace

unsigned quantize(const QuantizeJob& job, std::int64_t begin, std::int64_t end) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    const Quantizer& q = job.quantizer;
    const bool wide_rounding = q.random_bits > 16 || q.emin < -126 || job.code_bytes == 8;
    if (job.float64) return quantize_range<std::uint64_t, double>(job, begin, end);
    if (wide_rounding) return quantize_range<std::uint64_t, float>(job, begin, end);
    return quantize_range<std::uint32_t, float>(job, begin, end);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
