"""Events: what each one counts, their levels, and how they add up."""

from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import pytest

import abcdeep_core as ab
from datapath_cases import OVERFLOW_GROUP, check

COUNTS = [field.name for field in dataclasses.fields(ab.Events)]
M7E4 = ab.lba_accumulator()
R_OF, R_UF, PRODUCT_OF = 63.75, 2.0**-10, 15.9375


def events_of(a, b, datapath, **options):
    row, column = np.float32([a]), np.float32([b]).T
    result, seen = ab.matmul(row, column, datapath, events=True, **options)
    plain = {k: v for k, v in seen.to_dict().items() if v and k not in ("terms", "outputs")}
    return float(result[0, 0]), plain


# a, b -> result and what happened, in M7E4 with biases 10 and 12
LBA = [
    ([1, 1], [1, 1], 2, {"steps": 2, "min_partial": 1.0, "max_partial": 2.0}),
    # a product of at least R_OF overflows, also one that is R_OF
    ([4], [4], PRODUCT_OF,
     {"steps": 1, "product_overflow": 1, "overflowed_outputs": 1,
      "min_partial": PRODUCT_OF, "max_partial": PRODUCT_OF}),
    ([PRODUCT_OF], [1], PRODUCT_OF,
     {"steps": 1, "product_overflow": 1, "overflowed_outputs": 1,
      "min_partial": PRODUCT_OF, "max_partial": PRODUCT_OF}),
    # a product below 2^-12 underflows; the sum is then zero, with no addend to be swamped
    ([2**-7], [2**-6], 0, {"steps": 1, "product_underflow": 1}),
    # one above it that the accumulator flushes: nothing changed, and nothing was lost to a sum
    ([2**-6], [2**-5], 0,
     {"steps": 1, "accumulator_underflow": 1, "swamped": 1, "rounded": 1,
      "min_partial": 2.0**-11, "max_partial": 2.0**-11}),
    # full swamping: 8 + 2^-6 is truncated back to 8; partial: 8.0625 + 2^-6 cannot be half kept
    ([2, 2**-3], [4, 2**-3], 8,
     {"steps": 2, "swamped": 1, "rounded": 1, "min_partial": 8.0, "max_partial": 8.015625}),
    ([2, 0.28125], [4, 0.28125], 8.0625,
     {"steps": 2, "rounded": 1, "min_partial": 8.0, "max_partial": 8.0791015625}),
    # the running sum vanishes beside the addend
    ([2**-5, 2], [2**-5, 4], 8,
     {"steps": 2, "absorbed": 1, "rounded": 1, "min_partial": 2.0**-10,
      "max_partial": 8 + 2.0**-10}),
    # 15 five times: 75 overflows and saturates
    ([3.75] * 5, [4] * 5, R_OF,
     {"steps": 5, "accumulator_overflow": 1, "overflowed_outputs": 1, "rounded": 1,
      "min_partial": 15.0, "max_partial": 75.0}),
    # a sum that is exactly R_OF counts too
    ([3.75] * 5, [4, 4, 4, 4, 1], R_OF,
     {"steps": 5, "accumulator_overflow": 1, "overflowed_outputs": 1,
      "min_partial": 15.0, "max_partial": R_OF}),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(LBA)))
def test_each_event_of_a_chain(isa, case):
    a, b, result, wanted = LBA[case]
    assert events_of(a, b, M7E4) == (result, wanted)
    assert check(np.float32([a]), np.float32([b]).T, M7E4) == 1


def test_without_underflow_nothing_is_flushed(isa):
    off = ab.lba_accumulator(underflow=False)
    result, seen = events_of([2**-7, 2**-20], [2**-6, 2**-20], off)
    assert result == 2.0**-13
    assert seen == {"steps": 2, "swamped": 1, "rounded": 1, "min_partial": 2.0**-13,
                    "max_partial": 2.0**-13 + 2.0**-40}  # fmt: skip


def test_merges_are_steps(isa):
    # chunks of 2: sums 8 and 2^-6; the second is swamped where they merge
    datapath = ab.lba_accumulator(chunk=2)
    a, b = [2, 0, 2**-3, 0], [4, 0, 2**-3, 0]
    seen = {"steps": 6, "swamped": 1, "rounded": 1, "min_partial": 2**-6, "max_partial": 8 + 2**-6}
    assert events_of(a, b, datapath) == (8, seen)
    # by halves there is one addition, and none with zero before it
    pairwise = datapath.replace(merge_order="pairwise")
    assert events_of(a, b, pairwise) == (8, {**seen, "steps": 5})
    # an exact merge is no step
    result, seen = events_of(a, b, datapath.replace(merge="exact"))
    assert (result, seen["steps"]) == (8.015625, 4)
    # one chunk does not merge
    assert events_of(a[:2], b[:2], datapath)[1]["steps"] == 2


