"""Magnitude masks without structure and of blocks: against a full sort of (magnitude, index)."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab


def largest(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the mask of the `count` largest of all scores, lowest index first on ties."""
    flat = scores.reshape(-1)
    order = sorted(range(flat.size), key=lambda i: (-flat[i], i))
    mask = np.zeros(flat.size, bool)
    mask[order[:count]] = True
    return mask.reshape(scores.shape)


def largest_along(scores: np.ndarray, count: int, axis: int | None) -> np.ndarray:
    if axis is None:
        return largest(scores, count)
    return np.apply_along_axis(lambda line: largest(line, count), axis, scores)


def tied(shape: Any, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1,), (17,), (5, 7), (3, 4, 6), (0,), (3, 0)])
def test_largest_of_the_whole_array(shape):
    x = tied(shape)
    for keep in range(x.size + 1):
        mask = ab.magnitude_mask(x, keep=keep)
        assert mask.dtype == bool
        assert np.array_equal(mask, largest(np.abs(x), keep))
        assert np.array_equal(mask, ab.magnitude_mask(-x, keep=keep))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_largest_of_each_line(axis):
    x = tied((4, 5, 6), 1)
    for keep in range(x.shape[axis] + 1):
        expected = largest_along(np.abs(x), keep, axis)
        assert np.array_equal(ab.magnitude_mask(x, keep=keep, axis=axis), expected)


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("block", [(1, 1), (2, 3), (4, 1), (1, 6)])
def test_whole_blocks(block, norm, axis):
    x = tied((3, 8, 12), 2)
    rows, columns = block
    power = 1 if norm == "l1" else 2
    norms = np.zeros((3, 8 // rows, 12 // columns))
    for i, j, k in np.ndindex(norms.shape):
        part = x[i, j * rows : (j + 1) * rows, k * columns : (k + 1) * columns]
        norms[i, j, k] = sum(abs(int(v)) ** power for v in part.flat)
    lines = norms.size if axis is None else norms.shape[axis]
    for keep in {0, 1, lines // 2, lines}:
        chosen = largest_along(norms, keep, axis)
        expected = np.kron(chosen, np.ones(block, bool)).astype(bool)
        got = ab.magnitude_mask(x, keep=keep, axis=axis, block=block, norm=norm)
        assert np.array_equal(got, expected)


def test_densities_are_rounded_half_up():
    x = tied((10,), 3)
    for density in (
        0,
        1,
        0.04,
        0.05,
        0.5,
        0.45,
        0.449,
        Fraction(1, 20),
        Fraction(9, 20),
        np.float32(0.3),
    ):
        expected = (
            math.floor(Fraction(density) * 10 + Fraction(1, 2))
            if not isinstance(density, np.float32)
            else 3
        )
        assert ab.magnitude_mask(x, density=density).sum() == expected
    assert ab.magnitude_mask(tied((4, 6)), density=0.5, axis=1).sum(axis=1).tolist() == [3] * 4


def test_extremes_and_narrow_floats():
    huge = np.array([[3e38, 3e38, 1, 0], [1e300, 0, 0, 0]])
    for norm in ("l1", "l2"):
        mask = ab.magnitude_mask(huge, keep=1, block=(1, 2), norm=norm)
        assert mask.tolist() == [[False] * 4, [True, True, False, False]]
        top = np.full((2, 4), 1.7e308)
        top[1, 3] = 1.6e308
        assert (
            ab.magnitude_mask(top, keep=3, block=(1, 2), norm=norm)[1].tolist()
            == [True] * 2 + [False] * 2
        )
    infinite = np.float32([1, -np.inf, 3, np.inf])
    assert ab.magnitude_mask(infinite, keep=3).tolist() == [False, True, True, True]
    assert ab.magnitude_mask(infinite[None], keep=1, block=(1, 2)).tolist() == [
        [True, True, False, False]
    ]
    for dtype in (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        assert ab.magnitude_mask(np.array([1, -2, 0.5], dtype), keep=1).tolist() == [
            False,
            True,
            False,
        ]
    assert ab.magnitude_mask(np.asfortranarray(tied((4, 6))), keep=3).flags.c_contiguous


X = tied((4, 6))
ERRORS = [
    (TypeError, "x must hold floats", {"x": X.astype(int)}),
    (TypeError, "density must be a number", {"keep": None, "density": "half"}),
    (TypeError, "density must be a number", {"keep": None, "density": True}),
    (TypeError, "keep must be an integer", {"keep": 1.0}),
    (TypeError, "axis", {"axis": "rows"}),
    (TypeError, "block must be a pair", {"block": 2}),
    (TypeError, "block must be a pair", {"block": (2, 2, 2)}),
    (TypeError, "block must be an integer", {"block": (2, 2.0)}),
    (TypeError, "norm must be a string", {"norm": 1}),
    (ValueError, "got neither", {"keep": None}),
    (ValueError, "got both", {"density": 0.5}),
    (ValueError, r"density must be in 0\.\.1", {"keep": None, "density": 1.01}),
    (ValueError, r"density must be in 0\.\.1", {"keep": None, "density": math.nan}),
    (ValueError, r"keep must be in 0\.\.24", {"keep": 25}),
    (ValueError, r"keep must be in 0\.\.6", {"keep": 7, "axis": 1}),
    (ValueError, "axis", {"axis": 2}),
    (ValueError, "divide the last two axes", {"block": (3, 2)}),
    (ValueError, "divide the last two axes", {"x": X[0], "block": (1, 2)}),
    (ValueError, "block must be in", {"block": (0, 2)}),
    (ValueError, "unknown norm 'L1'; nearest: 'l1'", {"norm": "L1"}),
    (ValueError, r"no NaN, got one at \[0, 0\]", {"x": X * np.float32(np.nan)}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "change"), ERRORS)
def test_errors(error, message, change):
    arguments: dict[str, Any] = {"x": X, "keep": 2, **change}
    with pytest.raises(error, match=message):
        ab.magnitude_mask(arguments.pop("x"), **arguments)


def test_scalars_integers_and_out():
    assert ab.magnitude_mask(np.float32(3), keep=1).shape == ()
    x = np.array([[3, -9, 1, 0]], ">i2")
    expected = np.array([[True, True, False, False]])
    out = np.zeros((1, 4), np.bool_)
    assert ab.magnitude_mask(x, keep=2, out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(ab.nm_mask(x, 2, 4), expected)
    with pytest.raises(TypeError, match="integers of at most 16 bits, got int64"):
        ab.magnitude_mask(np.arange(4), keep=1)
    with pytest.raises(ValueError, match="out must have shape"):
        ab.magnitude_mask(x, keep=2, out=np.zeros(4, np.bool_))
