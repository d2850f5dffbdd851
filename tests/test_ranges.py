"""`HindsightMax`: the recursion in float32, what it refuses, pickling, and its use with `luq`."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab


@pytest.mark.parametrize("eta", [0, 0.1, 0.5, 0.9, 0.999])
def test_follows_the_recursion(isa: str, eta: float) -> None:
    rng = np.random.default_rng(1)
    maximum = ab.HindsightMax(eta)
    assert maximum.value is None
    assert np.float32(maximum.eta) == np.float32(eta)
    expected: Any = None
    for _ in range(20):
        x = (rng.standard_normal((5, 7)) * 2.0 ** rng.integers(-20, 20)).astype(np.float32)
        largest = np.abs(x).max()
        if expected is None:
            expected = largest
        returned = maximum.update(x)
        assert isinstance(returned, np.float32)
        assert returned == expected
        weight = np.float32(eta)
        expected = (np.float32(1) - weight) * largest + weight * expected
        assert maximum.value == expected


def test_stays_between_the_maxima_it_is_made_of() -> None:
    for extreme in (np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal):
        maximum = ab.HindsightMax(0.3)
        for _ in range(5):
            assert maximum.update(np.float32([0, -extreme])) == extreme
        assert maximum.value == extreme


@pytest.mark.parametrize("nothing", [np.float32([0, -0.0]), np.zeros((0, 3), np.float32)])
def test_zeros_decay_the_maximum_and_never_stand_for_one(nothing: Any) -> None:
    maximum = ab.HindsightMax(0.5)
    assert maximum.update(nothing) == 0  # nothing is known but that this one is zero
    assert maximum.update(np.float32([8])) == 8
    assert maximum.update(nothing) == 8
    assert maximum.update(np.float32([2])) == 4
    without_memory = ab.HindsightMax(0)
    for x, expected in ((4, 4), (0, 4), (2, 2), (1, 2)):
        assert without_memory.update(np.float32([x])) == expected


def test_is_known_before_the_tensor() -> None:
    x = np.float32([1, -2, 5, 100])
    maximum = ab.HindsightMax(0.5)
    maximum.update(np.float32([4]))
    m = maximum.update(x)
    assert m == 4
    assert np.abs(ab.luq(x, max_abs=m, seed=1)).max() == 4
    grown = ab.luq(x, max_abs=m, over_range="grow", random_bits=np.zeros(4, np.uint32))
    assert grown.tolist() == [1, -2, 8, 128]


def test_is_copied_and_pickled() -> None:
    maximum = ab.HindsightMax(0.25)
    for _ in range(2):
        for again in (copy.deepcopy(maximum), pickle.loads(pickle.dumps(maximum))):
            assert (again.eta, again.value) == (maximum.eta, maximum.value)
            again.update(np.float32([7]))
            assert again.value != maximum.value
        maximum.update(np.float32([3]).astype(ml_dtypes.bfloat16))
    assert repr(maximum) == "HindsightMax(eta=0.25, value=np.float32(3.0))"


@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        (np.float32([1, np.nan]), ValueError, r"x: expected finite .* \[1\]"),
        (np.float32([np.inf]), ValueError, r"x: expected finite .* \[0\]"),
        (np.ones(2), TypeError, "x must hold float32 or narrower floats, got float64"),
        ("x", TypeError, "x must hold floats"),
    ],
)
def test_refuses_a_tensor_and_is_unchanged(x: Any, error: type[Exception], text: str) -> None:
    maximum = ab.HindsightMax(0.5)
    maximum.update(np.float32([3]))
    with pytest.raises(error, match=text):
        maximum.update(x)
    assert maximum.value == 3


@pytest.mark.parametrize("eta", [1, -0.1, np.nan, np.inf, 1 - 1e-12])
def test_refuses_a_weight(eta: float) -> None:
    with pytest.raises(ValueError, match="eta: expected 0 <= eta < 1"):
        ab.HindsightMax(eta)
    for kind in ("half", "0.5", None, [1]):
        with pytest.raises(TypeError, match="eta: expected a number"):
            ab.HindsightMax(kind)  # type: ignore[arg-type]
