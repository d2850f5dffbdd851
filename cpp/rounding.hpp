// THE rounding function: the bits of a float to an index on a format's grid. Everything that rounds
// calls it.
//
// Rounding is an addition and a truncation. d low bits of the significand are discarded:
//
//     1 F F F F F F L T T T ... T        significand; F, L kept, L the last one; T: d discarded
//     bits
//   +               r r r ... r          the addend, 0 <= r <= 2^d: the rounding mode
//   = S . . . . . . S x x x ... x        S, at most one more than before, x dropped
//
//     toward zero    r = 0                       away from zero   r = 2^d - 1
//     nearest        r = 2^(d-1) - 1 + L (even)  ties away        r = 2^(d-1)
//     stochastic     r = d uniform random bits   to odd           r = L ? 0 : 2^d - 1
//
// so a deterministic mode is a multiple of 2^(d-1), and 0 or -1, for each sign and each L.
// U is uint32_t or uint64_t (the bits of a float or a double) or a vector of them.
#pragma once

#include "format.hpp"
#include "simd.hpp"

namespace abcdeep {
namespace {  // each kernel keeps its own copy, compiled for its instruction set

template <class E>
struct FloatLayout;
template <>
struct FloatLayout<std::uint32_t> {
    using Float = float;
    using Signed = std::int32_t;
    static constexpr int mantissa = 23, bias = 127, width = 32;
};
template <>
struct FloatLayout<std::uint64_t> {
    using Float = double;
    using Signed = std::int64_t;
    static constexpr int mantissa = 52, bias = 1023, width = 64;
};

// A Quantizer in the units of one float layout.
template <class E>
struct Grid {
    using Layout = FloatLayout<E>;

    explicit Grid(const Quantizer& q)
        : mantissa_bits(E(q.mantissa_bits)),
          discard(E(Layout::mantissa - q.mantissa_bits)),
          first_exponent(E(q.emin + Layout::bias)),
          first_normal(E(1) << q.mantissa_bits),
          gradual(q.underflow == Underflow::gradual || q.underflow == Underflow::cell ? ~E(0) : 0),
          cell_shift(q.underflow == Underflow::cell ? E(q.mantissa_bits) : 0),
          code_parity(is_jam(q) ? 0 : ~E(0)),
          flip(q.odd_first_code && !is_jam(q)),
          max_index{E(q.max_index[0]), E(q.max_index[1])},
          underflow(q.underflow),
          stochastic(q.stochastic),
          random_bits(q.random_bits) {
        for (int negative = 0; negative < 2; ++negative)
            for (int odd = 0; odd < 2; ++odd) addend[negative][odd] = q.addend[negative][odd];
        using F = typename Layout::Float;
        subnormal_quantum = F(__builtin_ldexp(1.0, q.emin - q.mantissa_bits));
    }

