"""Products of block arrays: exact values in every step, the tensor scale once at the end."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import _block_job
from oracle import BINARY32, round_value
from oracle_blocks import float32_of
from oracle_datapath import dot
from test_float_environment import STATES, float_state

DATAPATHS = {
    "exact": ab.exact_accumulator(),
    "lba": ab.lba_accumulator(chunk=5),
    "float32": ab.float_accumulator("binary32"),
    "chunks": ab.float_accumulator("bf16", chunk=24),
}


def numbers(shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", ["mxfp8_e5m2", "mxfp4", "mxint8", "nvfp4_pow2"])
@pytest.mark.parametrize("datapath", DATAPATHS)
def test_without_a_tensor_scale_it_is_the_product_of_the_values(name, datapath, isa):
    a = ab.quantize_blocks(numbers((6, 70)), name, axis=-1)
    b = ab.quantize_blocks(numbers((70, 5), 2), name, axis=0)
    for left, right in ((a, b), (a, b.dequantize()), (a.dequantize(), b)):
        got, events = ab.matmul(left, right, DATAPATHS[datapath], events=True)
        expected, counted = ab.matmul(
            a.dequantize(), b.dequantize(), DATAPATHS[datapath], events=True
        )
        assert np.array_equal(got.view(np.uint32), expected.view(np.uint32))
        assert events == counted


@pytest.mark.parametrize("datapath", DATAPATHS)
def test_tensor_scales_multiply_the_result_once(datapath, isa):
    a = ab.quantize_blocks(numbers((4, 40)), "nvfp4")
    b = ab.quantize_blocks(numbers((40, 3), 2), "mxfp4_headroom", axis=0)
    got = ab.matmul(a, b, DATAPATHS[datapath])
    plain = ab.matmul(a.values(), b.values(), DATAPATHS[datapath])
    factor = float32_of(Fraction(float(a.tensor_scale)) * Fraction(float(b.tensor_scale)))
    for value, sums in zip(got.ravel(), plain.ravel(), strict=True):
        assert value == float32_of(Fraction(float(sums)) * Fraction(float(factor)))


@pytest.mark.parametrize("names", [("nvfp4", "nvfp4"), ("mxfp4", "nvfp4_2d"), ("mxint8", "nvfp4")])
def test_against_the_exact_oracle(names):
    a = ab.quantize_blocks(numbers((3, 36)), names[0])
    b = ab.quantize_blocks(numbers((36, 4), 2), names[1], axis=0 if "2d" not in names[1] else -1)
    scale = float32_of(Fraction(float(a.tensor_scale)) * Fraction(float(b.tensor_scale)))

    def values(q):
        element = ab.decode(q.codes, q.element).astype(object)
        scales = ab.decode(q.scales, q.scale_format)
        for axis, size in ((q.axis, q.block[1]), (q.axis - 1, q.block[0])):
            if size > 1:
                scales = np.take(np.repeat(scales, size, axis), range(q.shape[axis]), axis)
        exact = [
            Fraction(float(e)) * Fraction(float(s))
            for e, s in zip(element.ravel(), scales.ravel(), strict=True)
        ]
        return np.array(exact, object).reshape(q.shape)

    left, right = values(a), values(b)
    for name in ("exact", "lba", "chunks"):
        got = ab.matmul(a, b, DATAPATHS[name])
        for m, n in np.ndindex(got.shape):
            found = dot(list(left[m]), list(right[:, n]), DATAPATHS[name])
            total = Fraction(found.value if hasattr(found, "value") else found[0])
            assert got[m, n] == float(round_value(total * Fraction(float(scale)), BINARY32))


def test_row_scales_belong_to_rows_of_a_and_columns_of_b(isa):
    exact = ab.exact_accumulator()
    a = ab.quantize_blocks(numbers((2, 5, 32)), "nvfp4_row", axis=-1)
    b = ab.quantize_blocks(numbers((32, 3), 2), "nvfp4_row", axis=0)
    left, right = a.tensor_scale, b.tensor_scale
    assert left.shape == (2, 5, 1)
    assert right.shape == (1, 3)
    plain = ab.matmul(a.values(), b.values(), exact)
    assert np.array_equal(ab.matmul(a, b, exact), plain * (left * right))
    assert np.array_equal(ab.matmul(a, b.values(), exact), plain * left)
    assert np.array_equal(ab.matmul(a.values(), b, exact), plain * right)
    line = ab.quantize_blocks(numbers(32, 3), "nvfp4_row")
    assert np.array_equal(
        ab.matmul(a, line, exact),
        ab.matmul(a.values(), line.values(), exact) * (left[..., 0] * line.tensor_scale),
    )
    assert np.array_equal(
        ab.matmul(line, b, exact),
        ab.matmul(line.values(), b.values(), exact) * (line.tensor_scale * right[0]),
    )
    for bad_a, bad_b in ((a.values(), ab.quantize_blocks(numbers((32, 4)), "nvfp4_row")),):
        with pytest.raises(ValueError, match=r"b must have one, or one for each of its columns"):
            ab.matmul(bad_a, bad_b, exact)
    with pytest.raises(ValueError, match=r"a must have one, or one for each of its rows"):
        ab.matmul(ab.quantize_blocks(numbers((32, 32)), "nvfp4_row", axis=0), b, exact)


def test_out_scalars_and_threads(isa):
    exact = ab.exact_accumulator()
    a = ab.quantize_blocks(numbers((4, 48)), "nvfp4")
    b = ab.quantize_blocks(numbers((48, 3), 2), "nvfp4", axis=0)
    expected = ab.matmul(a, b, exact)
    for out in (np.zeros((4, 3), np.float32), np.zeros((3, 4), np.float32).T):
        assert ab.matmul(a, b, exact, out=out, threads=2) is out
        assert np.array_equal(out, expected)
    line = ab.quantize_blocks(numbers(48), "nvfp4")
    inner = ab.matmul(line, line, exact)
    assert np.ndim(inner) == 0
    assert inner == np.float32(
        ab.matmul(line.values(), line.values(), exact) * (line.tensor_scale * line.tensor_scale)
    )


def test_the_plan_is_that_of_the_values():
    a = ab.quantize_blocks(numbers((4, 48)), "nvfp4")
    b = ab.quantize_blocks(numbers((48, 3), 2), "nvfp4", axis=0)
    datapath = ab.lba_accumulator()
    assert datapath.plan(a, b) == datapath.plan(a.values(), b.values())


def test_convolution(isa):
    datapath = ab.lba_accumulator()
    x = ab.quantize_blocks(numbers((2, 16, 5, 5)), "nvfp4", axis=1)
    w = ab.quantize_blocks(numbers((4, 16, 3, 3), 2), "nvfp4", axis=1)
    plain = ab.conv2d(x.values(), w.values(), datapath, padding=1)
    scale = x.tensor_scale * w.tensor_scale
    got = ab.conv2d(x, w, datapath, padding=1)
    assert np.array_equal(got, plain * scale)
    out = np.empty_like(got)
    assert ab.conv2d(x, w, datapath, padding=1, out=out) is out
    assert np.array_equal(out, got)
    mx = ab.quantize_blocks(numbers((4, 16, 3, 3), 2), "mxfp8_e4m3", axis=1)
    assert np.array_equal(
        ab.conv2d(x.values(), mx, datapath, stride=2),
        ab.conv2d(x.values(), mx.dequantize(), datapath, stride=2),
    )
    with pytest.raises(ValueError, match="w must have one as its tensor scale"):
        ab.conv2d(x, ab.quantize_blocks(numbers((4, 16, 3, 3)), "nvfp4_row", axis=1), datapath)
    with pytest.raises(ValueError, match="c must be None"):
        ab.conv2d(x, w, datapath, padding=1, c=np.zeros(1, np.float32))


def test_errors():
    exact = ab.exact_accumulator()
    a = ab.quantize_blocks(numbers((4, 48)), "nvfp4")
    b = numbers((48, 3))
    with pytest.raises(ValueError, match="c must be None for operands with a tensor scale"):
        ab.matmul(a, b, exact, c=np.zeros(3, np.float32))
    mx = ab.quantize_blocks(numbers((4, 48)), "mxfp4")
    assert np.array_equal(
        ab.matmul(mx, b, exact, c=np.ones(3, np.float32)),
        ab.matmul(mx.dequantize(), b, exact, c=np.ones(3, np.float32)),
    )
    with pytest.raises(TypeError, match="a must hold integers"):
        ab.matmul(mx, b.astype(np.int8), ab.integer_accumulator(16))
    wide = ab.BlockFormat(
        element=ab.get_format("e2m1"), scale=ab.get_format("binary32"), block=(1, 8)
    )
    inexact = ab.quantize_blocks(numbers((4, 48)), wide)
    with pytest.raises(ValueError, match="a: expected values that float32 holds exactly"):
        ab.matmul(inexact, b, exact)
    exact_scales = ab.quantize_blocks(np.full((2, 48), 6 * 2.0**-5, np.float32), wide)
    assert np.array_equal(
        ab.matmul(exact_scales, b, exact), ab.matmul(exact_scales.dequantize(), b, exact)
    )
    large = ab.BlockArray(
        codes=np.full((1, 48), 7, np.uint8),
        element=ab.get_format("e2m1"),
        scales=np.full((1, 2), 254, np.uint8),
        scale_format=ab.get_format("e8m0"),
        block=(1, 32),
        axis=1,
    )
    with pytest.raises(ValueError, match="a: expected values that float32 holds"):
        ab.matmul(large, b, exact)


@pytest.mark.parametrize(("flush", "rounding"), STATES)
def test_the_callers_float_state_does_not_matter(flush, rounding, isa):
    x = numbers((6, 64)) * np.exp2(np.arange(-140, 116, 4, dtype=np.float32))
    x[:, 32:48] = 0  # a block of zeros, and blocks of subnormal numbers before it
    raised, small = x[:, :24] * np.float32(2.0**60), np.float32(2.0**-70) * numbers((4, 32))
    _block_job.block_job.cache_clear()

    def run():
        results = []
        for name in ab.block_formats():
            for tensor in (x, raised):
                q = ab.quantize_blocks(tensor, name, "stochastic", seed=1)
                results += [q.codes, q.scales, np.asarray(q.tensor_scale), q.dequantize()]
        a = ab.quantize_blocks(small, "nvfp4")
        results.append(ab.matmul(a, a.dequantize().T, ab.exact_accumulator()))
        return results

    expected = run()
    _block_job.block_job.cache_clear()
    with float_state(flush, rounding):
        found = run()
    for got, right in zip(found, expected, strict=True):
        assert got.tobytes() == right.tobytes()
