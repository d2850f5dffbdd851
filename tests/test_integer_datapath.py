"""What an engineer sets of an integer datapath: shifts, places of limits, trees, further limits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import abcdeep_core as ab
from datapath_cases import check
from datapath_random import INTEGERS, pick, random_integer_options, random_integers
from oracle_fixed import integer_range, wrap_integer

OVERFLOWS = ("wrap", "saturate", "saturate_zero", "saturate_symmetric", "wrap_sign_magnitude")
BYTE = ab.FixedFormat(bits=8, fraction_bits=0)
PLACES = ("product", "step", "group", "tile", "end")


def divide(v, shift, mode):
    """Return v / 2^shift as an integer, as an ap_fixed quantisation mode says, from floor alone."""
    unit = 1 << shift
    low, rest = v // unit, v % unit
    up = {
        "TRN": False,
        "TRN_ZERO": v < 0 and rest > 0,
        "RND": 2 * rest >= unit,
        "RND_MIN_INF": 2 * rest > unit,
        "RND_ZERO": 2 * rest > unit or (2 * rest == unit and v < 0),
        "RND_INF": 2 * rest > unit or (2 * rest == unit and v > 0),
        "RND_CONV": 2 * rest > unit or (2 * rest == unit and low % 2 == 1),
    }
    return low + bool(shift and up[mode])


MODES = ("RND", "RND_ZERO", "RND_MIN_INF", "RND_INF", "RND_CONV", "TRN", "TRN_ZERO")


def limit(v, bits, overflow, shift=0, mode="TRN", signed=True, wrap_bits=0):
    z = divide(v, shift, mode)
    return wrap_integer(z, bits, signed, overflow, wrap_bits) << shift


def operands(seed, k=24, rows=5, columns=3, reach=128):
    rng = np.random.default_rng(seed)
    a = rng.integers(-reach, reach, (rows, k)).astype(np.int8)
    return a, rng.integers(-reach, reach, (k, columns)).astype(np.int8)


def by_hand(a, b, start, step, product=lambda v: v, group=1):
    """Return the product matrix with s = step(s + sum of `group` limited products)."""
    result = np.zeros((a.shape[0], b.shape[1]), np.int64)
    for i, j in np.ndindex(*result.shape):
        products = [product(int(x) * int(y)) for x, y in zip(a[i], b[:, j], strict=True)]
        s = start
        for first in range(0, len(products), group):
            s = step(s + sum(products[first : first + group]))
        result[i, j] = s
    return result


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_a_shift_before_the_overflow_rule(isa, mode, overflow):
    for seed, (bits, shift, group) in enumerate(itertools.product((6, 10), (0, 1, 4, 7), (1, 4))):
        a, b = operands(seed)
        datapath = ab.integer_accumulator(bits, overflow, shift=shift, rounding=mode, group=group)
        got, seen = ab.matmul(a, b, datapath, events=True)
        overflowed = 0

        def step(v, form=(bits, shift)):
            nonlocal overflowed
            low, high = integer_range(form[0], True, overflow)
            overflowed += not low <= divide(v, form[1], mode) <= high
            return limit(v, form[0], overflow, form[1], mode)

        assert np.array_equal(got, by_hand(a, b, 0, step, group=group))
        assert got.dtype == np.int32
        assert seen.accumulator_overflow == overflowed
        assert seen.rounded == 0


def test_ties_of_every_mode(isa):
    # one product in an empty register that drops two bits: value / 4
    x = np.arange(-10, 11).astype(np.int8)[:, None]
    expected = {
        "RND": [-2, -2, -2, -2, -1, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3],
        "RND_ZERO": [-2, -2, -2, -2, -1, -1, -1, -1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2],
        "RND_MIN_INF": [-3, -2, -2, -2, -2, -1, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2],
        "RND_INF": [-3, -2, -2, -2, -2, -1, -1, -1, -1, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3],
        "RND_CONV": [-2, -2, -2, -2, -2, -1, -1, -1, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2],
        "TRN": [-3, -3, -2, -2, -2, -2, -1, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2],
        "TRN_ZERO": [-2, -2, -2, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2],
    }
    assert set(expected) == set(MODES)
    for mode, quotients in expected.items():
        datapath = ab.integer_accumulator(8, shift=2, rounding=mode)
        got = ab.matmul(x, np.ones((1, 1), np.int8), datapath)
        assert (got[:, 0] // 4).tolist() == quotients, mode
        assert not (got % 4).any()
        assert [divide(v, 2, mode) for v in range(-10, 11)] == quotients
    long_names = ab.integer_accumulator(8, shift=2, rounding="nearest_even")
    assert long_names == ab.integer_accumulator(8, shift=2, rounding="RND_CONV")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_the_limit_stands_where_it_is_asked_for(isa, place, overflow):
    a, b = operands(3)
    bits, shift, mode = 9, 2, "RND_CONV"
    group, chunk = (4 if place == "group" else 1), (8 if place == "tile" else 0)
    datapath = ab.integer_accumulator(
        bits, overflow, shift=shift, rounding=mode, at=place, group=group, chunk=chunk
    )
    assert datapath.saturates_at == place
    assert datapath.is_integer

    def q(v):
        return limit(v, bits, overflow, shift, mode)

    def exact(v):
        return v

    if place == "product":
        expected = by_hand(a, b, 0, exact, product=q)
    elif place in ("step", "group"):
        expected = by_hand(a, b, 0, q, group=group)
    elif place == "tile":
        expected = by_hand(a, b, 0, q, group=chunk)
    else:
        expected = by_hand(a, b, 0, exact)
        expected = np.vectorize(q)(expected)
    got = ab.matmul(a, b, datapath)
    assert np.array_equal(got, expected)
    assert got.dtype == (np.int64 if place == "product" else np.int32)
    check(a, b, datapath)
    check(a, b, datapath, np.full((5, 3), -77))


def test_a_single_tile_is_limited_too(isa):
    x = np.full((1, 8), 100, np.int8)
    tile = ab.integer_accumulator(16, "saturate", chunk=64, at="tile")
    assert int(ab.matmul(x, x.T, tile)[0, 0]) == 32767
    _, seen = ab.matmul(x, x.T, tile, events=True)
    assert (seen.steps, seen.persistent, seen.accumulator_overflow) == (0, 1, 0)


def test_a_tree_of_adders(isa):
    a, b = operands(5, k=21)
    bits, overflow, shift, mode = 11, "saturate", 3, "RND"

    def q(v):
        return limit(v, bits, overflow, shift, mode)

    def tree(products):
        if len(products) == 1:
            return q(products[0])
        middle = (len(products) + 1) // 2
        return q(tree(products[:middle]) + tree(products[middle:]))

    expected = np.zeros((5, 3), np.int64)
    for i, j in np.ndindex(5, 3):
        products = (a[i].astype(int) * b[:, j].astype(int)).tolist()
        s = 0
        for first in range(0, 21, 8):
            s = q(s + tree(products[first : first + 8]))
        expected[i, j] = s
    datapath = ab.integer_accumulator(
        bits, overflow, shift=shift, rounding=mode, group=8, tree=True
    )
    assert (datapath.step, datapath.saturates_at) == ("tree", "group")
    assert np.array_equal(ab.matmul(a, b, datapath), expected)
    grouped = ab.integer_accumulator(bits, overflow, shift=shift, rounding=mode, group=8)
    assert not np.array_equal(ab.matmul(a, b, grouped), expected)
    # without limits inside, a tree is the exact sum of the group
    assert np.array_equal(ab.matmul(a, b, grouped.replace(step="tree")), ab.matmul(a, b, grouped))


def test_further_limits(isa):
    a, b = operands(6)
    eleven = ab.FixedFormat(bits=11, fraction_bits=-3, overflow="SAT", rounding="RND_CONV")
    datapath = ab.integer_accumulator(32, product=eleven, output=BYTE)
    exact = by_hand(a, b, 0, lambda v: v, lambda v: limit(v, 11, "saturate", 3, "RND_CONV"))
    got = ab.matmul(a, b, datapath)
    assert got.dtype == np.int32
    assert np.array_equal(got, exact.astype(np.int8))
    grouped = ab.integer_accumulator(24, group=3, group_quantizer=eleven)
    expected = np.zeros_like(exact)
    for i, j in np.ndindex(*expected.shape):
        products = (a[i].astype(int) * b[:, j].astype(int)).reshape(-1, 3).sum(axis=1).tolist()
        expected[i, j] = sum(limit(v, 11, "saturate", 3, "RND_CONV") for v in products)
    assert np.array_equal(ab.matmul(a, b, grouped), expected)
    one = ab.integer_accumulator(24, group_quantizer=eleven)  # groups of one product
    assert (one.step, one.group) == ("exact_group", 1)
    assert np.array_equal(
        ab.matmul(a, b, one), ab.matmul(a, b, ab.integer_accumulator(24, product=eleven))
    )


@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("signed", [True, False])
def test_operands_of_2_to_16_bits(isa, bits, signed):
    rng = np.random.default_rng([bits, signed])
    low, high = integer_range(bits, signed, "wrap")
    dtype = np.dtype(("int" if signed else "uint") + ("8" if bits <= 8 else "16"))
    a = rng.integers(low, high + 1, (4, 17)).astype(dtype)
    a[0] = low
    a[1] = high
    b = rng.integers(-8, 8, (17, 5)).astype(np.int8)
    c = rng.integers(-1000, 1000, 5)
    width, shift = bits + 3, 2
    datapath = ab.integer_accumulator(width, "saturate", shift=shift, rounding="RND_INF")
    got = ab.matmul(a, b, datapath, c=c)
    for j in range(5):
        start = limit(int(c[j]), width, "saturate", shift, "RND_INF")
        expected = by_hand(
            a, b[:, j : j + 1], start, lambda v: limit(v, width, "saturate", shift, "RND_INF")
        )
        assert np.array_equal(got[:, j : j + 1], expected)


@pytest.mark.parametrize("shard", range(4))
def test_random_integer_options(shard):
    rng = np.random.default_rng([71, shard])
    for _ in range(100):
        datapath = random_integer_options(rng)
        k = int(pick(rng, (1, 2, 5, 16, 17, 40)))
        rows, columns = pick(rng, ((1, 9), (3, 5), (2, 17)))
        a = random_integers(rng, pick(rng, INTEGERS), (rows, k))
        b = random_integers(rng, pick(rng, INTEGERS), (k, columns))
        c = rng.integers(-(2**20), 2**20, (rows, columns)) if rng.random() < 0.4 else None
        check(a, b, datapath, c, threads=(2,))


@pytest.mark.parametrize("shift", [0, 1, 30, 53, 61])
def test_the_widest_registers(isa, shift):
    signs = (True,) if shift == 61 else (True, False)
    for signed, mode in itertools.product(signs, MODES):
        bits = 63 - shift - (not signed)
        reach = 1 << (bits + shift - signed)
        datapath = ab.integer_accumulator(
            bits, "saturate", signed=signed, shift=shift, rounding=mode, chunk=2
        )
        form = datapath.accumulator.format
        assert form.max_code << shift < reach
        a = np.int16([[-32768, 32767, 5, -1]])
        b = np.int16([[-32768], [32767], [3], [1]])
        starts = (0, 1, -1, reach - 1, -reach, (1 << 62) + 12345, -(1 << 62) - 7)
        for c in starts:
            s = limit(c, bits, "saturate", shift, mode, signed)
            parts = []
            for first in (0, 2):
                for k in (first, first + 1):
                    p = int(a[0, k]) * int(b[k, 0])
                    s = limit(s + p, bits, "saturate", shift, mode, signed)
                parts.append(s)
                s = 0
            total = 0
            for part in parts:
                total = limit(total + part, bits, "saturate", shift, mode, signed)
            assert int(ab.matmul(a, b, datapath, c=c)[0, 0]) == total, (signed, mode, c)


def test_dtypes_hold_the_values(isa):
    x = np.ones((1, 1), np.int8)
    for datapath, dtype in (
        (ab.integer_accumulator(16, shift=16), np.int32),
        (ab.integer_accumulator(17, shift=16), np.int64),
        (ab.integer_accumulator(15, shift=16, signed=False), np.int32),
        (ab.integer_accumulator(16, shift=16, signed=False), np.int64),
        (ab.integer_accumulator(40, output=ab.FixedFormat(bits=8, fraction_bits=0)), np.int32),
        (ab.integer_accumulator(8, output=ab.FixedFormat(bits=40, fraction_bits=0)), np.int64),
        (ab.integer_accumulator(8, at="product"), np.int64),
        (ab.integer_accumulator(8, at="tile", chunk=4), np.int32),
        (ab.integer_accumulator(8, at="end"), np.int32),
    ):
        assert ab.matmul(x, x, datapath).dtype == dtype


def test_the_planner_leaves_the_options_to_the_general_engine():
    a, b = operands(8, k=64, rows=64, columns=64)
    form = ab.FixedFormat(bits=12, fraction_bits=0)
    for datapath, reason in (
        (ab.integer_accumulator(16, shift=2), "sums are shifted"),
        (ab.integer_accumulator(16, "saturate", shift=2), "sums are shifted"),
        (ab.integer_accumulator(16, product=form), "products are rounded"),
        (ab.integer_accumulator(16, output=form), "the result is rounded"),
        (ab.integer_accumulator(16, at="end"), "the result is rounded"),
        (ab.integer_accumulator(16, at="tile", chunk=4), "the result is rounded"),
        (ab.integer_accumulator(16, group=4, tree=True), "step is tree"),
        (ab.integer_accumulator(16, group=4, group_quantizer=form), "group sums are rounded"),
        (ab.Datapath(chunk=4, merge=ab.Quantizer(format=form)), "sums are exact"),
        (
            ab.integer_accumulator(16, chunk=4, merge=ab.integer_accumulator(16, shift=1)),
            "chunks merge with another quantiser",
        ),
    ):
        plan = datapath.plan(a, b)
        assert plan.path == "lanes", datapath
        assert reason in plan.reason
    for datapath in (
        ab.integer_accumulator(16),
        ab.integer_accumulator(16, shift=0, rounding="RND"),
        ab.integer_accumulator(16, "saturate", at="step"),
        ab.integer_accumulator(16, "saturate", group=4, at="group"),
    ):
        assert datapath.plan(a, b).path != "lanes", datapath
