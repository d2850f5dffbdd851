"""The tables of docs/formats.md that say where public libraries disagree, cell by cell."""

import math
from importlib.metadata import version

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab

NAN, INF = math.nan, math.inf


def same(got, expected):
    return all(
        (math.isnan(g) and math.isnan(e)) or (g == e and math.copysign(1, g) == math.copysign(1, e))
        for g, e in zip(got, expected, strict=True)
    )


def of_ml_dtypes(x, name, source=np.float32):
    if version("ml_dtypes") != "0.6.0":
        pytest.skip(f"the table is of ml_dtypes 0.6.0, here is {version('ml_dtypes')}")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(x, source).astype(getattr(ml_dtypes, name)).astype(np.float64).tolist()


def of_gfloat(x, name, sat=False, rounding="TiesToEven"):
    gfloat = pytest.importorskip("gfloat", reason="gfloat is not installed")
    if version("gfloat") != "0.5.2":
        pytest.skip(f"the table is of gfloat 0.5.2, here is {version('gfloat')}")
    info = getattr(pytest.importorskip("gfloat.formats"), "format_info_" + name)
    mode = getattr(gfloat.RoundMode, rounding)
    return [float(gfloat.round_float(info, value, mode, sat)) for value in x]


def of_ours(x, name, **rules):
    return ab.quantize(np.array(x, np.float64), name, **rules).tolist()


# The ends of each format: a value that rounds to the maximum, the first that does not, far above.
E4M3 = [
    ("e4m3fn", [463, 464, 464.1, 1e30, INF, NAN], [448, 448, NAN, NAN, NAN, NAN]),
    ("e4m3", [247, 248, 1e30, INF, -INF, NAN], [240, INF, INF, INF, -INF, NAN]),
    ("e4m3fnuz", [247, 248, 1e30, INF, NAN, -0.0], [240, NAN, NAN, NAN, NAN, 0]),
    ("e4m3b11fnuz", [30.5, 31, 1e30, INF, NAN, -0.0], [30, NAN, NAN, NAN, NAN, 0]),
]


@pytest.mark.parametrize(("name", "x", "expected"), E4M3, ids=[row[0] for row in E4M3])
def test_e4m3_of_ml_dtypes(name, x, expected):
    assert same(of_ml_dtypes(x, "float8_" + name), expected)
    assert same(of_ours(x, name), expected)


def test_sign_of_nan():
    nans = np.float32([NAN, -NAN])
    for name, words, canonical in (
        ("e4m3fn", [0x7F, 0xFF], 0x7F),
        ("e4m3", [0x7C, 0xFC], 0x7C),
        ("e4m3fnuz", [0x80, 0x80], 0x80),
        ("e4m3b11fnuz", [0x80, 0x80], 0x80),
    ):
        dtype = ab.get_format(name).ml_dtype
        assert nans.astype(dtype).view(np.uint8).tolist() == words
        assert ab.encode(nans, name).tolist() == [canonical, canonical]


def test_e4m3_of_gfloat():
    x, saturated = [464, 464.1, 1e30, INF, -INF, NAN], [448, 448, 448, 448, -448, NAN]
    assert same(of_gfloat(x, "ocp_e4m3"), [448, NAN, NAN, NAN, NAN, NAN])
    assert same(of_ours(x, "e4m3fn"), [448, NAN, NAN, NAN, NAN, NAN])
    assert same(of_gfloat(x, "ocp_e4m3", sat=True), saturated)
    assert same(of_ours(x, "e4m3fn", overflow="sat_finite"), saturated)
    inward = [448, 448, 448, NAN, NAN, NAN]
    assert same(of_gfloat(x, "ocp_e4m3", rounding="TowardZero"), inward)
    assert same(of_ours(x, "e4m3fn", rounding="toward_zero"), inward)


def test_e4m3_of_p3109():
    x = [231, 232, 233, INF, -INF, NAN, -0.0]
    assert same(of_ours(x, "binary8p4se"), [224, 224, INF, INF, -INF, NAN, 0])
    propagated = [224, 224, 224, INF, -INF, NAN, 0]
    assert same(of_ours(x, "binary8p4se", overflow="sat_propagate"), propagated)


def test_nan_to_e2m1():
    assert same(of_ml_dtypes([NAN, -NAN], "float4_e2m1fn"), [-0.0, 0.0])
    for sat in (False, True):
        with pytest.raises(ValueError, match="No NaN"):
            of_gfloat([NAN], "ocp_e2m1", sat)
    with pytest.raises(ValueError, match=r"x"):
        of_ours([NAN], "e2m1")
    assert same(of_ours([NAN, -NAN], "e2m1", nan_to="zero"), [0.0, 0.0])
    assert same(of_ours([NAN, -NAN], "e2m1", nan_to="max_pos"), [6, 6])


@pytest.mark.parametrize(("name", "top"), [("e2m1", 6), ("e2m3", 7.5), ("e3m2", 28)])
def test_overflow_without_special_words(name, top):
    x, expected = [100, -100, INF, -INF], [top, -top, top, -top]
    bits = {"e2m1": 4}.get(name, 6)
    assert same(of_ml_dtypes(x, f"float{bits}_{name}fn"), expected)
    assert same(of_gfloat(x, "ocp_" + name, sat=True), expected)
    assert same(of_ours(x, name), expected)
    with pytest.raises(ValueError, match="sat=False"):
        of_gfloat([100], "ocp_" + name)


def test_e8m0():
    x = [1.5, 3, 1.25 * 2.0**-127, 0, -1]
    assert same(of_ml_dtypes(x, "float8_e8m0fnu"), [2, 4, 2.0**-126, NAN, NAN])
    assert same(of_gfloat(x, "ocp_e8m0"), [2, 2, 2.0**-127, 0, -1])
    assert same(of_ours(x, "e8m0"), [2, 2, 2.0**-127, NAN, NAN])
    assert same(of_ml_dtypes([2.0**-200], "float8_e8m0fnu", np.float64), [NAN])
    assert same(of_gfloat([2.0**-200], "ocp_e8m0"), [2.0**-200])
    assert same(of_ours([2.0**-200], "e8m0"), [2.0**-127])
