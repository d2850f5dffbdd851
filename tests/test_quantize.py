"""quantize and encode against the exact oracle: every rounding, underflow and overflow rule."""

from __future__ import annotations

import numpy as np
import pytest

import abcdeep_core as ab
from quantize_cases import (
    DETERMINISTIC,
    HUGE,
    OVERFLOWS,
    TINY,
    UNDERFLOWS,
    assert_same,
    both_signs,
    check,
    each_isa,
    generic_formats,
    magnitudes,
    points,
    quantized,
)

BIASES = [-3, None, 20]


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("bias", BIASES)
def test_rounding_at_every_value_midpoint_and_quarter_point(bias, rounding):
    for fmt in generic_formats(bias=bias, specials="none"):
        x = both_signs(points(magnitudes(fmt)))
        check(x, fmt, rounding)


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("underflow", UNDERFLOWS[1:])
def test_underflow_rules(underflow, rounding):
    layouts = [(bias, "subnormal") for bias in BIASES] + [(None, "ordinary"), (None, "zero")]
    for bias, code0 in layouts:
        for fmt in generic_formats(bias=bias, specials="none", code0=code0):
            grid = magnitudes(fmt)
            x = points(grid[grid <= 2.0 ** (fmt.emin + 1)])
            x = both_signs(np.concatenate([x, np.float32([TINY, 2.0**-126])]))
            check(x, fmt, rounding, underflow=underflow)


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("specials", ["ieee", "fn", "fnuz", "none"])
@pytest.mark.parametrize("code0", ["subnormal", "ordinary", "zero"])
@pytest.mark.parametrize("signed", [True, False])
def test_overflow_rules(signed, code0, specials, overflow):
    tested = 0
    for fmt in generic_formats(specials=specials, code0=code0, signed=signed):
        grid = magnitudes(fmt)
        x = np.concatenate([points(grid[grid >= fmt.max * 0.75]), np.float32([HUGE, np.inf])])
        x = both_signs(x) if fmt.signed else x
        try:
            fmt.resolved_overflow(overflow)
        except ValueError:
            continue
        for rounding in DETERMINISTIC:
            check(x, fmt, rounding, overflow=overflow)
            tested += 1
    has_nan, has_inf = specials != "none", specials == "ieee"
    exists = {"to_inf": has_inf, "to_nan": has_nan, "ieee": has_nan}.get(overflow, True)
    assert (tested > 0) == (exists and (signed or specials != "fnuz"))


P3109 = [
    f"binary{size}{domain}"
    for size in ("3p1", "3p2", "4p2", "5p1", "5p3", "6p2", "6p5", "8p1", "8p3", "8p4", "8p7")
    for domain in ("se", "sf", "ue", "uf")
] + [f"binary{size}{domain}" for size in ("3p3", "4p4", "8p8") for domain in ("ue", "uf")]


@pytest.mark.parametrize("name", P3109)
def test_p3109_projections(name):
    fmt = ab.get_format(name)
    grid = magnitudes(fmt)
    x = points(grid)
    ends = np.concatenate([x[:40], points(grid[grid > fmt.max * 0.75]), np.float32([HUGE, np.inf])])
    for rounding in DETERMINISTIC:
        check(both_signs(x), fmt, rounding)
        for overflow in ("sat_finite", "sat_propagate"):
            check(np.append(both_signs(ends), np.float32(np.nan)), fmt, rounding, overflow=overflow)


# Formats at the ends of the float types: normal numbers that are subnormal floats, and the like.
EDGES = [
    (np.float32, {"bias": 127}),  # emin -126, the first normal float32
    (np.float32, {"bias": 128}),
    (np.float32, {"bias": 147}),  # the smallest subnormal is 2^-149
    (np.float32, {"bias": 127, "code0": "ordinary"}),
    (np.float32, {"bias": 126, "code0": "ordinary"}),
    (np.float32, {"bias": -112}),  # emax 127
    (np.float64, {"bias": 1023}),
    (np.float64, {"bias": 1022}),
    (np.float64, {"bias": 1022, "code0": "ordinary"}),
    (np.float64, {"bias": -1008}),
]


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize(("dtype", "fields"), EDGES, ids=lambda v: str(getattr(v, "__name__", v)))
def test_ends_of_the_float_types(dtype, fields, rounding):
    for mantissa_bits in (0, 3):
        fmt = ab.FloatFormat(
            exponent_bits=4, mantissa_bits=mantissa_bits, specials="none", **fields
        )
        x = points(magnitudes(fmt), dtype)
        info = np.finfo(dtype)
        ends = [info.smallest_subnormal, info.smallest_normal, info.max, np.inf]
        x = both_signs(np.concatenate([x, np.array(ends, dtype)]))
        for underflow in UNDERFLOWS if fmt.code0 == "subnormal" else UNDERFLOWS[1:]:
            check(x, fmt, rounding, underflow=underflow)


WIDE = ["fp16", "bf16", "tf32", "fp22", "binary32", "binary64", "m7e4", "m10e5", "p3109"]