def test_a_group_is_one_step(isa):
    fp16 = ab.float_accumulator("fp16", group=4)
    assert events_of([60000, 60000, -60000, -60000], [1] * 4, fp16) == (0, {"steps": 1})
    # the exact sum of the group meets the running sum: 2048 + (1 + 1) is not 2048 + 1 + 1
    a = [2048, 0, 0, 0, 1, 1]
    assert events_of(a, [1] * 6, fp16) == (
        2050, {"steps": 2, "min_partial": 2048.0, "max_partial": 2050.0}
    )  # fmt: skip
    result, seen = events_of(a, [1] * 6, ab.float_accumulator("fp16"))
    assert (result, seen["swamped"], seen["rounded"]) == (2048, 2, 2)


def test_infinity_and_nan_are_made_once(isa):
    fp16 = ab.float_accumulator("fp16")
    result, seen = events_of([60000, 60000, -1], [1, 1, 1], fp16)
    assert result == np.inf
    assert seen == {"steps": 3, "accumulator_overflow": 1, "overflowed_outputs": 1, "rounded": 1,
                    "nonfinite": 1, "min_partial": 60000.0, "max_partial": 120000.0}  # fmt: skip
    # Inf among the operands makes no event, and its steps have no partial sum
    result, seen = events_of([np.inf, 1], [1, 1], fp16)
    assert (result, seen) == (np.inf, {"steps": 2})
    # products that become NaN
    e4m3 = ab.float_accumulator("binary32", product="e4m3fn")
    result, seen = events_of([100, 1], [100, 1], e4m3)
    assert np.isnan(result)
    assert seen == {"steps": 2, "product_overflow": 1, "overflowed_outputs": 1, "nonfinite": 1}


@pytest.mark.parametrize("arithmetic", ["exact", "fp32_mask"])
def test_binary32_overflow_is_an_overflow(isa, arithmetic):
    # R_OF close to the largest float32: the sum in binary32 is Inf before it saturates
    datapath = ab.lba_accumulator(7, 7, bias=0, product_bias=0, arithmetic=arithmetic)
    huge = np.float32(2.0**127)
    result, seen = events_of([huge, huge], [1, 1], datapath)
    assert result == datapath.accumulator.format.max
    assert seen["accumulator_overflow"] == 1
    assert seen["max_partial"] == 2.0**128
    result, seen = events_of([huge], [2], datapath)
    assert seen["product_overflow"] == 1


def test_extremes_are_rounded_to_nearest(isa):
    # a group whose exact sum needs more than 53 bits
    fp16 = ab.float_accumulator("fp16", group=3, overflow="sat_finite")
    ulp = 2.0**-69
    for half, wanted in ((0.375 * ulp, 2.0**-17 + ulp), (0.125 * ulp, 2.0**-17)):
        a = np.float32([[2.0**-17, half, half]])
        _, seen = ab.matmul(a, np.ones((3, 1), np.float32), fp16, events=True)
        assert seen.max_partial == wanted
        assert seen.rounded == 1
        check(a, np.ones((3, 1), np.float32), fp16)


def test_integer_events(isa):
    a = np.array([[100, 100, -100, 100], [100, 100, 100, 0], [1, 1, 1, 1]], np.int8)
    b = np.full((4, 1), 2, np.int8)
    datapath = ab.integer_accumulator(9)  # -256..255
    _, seen = ab.matmul(a, b, datapath, events=True, per_output=True)
    assert seen.transient[:, 0].tolist() == [0, 0, 0]
    assert seen.persistent[:, 0].tolist() == [1, 1, 0]
    assert seen.accumulator_overflow[:, 0].tolist() == [3, 1, 0]
    assert seen.max_partial[:, 0].tolist() == [400, 400, 8]
    _, seen = ab.matmul(a[:1, :3], b[:3], datapath, events=True)
    assert (seen.transient, seen.persistent, seen.overflowed_outputs) == (1, 0, 1)
    # in a group of three only the end of the group is a prefix
    grouped = ab.integer_accumulator(9, "saturate", group=3)
    result, seen = ab.matmul(a[:1, :3], b[:3], grouped, events=True)
    assert (int(result[0, 0]), seen.transient, seen.accumulator_overflow) == (200, 0, 0)
    # chunks: prefixes of the whole sum, and merges are steps
    chunked = ab.integer_accumulator(9, "saturate", chunk=2)
    result, seen = ab.matmul(a[:1], b, chunked, events=True)
    assert (int(result[0, 0]), seen.steps, seen.persistent) == (255, 6, 1)
    for d in (datapath, grouped, chunked):
        check(a, b, d)


