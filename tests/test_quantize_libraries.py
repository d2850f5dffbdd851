"""quantize and encode against ml_dtypes, gfloat, NumPy and MPFR."""

from __future__ import annotations

import numpy as np
import pytest

import abcdeep_core as ab
from quantize_cases import assert_same, both_signs, floats_of, magnitudes, points

WITH_DTYPE = [name for name in ab.formats() if ab.get_format(name).ml_dtype is not None]
NARROW = [name for name in WITH_DTYPE if ab.get_format(name).bits <= 16]


def every_16_bit_float():
    words = np.arange(1 << 16, dtype=np.uint16)
    halves = words.view(np.float16).astype(np.float32)
    brain = (words.astype(np.uint32) << 16).view(np.float32)
    return np.concatenate([halves, brain])


def midpoints_and_neighbours(fmt):
    grid = np.unique(np.abs(floats_of(fmt)))
    grid = grid[np.isfinite(grid)]
    top = 2 * grid[-1] - grid[-2]  # where the next value would be
    return both_signs(points(np.append(grid, top)))


def assert_ml_dtypes_agrees(x, fmt):
    with np.errstate(over="ignore", invalid="ignore"):
        truth = x.astype(fmt.ml_dtype)
    nan = np.isnan(truth.astype(np.float32))
    codes = truth.view(fmt.code_dtype)
    if fmt.nan_code is not None:  # it keeps the sign of NaN
        codes = np.where(nan, np.array(fmt.nan_code, fmt.code_dtype), codes)
    assert_same(ab.encode(x, fmt), codes, x, fmt)
    as_dtype = ab.encode(x, fmt, dtype=True)
    assert as_dtype.dtype == fmt.ml_dtype
    assert np.array_equal(as_dtype.view(fmt.code_dtype), codes)
    if x.itemsize >= fmt.value_dtype.itemsize:
        values = np.where(nan, np.nan, truth.astype(np.float64)).astype(x.dtype)
        assert_same(ab.quantize(x, fmt), values, x, fmt)


def accepted(x, fmt):
    """Leave out what ml_dtypes decides otherwise; the tables of docs/formats.md say how."""
    if fmt.name == "e8m0":
        # Ties go up there, and float32 below 2^-126 but not 2^-127 itself is rounded up: a defect.
        x = x[(x <= 0) | (x >= 2.0**-126) | np.isnan(x)]
        significand = np.frexp(x)[0]
        return x[significand != 0.75]
    return x if fmt.has_nan else x[~np.isnan(x)]


@pytest.mark.parametrize("name", NARROW)
def test_every_16_bit_float_as_ml_dtypes(isa, name):
    fmt = ab.get_format(name)
    assert_ml_dtypes_agrees(accepted(every_16_bit_float(), fmt), fmt)


@pytest.mark.parametrize("name", NARROW)
def test_every_midpoint_as_ml_dtypes(isa, name):
    # From float64 ml_dtypes goes through float32, and so rounds twice: not a truth for neighbours.
    fmt = ab.get_format(name)
    assert_ml_dtypes_agrees(accepted(midpoints_and_neighbours(fmt), fmt), fmt)


def test_binary32_as_numpy(isa):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 1 << 64, 1 << 16, np.uint64).view(np.float64)
    near = np.ldexp(rng.uniform(1, 2, 1 << 16), rng.integers(-152, 129, 1 << 16))
    ties = near[near < 2.0**127].astype(np.float32)
    ties = ties.astype(np.float64) + np.spacing(ties).astype(np.float64) / 2
    for values in (x, near, ties):
        assert_ml_dtypes_agrees(both_signs(values), ab.get_format("binary32"))


GFLOAT = {
    "e4m3fn": "ocp_e4m3", "e5m2": "ocp_e5m2", "e2m3": "ocp_e2m3", "e3m2": "ocp_e3m2",
    "e2m1": "ocp_e2m1", "fp16": "binary16", "bf16": "bfloat16",
    "binary8p3se": (8, 3, "Extended"), "binary8p4sf": (8, 4, "Finite"),
    "binary6p5se": (6, 5, "Extended"), "binary5p1sf": (5, 1, "Finite"),
}  # fmt: skip
GFLOAT_ROUNDING = {
    "nearest_even": "TiesToEven",
    "nearest_away": "TiesToAway",
    "toward_zero": "TowardZero",
    "toward_positive": "TowardPositive",
    "toward_negative": "TowardNegative",
}
GFLOAT_RULES = {"a": "StochasticFastest", "b": "StochasticFast", "c": "Stochastic",
                "odd": "StochasticOdd"}  # fmt: skip


