"""Masked operands of `matmul` and `conv2d`: what is skipped changes no sum and raises no event."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab

LBA = ab.lba_accumulator(4, 3, 4, 6, 16)
DATAPATHS = {
    "lba": LBA,
    "one chain": ab.lba_accumulator(7, 4, 10, 12, 0),
    "nearest": ab.float_accumulator(ab.FloatFormat(exponent_bits=4, mantissa_bits=3)),
    "float32": ab.float_accumulator("binary32"),
    "exact": ab.exact_accumulator(),
    "int12 wrap": ab.integer_accumulator(12),
    "int12 saturate": ab.integer_accumulator(12, "saturate"),
    "int16 groups": ab.integer_accumulator(16, "saturate", group=4),
}
NOT_EVENTS = ("terms", "steps", "min_partial", "max_partial")
COUNTS = [f.name for f in dataclasses.fields(ab.Events) if f.name not in NOT_EVENTS]


def operands(datapath: ab.Datapath, rows: int = 6, terms: int = 64) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    if datapath.is_integer:
        return (
            rng.integers(-128, 128, (rows, terms), np.int8),
            rng.integers(-128, 128, (terms, 5), np.int8),
        )
    a = np.exp(2 * rng.standard_normal((rows, terms))) * rng.choice([-1, 1], (rows, terms))
    return a.astype(np.float32), rng.standard_normal((terms, 5)).astype(np.float32)


def masks(a: Any) -> Any:
    return ab.nm_mask(a, 2, 4)


@pytest.mark.parametrize("name", DATAPATHS)
def test_a_masked_operand_is_one_with_zeros(isa: str, name: str) -> None:
    datapath = DATAPATHS[name]
    a, b = operands(datapath)
    mask, columns = masks(a), masks(b.T).T
    expected = ab.matmul(np.where(mask, a, 0).astype(a.dtype), b, datapath)
    for threads in (1, 2, 7):
        result = ab.matmul(a, b, datapath, a_mask=mask, threads=threads)
        np.testing.assert_array_equal(result, expected)
    both = ab.matmul(a, b, datapath, a_mask=mask, b_mask=columns)
    zeros = np.where(columns, b, 0).astype(b.dtype)
    np.testing.assert_array_equal(both, ab.matmul(a, zeros, datapath, a_mask=mask))
    assert (both != expected).any()


@pytest.mark.parametrize("name", [n for n in DATAPATHS if n not in ("lba", "int16 groups")])
def test_a_skipped_term_raises_no_event(isa: str, name: str) -> None:
    # Without groups and chunks a sum does not know where its zeros were: the same sum over the kept
    # terms alone has the same events.
    datapath = DATAPATHS[name]
    a, b = operands(datapath)
    mask = masks(a)
    result, events = ab.matmul(a, b, datapath, a_mask=mask, events=True, per_output=True)
    for row in range(len(a)):
        kept = mask[row]
        dense, few = ab.matmul(
            a[row : row + 1, kept], b[kept], datapath, events=True, per_output=True
        )
        np.testing.assert_array_equal(result[row], dense[0])
        for count in COUNTS:
            whole = np.asarray(getattr(events, count))[row]
            alone = np.asarray(getattr(few, count))[0]
            np.testing.assert_array_equal(whole, alone, err_msg=count)
        # Where a zero is added, the sum itself is one more partial sum.
        low, high = np.asarray(events.min_partial)[row], np.asarray(events.max_partial)[row]
        assert (low <= np.asarray(few.min_partial)[0]).all()
        assert (high >= np.asarray(few.max_partial)[0]).all()
    assert np.asarray(events.terms).sum() == 64 * result.size  # dense indices count


@pytest.mark.parametrize("name", ["lba", "int16 groups"])
def test_dense_indices_count_for_chunks_and_groups(isa: str, name: str) -> None:
    datapath = DATAPATHS[name]
    a, b = operands(datapath, rows=1)
    kept = masks(a)[0]
    result = ab.matmul(a, b, datapath, a_mask=kept[None])
    compact = ab.matmul(a[:, kept], b[kept], datapath)
    assert (result != compact).any()


def test_only_skipped_terms_are_without_events(isa: str) -> None:
    # Where every sum is the largest number, each zero counts as an overflow, but for skipped ones.
    a, b = np.full((1, 8), 9, np.float32), np.full((8, 1), 9, np.float32)
    a[0, 5:7] = [0.0, -0.0]
    chain = ab.lba_accumulator(4, 3, 4, 6, 0)

    def overflows(mask: Any) -> Any:
        return ab.matmul(a, b, chain, a_mask=mask, events=True)[1].accumulator_overflow

    everything = np.ones(a.shape, np.bool_)
    count = ab.matmul(a, b, chain, events=True)[1].accumulator_overflow
    assert overflows(everything) == count
    assert overflows(a != 0) == count - 2
    last = np.arange(8) < 7
    assert overflows(last[None]) == count - 1


def test_a_start_value_out_of_range_is_an_overflow_though_all_is_skipped(isa: str) -> None:
    a, b = np.ones((2, 4), np.float32), np.ones((4, 3), np.float32)
    result, events = ab.matmul(
        a, b, ab.exact_accumulator("float16"), c=np.full((2, 3), 1e30, np.float32),
        a_mask=np.zeros(a.shape, np.bool_), events=True,
    )  # fmt: skip
    assert np.isinf(result).all()
    assert events.accumulator_overflow == events.overflowed_outputs == 6


def test_conv2d_takes_a_mask_of_its_weights(isa: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 8, 5, 5)).astype(np.float32)
    w = rng.standard_normal((3, 8, 3, 3)).astype(np.float32)
    mask = ab.nm_mask(w, 2, 4, axis=1)
    result, events = ab.conv2d(x, w, LBA, padding=1, w_mask=mask, events=True)
    zeros = np.where(mask, w, np.float32(0))
    expected, others = ab.conv2d(x, zeros, LBA, padding=1, events=True)
    np.testing.assert_array_equal(result, expected)
    assert events == others


def test_a_mask_broadcasts_and_hides_what_is_not_finite() -> None:
    a = np.float32([[[1, np.nan], [3, np.inf]], [[5, np.nan], [7, np.nan]]])
    b = np.float32([[1, 2], [3, 4]])
    result = ab.matmul(a, b, LBA, a_mask=np.array([True, False]))
    np.testing.assert_array_equal(result, ab.matmul(a[..., :1], b[:1], LBA))


def test_batches_and_vectors() -> None:
    a = np.float32([1, 2, 3, 2])
    mask = ab.nm_mask(a, 2, 4)
    wide = ab.lba_accumulator()
    assert ab.matmul(a, a, wide, a_mask=mask) == 13
    assert ab.matmul(a, a, wide, b_mask=~mask, a_mask=mask) == 0
    batch = np.stack([a, -a])[:, None]
    np.testing.assert_array_equal(ab.matmul(batch, a, wide, a_mask=mask), np.float32([[13], [-13]]))


def test_block_operands_take_masks() -> None:
    rng = np.random.default_rng(1)
    w = rng.standard_normal((4, 64)).astype(np.float32)
    blocks = ab.quantize_blocks(w, "mxfp4")
    mask = ab.nm_mask(w, 2, 4)
    x = rng.standard_normal((64, 3)).astype(np.float32)
    dense = np.where(mask, blocks.dequantize(), np.float32(0))
    np.testing.assert_array_equal(ab.matmul(blocks, x, LBA, a_mask=mask), ab.matmul(dense, x, LBA))


def test_errors() -> None:
    a, b = operands(LBA)
    with pytest.raises(TypeError, match="a_mask must have dtype bool, got int64"):
        ab.matmul(a, b, LBA, a_mask=np.ones(a.shape, np.int64))
    with pytest.raises(ValueError, match=r"b_mask must have a shape that broadcasts .*\(64, 5\)"):
        ab.matmul(a, b, LBA, b_mask=np.ones((3, 3), np.bool_))
    b[3, 2] = np.inf
    with pytest.raises(ValueError, match=r"b must be finite beside a masked operand.*\[3, 2\]"):
        ab.matmul(a, b, DATAPATHS["float32"], a_mask=masks(a))
    x = np.full((1, 4, 3, 3), np.nan, np.float32)
    with pytest.raises(ValueError, match="x must be finite beside a masked operand"):
        ab.conv2d(x, np.ones((1, 4, 1, 1), np.float32), LBA, w_mask=np.ones(1, np.bool_))
