"""Transposable masks: greedy variants, their measured bounds, inputs of all kinds, errors."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab
from oracle_transposable import greedy
from test_float_environment import STATES, float_state
from test_transposable_mask import KINDS, draw

METHODS = ("exact", "heavy_first", "light_first")
GREEDY = METHODS[1:]


@pytest.mark.parametrize("method", GREEDY)
@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (1, 4), (4, 8), (3, 7), (8, 16), (5, 32)])
def test_greedy_element_by_element(isa, n, m, method):
    for kind in KINDS:
        blocks = draw(kind, (5, m, m), m)
        for dtype in (np.float32, np.float64):
            w = blocks.astype(dtype)
            expected = np.stack([greedy(block, n, method) for block in blocks])
            assert np.array_equal(ab.transposable_mask(w, n, m, method=method), expected)


@pytest.mark.parametrize("method", GREEDY)
def test_greedy_tells_close_doubles_apart(isa, method):
    rng = np.random.default_rng(3)
    for n, m, values in ((2, 4, 4), (4, 8, 1 << 22), (3, 16, 1 << 10)):
        w = 1 + rng.integers(0, values, (9, m, m)) * 2.0**-52
        w[0, 0] *= 2.0**-1060  # subnormal
        expected = np.stack([greedy(block, n, method) for block in w])
        assert np.array_equal(ab.transposable_mask(w, n, m, method=method), expected)


# Measured over Gaussian blocks with another implementation: kept share of the sum of magnitudes
# (row-wise, exact, light first, heavy first), pruned sum by that of the exact mask (light, heavy),
# density (light, heavy).
MEASURED: dict[tuple[int, int], dict[str, Any]] = {
    (2, 4): {
        "shares": (0.745, 0.704, 0.633, 0.694),
        "ratios": (1.235, 1.033),
        "densities": (0.373, 0.490),
    },
    (4, 8): {
        "shares": (0.768, 0.742, 0.684, 0.733),
        "ratios": (1.224, 1.034),
        "densities": (0.404, None),
    },
}


@pytest.mark.parametrize(("n", "m"), MEASURED)
def test_greedy_shares_and_bounds(n, m):
    measured, count = MEASURED[n, m], 160_000 // m
    w = np.abs(np.random.default_rng(n).standard_normal((count, m, m))).astype(np.float32)
    masks = {method: ab.transposable_mask(w, n, m, method=method) for method in METHODS}
    masks["rows"] = np.argsort(np.argsort(-w, axis=2), axis=2) < n

    def close(samples: np.ndarray, value: float) -> None:
        # The table's rounding and its own sampling error, taken to be no larger than this one's;
        # 5 standard errors are exceeded once in 1.7 million.
        error = samples.std() / len(samples) ** 0.5
        assert abs(samples.mean() - value) < 0.0005 + 2**0.5 * 5 * error

    total = w.sum(axis=(1, 2), dtype=np.float64)
    kept = {name: (w * mask).sum(axis=(1, 2), dtype=np.float64) for name, mask in masks.items()}
    order = ("rows", "exact", "light_first", "heavy_first")
    for name, share in zip(order, measured["shares"], strict=True):
        # Of the whole sum; block by block it would be another mean.
        close(kept[name] * len(total) / total.sum(), share)
    pruned = {name: total - kept[name] for name in masks}
    for name, ratio in zip(("light_first", "heavy_first"), measured["ratios"], strict=True):
        close(pruned[name] / pruned["exact"], ratio)
    for name, density in zip(("light_first", "heavy_first"), measured["densities"], strict=True):
        if density is not None:
            close(masks[name].mean(axis=(1, 2)), density)
    assert (pruned["light_first"] < 2 * pruned["exact"]).all()
    # What keeps fewer elements may keep more weight than any mask with n in each row and column.
    fewer = masks["heavy_first"].sum(axis=(1, 2)) < n * m
    assert fewer[kept["heavy_first"] > kept["exact"] * (1 + 1e-12)].all()
    assert (kept["exact"] <= kept["rows"] * (1 + 1e-12)).all()
    for method in GREEDY:
        assert masks[method].sum(axis=1).max() <= n
        assert masks[method].sum(axis=2).max() <= n
    if (n, m) == (2, 4):
        close(fewer.astype(float), 0.158)


@pytest.mark.parametrize(("n", "m"), [(1, 4), (3, 8), (8, 16)])
def test_light_first_prunes_less_than_twice_the_least(n, m):
    for kind in KINDS:
        w = np.abs(draw(kind, (500, m, m), 9)).astype(np.float64)
        best = np.where(ab.transposable_mask(w, n, m), 0, w).sum(axis=(1, 2))
        light = np.where(ab.transposable_mask(w, n, m, method="light_first"), 0, w)
        pruned = light.sum(axis=(1, 2))
        assert ((pruned < 2 * best) | ((best == 0) & (pruned == 0))).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (3, 16)])
def test_signs_scales_and_transposes_do_not_matter(isa, n, m, method):
    w = np.random.default_rng(m).standard_normal((4 * m, 8 * m)).astype(np.float32)
    w[:, m:] = draw("tied", w[:, m:].shape)
    mask = ab.transposable_mask(w, n, m, method=method)
    for scale in (-1.0, 2.0**-100, 2.0**100, -(2.0**-60)):
        x = (w * np.float32(scale)).astype(np.float32)
        assert np.array_equal(ab.transposable_mask(x, n, m, method=method), mask)
    tiny = w.astype(np.float64) * 2.0**-1000
    assert np.array_equal(ab.transposable_mask(tiny, n, m, method=method), mask)
    if method == "exact":
        _, certificate = ab.transposable_mask(w, n, m, return_certificate=True)
        _, other = ab.transposable_mask(w.T, n, m, return_certificate=True)
        if (n, m) != (2, 4):  # 2:4 may leave a gap, either way
            assert np.array_equal(certificate.kept, other.kept.T)
        assert np.array_equal(certificate.bound, other.bound.T)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (16, 32)])
def test_subnormal_weights_and_the_callers_state(isa, n, m, method):
    w = draw("tied", (2 * m, 4 * m))
    mask = ab.transposable_mask(w, n, m, method=method)
    subnormal = w * np.float32(2.0**-149)
    doubles = w.astype(np.float64) * 2.0**-1074
    assert np.abs(subnormal).max() > 0
    # NumPy makes these before the state changes.
    wide = np.ldexp(w, np.random.default_rng(1).integers(-120, 20, w.shape)).astype(np.float32)
    expected = ab.transposable_mask(wide, n, m, method=method)
    for flush, rounding in STATES:
        with float_state(flush, rounding):
            found = [
                ab.transposable_mask(x, n, m, method=method) for x in (subnormal, doubles, wide)
            ]
        assert np.array_equal(found[0], mask)
        assert np.array_equal(found[1], mask)
        assert np.array_equal(found[2], expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8)])
def test_narrow_floats_and_integers(n, m, method):
    w = draw("normal", (2 * m, 6 * m)) * 16
    dtypes = [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.int8, np.int16, np.uint8]
    for dtype in (*dtypes, np.uint16, ml_dtypes.int4, ml_dtypes.float4_e2m1fn):
        x = (np.abs(w) % 8 if np.dtype(dtype).kind == "u" else w % 8 - 4).astype(dtype)
        expected = ab.transposable_mask(x.astype(np.float32), n, m, method=method)
        assert np.array_equal(ab.transposable_mask(x, n, m, method=method), expected)
        assert np.array_equal(ab.transposable_mask(x.astype(float), n, m, method=method), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (16, 32)])
def test_threads_strides_and_out(isa, n, m, method):
    w = draw("normal", (3, 128, 256), m)
    expected = ab.transposable_mask(w, n, m, method=method, threads=1)
    assert expected.dtype == np.bool_
    for threads in (2, 7):
        found = ab.transposable_mask(w, n, m, method=method, threads=threads)
        assert np.array_equal(found, expected)
    spread = np.zeros((3, 256, 512), np.float32)[:, ::2, ::-2]
    spread[...] = w
    assert np.array_equal(ab.transposable_mask(spread, n, m, method=method), expected)
    by_columns = np.asfortranarray(w[0])
    assert np.array_equal(ab.transposable_mask(by_columns, n, m, method=method), expected[0])
    swapped = w.astype(">f4")
    assert np.array_equal(ab.transposable_mask(swapped, n, m, method=method), expected)
    one_by_one = [ab.transposable_mask(x, n, m, method=method) for x in w]
    assert np.array_equal(one_by_one, expected)
    for out in (np.empty(w.shape, bool), np.empty((3, 256, 256), bool)[:, ::2]):
        assert ab.transposable_mask(w, n, m, method=method, out=out) is out
        assert np.array_equal(out, expected)
    inside = w[0].copy()  # what is written is what is read
    out = inside.reshape(-1).view(bool)[: inside.size].reshape(inside.shape)
    assert np.array_equal(ab.transposable_mask(inside, n, m, method=method, out=out), expected[0])


@pytest.mark.parametrize("shape", [(0, 8), (8, 0), (0, 4, 4), (3, 0, 4), (2, 4, 0)])
def test_empty(shape):
    for method in METHODS:
        mask = ab.transposable_mask(np.zeros(shape, np.float32), 2, 4, method=method)
        assert mask.shape == shape
    mask, certificate = ab.transposable_mask(np.zeros(shape), 2, 4, return_certificate=True)
    certificate.check(np.zeros(shape), mask)


def test_everything_is_kept_where_n_is_m():
    w = draw("normal", (64, 96))
    for m in (1, 2, 16, 32):
        for method in METHODS:
            assert ab.transposable_mask(w, m, m, method=method).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (16, 32), (4, 4)])
def test_nonfinite(isa, n, m, dtype, value):
    clean = draw("normal", (2, 64, 96)).astype(dtype)
    for index in ((0, 0, 0), (1, 63, 95), (1, 17, 40)):
        w = clean.copy()
        w[index] = value
        w[1, 63, 95] = value
        for method in METHODS:
            text = r"w: expected finite numbers.* at \[{}, {}, {}\]".format(*index)
            with pytest.raises(ValueError, match=text):
                ab.transposable_mask(w, n, m, method=method)


W = np.ones((8, 16), np.float32)
ERRORS: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (TypeError, "w must hold floats", {"w": W.astype(np.int32)}),
    (TypeError, "w must hold floats", {"w": W.astype(complex)}),
    (TypeError, "w must hold floats", {"w": W > 0}),
    (TypeError, "w must", {"w": object()}),
    (ValueError, r"w: expected last two axes .* m=4, got shape \(16,\)", {"w": W[0]}),
    (ValueError, r"w: .* got shape \(8, 15\)", {"w": W[:, :15]}),
    (ValueError, r"w: .* got shape \(7, 16\)", {"w": W[:7]}),
    (ValueError, r"w: .* got shape \(\)", {"w": 1.0}),
    (ValueError, "n must be in 1..4, got 0", {"n": 0}),
    (ValueError, "n must be in 1..4, got 5", {"n": 5}),
    (TypeError, "n must be an integer", {"n": 2.0}),
    (TypeError, "n must be an integer", {"n": True}),
    (ValueError, "m must be in 1..32, got 33", {"m": 33}),
    (ValueError, "m must be in 1..32, got 0", {"m": 0}),
    (TypeError, "m must be an integer", {"m": "4"}),
    (ValueError, "unknown method 'heavy'; nearest: 'heavy_first'", {"method": "heavy"}),
    (TypeError, "method must be a string", {"method": 1}),
    (TypeError, "return_certificate must be a bool", {"return_certificate": 1}),
    (ValueError, "return_certificate", {"return_certificate": True, "method": "light_first"}),
    (TypeError, "out must have dtype bool", {"out": np.empty((8, 16), np.uint8)}),
    (ValueError, "out must have shape", {"out": np.empty((16, 8), bool)}),
    (TypeError, "out must be a NumPy array", {"out": []}),
    (ValueError, "threads", {"threads": 0}),
    (TypeError, "threads", {"threads": 1.5}),
]


@pytest.mark.parametrize(("error", "message", "change"), ERRORS)
def test_errors(error, message, change):
    arguments: dict[str, Any] = {"w": W, "n": 2, "m": 4, **change}
    with pytest.raises(error, match=message):
        ab.transposable_mask(**arguments)
