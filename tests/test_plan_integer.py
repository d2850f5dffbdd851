"""Every fast path of integer products against the general engine, and the choice between them."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import _core
from test_plan import run, same_bits

PATHS = ("dot8", "dot16", "integer16", "integer")
DTYPES = (np.int8, np.uint8, np.int16, np.uint16, ml_dtypes.int4, ml_dtypes.uint4)
SHAPES = ((9, 70, 35), (1, 33, 40), (20, 21, 1), (17, 16, 130), (3, 5, 3))  # M, K, N
CASES = 60


def matrix(rng, dtype, shape, kind, terms_axis):
    """Return operands whose sums are arbitrary, as large as can be, or swing from end to end."""
    info = ml_dtypes.iinfo(dtype)
    low, high = int(info.min), int(info.max)
    if kind == "random":
        values = rng.integers(low, high + 1, shape)
    elif kind == "lowest":
        values = np.full(shape, low)
    elif kind == "highest":
        values = np.full(shape, high)
    elif kind == "small":
        values = rng.integers(max(low, -3), min(high, 3) + 1, shape)
    else:  # runs of one sign, then of the other
        runs = np.arange(shape[terms_axis]) // 7 % 2 == 0
        runs = runs[:, None] if terms_axis == 0 else runs[None, :]
        values = np.where(runs, low, high) * np.ones(shape, np.int64)
    return values.astype(np.int16 if high < 1 << 15 else np.uint16).astype(dtype)


def layout(rng, x):
    """Return the same matrix, its rows or columns side by side in memory, or neither."""
    choice = rng.integers(3)
    if choice == 0:
        return x
    if choice == 1:
        return np.asfortranarray(x)
    spaced = np.zeros((2 * x.shape[0], 3 * x.shape[1]), x.dtype)
    spaced[::2, ::3] = x
    return spaced[::2, ::3]


def check(a, b, datapath, c, threads=1):
    """Compare every path that is possible with the general engine; return their names."""
    expected = run(a, b, datapath, "lanes", c)
    taken = set()
    for path in PATHS:
        try:
            result = run(a, b, datapath, path, c, threads)
        except ValueError as why:
            if "is not possible" not in str(why):
                raise
            continue
        taken.add(path)
        assert same_bits(result, expected), (path, a.dtype, b.dtype, datapath)
    return taken


@pytest.mark.parametrize("bits", [2, 3, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32])
@pytest.mark.parametrize("overflow", ["wrap", "saturate", "saturate_symmetric"])
def test_every_integer_path_equals_the_general_engine(isa, bits, overflow):
    rng = np.random.default_rng([bits, len(overflow)])
    groups = [1, 1, 1, 2, 3, 4, 5, 8, 150]
    kinds = ["random", "random", "lowest", "highest", "small", "swing"]
    taken = set()
    for i in range(CASES):
        m, k, n = SHAPES[i % len(SHAPES)]
        first, second = rng.integers(0, len(DTYPES), 2) if i % 2 else (0, i // 2 % 2)
        kind = kinds[rng.integers(len(kinds))]
        a = layout(rng, matrix(rng, DTYPES[first], (m, k), kind, 1))
        b = layout(rng, matrix(rng, DTYPES[second], (k, n), kind, 0))
        datapath = ab.integer_accumulator(
            bits,
            overflow,
            signed=overflow == "saturate_symmetric" or bool(rng.integers(3)),
            group=int(rng.choice(groups)),
            chunk=int(rng.choice([0, 0, 3, 16, 67])),
        )
        if rng.integers(4) == 0:
            datapath = datapath.replace(order=tuple(rng.permutation(k).tolist()))
        c = (None, np.arange(n) - 17, np.full(n, -(1 << 40)))[rng.integers(3)]
        taken |= check(a, b, datapath, c, threads=1 + 2 * int(rng.integers(2)))
    expected = {"dot16", "integer"}
    if _core.has_byte_dot_products():
        expected.add("dot8")
    if bits <= 16 and overflow != "wrap":
        expected.add("integer16")
    assert taken == expected


@pytest.mark.parametrize("dtypes", [*itertools.product((np.int8, np.uint8), repeat=2)])
def test_long_integer_sums_are_cut_into_blocks(isa, dtypes):
    rng = np.random.default_rng(1)
    a = matrix(rng, dtypes[0], (5, 5003), "random", 1)
    b = matrix(rng, dtypes[1], (5003, 37), "random", 0)
    for options in (
        {"group": 1},
        {"group": 4},
        {"group": 6},
        {"group": 100},
        {"group": 5003},
        {"group": 4, "chunk": 16},
        {"group": 1, "chunk": 3000},
        {"group": 2000, "chunk": 2000},
    ):
        for bits, overflow in ((16, "wrap"), (16, "saturate"), (20, "saturate"), (32, "saturate")):
            assert check(a, b, ab.integer_accumulator(bits, overflow, **options), None)


def test_batches_start_where_their_dtype_says(isa):
    rng = np.random.default_rng(2)
    a = rng.integers(-(1 << 15), 1 << 15, (3, 1, 4, 10), np.int16)
    b = rng.integers(0, 256, (2, 10, 6), np.uint8)
    for datapath in (ab.integer_accumulator(24), ab.integer_accumulator(24, "saturate")):
        assert check(a, b, datapath, None)


def test_every_32_bit_overflow_is_seen(isa):
    high = np.full((1, 8), 32767, np.int16)
    low = np.full((8, 1), -32768, np.int16)
    both = np.where(np.arange(8)[:, None] < 4, low, 32767).astype(np.int16)
    datapath = ab.integer_accumulator(32, "saturate")
    for right in (low, both):
        assert "dot16" in check(high, right, datapath, None)
    assert int(run(high, low, datapath)[0, 0]) == -(1 << 31)
    mixed = ab.integer_accumulator(32, "saturate", chunk=3)
    assert "dot16" in check(high, low, mixed, np.array([(1 << 31) - 1]))


def test_the_plan_takes_the_narrowest_elements(monkeypatch):
    ones = np.ones((4, 64), np.int8)

    def path(datapath, dtype=np.int8):
        return datapath.plan(ones.astype(dtype), ones.T.astype(dtype)).path

    bytes_path = "dot8" if _core.has_byte_dot_products() else "dot16"
    assert path(ab.integer_accumulator(16)) == bytes_path
    assert path(ab.integer_accumulator(16, "saturate", group=4)) == bytes_path
    assert path(ab.integer_accumulator(16, "saturate")) == "integer16"
    assert path(ab.integer_accumulator(17, "saturate")) == "dot16"
    assert path(ab.integer_accumulator(32), np.int16) == "dot16"
    assert path(ab.integer_accumulator(32), np.uint16) == "integer"
    assert path(ab.integer_accumulator(33), np.uint16) == "lanes"
    monkeypatch.setattr(_core, "has_byte_dot_products", lambda: False)
    assert path(ab.integer_accumulator(16)) == "dot16"


def test_a_sum_that_cannot_leave_the_range_is_not_limited():
    large, small = np.full((8, 1024), 100, np.int8), np.ones((1024, 128), np.int8)
    enough = ab.integer_accumulator(18, "saturate").plan(large, small)
    assert "no sum can leave the range" in enough.reason
    assert ab.integer_accumulator(17, "saturate").plan(large, small).path == "dot16"
    wide = ab.integer_accumulator(32, "saturate")
    assert "no sum can leave the range" in wide.plan(large[:1, :8], small[:8, :1]).reason


def test_a_group_that_is_too_long_is_left_to_the_general_engine():
    x = np.ones((2, 3000), np.int16)
    plan = ab.integer_accumulator(16, "saturate", group=2000).plan(x, x.T)
    assert plan.path == "lanes"
    assert "too long" in plan.reason
