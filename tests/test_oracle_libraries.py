"""The oracle's rounding against ml_dtypes, gfloat and MPFR, which share no code with it."""

import math
import random
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from oracle import INF, NAN, all_values, encode_value, round_floats, round_value
from oracle_datapath import dot


def fmt(e, m, bias=None, specials="ieee", **fields):
    return SimpleNamespace(exponent_bits=e, mantissa_bits=m, bias=bias, specials=specials, **fields)


ML_DTYPES = {
    "float8_e4m3fn": fmt(4, 3, 7, "fn"),
    "float8_e5m2": fmt(5, 2),
    "float8_e4m3fnuz": fmt(4, 3, 8, "fnuz"),
    "float8_e5m2fnuz": fmt(5, 2, 16, "fnuz"),
    "float8_e4m3b11fnuz": fmt(4, 3, 11, "fnuz"),
    "float8_e4m3": fmt(4, 3),
    "float8_e3m4": fmt(3, 4),
    "float6_e2m3fn": fmt(2, 3, 1, "none"),
    "float6_e3m2fn": fmt(3, 2, 3, "none"),
    "float4_e2m1fn": fmt(2, 1, 1, "none"),
    "bfloat16": fmt(8, 7),
}


def same(x, y):
    return (x != x and y != y) or (x == y and math.copysign(1, x) == math.copysign(1, y))


@pytest.mark.parametrize("name", ML_DTYPES)
def test_every_fp16_number_becomes_the_code_of_ml_dtypes(name):
    f, dtype = ML_DTYPES[name], np.dtype(getattr(ml_dtypes, name))
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    x = x[~np.isnan(x)]
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(dtype)
    words = expected.view(np.uint16 if dtype.itemsize == 2 else np.uint8).tolist()
    values = round_floats(x.tolist(), f)
    code_of = {repr(v): encode_value(v, f) for v in {repr(v): v for v in values}.values()}
    for value, theirs, word in zip(values, expected.astype(np.float64), words, strict=True):
        assert same(value, float(theirs))
        assert value != value or code_of[repr(value)] == word


@pytest.mark.parametrize("name", [name for name in ML_DTYPES if name != "bfloat16"])
def test_every_code_means_what_it_means_in_ml_dtypes(name):
    f, dtype = ML_DTYPES[name], np.dtype(getattr(ml_dtypes, name))
    values = all_values(f)
    theirs = np.arange(len(values), dtype=np.uint8).view(dtype).astype(np.float64).tolist()
    assert all(same(float(v), t) for v, t in zip(values, theirs, strict=True))


def numbers_near(f, count, generator):
    """Return floats over the whole range of a small format and beyond, ties among them."""
    finite = [float(v) for v in all_values(f) if math.isfinite(v)]
    result = [INF, -INF, 0.0]
    while len(result) < count:
        a, b = generator.sample(finite, 2)
        result += [(a + b) / 2, a * (1 + 2.0**-30), a * generator.uniform(0.5, 2.5)]
    return result[:count]


GFLOAT_MODES = {
    "TowardZero": "toward_zero",
    "TowardNegative": "toward_negative",
    "TowardPositive": "toward_positive",
    "TiesToEven": "nearest_even",
    "TiesToAway": "nearest_away",
}


def gfloat_formats(formats):
    signedness = pytest.importorskip("gfloat.types")
    for k in (3, 5, 8):
        for precision in range(1, k + 1):
            for signed in (True, False):
                for extended in (True, False):
                    if precision == k and signed:
                        continue
                    info = formats.format_info_p3109(
                        k,
                        precision,
                        signedness.Signedness.Signed if signed else signedness.Signedness.Unsigned,
                        signedness.Domain.Extended if extended else signedness.Domain.Finite,
                    )
                    f = fmt(
                        k - precision + (not signed),
                        precision - 1,
                        None,
                        "p3109" if extended else "p3109_finite",
                        signed=signed,
                    )
                    yield info, f
    yield formats.format_info_ocp_e5m2, fmt(5, 2)
    yield formats.format_info_ocp_e4m3, fmt(4, 3, 7, "fn")
    yield formats.format_info_ocp_e3m2, fmt(3, 2, 3, "none")
    yield formats.format_info_ocp_e2m1, fmt(2, 1, 1, "none")


