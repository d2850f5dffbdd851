"""Events of the fast paths against those of the general engine: every count and both extremes."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import _core
from abcdeep_core._gemm import as_addend, as_operand, compile_datapath
from abcdeep_core._matmul import event_level, gemm, plan_gemm, stack_shapes
from test_plan import FORMATS, SHAPE, datapaths, operands, same_bits

KINDS = ("middle", "top", "bottom", "wide", "few_bits", "cancel")


@pytest.fixture
def fused(isa):
    if not _core.has_fused_multiply_add():
        pytest.skip("fast kernels need a fused multiply")


def count(a, b, datapath, events, c=None, threads=1, path=None):
    """Return the result, its events, and the path taken."""
    left, right = as_operand("a", a, datapath), as_operand("b", b, datapath)
    shape, left, right = stack_shapes(left, right)
    start = None if c is None else as_addend(c, datapath, shape)
    compiled = compile_datapath(datapath, left.shape[-1])
    level, given = event_level(events), {"a": left, "b": right}
    plan, _ = plan_gemm(datapath, compiled, left, right, c is not None, level, 1, given, path)
    result, seen = gemm(
        left, right, datapath, start, shape, events, False, (None, 0, 0), None, threads, path
    )
    return result, seen, plan.path


def compare(a, b, datapath, c=None, threads=(1, 3), taken=None):
    """Compare both levels of events with those of the general engine."""
    for events in ("overflow", True):
        expected = None
        for workers in threads:
            got, seen, path = count(a, b, datapath, events, c, workers)
            if taken is not None:
                taken[path, events] += 1
            if path == "lanes":
                break
            if expected is None:
                expected = count(a, b, datapath, events, c, 1, "lanes")
            assert same_bits(got, expected[0]), (datapath, events, workers)
            different = {
                name: (value, getattr(expected[1], name))
                for name, value in seen.to_dict().items()
                if value != getattr(expected[1], name)
            }
            assert not different, (different, datapath, events, workers, c is None)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name or repr(form)[12:70])
def test_float_events_equal_those_of_the_general_engine(isa, form):
    taken = collections.Counter()
    for i, datapath in enumerate(datapaths(form)):
        for j, kind in enumerate(KINDS):
            a, b = operands(kind, form, 100 * i + j)
            compare(a, b, datapath, taken=taken)
            c = np.linspace(-1, 1, SHAPE[2]) * float(np.abs(b).max())
            compare(a, b, datapath, c, threads=(1,))
    if _core.has_fused_multiply_add() and form.specials == "none":
        assert {("truncate", "overflow"), ("truncate", True)} <= set(taken)


SHAPES = [
    (1, 40, 1),
    (1, 65, 300),
    (300, 65, 1),
    (3, 17, 2),
    (8, 16, 32),
    (16, 33, 70),
    (23, 1, 5),
    (4, 0, 3),
    (2, 5000, 3),
    (270, 20, 260),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_float_events_of_odd_shapes(isa, shape):
    m, k, n = shape
    rng = np.random.default_rng(m + 7 * n)
    narrow = ab.lba_accumulator(chunk=16)
    wide = ab.lba_accumulator(10, 5, bias=16, product_bias=17, chunk=0)
    for scale in (2.0**-7, 0.25, 1.0, 8.0):
        for sign in (abs, np.positive, lambda x: -abs(x)):
            a = (sign(rng.standard_normal((m, k))) * scale).astype(np.float32)
            b = (abs(rng.standard_normal((k, n))) * scale).astype(np.float32)
            a[rng.random(a.shape) < 0.1] = 0
            for datapath in (narrow, wide, narrow.replace(chunk=3, order="reverse")):
                compare(a, b, datapath)


def test_extremes_are_of_exact_sums(fused):
    """The largest sums agree in 24 bits and differ below."""
    datapath = ab.lba_accumulator(10, 5, bias=16, product_bias=20, chunk=0)
    rng = np.random.default_rng(3)
    for _ in range(20):
        a = np.ones((9, 6), np.float32)
        b = np.float32(2.0) ** rng.integers(-19, 3, (6, 40)).astype(np.float32)
        b *= rng.choice(np.float32([-1, 1]), b.shape)
        b[0], b[1] = 16384, 4096
        compare(a, b, datapath)
        compare(-a, b, datapath)


def test_saturated_and_constant_data(fused):
    taken = collections.Counter()
    for value in (0.0, 1.0, 4.0, 100.0, 2.0**-6, 2.0**-5.5):
        x = np.full((20, 50), value, np.float32)
        for datapath in (ab.lba_accumulator(), ab.lba_accumulator(10, 5, chunk=0)):
            compare(x, x.T, datapath, taken=taken)
            compare(-x, x.T, datapath, taken=taken)
    assert {path for path, _ in taken} == {"truncate"}


def test_batches_orders_and_strides(isa):
    rng = np.random.default_rng(8)
    a = rng.standard_normal((3, 2, 24, 40)).astype(np.float32)[..., ::2]
    b = rng.standard_normal((2, 33, 20)).astype(np.float32).swapaxes(-1, -2)
    for order in ("natural", "reverse", "even_then_odd", tuple(rng.permutation(20).tolist())):
        compare(a, b, ab.lba_accumulator(chunk=5).replace(order=order))


@pytest.mark.parametrize("bits", [2, 3, 8, 12, 16, 24, 30, 31, 32])
@pytest.mark.parametrize("overflow", ["wrap", "saturate", "saturate_symmetric"])
def test_integer_events_equal_those_of_the_general_engine(isa, bits, overflow):
    rng = np.random.default_rng(bits)
    taken = collections.Counter()
    for dtypes in ((np.int8, np.int8), (np.uint8, np.int8), (np.int16, np.int16)):
        for m, k, n in (SHAPE, (1, 33, 40), (70, 33, 1), (270, 5, 258)):
            a, b = (
                rng.integers(np.iinfo(t).min, np.iinfo(t).max, shape, t, endpoint=True)
                for t, shape in zip(dtypes, ((m, k), (k, n)), strict=True)
            )
            for options in ({}, {"chunk": 16}, {"chunk": 3, "signed": False}):
                if overflow == "saturate_symmetric" and "signed" in options:
                    continue
                datapath = ab.integer_accumulator(bits, overflow, **options)
                compare(a, b, datapath, taken=taken)
                compare(a // 32, b // 16, datapath, taken=taken)
                compare(a, b, datapath, np.arange(n) - 17, threads=(1,))
    if bits < 31:
        assert ("integer", True) in taken


def test_one_sided_integer_sums(isa):
    x = np.full((9, 70), 3, np.int8)
    for bits in (4, 8, 12):
        for overflow in ("wrap", "saturate"):
            datapath = ab.integer_accumulator(bits, overflow)
            compare(x, x.T, datapath)
            compare(-x, x.T, datapath)


def test_plan_says_what_keeps_events_in_the_general_engine(fused):
    x = np.ones((4, 4), np.float32)
    compiled = compile_datapath(ab.lba_accumulator(), 4)

    def reason(datapath, level):
        return plan_gemm(datapath, compiled, x, x, False, level, 1, {})[0]

    assert reason(ab.lba_accumulator(), 2).path == "truncate"
    mask = ab.lba_accumulator(arithmetic="fp32_mask")
    assert reason(mask, 0).path == "truncate"
    assert "fp32_mask" in reason(mask, 1).reason
    third = x / 3
    exact = dataclasses.replace(ab.lba_accumulator(), product=None)
    assert plan_gemm(exact, compiled, third, third, False, 1, 1, {})[0].path == "truncate"
    assert "more bits" in plan_gemm(exact, compiled, third, third, False, 2, 1, {})[0].reason
