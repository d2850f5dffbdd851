"""Accumulator bounds against brute force over all extreme operands, and the published tables."""

from __future__ import annotations

import itertools
import time
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import abcdeep_core as ab
from abcdeep_core.bounds import METHODS
from oracle_widths import narrowest, running_sums

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("x_range", [(0, 15), (-8, 7), (-3, 12), (2, 5), (-7, -2), (0, 0), (-1, 0)])
@pytest.mark.parametrize("bias", [0, 41, -300])
def test_sign_split_is_the_narrowest_width_by_brute_force(x_range, bias):
    rng = np.random.default_rng(3)
    for terms in range(1, 6):
        w = rng.integers(-8, 8, (terms, 6))
        w[:, 0] = abs(w[:, 0]) % 8
        w[:, 1] = 0
        bounds = ab.accumulator_bounds(w, x_range, w_range="s4", bias=[bias] * 6)
        for n in range(6):
            sums = running_sums(w[:, n].tolist(), [x_range] * terms, bias)
            split = bounds.sign_split
            assert (min(sums), max(sums)) == (split.lo[n], split.hi[n])
            assert split.widths[n] == narrowest(sums)
            unsigned = None if min(sums) < 0 else max(max(sums).bit_length(), 1)
            assert split.unsigned_widths[n] == unsigned
            for method in METHODS:
                assert bounds.channel_widths[method][n] >= narrowest(sums)


def test_input_ranges_are_exact_by_brute_force():
    rng = np.random.default_rng(4)
    for _ in range(30):
        terms = int(rng.integers(1, 6))
        w = rng.integers(-8, 8, (terms, 3))
        ends = np.sort(rng.integers(-8, 8, (2, terms)), axis=0)
        bounds = ab.accumulator_bounds(w, "s4", input_ranges=(ends[0], ends[1]))
        for n in range(3):
            sums = running_sums(w[:, n].tolist(), list(zip(*ends.tolist(), strict=True)))
            per_input = bounds.input_ranges
            assert (min(sums), max(sums)) == (per_input.lo[n], per_input.hi[n])
            assert per_input.widths[n] == narrowest(sums)
        assert bounds.width("input_ranges") <= bounds.width("sign_split")


@pytest.mark.parametrize("x", ["u1", "u2", "s2", "u3"])
@pytest.mark.parametrize("w", [(-2, 1), (-1, 1), (-4, 3), (0, 3), (1, 2)])
def test_data_type_and_l1_by_brute_force(x, w):
    lo, hi = ab.accumulator_bounds(np.zeros((1, 1), np.int8), x, w_range=(-9, 9)).x_range
    for terms in (1, 2, 3):
        every = list(itertools.product((w[0], w[1]), repeat=terms))
        sums = [s for ws in every for s in running_sums(list(ws), [(lo, hi)] * terms)]
        assert ab.data_type_width(terms, x, w) == narrowest(sums)
        assert ab.data_type_width(terms, x, w, closed_form=True) >= narrowest(sums)
    # l1 knows only a norm: the worst weights of that norm have one sign
    matrix = np.array([[3, -1], [-2, -4], [0, 0]])
    bounds = ab.accumulator_bounds(matrix, x)
    for n, norm in enumerate((5, 5)):
        worst = [sign * norm * value for sign in (-1, 1) for value in (lo, hi)]
        assert bounds.l1.widths[n] == narrowest([*worst, *(-v for v in worst)])
        assert ab.l1_width(norm, x) - bounds.l1.widths[n] in (0, 1)


def test_33_bits_are_not_32():
    # float32 rounds 2^31 + 1 to 2^31, and -(2^31 + 1) then needs 32 bits
    w = np.array([[-(2**31), 2**31], [-1, -1], [0, 0]])
    bounds = ab.accumulator_bounds(w, (0, 1))
    assert bounds.sign_split.lo.tolist() == [-(2**31) - 1, -1]
    assert bounds.sign_split.widths.tolist() == [33, 33]
    assert ab.accumulator_bounds(w[:1, :1], (0, 1)).sign_split.widths.tolist() == [32]
    # the same from operands of 8 bits: 2^31 + 1 = 255 * q + r
    q, r = divmod(2**31 + 1, 255 * 127)
    column = np.array([-127] * q, np.int8)
    hundred, rest = divmod(r, 255)
    assert rest < 255
    column = np.append(column, np.int8([-hundred]))
    lowest = -255 * (127 * q + hundred)
    bounds = ab.accumulator_bounds(column, "u8")
    assert bounds.sign_split.lo.tolist() == [lowest]
    assert bounds.sign_split.width == narrowest([lowest])
    assert ab.signed_width(-(2**31), 2**31 - 1) == 32
    assert ab.signed_width(-(2**31) - 1, 0) == ab.signed_width(0, 2**31) == 33
    assert ab.signed_width(-(2**24) - 1, 2**24) == 26
    assert ab.l1_width(2**24 + 1, "u8") == narrowest([(2**24 + 1) * 256])


@given(st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=6), st.integers(0, 2**20))
def test_python_integers_of_any_size(weights, bias):
    bounds = ab.accumulator_bounds(weights, (-3, 2), bias=[bias])
    sums = running_sums(weights, [(-3, 2)] * len(weights), bias)
    assert bounds.sign_split.lo.tolist() == [min(sums)]
    assert bounds.sign_split.hi.tolist() == [max(sums)]
    assert bounds.width("sign_split") == narrowest(sums)


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
)
def test_extremes_of_every_dtype(dtype):
    info = np.iinfo(dtype)
    w = np.array([[info.min, info.max], [info.max, info.max]], dtype)
    bounds = ab.accumulator_bounds(w, "u16")
    lowest, highest = 65535 * info.min, 65535 * info.max
    assert bounds.sign_split.lo.tolist() == [lowest, 0]
    assert bounds.sign_split.hi.tolist() == [highest, 2 * highest]
    wide = ab.accumulator_bounds(w, (0, 0))
    assert wide.sign_split.hi.tolist() == [0, 0]
    assert ab.accumulator_bounds(w[::-1, ::-1].astype(w.dtype.newbyteorder()), "u16").widths