def test_rounding_of_gfloat():
    gfloat = pytest.importorskip("gfloat", reason="NOT TESTED against gfloat: it is missing")
    formats = pytest.importorskip("gfloat.formats")
    generator = random.Random(1)
    for info, f in gfloat_formats(formats):
        # In a format without Inf, gfloat knows no other rule of P3109 than saturation.
        only_saturating = f.specials in ("none", "p3109_finite")
        for x in numbers_near(f, 60, generator):
            if x < 0 and not getattr(f, "signed", True):
                continue
            for theirs, ours in GFLOAT_MODES.items():
                mode = getattr(gfloat.RoundMode, theirs)
                for saturate in (True, False):
                    if only_saturating and not saturate:
                        continue
                    expected = gfloat.round_float(info, x, mode, saturate)
                    rule = "sat_finite" if saturate else "ieee"
                    got = round_value(x, f, ours, overflow=rule)
                    assert same(float(got), float(expected)), (info.name, x, ours, saturate)


def test_stochastic_rules_of_gfloat():
    gfloat = pytest.importorskip("gfloat", reason="NOT TESTED against gfloat: it is missing")
    formats = pytest.importorskip("gfloat.formats")
    rules = {"StochasticFastest": "a", "StochasticFast": "b", "Stochastic": "c",
             "StochasticOdd": "odd"}  # fmt: skip
    generator = random.Random(2)
    info, f = formats.format_info_ocp_e5m2, fmt(5, 2)
    for x in numbers_near(f, 100, generator):
        for theirs, rule in rules.items():
            for bits in (1, 3, 8):
                r = generator.getrandbits(bits)
                mode = getattr(gfloat.RoundMode, theirs)
                expected = gfloat.round_float(info, x, mode, True, r, bits)
                got = round_value(x, f, "stochastic", "sat_finite", random=r, bits=bits, rule=rule)
                assert same(float(got), float(expected)), (x, rule, bits, r)


def mpfr_context(gmpy2, f, mode):
    """Return the MPFR context of an IEEE-style format; MPFR's significand lies in [1/2, 1)."""
    bias = 2 ** (f.exponent_bits - 1) - 1
    return gmpy2.context(
        precision=f.mantissa_bits + 1,
        emax=bias + 1,
        emin=1 - bias - f.mantissa_bits + 1,
        subnormalize=True,
        round=mode,
    )


MPFR_FORMATS = [fmt(5, 10), fmt(8, 7), fmt(4, 3), fmt(5, 2), fmt(8, 23), fmt(6, 9), fmt(3, 4)]


def test_rounding_of_mpfr():
    gmpy2 = pytest.importorskip("gmpy2", reason="NOT TESTED against MPFR: gmpy2 is missing")
    modes = {
        gmpy2.RoundToNearest: "nearest_even", gmpy2.RoundToZero: "toward_zero",
        gmpy2.RoundUp: "toward_positive", gmpy2.RoundDown: "toward_negative",
        gmpy2.RoundAwayZero: "away_from_zero",
    }  # fmt: skip
    generator = random.Random(3)
    for f in MPFR_FORMATS:
        bias = 2 ** (f.exponent_bits - 1) - 1
        for _ in range(300):
            exponent = generator.randint(-bias - f.mantissa_bits - 2, bias + 1)
            x = generator.choice([1, -1]) * generator.uniform(1, 2) * 2.0**exponent
            for mode, name in modes.items():
                with mpfr_context(gmpy2, f, mode):
                    expected = float(gmpy2.mpfr(x))
                assert same(float(round_value(x, f, name)), expected), (f, x, name)


def test_fused_chain_of_mpfr():
    gmpy2 = pytest.importorskip("gmpy2", reason="NOT TESTED against MPFR: gmpy2 is missing")
    generator = random.Random(4)
    for f in MPFR_FORMATS:
        datapath = SimpleNamespace(accumulator=SimpleNamespace(format=f, rounding="nearest_even"))
        for _ in range(40):
            a, b = ([generator.gauss(0, 1) for _ in range(20)] for _ in range(2))
            a, b = round_floats(a, f), round_floats(b, f)
            with mpfr_context(gmpy2, f, gmpy2.RoundToNearest):
                s = gmpy2.mpfr(0)
                for x, w in zip(a, b, strict=True):
                    s = gmpy2.fma(gmpy2.mpfr(x), gmpy2.mpfr(w), s)
            assert dot(a, b, datapath).value == float(s)


def test_nan_stays_nan():
    for f in MPFR_FORMATS:
        assert math.isnan(round_value(NAN, f))
