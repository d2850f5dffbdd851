"""Integer accumulators: golden vectors, models of instructions, the oracle on random datapaths."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab
from datapath_cases import check
from datapath_random import INTEGERS, TERMS, pick, random_integer, random_integers

X = np.array([[125, 100, -120, 30, 90, -70, 100, -90]], np.int8)
W = np.array([[12, 10, 10, 10, 10, 10, 20, 20]], np.int8).T
PRODUCTS = (X[0].astype(int) * W[:, 0]).tolist()


def accumulator_12(overflow="wrap", **fields):
    return ab.integer_accumulator(12, overflow, **fields)


def with_products(bits):
    form = ab.FixedFormat(bits=bits, fraction_bits=0, overflow="saturate")
    return accumulator_12("saturate").replace(product=ab.Quantizer(format=form))


def greedy_order(products):
    """Take a term that is not negative while the sum is <= 0, else a negative one."""
    left, order, total = list(range(len(products))), [], 0
    while left:
        wanted = [i for i in left if (products[i] >= 0) == (total <= 0)]
        order.append((wanted or left)[0])
        left.remove(order[-1])
        total += products[order[-1]]
    return tuple(order)


GREEDY = greedy_order(PRODUCTS)
GOLDEN = {
    "wrap": (accumulator_12(), 2000, None),
    "saturate": (
        accumulator_12("saturate"), 247, [1500, 2047, 847, 1147, 2047, 1347, 2047, 247]
    ),
    "group of 2": (accumulator_12("saturate", group=2), 1547, [2047, 1147, 1347, 1547]),
    "group of 4": (accumulator_12("saturate", group=4), 2000, [1600, 2000]),
    "end": (accumulator_12("saturate", group=8), 2000, [2000]),
    "products of 11 bits": (
        with_products(11), 1023, [1023, 2023, 999, 1299, 2047, 1347, 2047, 1023]
    ),
    "greedy": (
        accumulator_12("saturate").replace(order=GREEDY), 2000,
        [1500, 300, -400, 600, -1200, -900, 0, 2000],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_vector(isa, name):
    datapath, result, running = GOLDEN[name]
    assert ab.matmul(X, W, datapath).tolist() == [[result]]
    assert check(X, W, datapath) == 1
    if running is None:
        return
    x, w = X, W
    if isinstance(datapath.order, tuple):  # prefixes of the order itself
        x, w = X[:, datapath.order], W[list(datapath.order)]
        datapath = datapath.replace(order="natural")
    prefixes = [
        int(ab.matmul(x[:, :k], w[:k], datapath)[0, 0])
        for k in range(datapath.group, 9, datapath.group)
    ]
    assert prefixes == running


def test_golden_vector_wraps_to_the_sum_in_every_order(isa):
    for order in itertools.islice(itertools.permutations(range(8)), 0, None, 1009):
        assert ab.matmul(X, W, accumulator_12().replace(order=order)).tolist() == [[2000]]


def test_widths_of_the_golden_vector(isa):
    # 13 bits hold the given order, 12 the greedy one; one bit less saturates somewhere
    for order, enough in (("natural", 13), (GREEDY, 12)):
        for bits, transient in ((enough, 0), (enough - 1, 1)):
            datapath = ab.integer_accumulator(bits, "saturate").replace(order=order)
            _, seen = ab.matmul(X, W, datapath, events=True)
            assert seen.transient + seen.persistent == transient


@pytest.mark.parametrize("bits", [2, 5, 8, 12, 16, 24, 31, 32, 33, 40, 63])
@pytest.mark.parametrize("signed", [True, False])
def test_wrapping_is_the_sum_modulo_a_power_of_two(isa, bits, signed):
    rng = np.random.default_rng(bits)
    a, b = (random_integers(rng, name, shape) for name, shape in
            (("int16", (5, 70)), ("uint16", (70, 19))))  # fmt: skip
    exact = (a.astype(np.int64) @ b.astype(np.int64)).astype(object)
    expected = exact % (1 << bits)
    if signed:
        expected -= (expected >> (bits - 1)) << bits
    expected = expected.astype(np.int64)
    base = ab.integer_accumulator(bits, signed=signed)
    for datapath in (
        base,
        base.replace(order=tuple(rng.permutation(70).tolist())),
        base.replace(order="pair4", chunk=16, merge_order="pairwise"),
        ab.integer_accumulator(bits, signed=signed, group=4, chunk=17),
    ):
        got = ab.matmul(a, b, datapath)
        assert got.dtype == (np.int32 if bits + (not signed) <= 32 else np.int64)
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("saturates", [True, False])
def test_vpdpbusd_sums_four_products_before_one_limit(isa, saturates):
    # d = limit(d + sum of four u8 * s8), near the ends of int32
    rng = np.random.default_rng(4)
    a = rng.integers(0, 256, (64, 36)).astype(np.uint8)
    b = rng.integers(-128, 128, (36, 31)).astype(np.int8)
    c = rng.integers(-(2**31), 2**31, (64, 31))
    c[rng.random(c.shape) < 0.6] = 2**31 - 1 - rng.integers(0, 2**17)
    c[rng.random(c.shape) < 0.3] = -(2**31) + rng.integers(0, 2**17)
    products = a.astype(np.int64)[:, :, None] * b.astype(np.int64)[None]
    d, every_product = c.copy(), c.copy()
    for first in range(0, a.shape[1], 4):
        d = d + products[:, first : first + 4].sum(axis=1)
        d = np.clip(d, -(2**31), 2**31 - 1) if saturates else (d + 2**31) % 2**32 - 2**31
    overflow = "saturate" if saturates else "wrap"
    group = ab.integer_accumulator(32, overflow, group=4)
    assert np.array_equal(ab.matmul(a, b, group, c=c), d)
    if saturates:  # a limit after every product is another function
        for k in range(a.shape[1]):
            every_product = np.clip(every_product + products[:, k], -(2**31), 2**31 - 1)
        chain = ab.integer_accumulator(32, overflow)
        assert np.array_equal(ab.matmul(a, b, chain, c=c), every_product)
        assert not np.array_equal(d, every_product)


def test_vpmaddubsw_saturates_pairs_to_16_bits(isa):
    rng = np.random.default_rng(5)
    a = rng.integers(0, 256, (40, 64)).astype(np.uint8)
    b = rng.integers(-128, 128, (64, 23)).astype(np.int8)
    products = a.astype(np.int64)[:, :, None] * b.astype(np.int64)[None]
    pairs = np.clip(products[:, 0::2] + products[:, 1::2], -(2**15), 2**15 - 1)
    datapath = ab.integer_accumulator(16, "saturate", group=2, chunk=2, merge="exact")
    got = ab.matmul(a, b, datapath)
    assert got.dtype == np.int64
    assert np.array_equal(got, pairs.sum(axis=1))
    assert (np.abs(products[:, 0::2] + products[:, 1::2]) > 2**15).any()


def test_transient_overflow_harms_saturation_only(isa):
    rng = np.random.default_rng(6)
    a = rng.integers(-128, 128, (2000, 64)).astype(np.int8)
    b = rng.integers(-128, 128, (64, 1)).astype(np.int8)
    exact = a.astype(np.int64) @ b.astype(np.int64)
    _, seen = ab.matmul(a, b, ab.integer_accumulator(16), events=True, per_output=True)
    transient, persistent = seen.transient > 0, seen.persistent > 0
    assert transient.sum() > 5
    assert np.array_equal(persistent, (exact < -(2**15)) | (exact >= 2**15))
    wrapped = ab.matmul(a, b, ab.integer_accumulator(16))
    saturated = ab.matmul(a, b, ab.integer_accumulator(16, "saturate"))
    assert np.array_equal(wrapped[~persistent], exact[~persistent])
    assert (saturated[transient] != exact[transient]).all()
    assert np.array_equal(saturated[~(transient | persistent)], exact[~(transient | persistent)])


def test_greedy_order_stays_within_the_sum_and_the_largest_product():
    rng = np.random.default_rng(7)
    for _ in range(100):
        products = rng.integers(-1000, 1001, int(rng.integers(1, 30))).tolist()
        prefixes = list(itertools.accumulate(products[i] for i in greedy_order(products)))
        total, largest = sum(products), max(map(abs, products))
        assert min(total, -largest) <= min(prefixes)
        assert max(prefixes) <= max(total, largest)


@pytest.mark.parametrize(("left", "right"), list(itertools.product(INTEGERS, INTEGERS)))
def test_every_pair_of_operand_dtypes(isa, left, right):
    rng = np.random.default_rng([INTEGERS.index(left), INTEGERS.index(right)])
    a, b = random_integers(rng, left, (3, 20)), random_integers(rng, right, (20, 17))
    exact = a.astype(np.int64) @ b.astype(np.int64)
    for datapath in (ab.integer_accumulator(32), ab.integer_accumulator(40, "saturate", group=4)):
        got = ab.matmul(a, b, datapath)
        wide = datapath.accumulator.format.bits == 40
        wrapped = exact if wide else (exact + 2**31) % 2**32 - 2**31
        assert np.array_equal(got, wrapped)


def test_start_values_enter_the_accumulator_first(isa):
    a, b = np.ones((1, 3), np.int8), np.ones((3, 1), np.int8)
    for overflow, c, result in (
        ("wrap", 126, -127), ("saturate", 126, 127), ("saturate", 1000, 127),
        ("wrap", 1000, -21), ("saturate_zero", 126, 1), ("saturate_symmetric", -1000, -124),
    ):  # fmt: skip
        got, seen = ab.matmul(a, b, ab.integer_accumulator(8, overflow), c=c, events=True)
        assert got.tolist() == [[result]], (overflow, c)
        # the exact sum holds c as it is; rounding it is no step
        assert seen.persistent == (c + 3 > 127 or c + 3 < -128)
    assert ab.matmul(a[:, :0], b[:0], ab.integer_accumulator(8), c=200).tolist() == [[-56]]
    assert ab.matmul(a[:, :0], b[:0], ab.integer_accumulator(8)).tolist() == [[0]]


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.float32, np.float16, bool,
                                   ml_dtypes.int2, np.complex64])  # fmt: skip
def test_other_operands_are_refused(dtype):
    good, bad = np.ones((2, 2), np.int8), np.ones((2, 2), dtype)
    for a, b, name in ((bad, good, "a"), (good, bad, "b")):
        with pytest.raises(TypeError, match=rf"{name} must hold integers .* got {bad.dtype}"):
            ab.matmul(a, b, ab.integer_accumulator(16))
    with pytest.raises(TypeError, match="c must hold integers"):
        ab.matmul(good, good, ab.integer_accumulator(16), c=np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match="c must fit int64"):
        ab.matmul(good, good, ab.integer_accumulator(16), c=np.full((2, 2), 2**63, np.uint64))


@pytest.mark.parametrize("shard", range(4))
def test_random_integer_datapaths(shard):
    rng = np.random.default_rng([5, shard])
    done = 0
    while done < 5000:
        datapath = random_integer(rng)
        k = pick(rng, TERMS, (3, 4, 5, 6, 5, 2, 0.02))
        rows, columns = pick(rng, ((1, 64), (8, 16), (3, 37), (67, 2), (12, 20)))
        if k > 64:
            rows, columns = 2, 9
        a = random_integers(rng, pick(rng, INTEGERS), (rows, k))
        b = random_integers(rng, pick(rng, INTEGERS), (k, columns))
        c = None
        if rng.random() < 0.4:
            reach = 2 ** min(datapath.accumulator.format.bits + 1, 62)
            c = rng.integers(-reach, reach, (rows, columns))
        done += check(a, b, datapath, c)
