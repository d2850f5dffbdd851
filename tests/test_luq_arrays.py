"""`luq` and arrays: views, aliases, dtypes, shapes without much in them, and what raises."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab
from test_luq import assert_same_bits


def test_views_and_aliases(isa: str) -> None:
    x = np.ldexp(np.random.default_rng(6).standard_normal((40, 50)), 3).astype(np.float32)
    reference = ab.luq(x, seed=3)
    per_row = ab.luq(x, seed=3, axis=1)
    wide = np.zeros((80, 100), np.float32)
    wide[::2, ::2] = x
    for view in (np.asfortranarray(x), wide[::2, ::2], x[::-1, ::-1].copy()[::-1, ::-1]):
        assert_same_bits(ab.luq(view, seed=3), reference)
        assert_same_bits(ab.luq(view, seed=3, axis=1), per_row)
    assert_same_bits(ab.luq(x.T, seed=3, axis=0), ab.luq(x.T.copy(), seed=3, axis=0))
    target = np.zeros((50, 40), np.float32).T
    assert ab.luq(x, seed=3, out=target) is target
    assert_same_bits(target.copy(), reference)
    for samples in (1, 2):
        same = x.copy()
        assert ab.luq(same, seed=3, samples=samples, out=same, threads=2) is same
        assert_same_bits(same, ab.luq(x, seed=3, samples=samples))
    shifted = np.concatenate([x.reshape(-1), np.zeros(1, np.float32)])
    ab.luq(shifted[:-1], seed=3, out=shifted[1:])
    assert_same_bits(shifted[1:], reference.reshape(-1))
    words = ab.random_bits(x.shape, seed=3)
    ab.luq(x, random_bits=words, out=words.view(np.float32))
    assert_same_bits(words.view(np.float32), reference)


def test_narrow_floats_are_widened() -> None:
    x = np.float32([0.5, -3, 7, 0.1])
    for dtype in (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        assert_same_bits(
            ab.luq(x.astype(dtype), seed=1), ab.luq(np.float32(x.astype(dtype)), seed=1)
        )
    swapped = x.astype(x.dtype.newbyteorder())
    assert_same_bits(ab.luq(swapped, seed=1), ab.luq(x, seed=1))


def test_shapes_without_much_in_them(isa: str) -> None:
    assert ab.luq(np.zeros((0, 3), np.float32), seed=1).shape == (0, 3)
    assert ab.luq(np.zeros((0, 3), np.float32), seed=1, axis=0).shape == (0, 3)
    assert ab.luq(np.zeros((3, 0), np.float32), seed=1, axis=0, samples=2).shape == (3, 0)
    codes, alpha = ab.luq_encode(np.zeros((3, 0), np.float32), seed=1, axis=1)
    assert codes.shape == (3, 0)
    assert alpha.tolist() == [[0], [0], [0]]
    scalar = ab.luq(np.float32(-3), seed=1)
    assert isinstance(scalar, np.float32)
    assert scalar == -3
    code, alpha = ab.luq_encode(np.float32(-3), seed=1)
    assert (int(code), float(alpha)) == (15, 3 / 64)
    zeros = np.float32([0, -0.0, 0])
    assert_same_bits(ab.luq(zeros, seed=1), np.zeros(3, np.float32))
    assert_same_bits(ab.luq(zeros, seed=1, max_abs=4, samples=2), np.zeros(3, np.float32))
    assert_same_bits(ab.luq(np.float32([1, -2]), max_abs=-0.0, seed=1), np.zeros(2, np.float32))
    codes, alpha = ab.luq_encode(zeros, seed=1)
    assert codes.tolist() == [0, 0, 0]
    assert alpha == 0


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"x": np.ones(3)}, TypeError, "x must hold float32 or narrower floats, got float64"),
        ({"x": [1, 2, 3]}, TypeError, "x must hold floats"),
        ({"x": np.float32([1, np.nan, 2])}, ValueError, r"x: expected finite .* at \[1\]"),
        ({"x": np.float32([[1], [-np.inf]])}, ValueError, r"x: expected finite .* at \[1, 0\]"),
        ({"x": np.float32([1, -np.nan]), "max_abs": 1}, ValueError, r"at \[1\]"),
        ({"x": np.float32([[1, np.inf]]), "axis": 0}, ValueError, r"at \[0, 1\]"),
        ({"seed": None}, ValueError, "needs seed= or random_bits="),
        ({"seed": None, "underflow": "zero"}, ValueError, "needs seed= or random_bits="),
        ({"seed": None, "log_rounding": "nearest"}, ValueError, "needs seed= or random_bits="),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 1.5}, TypeError, "seed"),
        ({"stream": 1 << 32}, ValueError, "stream"),
        ({"call": (1 << 32) - 1, "samples": 2}, ValueError, "call: expected call"),
        ({"levels": 6}, ValueError, "levels: expected 7, 8 or 5, got 6"),
        ({"levels": 7.0}, TypeError, "levels must be an integer"),
        ({"samples": 0}, ValueError, "samples must be in 1.."),
        ({"samples": "2"}, TypeError, "samples must be an integer"),
        ({"alpha_rounding": "pow2"}, ValueError, "unknown alpha_rounding 'pow2'"),
        ({"alpha_rounding": 2}, TypeError, "alpha_rounding must be a string"),
        ({"underflow": "flush"}, ValueError, "unknown underflow 'flush'"),
        ({"log_rounding": "zero"}, ValueError, "unknown log_rounding 'zero'"),
        ({"over_range": "wrap"}, ValueError, "unknown over_range 'wrap'"),
        ({"axis": 1}, ValueError, "axis: expected axes of an array of 1 dimensions, got 1"),
        ({"axis": (0, 0)}, ValueError, "axis"),
        ({"axis": "rows"}, TypeError, "axis: expected an integer"),
        ({"max_abs": -1}, ValueError, "max_abs: expected finite numbers >= 0, got -1.0"),
        ({"max_abs": np.float32(np.nan)}, ValueError, "max_abs: expected finite"),
        ({"max_abs": 10**400}, ValueError, "max_abs: expected a number within float32"),
        ({"max_abs": float("nan")}, ValueError, "max_abs: expected finite numbers >= 0, got nan"),
        ({"max_abs": float("-inf")}, ValueError, "max_abs: expected finite numbers >= 0, got -inf"),
        ({"max_abs": 1e39}, ValueError, "max_abs: expected a number within float32, got 1e"),
        ({"max_abs": 1e-60}, ValueError, "max_abs: expected a number within float32, got 1e-60"),
        (
            {"max_abs": np.float64(1)},
            TypeError,
            "max_abs must hold float32 or narrower",
        ),
        ({"max_abs": "1"}, TypeError, "max_abs must hold floats"),
        ({"max_abs": True}, TypeError, "max_abs must hold floats"),
        ({"max_abs": np.float32([1, 2])}, ValueError, r"max_abs: expected a shape .* \(1,\)"),
        ({"max_abs": np.float32([1, -2]), "axis": ()}, ValueError, r"got -2.0 \[1\]"),
        (
            {"random_bits": np.zeros(2, np.uint32)},
            ValueError,
            r"random_bits must have shape \(3,\)",
        ),
        ({"random_bits": np.zeros(3, np.uint32), "samples": 2}, ValueError, r"shape \(2, 3\)"),
        ({"random_bits": np.zeros(3, np.int64)}, TypeError, "random_bits must have dtype uint32"),
        ({"out": np.zeros(3)}, TypeError, "out must have dtype float32"),
        ({"out": np.zeros(2, np.float32)}, ValueError, r"out must have shape \(3,\)"),
        ({"threads": 0}, ValueError, "threads: expected 1 to"),
    ],
)
def test_errors(change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments: dict[str, Any] = {"x": np.float32([1, 2, 3]), "seed": 1, **change}
    with pytest.raises(error, match=text):
        ab.luq(**arguments)
    if not {"samples", "over_range", "out"} & set(change):
        with pytest.raises(error, match=text):
            ab.luq_encode(**arguments)
