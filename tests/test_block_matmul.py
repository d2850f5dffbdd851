"""Products of block arrays: exact values in every step, the tensor scales once at the end."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import _block_job
from oracle_blocks import scaled_result
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
    expected = scaled_result(plain, a.tensor_scale, b.tensor_scale)
    assert got.dtype == np.float32
    assert np.array_equal(got.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize(("left", "right"), [(1e-17, 1e-22), (3e-20, 7e-23), (1e38, 1e-38)])
def test_the_product_of_two_tensor_scales_may_leave_float32(left, right):
    a = ab.quantize_blocks(numbers((4, 32)) * np.float32(left), "nvfp4_row")
    b = ab.quantize_blocks(numbers((32, 3), 2) * np.float32(right), "nvfp4_row", axis=0)
    exact = ab.exact_accumulator()
    plain = ab.matmul(a.values(), b.values(), exact)
    expected = scaled_result(plain, a.tensor_scale, b.tensor_scale)
    assert (expected != 0).all()
    assert np.array_equal(ab.matmul(a, b, exact), expected)
    out = np.empty((3, 4), np.float32).T
    assert ab.matmul(a, b, exact, out=out) is out
    assert np.array_equal(out, expected)


def test_results_at_the_ends_of_the_range():
    exact = ab.exact_accumulator()
    a = ab.quantize_blocks(np.tile(np.float32([1, -1]), (2, 8)) * np.float32(1e38), "nvfp4")
    b = ab.quantize_blocks(np.full((16, 2), 1e8, np.float32), "nvfp4", axis=0)
    zero = ab.matmul(a, b, exact)  # the product of the scales is above float32's range
    assert not zero.view(np.uint32).any()
    positive = dataclasses.replace(a, codes=a.codes & np.uint8(7))
    assert np.isposinf(ab.matmul(positive, b, exact)).all()
    small = dataclasses.replace(a, tensor_scale=1e-30)
    tiny = dataclasses.replace(b, codes=np.tile(b.codes[:1], (16, 1)), tensor_scale=1e-30)
    tiny.codes[0] |= 8  # one term is negative, and so are the sums, far below float32's range
    assert (ab.matmul(small.values(), tiny.values(), exact) < 0).all()
    assert not ab.matmul(small, tiny, exact).view(np.uint32).any()


def test_results_in_float64_are_scaled_in_float64():
    datapath = ab.float_accumulator(ab.FloatFormat(exponent_bits=10, mantissa_bits=40))
    a = ab.quantize_blocks(numbers((3, 32)), "nvfp4")
    b = ab.quantize_blocks(numbers((32, 2), 2), "nvfp4", axis=0)
    got, plain = ab.matmul(a, b, datapath), ab.matmul(a.values(), b.values(), datapath)
    assert got.dtype == plain.dtype == np.float64
    factor = Fraction(float(a.tensor_scale)) * Fraction(float(b.tensor_scale))
    for value, sums in zip(got.flat, plain.flat, strict=True):
        assert value == float(Fraction(float(sums)) * factor)


@pytest.mark.parametrize("names", [("nvfp4", "nvfp4"), ("mxfp4", "nvfp4_2d"), ("mxint8", "nvfp4")])
def test_against_the_exact_oracle(names):
    a = ab.quantize_blocks(numbers((3, 36)), names[0])
    b = ab.quantize_blocks(numbers((36, 4), 2), names[1], axis=0 if "2d" not in names[1] else -1)

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
            assert got[m, n] == scaled_result(float(total), a.tensor_scale, b.tensor_scale)


def test_row_scales_belong_to_rows_of_a_and_columns_of_b(isa):
    exact = ab.exact_accumulator()
    a = ab.quantize_blocks(numbers((2, 5, 32)), "nvfp4_row", axis=-1)
    b = ab.quantize_blocks(numbers((32, 3), 2), "nvfp4_row", axis=0)
    left, right = a.tensor_scale, b.tensor_scale
    assert left.shape == (2, 5, 1)
    assert right.shape == (1, 3)
    plain = ab.matmul(a.values(), b.values(), exact)
    assert np.array_equal(ab.matmul(a, b, exact), scaled_result(plain, left, right))
    assert np.array_equal(ab.matmul(a, b.values(), exact), scaled_result(plain, left, 1))
    assert np.array_equal(ab.matmul(a.values(), b, exact), scaled_result(plain, 1, right))
    line = ab.quantize_blocks(numbers(32, 3), "nvfp4_row")
    assert np.array_equal(
        ab.matmul(a, line, exact),
        scaled_result(ab.matmul(a.values(), line.values(), exact), left[..., 0], line.tensor_scale),
    )
    assert np.array_equal(
        ab.matmul(line, b, exact),
        scaled_result(ab.matmul(line.values(), b.values(), exact), line.tensor_scale, right[0]),
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
    assert inner == scaled_result(
        ab.matmul(line.values(), line.values(), exact), line.tensor_scale, line.tensor_scale
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
    got = ab.conv2d(x, w, datapath, padding=1)
    assert np.array_equal(got, scaled_result(plain, x.tensor_scale, w.tensor_scale))
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


def test_binary32_scales_are_taken_where_float32_holds_the_values():
    exact, b = ab.exact_accumulator(), numbers((48, 3))
    wide = ab.BlockFormat(
        element=ab.get_format("e2m1"), scale=ab.get_format("binary32"), block=(1, 8)
    )
    few_bits = ab.quantize_blocks(numbers((4, 48)), wide)
    few_bits.scales[...] &= np.uint32(0xFFFFFFFC)  # 22 bits: 3 times it has 24
    powers = dataclasses.replace(few_bits, scales=few_bits.scales & np.uint32(0xFF800000))
    subnormal = dataclasses.replace(few_bits, scales=np.full((4, 6), 6, np.uint32))
    infinite = dataclasses.replace(few_bits, scales=np.full((4, 6), 0x7F800000, np.uint32))
    for q in (few_bits, powers, subnormal):
        assert q.values().dtype == np.float64
        assert np.array_equal(q.values(), q.dequantize())
        assert np.array_equal(ab.matmul(q, b, exact), ab.matmul(q.dequantize(), b, exact))
    infinite.codes[...] = 1
    assert np.array_equal(
        ab.matmul(infinite, b, exact), ab.matmul(infinite.dequantize(), b, exact), equal_nan=True
    )


def test_values_that_are_no_float32_numbers_raise():
    exact, b = ab.exact_accumulator(), numbers((48, 3))
    codes = np.full((1, 48), 7, np.uint8)  # 6

    def block_array(scale, word):
        return ab.BlockArray(
            codes=codes,
            element=ab.get_format("e2m1"),
            scales=np.array([[word]], scale.code_dtype),
            scale_format=scale,
            block=(1, 48),
            axis=1,
        )

    binary32, e8m0 = ab.get_format("binary32"), ab.get_format("e8m0")
    for q, text in (
        (block_array(binary32, 0x3F800001), r"6\.00000\d+ at \[0, 0\], which needs more than 24"),
        (block_array(binary32, 0x7F000000), r"at \[0, 0\], which is out of its range"),
        (block_array(e8m0, 254), r"at \[0, 0\], which is out of its range"),
    ):
        with pytest.raises(ValueError, match=f"a: expected values that float32 .*{text}"):
            ab.matmul(q, b, exact)
        with pytest.raises(ValueError, match=r"pass a\.dequantize\(\), .* such as e4m3fn"):
            ab.matmul(q, b, exact)
    kernels = dataclasses.replace(
        block_array(binary32, 0x3F800001),
        codes=codes.reshape(1, 48, 1, 1),
        scales=np.full((1, 1, 1, 1), 0x3F800001, np.uint32),
    )
    with pytest.raises(ValueError, match=r"w: expected values .* pass w\.dequantize\(\)"):
        ab.conv2d(np.ones((1, 48, 1, 1), np.float32), kernels, exact)


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
