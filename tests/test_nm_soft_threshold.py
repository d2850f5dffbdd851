"""The soft threshold of n:m groups: exact, against fractions, and continuous."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab


def soft_group(group: np.ndarray, n: int, m: int) -> list[Fraction]:
    exact = [Fraction(float(w)) for w in group]
    ranked = sorted(abs(w) for w in exact)
    threshold = ranked[m - n - 1] if n < m else Fraction(0)
    return [
        (abs(w) - threshold) * (1 if w > 0 else -1) if abs(w) > threshold else Fraction(0)
        for w in exact
    ]


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 4), (3, 8), (1, 2), (1, 1)])
def test_values_and_scale(n, m):
    # Integers: no subtraction rounds.
    w = np.random.default_rng(m).integers(-9, 10, (6, 5 * m)).astype(np.float32)
    values, beta = ab.nm_soft_threshold(w, n, m)
    expected = [v for group in w.reshape(-1, m) for v in soft_group(group, n, m)]
    assert values.dtype == np.float32
    assert values.reshape(-1).tolist() == [float(v) for v in expected]
    assert ((values.reshape(-1, m) != 0).sum(axis=1) <= n).all()
    assert not np.signbit(values[values == 0]).any()
    exact = [Fraction(float(v)) for v in w.reshape(-1)]
    square = sum(v * v for v in expected)
    assert beta == float(sum(a * b for a, b in zip(exact, expected, strict=True)) / square)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_axes(axis):
    w = np.random.default_rng(1).standard_normal((8, 12)).astype(np.float32)
    moved = np.ascontiguousarray(np.moveaxis(w, axis, -1))
    values, beta = ab.nm_soft_threshold(w, axis=axis)
    lines, line_beta = ab.nm_soft_threshold(moved)
    assert np.array_equal(np.moveaxis(values, axis, -1), lines)
    assert beta == line_beta


def test_subtraction_is_rounded_once():
    w = np.random.default_rng(2).standard_normal((100, 4)).astype(np.float32)
    values, _ = ab.nm_soft_threshold(w)
    expected = [float(v) for group in w for v in soft_group(group, 2, 4)]
    assert np.array_equal(values.reshape(-1), np.array(expected).astype(np.float32))


def test_it_is_continuous_where_masks_jump():
    eps = np.float32(2.0**-20)
    near = np.float32([[1, 2 - eps, 2 + eps, 3], [1, 2 + eps, 2 - eps, 3]])
    values, _ = ab.nm_soft_threshold(near, 2, 4)
    assert np.abs(values[0] - values[1]).max() <= 2 * eps


@pytest.mark.parametrize("scale", [2.0**-1000, 2.0**-120, 1.0, 2.0**120, 2.0**1000])
def test_scale_is_the_same_for_every_size(scale):
    w = np.random.default_rng(3).integers(-9, 10, (4, 16)).astype(np.float64)
    values, beta = ab.nm_soft_threshold(w * scale)
    plain, plain_beta = ab.nm_soft_threshold(w)
    assert values.dtype == np.float64
    assert np.array_equal(values, plain * scale)
    assert beta == plain_beta


def test_zeros_empty_arrays_and_narrow_floats():
    values, beta = ab.nm_soft_threshold(np.float32([[1, 1, 1, 1], [0, 0, 0, -0.0]]))
    assert not values.any()
    assert not np.signbit(values).any()
    assert beta == 1
    assert ab.nm_soft_threshold(np.zeros((3, 0), np.float32))[0].shape == (3, 0)
    narrow, _ = ab.nm_soft_threshold(np.array([[1, 2, 3, -4]], ml_dtypes.bfloat16))
    assert narrow.dtype == np.float32
    assert narrow.tolist() == [[0, 0, 1, -2]]


W = np.ones((4, 8), np.float32)
ERRORS = [
    (TypeError, "w must hold floats", {"w": W.astype(int)}),
    (TypeError, "n must be an integer", {"n": 2.0}),
    (TypeError, "axis", {"axis": "last"}),
    (ValueError, r"n must be in 1\.\.4", {"n": 0}),
    (ValueError, r"m must be in 1\.\.32", {"m": 33}),
    (ValueError, "multiple of m=3 elements along axis 1, got 8", {"m": 3}),
    (ValueError, "axis", {"axis": 2}),
    (ValueError, "axis", {"w": np.float32(1)}),
    (ValueError, r"finite .* NaN or an infinity at \[0, 0\]", {"w": W * np.float32(np.inf)}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "change"), ERRORS)
def test_errors(error, message, change):
    arguments: dict[str, Any] = {"w": W, **change}
    with pytest.raises(error, match=message):
        ab.nm_soft_threshold(arguments.pop("w"), **arguments)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 4), (4, 0)])
def test_empty_arrays(shape):
    values, beta = ab.nm_soft_threshold(np.zeros(shape, np.float32), 2, 4, shape.index(4))
    assert values.shape == shape
    assert beta == 1