def test_narrow_dtypes_and_default_types():
    w = np.array([[-8], [7]], ml_dtypes.int4)
    assert ab.accumulator_bounds(w, "u8").sign_split.hi.tolist() == [7 * 255]
    assert ab.accumulator_bounds(np.int16([[1]]), "u8").w_range == (-(2**15), 2**15 - 1)
    assert ab.accumulator_bounds(np.int64([[7], [-9]]), "u8").w_range == (-16, 15)
    for x in ("u8", "uint8", np.uint8, np.dtype("uint8"), (0, 255)):
        assert ab.accumulator_bounds(w, x).x_range == (0, 255)


@settings(max_examples=40)
@given(st.data())
def test_sign_split_covers_every_prefix_of_random_orders(data):
    lo = data.draw(st.integers(-20, 20))
    hi = data.draw(st.integers(lo, 40))
    terms = data.draw(st.integers(1, 40))
    seed = data.draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    w = rng.integers(-50, 50, (terms, 3))
    bias = rng.integers(-1000, 1000, 3)
    ends = np.sort(rng.integers(lo, hi + 1, (2, terms)), axis=0)
    bounds = ab.accumulator_bounds(w, (lo, hi), bias=bias, input_ranges=(ends[0], ends[1]))
    x = rng.integers(ends[0], ends[1] + 1, (50, terms))
    x[:10] = np.where(rng.random((10, terms)) < 0.5, ends[0], ends[1])
    for n in range(3):
        order = rng.permutation(terms)
        prefixes = bias[n] + np.cumsum((x * w[:, n])[:, order], axis=1)
        for method in METHODS:
            sums = bounds.of(method)
            assert sums.lo[n] <= min(bias[n], prefixes.min())
            assert sums.hi[n] >= max(bias[n], prefixes.max())


def test_groups_side_by_side():
    w = np.random.default_rng(5).integers(-8, 8, (20, 6))
    whole = ab.accumulator_bounds(w, "u8", w_range="s4")
    parts = [ab.accumulator_bounds(w[:, k : k + 2], "u8", w_range="s4") for k in (0, 2, 4)]
    joined = ab.AccumulatorBounds.concatenate(parts)
    assert joined.to_dict() == whole.to_dict()
    other = ab.accumulator_bounds(w[:5], "u8", w_range="s4")
    with pytest.raises(ValueError, match="same terms, got 20 and 5"):
        ab.AccumulatorBounds.concatenate([parts[0], other])
    with pytest.raises(ValueError, match="at least one"):
        ab.AccumulatorBounds.concatenate([])


def test_a_large_matrix_takes_well_under_a_second():
    w = np.random.default_rng(6).integers(-128, 128, (4096, 4096)).astype(np.int8)
    start = time.process_time()
    bounds = ab.accumulator_bounds(w, "u8")
    assert bounds.sign_split.widths.shape == (4096,)
    assert time.process_time() - start < 2  # a tenth of that on an idle machine
    n = 1234
    column = w[:, n].tolist()
    assert bounds.sign_split.hi[n] == 255 * sum(v for v in column if v > 0)


# Errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ab.signed_width(1, 0), ValueError, "lo must not be above hi, got 1 and 0"),
        (lambda: ab.signed_width(0.5, 1), TypeError, "lo must be an integer"),
        (lambda: ab.accumulator_bounds([[1.5]], "u8"), TypeError, "w must be an integer, got 1.5"),
        (lambda: ab.accumulator_bounds(np.ones((2, 2)), "u8"), TypeError, "got float64"),
        (lambda: ab.accumulator_bounds(np.ones((1, 1), bool), "u8"), TypeError, "got bool"),
        (lambda: ab.accumulator_bounds(np.ones((1, 1, 1), np.int8), "u8"), ValueError, "shape"),
        (lambda: ab.accumulator_bounds([[1]], "q8"), ValueError, "x_range must be a type"),
        (lambda: ab.accumulator_bounds([[1]], np.float32), TypeError, "x_range"),
        (lambda: ab.accumulator_bounds([[1]], (3, 2)), ValueError, "x_range must not be empty"),
        (
            lambda: ab.accumulator_bounds([[0], [9]], "u8", w_range="s4"),
            ValueError,
            r"w must be within w_range, -8 to 7, got 9 at \[1, 0\]",
        ),
        (lambda: ab.accumulator_bounds([[1]], "u8", bias=[1, 2]), ValueError, "bias must have"),
        (lambda: ab.accumulator_bounds([[1]], "u8", bias=[0.5]), TypeError, "bias must be"),
        (
            lambda: ab.accumulator_bounds([[1]], "u8", input_ranges=(0, [1, 2])),
            ValueError,
            r"input_ranges: highest must have shape \(1,\)",
        ),
        (lambda: ab.accumulator_bounds([[1]], "u8", input_ranges=3), TypeError, "a pair"),
        (
            lambda: ab.accumulator_bounds([[1], [2]], "u8", input_ranges=(0, [3, 300])),
            ValueError,
            "got 0 to 300 for input 1",
        ),
        (lambda: ab.accumulator_bounds([[1]], "u8").of("l2"), ValueError, "method must be one of"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