def gfloat_format(name):
    formats = pytest.importorskip("gfloat.formats", reason="gfloat is not installed")
    which = GFLOAT[name]
    if isinstance(which, str):
        return getattr(formats, "format_info_" + which)
    types = pytest.importorskip("gfloat.types")
    domain = getattr(types.Domain, which[2])
    return formats.format_info_p3109(*which[:2], types.Signedness.Signed, domain)


def gfloat_inputs(fmt):
    grid = np.unique(np.abs(floats_of(fmt)))
    x = points(magnitudes(fmt) if fmt.bits <= 8 else grid[np.isfinite(grid)][::37])
    return both_signs(np.append(x, np.float32(np.inf))).astype(np.float64)


@pytest.mark.parametrize("rounding", GFLOAT_ROUNDING)
@pytest.mark.parametrize("name", GFLOAT)
def test_deterministic_rounding_as_gfloat(isa, name, rounding):
    gfloat = pytest.importorskip("gfloat", reason="gfloat is not installed")
    fmt, info = ab.get_format(name), gfloat_format(name)
    mode = getattr(gfloat.RoundMode, GFLOAT_ROUNDING[rounding])
    x = gfloat_inputs(fmt)
    for sat, overflow in ((True, "sat_finite"), (False, "ieee")):
        if not sat and (not fmt.has_nan or fmt.specials == "p3109_finite"):
            continue  # there is no NaN to give; P3109 stops at the largest value, gfloat does not
        truth = gfloat.round_ndarray(info, x, mode, sat)
        got = ab.quantize(x, fmt, rounding, overflow=overflow)
        assert_same(got, np.where(np.isnan(truth), np.nan, truth), x, name, overflow)


@pytest.mark.parametrize("rule", GFLOAT_RULES)
@pytest.mark.parametrize("name", GFLOAT)
def test_stochastic_rounding_as_gfloat(isa, name, rule):
    gfloat = pytest.importorskip("gfloat", reason="gfloat is not installed")
    fmt, info = ab.get_format(name), gfloat_format(name)
    mode = getattr(gfloat.RoundMode, GFLOAT_RULES[rule])
    x = gfloat_inputs(fmt)
    rng = np.random.default_rng(2)
    for bits in (1, 3, 8, 13):
        random = rng.integers(0, 1 << bits, x.size)
        words = (random << (32 - bits)).astype(np.uint32)
        truth = gfloat.round_ndarray(info, x, mode, True, srbits=random, srnumbits=bits)
        rules = {"bits": bits, "rule": rule, "random_bits": words, "overflow": "sat_finite"}
        got = ab.quantize(x, fmt, "stochastic", **rules)
        assert_same(got, truth, x, name, bits)


MPFR_ROUNDING = {
    "nearest_even": "RoundToNearest",
    "toward_zero": "RoundToZero",
    "toward_positive": "RoundUp",
    "toward_negative": "RoundDown",
    "away_from_zero": "RoundAwayZero",
}


@pytest.mark.parametrize("rounding", MPFR_ROUNDING)
@pytest.mark.parametrize(
    ("exponent_bits", "mantissa_bits"), [(5, 10), (8, 7), (4, 3), (8, 30), (11, 52)]
)
def test_any_precision_as_mpfr(isa, exponent_bits, mantissa_bits, rounding):
    gmpy2 = pytest.importorskip("gmpy2", reason="gmpy2 is not installed")
    fmt = ab.FloatFormat(exponent_bits=exponent_bits, mantissa_bits=mantissa_bits)
    # MPFR's exponents are of significands in [1/2, 1), and its emin is of the smallest subnormal.
    context = gmpy2.context(
        precision=mantissa_bits + 1,
        emin=fmt.emin - mantissa_bits + 1,
        emax=fmt.emax + 1,
        subnormalize=True,
        round=getattr(gmpy2, MPFR_ROUNDING[rounding]),
    )
    rng = np.random.default_rng(3)
    exponents = rng.integers(
        max(fmt.emin - mantissa_bits - 3, -1074), min(fmt.emax + 2, 1023), 2000
    )
    x = both_signs(np.ldexp(rng.uniform(1, 2, exponents.size), exponents))
    exact = [gmpy2.mpfr(value, 53) for value in x.tolist()]
    with gmpy2.context(context):
        truth = np.array([float(gmpy2.mpfr(value)) for value in exact])
    assert_same(ab.quantize(x, fmt, rounding), truth, x, fmt, rounding)