    E mantissa_bits, discard, first_exponent, first_normal, gradual, cell_shift;
    E code_parity, flip;  // L is the last bit of the code word; jam (S0 OR 1) takes that of S0
    E max_index[2];
    E addend[2][2];
    typename Layout::Float subnormal_quantum;
    Underflow underflow;
    Stochastic stochastic;
    int random_bits;
};

// r * 2 of the picture, for a deterministic mode.
template <class U, class E = Element<U>>
static inline U deterministic_addend(U discard, U odd, U negative, const E (&addend)[2][2]) {
    const U zero{};
    U code =
        select(odd != zero,
               select(negative != zero, broadcast<U>(addend[1][1]), broadcast<U>(addend[0][1])),
               select(negative != zero, broadcast<U>(addend[1][0]), broadcast<U>(addend[0][0])));
    return ((code >> E(1)) << discard) - (code & E(1));
}

// The same for a stochastic rule with `random` in [0, 2^bits); rules C and odd first round the
// discarded bits to that many, which changes `significand`.
template <class U, class E = Element<U>>
static inline U stochastic_addend(U& significand, U discard, U random, Stochastic rule, int bits) {
    constexpr E most = FloatLayout<E>::width - 2;
    if (rule == Stochastic::b) {
        random = random * E(2) + E(1);
        bits += 1;
    } else if (rule != Stochastic::a) {
        U surplus = select(discard > E(bits), discard - E(bits), U{});
        U last = (significand >> surplus) & E(1);
        U half = (broadcast<U>(1) << surplus) >> E(1);
        U up = rule == Stochastic::c ? last : E(1) - last;
        U rounded = ((significand + half - E(1) + up) >> surplus) << surplus;
        significand = select(surplus != U{}, rounded, significand);
    }
    return ((random << E(most - E(bits))) >> (most - discard)) << E(1);
}

// Index of the magnitude whose float bits are `magnitude` (finite), not yet limited to max_index.
template <bool stochastic, class U, class E = Element<U>>
static inline U round_to_index(U magnitude, U negative, U random, const Grid<E>& grid) {
    using Layout = FloatLayout<E>;
    constexpr E hidden = E(1) << Layout::mantissa;
    constexpr E most =
        Layout::width - 2;  // discarding more than this many bits is the same as this many
    const U zero{};

    // A subnormal float is twice its fraction in the binade below the first, so that it is `below`.
    U exponent = magnitude >> E(Layout::mantissa);
    U fraction = magnitude & (hidden - 1);
    U significand = select(exponent != zero, fraction | hidden, fraction + fraction);

    auto below = exponent < grid.first_exponent;
    U deficit = select(below, grid.first_exponent - exponent, zero) & grid.gradual;
    U discard = grid.discard + deficit + select(below, broadcast<U>(grid.cell_shift), zero);
    U surplus = select(discard > most, discard - most, zero);
    surplus = select(surplus > most, broadcast<U>(most), surplus);
    U sticky = significand & ((broadcast<U>(1) << surplus) - E(1));
    significand = (significand >> surplus) | select(sticky != zero, broadcast<U>(1), zero);
    discard = select(discard > most, broadcast<U>(most), discard);

    U binade = (exponent + deficit - grid.first_exponent) << grid.mantissa_bits;
    U addend;
    if constexpr (stochastic) {
        addend = stochastic_addend(significand, discard, random, grid.stochastic, grid.random_bits);
    } else {
        U kept = significand >> discard;
        U odd = ((kept + (binade & grid.code_parity)) ^ grid.flip) & E(1);
        odd = select(kept != zero, odd, zero);
        addend = deterministic_addend(discard, odd, negative, grid.addend);
    }
    U rounded = (significand * E(2) + addend) >> (discard + E(1));
    U index = (rounded << select(below, broadcast<U>(grid.cell_shift), zero)) + binade;
    if (grid.underflow == Underflow::flush_before) {
        index = select(below, zero, index);
    } else if (grid.underflow == Underflow::flush_after) {
        index = select(below, select(index == grid.first_normal, index, zero), index);
    }
    return select(magnitude == zero, zero, index);
}

// Float bits of an index of the grid.
template <class U, class E = Element<U>>
static inline U index_to_bits(U index, const Grid<E>& grid) {
    using Layout = FloatLayout<E>;
    using F = Rebind<U, typename Layout::Float>;
    U normal = (index << grid.discard) + ((grid.first_exponent - E(1)) << E(Layout::mantissa));
    if (grid.first_exponent == 1 || grid.underflow != Underflow::gradual)
        return select(index == U{}, U{}, normal);
    // k * 2^(emin-M): 1.k by OR-ing k into the significand of 2^mantissa
    constexpr E one_ulp = E(Layout::bias + Layout::mantissa) << Layout::mantissa;
    F integer = bits_as<F>(index | one_ulp) - bits_as<typename Layout::Float>(one_ulp);
    U subnormal = bits_as<U>(F(integer * grid.subnormal_quantum));
    return select(index < grid.first_normal, subnormal, normal);
}

}  // namespace
}  // namespace abcdeep
