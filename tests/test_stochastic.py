"""Stochastic rounding: exact counts over all random bits, addressing, invariance, statistics."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

import abcdeep_core as ab
from oracle import round_floats
from oracle_fixed import round_fixed
from quantize_cases import assert_same, bits_of, both_signs, each_isa, magnitudes, points

RULES = ("a", "b", "c", "odd")
NARROW = [name for name in ab.formats() if ab.get_format(name).bits <= 8]
NARROW += ["binary8p4se", "binary8p3uf", "binary6p2ue", "binary4p2sf"]
SEED = 0x0123456789ABCDEF


def lane_bits(bits):
    return next(width for width in (1, 8, 16, 32) if bits <= width)


def ways_away(nu, bits, rule):
    """Return how many R in [0, 2^bits) round a fraction nu away (docs/formats.md)."""
    scaled = nu * 2**bits
    if rule == "a":
        return math.floor(scaled)
    if rule == "b":
        return math.floor(scaled + Fraction(1, 2))
    if rule == "odd" and scaled.denominator == 2:
        return 2 * math.floor(scaled / 2) + 1
    return round(scaled)  # half to even


def fractions_around_thresholds(bits):
    """Return fractions at, next to and halfway between multiples of 2^-bits."""
    step = Fraction(1, 2**bits)
    multiples = {i * 2**bits // 4 * step for i in range(5)} | {step, 1 - step}
    found = {m + i * step / 4 for m in multiples for i in (-2, -1, 0, 1, 2)}
    return sorted(nu for nu in found if 0 <= nu < 1)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bits", range(1, 9))
def test_counts_over_all_random_bits(bits, rule):
    random = (np.arange(2**bits, dtype=np.uint64) << np.uint64(32 - bits)).astype(np.uint32)
    nus = fractions_around_thresholds(bits)
    expected = np.array([ways_away(nu, bits, rule) for nu in nus])
    for name in NARROW:
        fmt = ab.get_format(name)
        grid = fmt.values().astype(np.float32)
        grid = grid[grid >= (1 if fmt.code0 == "zero" else 0)]  # that one flushes before rounding
        low, high = grid[:-1, None], grid[1:, None]
        x = low + (high - low) * np.array(nus, np.float32)
        x, low, high = (
            both_signs(v)[..., None] if fmt.signed else v[..., None] for v in (x, low, high)
        )
        rules = {"bits": bits, "rule": rule}
        shape = np.broadcast_shapes(x.shape, random.shape)
        every, rules["random_bits"] = np.broadcast_to(x, shape), np.broadcast_to(random, shape)
        first = None
        for isa in each_isa():
            y = ab.quantize(every, fmt, "stochastic", **rules)
            if first is None:
                first, away = y, y == high
                assert (away | (y == low)).all(), name
                assert (np.count_nonzero(away, axis=-1) == expected).all(), name
            assert np.array_equal(bits_of(y), bits_of(first)), (name, isa)


BF16_ROWS = {  # input word: results of R = 0000, 3fff, 7fff, 8000, c000, ffff
    0x3F800000: [0x3F80, 0x3F80, 0x3F80, 0x3F80, 0x3F80, 0x3F80],
    0x3F808000: [0x3F80, 0x3F80, 0x3F80, 0x3F81, 0x3F81, 0x3F81],
    0x3F804000: [0x3F80, 0x3F80, 0x3F80, 0x3F80, 0x3F81, 0x3F81],
    0xBF804000: [0xBF80, 0xBF80, 0xBF80, 0xBF80, 0xBF81, 0xBF81],
    0x7F61B1E6: [0x7F61, 0x7F61, 0x7F62, 0x7F62, 0x7F62, 0x7F62],
    0x7F7F8000: [0x7F7F, 0x7F7F, 0x7F7F, 0x7F80, 0x7F80, 0x7F80],
    0x000116C2: [0x0001, 0x0001, 0x0001, 0x0001, 0x0001, 0x0002],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bf16_table(isa, dtype):
    random = np.array([0x0000, 0x3FFF, 0x7FFF, 0x8000, 0xC000, 0xFFFF], np.uint32)
    for word, expected in BF16_ROWS.items():
        x = np.full(6, word, np.uint32).view(np.float32).astype(dtype)
        rules = {"overflow": "to_inf", "random_bits": random << 16}
        for rule in RULES:  # 16 bits are discarded, so the rules agree
            codes = ab.encode(x, "bf16", "stochastic", bits=16, rule=rule, **rules)
            assert codes.tolist() == expected, (hex(word), rule)
        assert ab.encode(x, "bf16", "stochastic", **rules).tolist() == expected


WORKED = {  # r = 2: P(away) of rules a, b, c in quarters
    0.125: (0, 1, 0),
    0.3125: (1, 1, 1),
    0.375: (1, 2, 2),
    0.625: (2, 3, 2),
}


def test_worked_values(isa):
    random = np.arange(4, dtype=np.uint32) << 30
    for nu, quarters in WORKED.items():
        for rule, count in zip("abc", quarters, strict=True):
            y = ab.quantize(np.full(4, 8 + nu), "e4m3fn", "stochastic", bits=2, rule=rule,
                            random_bits=random)  # fmt: skip
            assert (y == 9).sum() == count, (nu, rule)


FORMATS = {
    "e4m3fn": "e4m3fn", "e5m2": "e5m2", "e2m1": "e2m1", "e8m0": "e8m0", "bf16": "bf16",
    "fp16": "fp16", "fp22": "fp22", "p3109": "binary8p3sf", "m7e4": ab.lba_format(7, 4, 10),
    "m0": ab.FloatFormat(exponent_bits=4, mantissa_bits=0, bias=5, specials="none"),
    "e8m22": ab.FloatFormat(exponent_bits=8, mantissa_bits=22),
}  # fmt: skip


def stochastic_inputs(fmt, rng):
    small = fmt.bits <= 8
    x = points(magnitudes(fmt)) if small else np.zeros(1, np.float32)
    low, high = max(fmt.emin - fmt.mantissa_bits - 4, -149), min(fmt.emax + 1, 127)
    spread = np.ldexp(rng.uniform(1, 2, 1500), rng.integers(low, high, 1500)).astype(np.float32)
    return both_signs(np.concatenate([rng.choice(x, 500), spread, np.float32([np.inf, 1e-45])]))


@pytest.mark.parametrize("rule", [*RULES, "exact"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_number_of_bits_against_the_oracle(name, rule):
    fmt = ab.get_format(FORMATS[name])
    rng = np.random.default_rng(4)
    x = stochastic_inputs(fmt, rng)
    flush = ["flush_before", "flush_after", "cell"] if fmt.has_zero else [None]
    underflows = (["gradual"] if fmt.code0 == "subnormal" else []) + flush
    for i, bits in enumerate([32] if rule == "exact" else [1, 2, 5, 8, 13, 16, 17, 24, 32]):
        random = rng.integers(0, 1 << bits, x.size)
        words = (random << (32 - bits)).astype(np.uint32)
        words |= rng.integers(0, 1 << (32 - bits), x.size).astype(np.uint32)  # they do not count
        choice = {} if rule == "exact" else {"bits": bits, "rule": rule}
        rules = {**choice, "rounding": "stochastic", "underflow": underflows[i % len(underflows)]}
        expected = round_floats(x, fmt, random=random.tolist(), **rules)
        for dtype in (np.float32, np.float64):
            source = x.astype(dtype)
            for isa in each_isa():
                got = ab.quantize(source, fmt, random_bits=words, **rules)
                assert_same(got, np.array(expected, dtype), source, fmt, rules, isa)


@pytest.mark.parametrize("rule", [*RULES, "exact"])
def test_fixed_point_against_the_oracle(rule):
    rng = np.random.default_rng(5)
    x = np.concatenate([np.arange(-600, 600) / 64, np.ldexp(rng.uniform(-1, 1, 800), -40)])
    for bits in [32] if rule == "exact" else [1, 3, 8, 9, 16, 32]:
        random = rng.integers(0, 1 << bits, x.size)
        words = (random << (32 - bits)).astype(np.uint32)
        choice = {} if rule == "exact" else {"bits": bits, "rule": rule}
        for fraction_bits, overflow in ((1, "saturate"), (3, "wrap"), (44, "saturate_symmetric")):
            fmt = ab.FixedFormat(
                bits=7, fraction_bits=fraction_bits, overflow=overflow, rounding="stochastic"
            )
            expected = [
                round_fixed(v, fmt, random=r, **choice)
                for v, r in zip(x.tolist(), random.tolist(), strict=True)
            ]
            for isa in each_isa():
                got = ab.encode(x, fmt, random_bits=words, **choice)
                assert_same(got, np.array(expected, np.int8), x, fmt, choice, isa)


def drawn(shape, bits, **address):
    """Return explicit words that hold the lanes which `bits` bits are taken from."""
    width = lane_bits(bits)
    lanes = ab.random_bits(shape, bits=width, **address)
    return (lanes.astype(np.uint64) << np.uint64(32 - width)).astype(np.uint32)


FIXED = ab.FixedFormat(bits=8, fraction_bits=3, rounding="stochastic", overflow="saturate")


@pytest.mark.parametrize("bits", [None, *range(1, 33)])
def test_element_i_uses_draw_i(isa, bits):
    x = np.random.default_rng(6).normal(size=2500).astype(np.float32)
    address = {"seed": SEED, "stream": 3, "call": 9}
    words = drawn(x.shape, bits or 32, **address)
    for fmt in ("e4m3fn", FIXED):
        for source in (x, x.astype(np.float64)):
            got = ab.quantize(source, fmt, "stochastic", bits=bits, **address)
            explicit = ab.quantize(source, fmt, "stochastic", bits=bits, random_bits=words)
            assert np.array_equal(got, explicit)


def test_seed_stream_and_call_are_all_used(isa):
    x = np.random.default_rng(7).normal(size=5000)
    base = {"seed": 1, "stream": 0, "call": 0}
    results = {
        ab.quantize(x, "e4m3fn", "stochastic", **{**base, **change}).tobytes()
        for change in ({}, {"seed": 2}, {"seed": 1 | 1 << 32}, {"stream": 1}, {"call": 1})
    }
    assert len(results) == 5


@pytest.mark.parametrize("fmt", ["e4m3fn", "bf16", FIXED], ids=["e4m3fn", "bf16", "fixed"])
@pytest.mark.parametrize("bits", [None, 1, 7, 12])
def test_threads_and_instruction_sets_do_not_matter(fmt, bits):
    # Several pieces of work, and no multiple of anything.
    x = np.random.default_rng(8).normal(size=131_077).astype(np.float32)
    address = {"seed": SEED, "bits": bits}
    first = None
    for isa in each_isa():
        for threads in (1, 2, 7):
            got = ab.encode(x, fmt, "stochastic", threads=threads, **address)
            first = got if first is None else first
            assert np.array_equal(got, first), (isa, threads)


@pytest.mark.parametrize("fmt", ["e4m3fn", FIXED], ids=["e4m3fn", "fixed"])
@pytest.mark.parametrize("bits", [None, 1, 8, 16])
def test_memory_layout_does_not_matter(isa, fmt, bits):
    x = np.random.default_rng(9).normal(size=(12, 10, 35)).astype(np.float32)
    rules = {"rounding": "stochastic", "seed": 5, "bits": bits}
    for view in (x, x.T, x[::-1, ::2, ::3], np.asfortranarray(x), x.transpose(1, 2, 0)):
        plain = ab.quantize(np.ascontiguousarray(view), fmt, **rules)
        assert np.array_equal(ab.quantize(view, fmt, **rules), plain)
        out = np.zeros(view.shape, np.float32, order="F")
        ab.quantize(view, fmt, out=out, **rules)
        assert np.array_equal(out, plain)
        words = drawn(view.shape, bits or 32, seed=5)
        explicit = {**rules, "random_bits": np.asfortranarray(words)}
        assert np.array_equal(ab.quantize(view, fmt, **explicit), plain)


@pytest.mark.parametrize("bits", [None, 1, 8, 16])
def test_a_batch_may_be_split(isa, bits):
    x = np.random.default_rng(10).normal(size=3001)
    rules = {"rounding": "stochastic", "bits": bits}
    whole = ab.quantize(x, "e5m2", seed=5, **rules)
    for cut in (1, 4, 31, 1000, 2049):
        words = drawn(x[cut:].shape, bits or 32, seed=5, start=cut)
        assert np.array_equal(ab.quantize(x[cut:], "e5m2", random_bits=words, **rules), whole[cut:])
        head = ab.quantize(x[:cut], "e5m2", seed=5, **rules)
        assert np.array_equal(head, whole[:cut])


Z_CASES = [  # format, lower neighbour, upper neighbour, discarded fraction
    ("bf16", 1.0, 1 + 2.0**-7, 2.0**-13),
    ("bf16", 1.0, 1 + 2.0**-7, 0.25),
    ("e4m3fn", -1.0, -1.125, 0.5),
    ("e5m2", 3.0, 3.5, 0.75),
    ("e5m2", 1.75, 2.0, 0.375),  # top of a binade
    ("e4m3fn", 2.0**-9, 2.0**-8, 0.3),  # subnormal
    ("e4m3fn", 7 * 2.0**-9, 2.0**-6, 0.6),  # just below the smallest normal
    ("e4m3fn", 0.0, 2.0**-9, 0.01),
    ("fp16", 1.0, 1 + 2.0**-10, 1 / 3),
]


@pytest.mark.parametrize(("fmt", "low", "high", "nu"), Z_CASES)
def test_probability_of_rounding_away(isa, fmt, low, high, nu):
    draws = 1_000_000
    x = np.float64(low + (high - low) * nu)
    y = ab.quantize(np.full(draws, x), fmt, "stochastic", seed=2024)
    away = np.count_nonzero(y == high)
    assert away + np.count_nonzero(y == low) == draws
    p = float((x - low) / (high - low))
    assert abs(away - draws * p) < 5 * math.sqrt(draws * p * (1 - p))


@pytest.mark.parametrize("rule", RULES)
def test_half_way_is_up_half_of_the_time(isa, rule):
    # A random top bit one place too low or too high shows here.
    x = np.full(1_000_000, np.float32(1.0625))
    for bits in (1, 4, 8, 16, 32):
        up = ab.quantize(x, "e4m3fn", "stochastic", bits=bits, rule=rule, seed=7) == 1.125
        assert abs(np.count_nonzero(up) - 500_000) < 5 * 500, bits


def test_mean_bias_of_the_rules(isa):
    # Inputs uniform in a cell: -2^-(r+1) ulp for rule a, none for b and c (docs/formats.md).
    rng = np.random.default_rng(11)
    nu = rng.uniform(size=1_000_000)
    for bits in (2, 4, 8):
        for rule, bias in (("a", -(2.0 ** -(bits + 1))), ("b", 0.0), ("c", 0.0)):
            y = ab.quantize(8 + nu, "e4m3fn", "stochastic", bits=bits, rule=rule, seed=8)
            error = (y - 8 - nu).astype(np.float64)
            z = (error.mean() - bias) / (error.std() / math.sqrt(nu.size))
            assert abs(z) < 5, (bits, rule)
