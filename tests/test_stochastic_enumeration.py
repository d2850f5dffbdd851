"""Stochastic rounding counted exactly: the ends of the range, fixed point, bias, the exact rule."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

import abcdeep_core as ab
from oracle import round_floats
from oracle_fixed import round_fixed
from quantize_cases import assert_same, both_signs, each_isa, floats_of
from test_stochastic import NARROW, RULES, ways_away

QUARTERS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)


def every_word(bits):
    """Return a random word for each R in [0, 2^bits)."""
    return (np.arange(2**bits, dtype=np.uint64) << np.uint64(32 - bits)).astype(np.uint32)


def cell_points(low, high):
    return low + (high - low) * np.array(QUARTERS)


def ends_of(fmt):
    """Return points of the cells at both ends: around 0, the smallest normal, and beyond the top.

    The top cell reaches from the largest value to the next one there would be.
    """
    values = floats_of(fmt)
    positive = np.unique(values[np.isfinite(values) & (values > 0)])
    largest, smallest = positive[-1], fmt.smallest_normal
    below = positive[-2] if positive.size > 1 else 0.0
    step = np.spacing(np.float32(largest)) * 2.0 ** (23 - fmt.mantissa_bits)
    cells = [(0.0, positive[0]), (below, largest), (largest, largest + float(step))]
    cells += [(v, 2 * smallest - v) for v in (smallest / 2, smallest * 0.75) if v]
    points = np.concatenate([cell_points(*cell) for cell in cells])
    points = points[points <= np.finfo(np.float32).max].astype(np.float32)
    return both_signs(points) if fmt.signed else points


@pytest.mark.parametrize("name", NARROW)
def test_ends_of_the_range_against_the_oracle(name):
    fmt = ab.get_format(name)
    x = ends_of(fmt)
    underflows = ["gradual"] if fmt.code0 == "subnormal" else []
    underflows += ["flush_before", "flush_after", "cell"] if fmt.has_zero else []
    for i, underflow in enumerate(underflows or [None]):
        for rule in RULES:
            bits = (1, 3, 5, 8)[(i + RULES.index(rule)) % 4]
            points = np.repeat(x, 2**bits)
            words = np.tile(every_word(bits), x.size)
            rules = {"rounding": "stochastic", "bits": bits, "rule": rule, "underflow": underflow}
            random = (words >> np.uint32(32 - bits)).tolist()
            expected = np.array(round_floats(points, fmt, random=random, **rules), np.float32)
            for isa in each_isa():
                got = ab.quantize(points, fmt, random_bits=words, **rules)
                assert_same(got, expected, points, fmt, rules, isa)


FIXED = [
    ab.FixedFormat(bits=bits, fraction_bits=fraction_bits, signed=signed, overflow=overflow)
    for bits, fraction_bits in ((2, 0), (4, 2), (7, -3), (8, 8), (8, 12))
    for signed in (True, False)
    for overflow in ("saturate", "wrap")
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bits", range(1, 9))
def test_counts_in_fixed_point(bits, rule):
    words = every_word(bits)
    expected = np.array([ways_away(Fraction(nu), bits, rule) for nu in QUARTERS])
    for fmt in FIXED:
        grid = fmt.values().astype(np.float64)
        magnitude = np.unique(np.abs(grid))[:, None]
        magnitude = magnitude[magnitude[:, 0] + fmt.eps <= fmt.max]
        x = magnitude + fmt.eps * np.array(QUARTERS)
        low, high = np.broadcast_to(magnitude, x.shape), magnitude + fmt.eps
        if fmt.signed:
            x, low, high = both_signs(x), both_signs(low), both_signs(high)
        every = np.repeat(x[..., None], words.size, axis=-1)
        random = np.broadcast_to(words, every.shape)
        for isa in each_isa():
            codes = ab.encode(
                every, fmt, "stochastic", bits=bits, rule=rule, random_bits=random
            ).astype(np.int64)
            away = codes * fmt.eps == high[..., None]
            assert (away | (codes * fmt.eps == low[..., None])).all(), (fmt, isa)
            assert (np.count_nonzero(away, axis=-1) == expected).all(), (fmt, isa)


@pytest.mark.parametrize("rule", RULES)
def test_fixed_point_beyond_its_range(rule):
    words = every_word(4)
    for fmt in FIXED:
        x = np.array([fmt.max, fmt.min])[:, None] + fmt.eps * np.arange(-1.5, 1.75, 0.25)
        x = np.repeat(x.ravel(), words.size)
        random = np.tile(words, x.size // words.size)
        expected = [
            round_fixed(v, fmt, "stochastic", random=r, bits=4, rule=rule)
            for v, r in zip(x.tolist(), (random >> np.uint32(28)).tolist(), strict=True)
        ]
        for isa in each_isa():
            got = ab.encode(x, fmt, "stochastic", bits=4, rule=rule, random_bits=random)
            assert_same(got, np.array(expected, fmt.code_dtype), x, fmt, rule, isa)


# The exact rule: away iff word >= 2^32 - floor(nu 2^32). The two words at the threshold are enough.


@pytest.mark.parametrize("name", [*NARROW, "bf16", "fp16"])
def test_threshold_of_the_exact_rule(isa, name):
    fmt = ab.get_format(name)
    grid = np.abs(floats_of(fmt))
    grid = np.unique(grid[np.isfinite(grid)])
    if fmt.code0 == "zero":
        grid = grid[grid >= fmt.smallest_normal]
    cells = np.unique(np.linspace(0, grid.size - 2, 256).astype(int))
    rng = np.random.default_rng(1)
    nu = rng.integers(1, 1 << 13, (40, cells.size)) / 2**13
    nu[0] = 2.0**-13
    low, high = (np.broadcast_to(v, nu.shape) for v in (grid[cells], grid[cells + 1]))
    x = low + (high - low) * nu  # exact: 13 bits of a fraction of one step
    kept = x <= np.finfo(np.float32).max
    x, low, high, nu = x[kept], low[kept], high[kept], nu[kept]
    assert np.array_equal(x.astype(np.float32).astype(np.float64), x)
    last = x + (high - low) * 2.0**-32  # the last bit that 32 random bits reach
    beyond = x + (high - low) * 2.0**-36  # one that they do not
    assert (beyond > x).all()
    ways = np.floor(nu * 2**32).astype(np.uint64)
    for source, count in (
        (x.astype(np.float32), ways),
        (x, ways),
        (beyond, ways),
        (last, ways + 1),
    ):
        threshold = np.uint64(1 << 32) - count.astype(np.uint64)
        for sign in (1, -1) if fmt.signed else (1,):
            for words, expected in ((threshold, high), (threshold - np.uint64(1), low)):
                y = ab.quantize(
                    sign * source, fmt, "stochastic", random_bits=words.astype(np.uint32)
                )
                assert np.array_equal(y, (sign * expected).astype(source.dtype))


def test_bf16_is_one_integer_addition(isa):
    # (word + R) >> 16, which public kernels use, for every exponent and 2^19 significands and R.
    rng = np.random.default_rng(2)
    word = rng.integers(0, 1 << 32, 1 << 19, dtype=np.uint32)
    finite = (word & np.uint32(0x7F800000)) != 0x7F800000
    word = word[finite]
    random = rng.integers(0, 1 << 16, word.size, dtype=np.uint32)
    expected = ((word + random) >> np.uint32(16)).astype(np.uint16)
    codes = ab.encode(word.view(np.float32), "bf16", "stochastic", overflow="to_inf",
                      bits=16, rule="a", random_bits=random << np.uint32(16))  # fmt: skip
    assert np.array_equal(codes, expected)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_away_for_small_words_is_rule_a_with_the_complement(isa, bits):
    # The variant "away iff R < floor(nu 2^r)": R becomes 2^r - 1 - R, that is ~word.
    nu = np.arange(256) / 256
    x = np.repeat((8 + nu).astype(np.float32), 2**bits)
    words = np.tile(every_word(bits), nu.size)
    y = ab.quantize(x, "e4m3fn", "stochastic", bits=bits, rule="a", random_bits=~words)
    away = (words >> np.uint32(32 - bits)) < np.repeat(np.floor(nu * 2**bits), 2**bits)
    assert np.array_equal(y == 9, away)


# Bias, in units of the last place, of inputs in the cell [8, 9) of e4m3fn.


def probabilities(nu, bits, rule):
    """Return P(away) of each fraction, from all R where they are few, else from the threshold."""
    x = (8 + nu).astype(np.float32)
    assert np.array_equal(x.astype(np.float64), 8 + nu)
    rules = {"rounding": "stochastic", "bits": bits, "rule": rule}
    if bits <= 8:
        every = np.repeat(x[:, None], 2**bits, axis=1)
        words = np.broadcast_to(every_word(bits), every.shape)
        away = ab.quantize(every, "e4m3fn", random_bits=words, **rules) == 9
        return np.count_nonzero(away, axis=1) / 2**bits
    low, high = np.zeros(x.size, np.int64), np.full(x.size, 1 << bits, np.int64)  # bisection
    while (low < high).any():
        middle = (low + high) // 2
        words = (np.minimum(middle, (1 << bits) - 1) << (32 - bits)).astype(np.uint32)
        away = ab.quantize(x, "e4m3fn", random_bits=words, **rules) == 9
        low, high = np.where(away, low, middle + 1), np.where(away, middle, high)
        low = np.minimum(low, high)
    return 1 - low / 2**bits


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
def test_bias_of_real_inputs(isa, bits):
    # P(away) is constant between multiples of 2^-(r+1): its value inside each of these pieces
    # gives the mean over the cell and the largest deviation exactly.
    pieces = 2 ** (bits + 1)
    left = np.arange(pieces) / pieces
    right = left + 1 / pieces
    step = 2.0**-bits
    expected = {  # rule: mean, largest
        "a": (-step / 2, step),
        "b": (0.0, step / 2),
        "c": (0.0, step / 2),
        "odd": (0.0, step / 2),
    }
    for rule, (mean, largest) in expected.items():
        p = probabilities(left + 0.5 / pieces, bits, rule)
        assert p.mean() - 0.5 == mean, rule
        assert np.maximum(np.abs(p - left), np.abs(p - right)).max() == largest, rule


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_bias_of_inputs_with_five_extra_bits(isa, bits):
    nu = np.arange(32) / 32
    expected = {
        "a": -(2.0 ** -(bits + 1)) + 1 / 64 if bits < 5 else 0.0,
        "b": 1 / 64 if bits < 5 else 0.0,
        "c": 0.0,
        "odd": 0.0,
    }
    for rule, mean in expected.items():
        assert (probabilities(nu, bits, rule) - nu).mean() == mean, rule


@pytest.mark.parametrize("rule", RULES)
def test_one_cell_has_no_bias_and_the_variance_of_a_coin(isa, rule):
    # At most r bits are discarded: mean exactly x, variance exactly (x - low)(high - x).
    bits, nu = 8, np.arange(256) / 256
    every = np.repeat((8 + nu).astype(np.float32)[:, None], 256, axis=1)
    words = np.broadcast_to(every_word(bits), every.shape)
    y = ab.quantize(every, "e4m3fn", "stochastic", bits=bits, rule=rule, random_bits=words)
    y = y.astype(np.float64)
    assert np.array_equal(y.mean(axis=1), 8 + nu)
    assert np.array_equal(y.var(axis=1), nu * (1 - nu))


# Seeded draws, the same ones on each instruction set. Each of the 8 tests of |z| < 5 fails by
# chance once in 1.7 million.
DRAWS = 10_000_000
Z_CASES = {  # format, neighbours, discarded fraction
    "nu_2^-13": ("bf16", 1.0, 1 + 2.0**-7, 2.0**-13),
    "nu_1/4": ("bf16", -1.0, -1 - 2.0**-7, 0.25),
    "nu_1/2": ("e4m3fn", 1.0, 1.125, 0.5),
    "nu_3/4": ("e5m2", 3.0, 3.5, 0.75),
    "top_of_a_binade": ("e5m2", 1.75, 2.0, 0.375),
    "subnormal": ("e4m3fn", 3 * 2.0**-9, 2.0**-7, 0.3125),
    "below_the_smallest_normal": ("e4m3fn", -7 * 2.0**-9, -(2.0**-6), 0.6875),
    "next_to_zero": ("e2m1", 0.0, 0.5, 2.0**-10),
}


@pytest.mark.parametrize("case", Z_CASES)
def test_frequency_of_rounding_away(isa, case):
    fmt, low, high, nu = Z_CASES[case]
    x = np.float32(low + (high - low) * nu)
    assert float(x) == low + (high - low) * nu
    away = 0
    for call in range(10):
        every = np.full(DRAWS // 10, x)
        y = ab.quantize(every, fmt, "stochastic", seed=31, call=call, out=every)
        away += np.count_nonzero(y == np.float32(high))
        assert ((y == np.float32(high)) | (y == np.float32(low))).all()
    assert abs(away - DRAWS * nu) < 5 * math.sqrt(DRAWS * nu * (1 - nu))
