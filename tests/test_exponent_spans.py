"""Spans of the exponents of products, against exponents of exact numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from abcdeep_core._accumulator_widths import exponent_spans


@pytest.mark.parametrize("group", [1, 3, 16, 100])
def test_spans_are_those_of_the_products(isa, group):
    rng = np.random.default_rng(group)
    x = np.ldexp(rng.standard_normal((5, 40)), rng.integers(-150, 120, (5, 40)))
    w = np.ldexp(rng.standard_normal((40, 7)), rng.integers(-150, 120, (40, 7)))
    x[rng.random(x.shape) < 0.3] = 0
    w[rng.random(w.shape) < 0.3] = 0
    x, w = x.astype(np.float32), w.astype(np.float32)
    got = exponent_spans(x, w, group, None)
    want = np.zeros_like(got)
    for row in x:
        for column in w.T:
            for k in range(0, 40, group):
                factors = zip(row[k : k + group], column[k : k + group], strict=True)
                found = [
                    math.frexp(float(a))[1] + math.frexp(float(b))[1]
                    for a, b in factors
                    if a != 0 and b != 0
                ]
                if found:
                    want[max(found) - min(found)] += 1
    np.testing.assert_array_equal(got, want)


def test_no_terms():
    assert (
        exponent_spans(np.zeros((3, 0), np.float32), np.zeros((0, 2), np.float32), 1, 1).sum() == 0
    )
