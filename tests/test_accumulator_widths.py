"""Widths of partial sums, bit for bit against exact sums in Python integers."""

from __future__ import annotations

import numpy as np
import pytest

import abcdeep_core as ab
import oracle_partial_sums

DTYPES = (np.int8, np.uint8, np.int16, np.uint16)
NAMES = ("given", "final", "any_order", "greedy")


def operands(rng, dtype_x, dtype_w, m, k, n):
    def draw(dtype, shape):
        info = np.iinfo(dtype)
        spread = rng.integers(1, info.bits + 1)
        low = max(info.min, -(1 << (spread - 1)))
        return rng.integers(low, min(info.max, (1 << spread) - 1), shape, dtype, endpoint=True)

    return draw(dtype_x, (m, k)), draw(dtype_w, (k, n))


def expected(x, w, c, order, group, chunk, merge, signed):
    bits = oracle_partial_sums.signed_bits if signed else oracle_partial_sums.unsigned_bits
    places = range(x.shape[1]) if order in ("natural", "greedy") else order
    out = {name: np.zeros((x.shape[0], w.shape[1]), int) for name in NAMES}
    smallest = largest = 0
    for m in range(x.shape[0]):
        for n in range(w.shape[1]):
            terms = [int(x[m, k]) * int(w[k, n]) for k in places]
            start = int(c[m, n]) if c is not None else 0
            sums = oracle_partial_sums.partial_sums(terms, start, group, chunk, merge == "same")
            partial = sums.partial
            if order == "greedy":
                partial = oracle_partial_sums.greedy_sums(terms, start)
            smallest, largest = min(smallest, *partial), max(largest, *partial)
            up, down = sum(p for p in terms if p > 0), sum(p for p in terms if p < 0)
            top, bottom = max([0, *terms]), min([0, *terms])
            total = start + sum(terms)
            out["given"][m, n] = bits(min(partial), max(partial))
            out["final"][m, n] = bits(min(total, 0), max(total, 0))
            # sums of later chunks start from zero
            starts = {0, start} if 0 < chunk < len(terms) else {start}
            lowest, highest = min(starts) + down, max(starts) + up
            out["any_order"][m, n] = bits(min(0, start, lowest), max(0, start, highest))
            out["greedy"][m, n] = bits(min(0, start, total, bottom + 1), max(0, start, total, top))
    return out, smallest, largest


def check(x, w, *, c=None, order="natural", group=1, chunk=0, merge="same", signed=True, **kw):
    got = ab.accumulator_widths(
        x, w, c=c, order=order, group=group, chunk=chunk, merge=merge, signed=signed, **kw
    )
    want, smallest, largest = expected(x, w, c, order, group, chunk, merge, signed)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(got, name), want[name], name)
    assert (got.smallest, got.largest) == (smallest, largest)
    few = ab.accumulator_widths(
        x, w, c=c, order=order, group=group, chunk=chunk, merge=merge, signed=signed,
        every_order=False, **kw
    )  # fmt: skip
    for name in NAMES[:2]:
        np.testing.assert_array_equal(getattr(few, name), want[name], name)
    assert few.any_order is few.greedy is None
    assert (few.smallest, few.largest) == (smallest, largest)


@pytest.mark.parametrize("dtype_w", DTYPES)
@pytest.mark.parametrize("dtype_x", DTYPES)
def test_widths_are_those_of_exact_sums(isa, dtype_x, dtype_w):
    rng = np.random.default_rng([7, DTYPES.index(dtype_x), DTYPES.index(dtype_w)])
    for _ in range(12):
        m, k, n = rng.integers(1, 6), rng.integers(1, 40), rng.integers(1, 70)
        x, w = operands(rng, dtype_x, dtype_w, m, k, n)
        c = rng.integers(-(1 << 20), 1 << 20, (m, n)) if rng.integers(2) else None
        check(
            x,
            w,
            c=c,
            order=tuple(map(int, rng.permutation(k))) if rng.integers(2) else "natural",
            group=int(rng.choice([1, 1, 2, 4, 7])),
            chunk=int(rng.choice([0, 0, 1, 5, 16])),
            merge=str(rng.choice(["same", "exact"])),
            signed=bool(rng.integers(2)),
            threads=int(rng.choice([1, 2, 7])),
        )


def test_long_sums_cross_panels(isa):
    rng = np.random.default_rng(3)
    for terms, group, chunk in (
        (600, 1, 0),
        (600, 7, 0),
        (600, 1, 250),
        (700, 4, 255),
        (513, 3, 9),
    ):
        x, w = operands(rng, np.int8, np.int8, 3, terms, 5)
        check(x, w, group=group, chunk=chunk)


def test_later_chunks_start_from_zero(isa):
    x, w = np.int16([[0, -129]]), np.int8([[0], [1]])
    widths = ab.accumulator_widths(x, w, c=[[127]], chunk=1)
    assert int(widths.any_order[0, 0]) == int(widths.given[0, 0]) == 9