def test_levels(isa):
    a, b = np.float32([[4, 2**-7, 8, 2**-3]]), np.float32([[4, 2**-6, 8, 2**-3]]).T
    plain = ab.matmul(a, b, M7E4)
    _, everything = ab.matmul(a, b, M7E4, events=True)
    _, overflow = ab.matmul(a, b, M7E4, events="overflow")
    assert np.array_equal(ab.matmul(a, b, M7E4, events=False), plain)
    for name in COUNTS:
        kept = name in OVERFLOW_GROUP or name in ("terms", "steps", "outputs")
        assert getattr(overflow, name) == (getattr(everything, name) if kept else 0)
    assert everything.rounded
    for value in ("all", 1, None, "Overflow", np.True_):
        with pytest.raises(ValueError, match="events must be False, True or 'overflow'"):
            ab.matmul(a, b, M7E4, events=value)


@pytest.mark.parametrize("events", [True, "overflow"])
def test_per_output_has_the_shape_of_the_result(isa, events):
    rng = np.random.default_rng(1)
    for shape_a, shape_b in (
        ((3, 5), (5, 7)), ((2, 1, 3, 5), (4, 5, 7)), ((5,), (5, 7)), ((2, 3, 5), (5,)),
        ((5,), (5,)), ((0, 5), (5, 3)), ((2, 0), (0, 3)),
    ):  # fmt: skip
        a = (8 * rng.standard_normal(shape_a)).astype(np.float32)
        b = rng.standard_normal(shape_b).astype(np.float32)
        result, table = ab.matmul(a, b, M7E4, events=events, per_output=True)
        _, total = ab.matmul(a, b, M7E4, events=events)
        for name in COUNTS:
            assert np.shape(getattr(table, name)) == np.shape(result)
            if not name.endswith("_partial"):
                assert np.sum(getattr(table, name)) == getattr(total, name)
        if np.size(result) and a.shape[-1]:
            assert np.min(table.min_partial) == total.min_partial
            assert np.max(table.max_partial) == total.max_partial
        else:
            assert total.min_partial == total.max_partial == 0.0


def test_events_do_not_depend_on_threads(isa):
    rng = np.random.default_rng(2)
    a = rng.standard_normal((150, 40)).astype(np.float32)
    b = rng.standard_normal((40, 170)).astype(np.float32)
    results = [ab.matmul(a, b, M7E4, events=True, threads=n)[1] for n in (1, 2, 5)]
    assert results[0] == results[1] == results[2]
    assert results[0].rounded > 1000
    parts = [ab.matmul(a, part, M7E4, events=True)[1] for part in np.split(b, [9, 100], axis=1)]
    assert parts[0] + parts[1] + parts[2] == results[0]


def test_addition_ignores_the_extremes_of_a_side_without_steps():
    seen = ab.Events(terms=3, steps=3, outputs=1, rounded=2, min_partial=1.5, max_partial=4.0)
    nothing = ab.Events()
    assert nothing + seen == seen + nothing == seen
    other = ab.Events(terms=1, steps=1, outputs=1, min_partial=-2.0, max_partial=2.0)
    both = seen + other
    assert both == ab.Events(
        terms=4, steps=4, outputs=2, rounded=2, min_partial=-2.0, max_partial=4.0
    )
    assert sum([seen, other], nothing) == both
    with pytest.raises(TypeError):
        seen + 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.terms = 5


def test_addition_of_tables():
    a, b = np.float32([[1, 2], [30, 40]]), np.float32([[1, 2], [3, 4]])
    _, table = ab.matmul(a, b, M7E4, events=True, per_output=True)
    _, empty = ab.matmul(a[:, :0], b[:0], M7E4, events=True, per_output=True)
    twice, same = table + table, table + empty
    for name in COUNTS:
        factor = 1 if name.endswith("_partial") else 2
        assert np.array_equal(getattr(twice, name), factor * getattr(table, name))
        if name != "outputs":
            assert np.array_equal(getattr(same, name), getattr(table, name))


def test_to_dict_is_plain_data():
    a, b = np.float32([[1, 2], [30, 40]]), np.float32([[1, 2], [3, 4]])
    for per_output in (False, True):
        _, seen = ab.matmul(a, b, M7E4, events=True, per_output=per_output)
        data = seen.to_dict()
        assert list(data) == COUNTS
        assert json.loads(json.dumps(data)) == data
        restored = pickle.loads(pickle.dumps(seen))
        assert restored.to_dict() == data


def test_an_exact_accumulator_has_one_step_a_sum(isa):
    # nothing is rounded on the way; the one rounding of a sum, or of each merge, counts as a step
    a, b = np.float32([[1e4, 1e4, 1e4, 1]]), np.float32([[1, 1, 3, 1]]).T
    datapath = ab.exact_accumulator("fp16")
    result, seen = ab.matmul(a, b, datapath, events=True)
    assert (result, seen.terms, seen.steps) == (50016, 4, 1)
    assert (seen.rounded, seen.max_partial) == (1, 50001.0)
    merged = datapath.replace(chunk=2, merge=ab.Quantizer(format="fp16"))
    assert ab.matmul(a, b, merged, events=True)[1].steps == 2
