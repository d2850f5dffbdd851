"""matmul on Inf, NaN and wrong arguments."""

from __future__ import annotations

import numpy as np
import pytest

import abcdeep_core as ab
from datapath_cases import assert_bits, check

M7E4 = ab.lba_accumulator()
FP16 = ab.float_accumulator("fp16")
INT16 = ab.integer_accumulator(16, "saturate")
STOCHASTIC = ab.lba_accumulator(rounding="stochastic")


def normal(seed, shape, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def test_infinity_and_nan_propagate(isa):
    inf, nan = np.float32(np.inf), np.float32(np.nan)
    payload = np.array([0xFFC12345], np.uint32).view(np.float32)[0]
    cases = [
        ([inf, 1], [1, 1], np.inf, np.nan), ([inf, 1], [-1, 1], -np.inf, np.nan),
        ([inf, 1], [0, 1], np.nan, np.nan), ([inf, -inf], [1, 1], np.nan, np.nan),
        ([nan, 1], [1, 1], np.nan, np.nan), ([payload, 1], [0, 1], np.nan, np.nan),
        ([60000, 60000], [1, 1], np.inf, np.nan), ([-60000, -60000], [1, 1], -np.inf, np.nan),
    ]  # fmt: skip
    for a, b, half, e4m3 in cases:
        row, column = np.float32([a]), np.float32([b]).T
        for group in (1, 2):
            got = ab.matmul(row, column, ab.float_accumulator("fp16", group=group))
            assert_bits(got, np.float32([[half]]), a, b, group)
            # e4m3fn has no Inf: beyond its range, and for Inf itself, it gives NaN
            got = ab.matmul(row, column, ab.float_accumulator("e4m3fn", group=group))
            assert_bits(got, np.float32([[e4m3]]), a, b, group)
        for c in (np.inf, -np.inf, -np.nan, 1e30, -1e30):
            start = np.full((1, 1), c)
            check(row, column, ab.float_accumulator("fp16", product="bf16"), start)
        check(row, column, ab.float_accumulator("bf16"))
        check(row, column, ab.float_accumulator("fp16", chunk=1, merge="exact"))
    # to nearest and away from zero to Inf, toward zero to the largest value
    huge, one = np.float32([[60000, 60000]]), np.ones((2, 1), np.float32)
    for rounding, value in (("toward_zero", 65504), ("toward_positive", np.inf),
                            ("toward_negative", 65504), ("away_from_zero", np.inf)):  # fmt: skip
        datapath = ab.float_accumulator("fp16", rounding=rounding)
        assert ab.matmul(huge, one, datapath)[0, 0] == value
    saturated = ab.float_accumulator("fp16", overflow="sat_finite")
    assert ab.matmul(huge, one, saturated)[0, 0] == 65504


def test_formats_without_nan_refuse_infinity_and_nan():
    good = normal(17, (2, 3, 4))
    for value in (np.inf, -np.inf, np.nan):
        bad = good.copy()
        bad[1, 2, 3] = bad[1, 2, 1] = value
        column = np.ones((4, 2), np.float32)
        with pytest.raises(ValueError, match=rf"a must be finite: .* got -?{value} at \[1, 2, 1\]"):
            ab.matmul(bad, column, M7E4)
        with pytest.raises(ValueError, match=r"b must be finite: .* at \[1\]"):
            ab.matmul(good, bad[1, 2], M7E4)
        with pytest.raises(ValueError, match=r"c must be finite: .* at \[1, 0\]"):
            ab.matmul(good[0, :2], column, M7E4, c=np.float32([[1, 2], [value, 1]]))
    # also where only the products, the merges or the result have no NaN
    q = ab.Quantizer(format=ab.lba_format(7, 4, 10))
    for datapath in (
        ab.float_accumulator("fp16", product="e2m1"), FP16.replace(chunk=2, merge=q),
        FP16.replace(output=q), ab.exact_accumulator("e2m1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="a must be finite"):
            ab.matmul(bad, column, datapath)
    with pytest.raises(ValueError, match="accumulator 'e2m3' has no NaN"):
        ab.matmul(good, column, ab.float_accumulator("e2m3", product="e4m3fn"))


GOOD = np.ones((2, 2), np.float32)
E8 = ab.FloatFormat(exponent_bits=11, mantissa_bits=51, code0="ordinary", bias=1000)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((GOOD.astype(np.float64), GOOD, M7E4), {}, TypeError,
         "a must hold float32 or narrower .* got float64; convert it explicitly"),
        (([[1.0]], GOOD, M7E4), {}, TypeError, "a must hold float32 .* got float64"),
        ((GOOD, GOOD.astype(np.int8), M7E4), {}, TypeError, "b must hold float32 .* got int8"),
        ((GOOD.astype(bool), GOOD, M7E4), {}, TypeError, "got bool"),
        ((GOOD.astype(complex), GOOD, M7E4), {}, TypeError, "got complex128"),
        ((GOOD.astype(object), GOOD, M7E4), {}, TypeError, "got object"),
        ((GOOD, GOOD, INT16), {}, TypeError, "a must hold integers .* got float32"),
        ((GOOD, GOOD, "m7e4"), {}, TypeError, "datapath must be a Datapath, got str"),
        ((GOOD, GOOD, FP16.accumulator), {}, TypeError, "datapath must be .* got Quantizer"),
        ((GOOD, np.ones((3, 2), np.float32), M7E4), {}, ValueError,
         r"last dimension of a .*, got \(2, 2\) and \(3, 2\)"),
        ((GOOD, np.float32(1), M7E4), {}, ValueError, "at least one dimension, got 2 and 0"),
        ((np.ones((2, 2, 2), np.float32), np.ones((3, 2, 2), np.float32), M7E4), {}, ValueError,
         r"batch dimensions must broadcast, got \(2, 2, 2\) and \(3, 2, 2\)"),
        ((GOOD, GOOD, M7E4), {"c": np.ones((2, 2), np.int32)}, TypeError, "c must hold floats"),
        ((GOOD, GOOD, M7E4), {"c": "x"}, TypeError, "c must hold floats"),
        ((GOOD, GOOD, M7E4), {"c": np.ones((3, 2))}, ValueError, "c must broadcast"),
        ((GOOD, GOOD, M7E4), {"out": [0]}, TypeError, "out must be a NumPy array of float32"),
        ((GOOD, GOOD, M7E4), {"out": np.zeros((2, 2))}, TypeError,
         "out must have dtype float32, got float64"),
        ((GOOD, GOOD, M7E4), {"out": np.zeros(4, np.float32)}, ValueError,
         r"out must have shape \(2, 2\), got \(4,\)"),
        ((GOOD, GOOD, M7E4), {"out": np.broadcast_to(GOOD[0], (2, 2))}, ValueError,
         "out must be writeable"),
        ((GOOD, GOOD, M7E4), {"threads": 0}, ValueError, "threads: expected 1 to 1024"),
        ((GOOD, GOOD, M7E4), {"threads": 2.0}, TypeError, "threads: expected an integer"),
        ((GOOD, GOOD, M7E4), {"seed": -1}, ValueError, "seed: expected"),
        ((GOOD, GOOD, M7E4), {"seed": 1.5}, TypeError, "seed: expected an integer"),
        ((GOOD, GOOD, M7E4), {"stream": 2**32}, ValueError, "stream: expected"),
        ((GOOD, GOOD, M7E4), {"call": 2**32}, ValueError, "call: expected"),
        ((GOOD, GOOD, STOCHASTIC), {"seed": 1, "call": 2**31}, ValueError,
         r"call must be below 2\*\*32 // 3"),
        ((GOOD, GOOD, M7E4.replace(order=(1, 0, 2))), {}, ValueError,
         "order has 3 places, the sums have 2 terms"),
        ((GOOD, GOOD, ab.float_accumulator(E8)), {}, ValueError,
         "mantissa_bits must be at most 50"),
        ((GOOD, GOOD, ab.float_accumulator("binary64")), {}, ValueError, "mantissa_bits"),
        ((GOOD, GOOD, ab.float_accumulator(ab.lba_format(7, 11, 1020))), {}, ValueError, "float64"),
        ((GOOD, GOOD, ab.float_accumulator(ab.FloatFormat(exponent_bits=11, mantissa_bits=9))),
         {}, ValueError, "every value must be a normal float64 number"),
        ((GOOD, GOOD, ab.float_accumulator("binary32", rounding="stochastic")), {"seed": 1},
         ValueError, "bits must be at most 28 for stochastic sums of 23 mantissa bits, got 32"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(arguments, options, error, message):
    with pytest.raises(error, match=message):
        ab.matmul(*arguments, **options)
