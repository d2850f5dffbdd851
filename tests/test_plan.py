"""Every fast path against the general engine, bit for bit, and the choice between them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import _core
from abcdeep_core._gemm import as_addend, as_operand
from abcdeep_core._matmul import gemm, stack_shapes

FORMATS = [
    ab.lba_format(7, 4, 10),
    ab.lba_format(10, 5, 16),
    ab.lba_format(3, 3, 5),
    ab.lba_format(0, 5, 12),
    ab.lba_format(21, 6, 30),
    ab.FloatFormat(exponent_bits=5, mantissa_bits=10),
    ab.FloatFormat(exponent_bits=5, mantissa_bits=14),
    ab.FloatFormat(exponent_bits=4, mantissa_bits=3, specials="fn"),
    ab.FloatFormat(exponent_bits=4, mantissa_bits=3, specials="none"),
    ab.FloatFormat(exponent_bits=8, mantissa_bits=7),
    ab.FloatFormat(exponent_bits=8, mantissa_bits=21),
    ab.FloatFormat(exponent_bits=8, mantissa_bits=23),
    ab.FloatFormat(exponent_bits=6, mantissa_bits=9, underflow="flush_before"),
    ab.get_format("binary8p4se"),
]
SHAPE = (9, 70, 35)  # M, K, N: no multiple of a tile


def operands(kind: str, form: ab.FloatFormat, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return operands whose sums live around both ends of the format's range, and in between."""
    rng = np.random.default_rng(seed)
    m, k, n = SHAPE
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    largest, smallest = float(form.max), 2.0**form.emin
    scale = {
        "middle": 1.0,
        "top": min(largest, 2.0**100) / 8,
        "bottom": max(smallest, 2.0**-100),
        "wide": 1.0,
        "few_bits": max(smallest, 2.0**-60) * 4,
        "cancel": 1.0,
    }[kind]
    if kind == "wide":
        a = a * 2.0 ** rng.integers(-12, 12, a.shape)
        b = b * 2.0 ** rng.integers(-12, 12, b.shape)
    if kind == "few_bits":
        a, b = np.round(a * 4) / 4, np.round(b * 4) / 4
    if kind == "cancel":
        a[:, 1::2] = -a[:, ::2]
        b[1::2] = b[::2] * (1 + 2.0 ** -rng.integers(5, 20, b[::2].shape))
    root = np.sqrt(scale)
    a[rng.random(a.shape) < 0.05] = 0
    return (a * root).astype(np.float32), (b * root).astype(np.float32)


def same_bits(x: np.ndarray, y: np.ndarray) -> bool:
    return x.dtype == y.dtype and np.array_equal(x.view(np.uint8), y.view(np.uint8))


def run(a, b, datapath, path=None, c=None, threads=1):
    seed = 5 if "stochastic" in repr(datapath) else None
    left, right = as_operand("a", a, datapath), as_operand("b", b, datapath)
    shape, left, right = stack_shapes(left, right)
    start = None if c is None else as_addend(c, datapath, shape)
    return gemm(
        left, right, datapath, start, shape, False, False, (seed, 1, 2), None, threads, path
    )[0]


def assert_path_equals_the_general_engine(a, b, datapath, plan):
    expected = run(a, b, datapath, "lanes")
    assert same_bits(run(a, b, datapath, plan.path), expected), (datapath, plan)
    assert same_bits(run(a, b, datapath, plan.path, threads=3), expected), (datapath, plan)


def datapaths(form: ab.FloatFormat):
    for rounding in ("toward_zero", "nearest_even"):
        for product in (None, form):
            for chunk in (0, 16, 3):
                yield ab.float_accumulator(form, product=product, rounding=rounding, chunk=chunk)
    if form.code0 == "ordinary":
        product = dataclasses.replace(form, bias=form.bias + 2)
        for rounding in ("toward_zero", "nearest_even"):
            flushing = ab.float_accumulator(form, product=product, rounding=rounding, chunk=16)
            yield flushing
            yield dataclasses.replace(
                flushing,
                product=dataclasses.replace(flushing.product, underflow="off"),
                accumulator=dataclasses.replace(flushing.accumulator, underflow="off"),
            )
        yield ab.float_accumulator(
            form, product=product, rounding="toward_zero", chunk=16, arithmetic="fp32_mask"
        )


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name or repr(form)[12:70])
def test_every_float_path_equals_the_general_engine(isa, form):
    taken = set()
    for i, datapath in enumerate(datapaths(form)):
        for j, kind in enumerate(("middle", "top", "bottom", "wide", "few_bits", "cancel")):
            a, b = operands(kind, form, 100 * i + j)
            plan = datapath.plan(a, b)
            taken.add(plan.path)
            if plan.path == "lanes":
                continue
            assert_path_equals_the_general_engine(a, b, datapath, plan)
            c = np.linspace(-1, 1, SHAPE[2]) * float(np.abs(b).max())
            expected = run(a, b, datapath, "lanes", c)
            assert same_bits(run(a, b, datapath, c=c), expected), (datapath, kind, plan)
    if _core.has_fused_multiply_add():
        assert taken != {"lanes"}