def test_greedy_order_is_run(isa):
    rng = np.random.default_rng(5)
    for dtype in (np.int8, np.uint16):
        for _ in range(10):
            x, w = operands(rng, np.int16, dtype, 3, int(rng.integers(1, 50)), 4)
            check(x, w, order="greedy")
            check(x, w, order="greedy", c=rng.integers(-500, 500, (3, 4)))


def test_greedy_bound_holds_the_greedy_order():
    rng = np.random.default_rng(6)
    x, w = operands(rng, np.int8, np.int8, 40, 60, 40)
    bound = ab.accumulator_widths(x, w)
    run = ab.accumulator_widths(x, w, order="greedy")
    assert (run.given <= bound.greedy).all()
    assert (bound.final <= run.given).all()
    products = x.astype(int)[:, :, None] * w.astype(int)
    for m in range(40):
        for n in range(40):
            p, total = products[m, :, n], int(products[m, :, n].sum())
            most = int(np.abs(p).max())
            spec = oracle_partial_sums.signed_bits(min(total, -most), max(total, most))
            assert bound.greedy[m, n] <= spec


def test_sums_beyond_32_bits(isa):
    x = np.full((2, 70000), 65535, np.uint16)
    w = np.full((70000, 3), 65535, np.uint16)
    got = ab.accumulator_widths(x, w)
    total = 70000 * 65535 * 65535
    assert got.largest == total
    assert (got.given == total.bit_length() + 1).all()
    assert (ab.accumulator_widths(x, w, signed=False).given == total.bit_length()).all()


@pytest.mark.parametrize("largest", [(1 << 31) - 1, 1 << 31])
def test_edge_of_the_32_bit_kernel(isa, largest):
    # 127 * 127 * 2 + c on both sides of 2^31
    x, w = np.full((1, 2), 127, np.int8), np.full((2, 1), 127, np.int8)
    for sign in (1, -1):
        c = np.array([[sign * (largest - 2 * 127 * 127)]])
        check(x, w, c=c)


def test_rates_are_those_of_separate_runs(isa):
    rng = np.random.default_rng(11)
    x = rng.integers(-128, 128, (60, 96)).astype(np.int8)
    w = rng.integers(-128, 128, (96, 33)).astype(np.int8)
    for options in ({}, {"group": 4}, {"chunk": 16}, {"group": 4, "chunk": 32}):
        widths = ab.accumulator_widths(x, w, **options)
        for bits in range(8, 26):
            for overflow in ("wrap", "saturate"):
                run = ab.integer_accumulator(bits, overflow, **options)
                _, events = ab.matmul(x, w, run, events=True)
                over, final = widths.given > bits, widths.final > bits
                assert events.persistent == final.sum()
                if overflow == "wrap" and "chunk" in options:
                    continue  # a chunk that wrapped enters the merge as another number
                assert events.overflowed_outputs == over.sum()
                if "chunk" not in options:
                    assert events.transient == (over & ~final).sum()


def test_strides_and_shapes(isa):
    rng = np.random.default_rng(12)
    x, w = operands(rng, np.int8, np.uint8, 8, 20, 70)
    plain = ab.accumulator_widths(x, w)
    turned = ab.accumulator_widths(
        np.ascontiguousarray(x.T).T[:, ::-1], np.ascontiguousarray(w.T).T[::-1]
    )
    reverse = ab.accumulator_widths(x, w, order="reverse")
    np.testing.assert_array_equal(turned.given, reverse.given)
    deep = ab.accumulator_widths(x.reshape(2, 4, 20), w)
    np.testing.assert_array_equal(deep.given, plain.given.reshape(2, 4, 70))
    for shape in ((0, 20), (8, 0)):
        empty = ab.accumulator_widths(np.zeros(shape, np.int8), np.zeros((shape[1], 3), np.int8))
        assert empty.given.shape == (shape[0], 3)
        assert (empty.given == 1).all()
    assert (ab.accumulator_widths(x[:, :0], w[:0], c=-5).given == 4).all()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"order": "greedy", "group": 2}, ValueError, "group=1"),
        ({"order": "spiral"}, ValueError, "spiral"),
        ({"order": (0, 1)}, ValueError, "2 places"),
        ({"merge": "wide"}, ValueError, "merge"),
        ({"group": 0}, ValueError, "group"),
        ({"chunk": 1.5}, TypeError, "chunk"),
        ({"c": 1 << 61}, ValueError, "2\\^61"),
        ({"c": 0.5}, TypeError, "c must hold integers"),
    ],
    ids=["greedy group", "order", "short order", "merge", "group", "chunk", "large c", "float c"],
)
def test_errors(arguments, error, text):
    x, w = np.ones((2, 3), np.int8), np.ones((3, 2), np.int8)
    with pytest.raises(error, match=text):
        ab.accumulator_widths(x, w, **arguments)


def test_wrong_operands():
    x, w = np.ones((2, 3), np.int8), np.ones((3, 2), np.int8)
    with pytest.raises(TypeError, match="x must hold integers"):
        ab.accumulator_widths(x.astype(np.float32), w)
    with pytest.raises(ValueError, match="K"):
        ab.accumulator_widths(x, w[:2])