def wide_format(name):
    if name == "p3109":
        return ab.get_format("binary16p8se")
    if name[0] == "m":
        return ab.lba_format(*{"m7e4": (7, 4, 10), "m10e5": (10, 5, 16)}[name])
    return ab.get_format(name)


def near_the_grid(fmt, dtype, rng):
    """Return random numbers of the format's range, many of them ties or next to one."""
    info = np.finfo(dtype)
    bits = info.nmant - fmt.mantissa_bits
    top = min(fmt.emax + 2, info.maxexp)
    exponents = rng.integers(fmt.emin - fmt.mantissa_bits - 2, top, 1500)
    x = np.ldexp(rng.uniform(1, 2, 1500), exponents).astype(dtype)
    words = x.view(f"u{x.dtype.itemsize}")
    if bits > 0:  # a value of the format, then half a unit in its last place more
        words[::2] &= ~np.array((1 << bits) - 1, words.dtype)
        words[::4] |= np.array(1 << (bits - 1), words.dtype)
        words[4::8] -= np.array(1, words.dtype)
    around = [np.nextafter(x[:500], dtype(0)), np.nextafter(x[:500], info.max)]
    return both_signs(np.concatenate([x, *around]))


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("name", WIDE)
def test_wide_formats(name, rounding):
    fmt = wide_format(name)
    rng = np.random.default_rng(5)
    for dtype in (np.float32, np.float64):
        if fmt.value_dtype.itemsize > np.dtype(dtype).itemsize:
            continue
        x = near_the_grid(fmt, dtype, rng)
        expected = quantized(x, fmt, rounding)
        for isa in each_isa():
            result = ab.quantize(x, fmt, rounding)
            assert_same(result, expected.astype(dtype), x, fmt, rounding, isa)
            magnitude = np.abs(result)
            has_word = (magnitude != fmt.smallest_normal) | (fmt.code0 == "subnormal")
            codes = ab.encode(x[has_word], fmt, rounding)
            assert_same(ab.decode(codes, fmt).astype(dtype), result[has_word], x[has_word], isa)


@pytest.mark.parametrize("rounding", DETERMINISTIC)
def test_every_float_of_random_words(rounding):
    # Any bit pattern: NaN with payloads, subnormals, infinities.
    rng = np.random.default_rng(6)
    words = rng.integers(0, 1 << 32, 4000, np.uint32)
    for fmt in map(ab.get_format, ("e4m3fn", "e5m2", "e4m3fnuz", "e8m0", "bf16", "fp16")):
        x = words.view(np.float32)
        expected = quantized(x, fmt, rounding)
        for isa in each_isa():
            got = ab.quantize(x, fmt, rounding)
            assert_same(got, expected.astype(np.float32), x, fmt, rounding, isa)


def sorted_inputs(fmt, dtype, rng):
    x = near_the_grid(fmt, dtype, rng)
    x = x if fmt.signed else np.abs(x)
    return np.sort(x if fmt.has_zero else x[x > 0])


@pytest.mark.parametrize("rounding", DETERMINISTIC)
def test_monotone(isa, rounding):
    rng = np.random.default_rng(7)
    for name in [*ab.formats(), "binary8p4se", "binary6p3uf"]:
        fmt = ab.get_format(name)
        for dtype in (np.float32, np.float64):
            if fmt.value_dtype.itemsize > np.dtype(dtype).itemsize:
                continue
            x = sorted_inputs(fmt, dtype, rng)
            underflows = [None] if not fmt.has_zero else UNDERFLOWS[fmt.code0 != "subnormal" :]
            for underflow in underflows:
                y = ab.quantize(x, fmt, rounding, overflow="sat_finite", underflow=underflow)
                assert (y[:-1] <= y[1:]).all(), (name, dtype, underflow)


def assert_isas_agree(count, dtype, roundings):
    words = np.random.default_rng(8).integers(
        0, 1 << 64, count * np.dtype(dtype).itemsize // 8, np.uint64
    )
    anything = words.view(dtype)
    for name, fmt in ab.formats().items():
        if fmt.value_dtype.itemsize > anything.itemsize:
            continue
        x = anything if fmt.signed or not fmt.has_zero else np.abs(anything)
        rules = {"nan_to": None if fmt.has_nan else "max_pos", "seed": 3}
        for rounding in roundings:
            first = None
            for isa in each_isa():
                codes = ab.encode(x, fmt, rounding, **rules)
                first = codes if first is None else first
                assert np.array_equal(codes, first), (name, rounding, isa)


def test_instruction_sets_agree():
    assert_isas_agree(1 << 20, np.float32, ["nearest_even", "toward_negative", "stochastic"])
    assert_isas_agree(1 << 18, np.float64, ["nearest_odd", "stochastic"])


@pytest.mark.slow
def test_instruction_sets_agree_on_2_to_the_24_words():
    assert_isas_agree(1 << 24, np.float32, ["nearest_even"])
