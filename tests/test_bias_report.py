"""The bias report: exact sums, what counts as clipped, layouts, errors."""

from __future__ import annotations

import dataclasses
import json
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab
from oracle_uniform import sum_of


class Quantized:
    """A quantised array with codes and scales, as far as a report sees it."""

    def __init__(self, values, clipped):
        self._values, self.clipped = values, clipped

    def dequantize(self):
        return self._values


def pair(size, seed=1):
    x = np.random.default_rng(seed).laplace(size=size).astype(np.float32)
    return x, ab.quantize_uniform(x, clip=2.5)


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 65_536, 131_077])
def test_sums_are_those_of_the_definition(size):
    x, q = pair(size)
    a, b = x.astype(np.float64).tolist(), q.astype(np.float64).tolist()
    square = sum_of([v * v for v in a])
    report = ab.bias_report(x, q)
    assert report.slope == sum_of([v * w for v, w in zip(a, b, strict=True)]) / square
    errors = [w - v for v, w in zip(a, b, strict=True)]
    assert report.relative_mse == sum_of([e * e for e in errors]) / square
    assert report.elements == size
    assert report.bias == report.slope - 1


def test_sums_are_near_the_exact_ones():
    x, q = pair(20_000)
    a, b = ([Fraction(v) for v in array.tolist()] for array in (x, q))
    square = sum(v * v for v in a)
    report = ab.bias_report(x, q)
    slope = sum(v * w for v, w in zip(a, b, strict=True)) / square
    mse = sum((w - v) ** 2 for v, w in zip(a, b, strict=True)) / square
    assert abs(report.slope / float(slope) - 1) < 1e-14
    assert abs(report.relative_mse / float(mse) - 1) < 1e-14


def test_clipped_elements():
    x, q = pair(5000)
    largest = np.abs(q).max()
    report = ab.bias_report(x, q)
    assert report.clipped == np.count_nonzero(np.abs(x) > largest) / 5000 > 0.01
    counted = ab.bias_report(x, Quantized(q, 7))
    assert counted == dataclasses.replace(report, clipped=7 / 5000)


def test_a_scaled_array_has_its_scale_as_slope():
    x = np.float32([[1, -2], [0.5, 4]])
    report = ab.bias_report(x, x * np.float32(0.75))
    assert (report.slope, report.bias, report.relative_mse) == (0.75, -0.25, 0.0625)
    assert report.clipped == 0.25  # 4 is above 3, the largest magnitude of q
    assert ab.bias_report(x, x) == ab.BiasReport(
        slope=1.0, relative_mse=0.0, clipped=0.0, elements=4
    )


def test_text_and_dict():
    report = ab.bias_report(np.float32([1, 2, 8]), np.float32([1, 2, 6]))
    assert str(report).startswith("slope 0.76812 (bias -23.188 %)")
    assert json.loads(json.dumps(report.to_dict())) == {
        "slope": 53 / 69, "bias": 53 / 69 - 1, "relative_mse": 4 / 69, "clipped": 1 / 3,
        "elements": 3,
    }  # fmt: skip
    assert ab.BiasReport(**{k: v for k, v in report.to_dict().items() if k != "bias"}) == report


@pytest.mark.parametrize("x", [np.zeros(4, np.float32), np.empty((0, 3), np.float32)])
def test_without_a_nonzero_element_there_is_no_slope(x):
    report = ab.bias_report(x, x)
    assert math.isnan(report.slope)
    assert math.isnan(report.bias)
    assert math.isnan(report.relative_mse)
    assert (report.clipped, report.elements) == (0, x.size)
    assert "slope nan" in str(report)


@pytest.mark.parametrize("power", [-1040, -160, 300, 1000])
def test_sizes_beyond_float64_squares(power):
    x, q = pair(1000)
    report = ab.bias_report(x, q)
    large, its = (np.ldexp(np.rint(np.ldexp(v.astype(np.float64), 20)), power) for v in (x, q))
    if power == -1040:  # whole multiples of 2^-1040 are exact in float64
        small = ab.bias_report(np.rint(np.ldexp(x, 20)), np.rint(np.ldexp(q, 20)))
        assert ab.bias_report(large, its) == small
    assert abs(ab.bias_report(large, its).slope - report.slope) < 1e-5
    tiny = ab.bias_report(x * np.float32(2.0**-100), q * np.float32(2.0**-100))
    assert tiny == report


def test_memory_layout_and_dtypes():
    x, q = pair(30 * 41)
    x, q = x.reshape(30, 41), q.reshape(30, 41)
    report = ab.bias_report(x, q)
    assert ab.bias_report(np.asfortranarray(x), q) == report
    assert ab.bias_report(x, np.asfortranarray(q)) == report
    assert ab.bias_report(x.astype(np.float64), q) == report
    assert ab.bias_report(x.T, q.T) == ab.bias_report(x.T.copy(), q.T.copy())
    half = x.astype(ml_dtypes.bfloat16)
    assert ab.bias_report(x, half) == ab.bias_report(x, half.astype(np.float32))
    assert ab.bias_report(x.tolist(), q.tolist()) == report


def test_stochastic_rounding_has_no_bias():
    # |z| < 5 of the slope: a false alarm in 1.7 million runs. Nearest has a bias far beyond it.
    x = np.random.default_rng(5).lognormal(size=200_000).astype(np.float32)
    q = ab.quantize_uniform(x, clip="max_abs", rounding="stochastic", seed=3)
    scale = float(ab.encode_uniform(x, clip="max_abs")[1])
    wide = x.astype(np.float64)
    low = np.floor(wide / scale) * scale
    variance = (wide - low) * (low + scale - wide)
    deviation = math.sqrt(float((wide**2 * variance).sum())) / float((wide**2).sum())
    assert abs(ab.bias_report(x, q).bias) < 5 * deviation
    assert abs(ab.bias_report(x, ab.quantize_uniform(x, clip="max_abs")).bias) > 5 * deviation


@pytest.mark.parametrize(
    ("x", "q", "error", "text"),
    [
        (np.arange(3), np.ones(3), TypeError, "x must hold floats"),
        (np.ones(3), np.arange(3), TypeError, "q must hold floats"),
        (np.ones(3), np.ones(4), ValueError, r"q must have the shape of x, \(3,\), got \(4,\)"),
        (np.ones((1, 3)), np.ones(3), ValueError, "q must have the shape of x"),
        (np.float32([1, np.nan]), np.ones(2), ValueError, r"x must be finite, got nan at \[1\]"),
        (np.ones(2), np.float32([np.inf, 1]), ValueError, r"q must be finite, got inf at \[0\]"),
        (np.ones(2), Quantized(np.ones(3), 0), ValueError, "q must have the shape of x"),
        (np.ones(2), Quantized(np.full(2, np.nan), 0), ValueError, "q must be finite"),
    ],
)
def test_errors(x, q, error, text):
    with pytest.raises(error, match=text):
        ab.bias_report(x, q)