ROUNDINGS = [
    {"rounding": "nearest_odd"},
    {"rounding": "nearest_away"},
    {"rounding": "nearest_zero"},
    {"rounding": "toward_zero"},
    {"rounding": "away_from_zero"},
    {"rounding": "to_odd"},
    {"rounding": "stochastic"},
    *({"rounding": "stochastic", "bits": 8, "rule": rule} for rule in ("a", "b", "c", "odd")),
    {"rounding": "stochastic", "bits": 16},
    {"rounding": "stochastic", "bits": 3, "rule": "b"},
    {"rounding": "stochastic", "bits": 12, "rule": "odd"},
]


@pytest.mark.parametrize("options", ROUNDINGS, ids=lambda o: "-".join(map(str, o.values())))
def test_other_roundings_equal_the_general_engine(isa, options):
    random_bits = (options.get("bits") or 32) * (options["rounding"] == "stochastic")
    forms = [form for form in FORMATS if 0 < form.mantissa_bits <= 50 - random_bits]
    paths = set()
    for i, form in enumerate(forms):
        for product in (None, form):
            chunk = (0, 16, 3)[i % 3]
            datapath = ab.float_accumulator(form, product=product, chunk=chunk, **options)
            if product is not None and i % 2 and options.get("bits"):
                product = dataclasses.replace(datapath.product, rounding="nearest_even")
                datapath = dataclasses.replace(datapath, product=product)
            for kind in ("middle", "top", "bottom", "wide", "few_bits", "cancel"):
                a, b = operands(kind, form, i)
                plan = datapath.plan(a, b)
                paths.add(plan.path)
                if plan.path == "lanes":
                    continue
                assert_path_equals_the_general_engine(a, b, datapath, plan)
            c = np.linspace(-1, 1, SHAPE[2]) * float(np.abs(b).max())
            expected = run(a, b, datapath, "lanes", c)
            assert same_bits(run(a, b, datapath, c=c), expected), (datapath, plan)
    if _core.has_fused_multiply_add():
        truncates = options["rounding"] == "toward_zero"
        assert "odd64" in paths or truncates
        assert "odd" in paths or random_bits == 32 or truncates


@pytest.mark.parametrize("shape", [(1, 64, 40), (40, 64, 1), (3, 33, 5), (33, 48, 17), (2, 7, 130)])
def test_random_bits_of_every_shape(isa, shape):
    rng = np.random.default_rng(1)
    m, k, n = shape
    a, b = rng.standard_normal((2, m, k), np.float32), rng.standard_normal((k, n), np.float32)
    for bits in (2, 8, 9, 16, 24, None):
        for chunk in (0, 16, 5):
            for base in (ab.lba_accumulator, ab.float_accumulator):
                args = (7, 4) if base is ab.lba_accumulator else ("fp16",)
                datapath = base(*args, rounding="stochastic", chunk=chunk)
                datapath = dataclasses.replace(
                    datapath, accumulator=dataclasses.replace(datapath.accumulator, bits=bits)
                )
                assert not _core.has_fused_multiply_add() or datapath.plan(a, b).path != "lanes"
                expected = run(a, b, datapath, "lanes")
                assert same_bits(run(a, b, datapath), expected), (bits, chunk, datapath.plan(a, b))


def test_long_sums_are_cut_into_blocks(isa):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3, 10_000), np.float32) / 64
    b = rng.standard_normal((10_000, 5), np.float32) / 64
    for chunk in (0, 16, 48, 3000, 5000):
        datapath = ab.lba_accumulator(chunk=chunk)
        if datapath.plan(a, b).path == "truncate":
            assert same_bits(run(a, b, datapath), run(a, b, datapath, "lanes"))


def test_plan_names_the_path_and_the_condition():
    ones = np.ones((4, 4), np.float32)
    assert ab.float_accumulator("binary32", product="binary32").plan(ones, ones).path == "native"
    few = ab.float_accumulator("fp16", rounding="stochastic", bits=8).plan(ones, ones)
    assert few.path == "odd"
    many = ab.float_accumulator("fp16", rounding="stochastic", bits=16).plan(ones, ones)
    assert many.path == "odd64"
    assert "random bits" not in many.reason
    assert ab.lba_accumulator(rounding="toward_positive").plan(ones, ones).path == "lanes"
    tiny = ones * np.float32(1e-40)
    assert ab.lba_accumulator().plan(tiny, ones).path == "odd64"


def test_limits_are_checked_only_where_a_sum_can_reach_them():
    if not _core.has_fused_multiply_add():
        pytest.skip("the truncating path needs fused multiply-adds")
    small, large = np.full((4, 64), 0.5, np.float32), np.full((4, 64), 8, np.float32)
    datapath = ab.lba_accumulator()
    assert "no sum" in datapath.plan(small, small.T).reason
    assert "checked" in datapath.plan(large, large.T).reason


def test_a_path_that_is_not_possible_is_refused():
    ones = np.ones((4, 4), np.float32)
    with pytest.raises(ValueError, match="not possible"):
        run(ones, ones, ab.lba_accumulator(rounding="jam"), "truncate")
