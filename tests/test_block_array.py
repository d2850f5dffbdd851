"""BlockArray: fields that belong together or raise, and values in any float state of the caller."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

import abcdeep_core as ab
from oracle_blocks import float32_of, scaled_result
from test_float_environment import STATES, float_state

E2M1, E8M0 = ab.get_format("e2m1"), ab.get_format("e8m0")
E4M3FN, BINARY32 = ab.get_format("e4m3fn"), ab.get_format("binary32")
Q = ab.quantize_blocks(np.linspace(-3, 5, 128, dtype=np.float32).reshape(2, 64), "mxfp4")


@pytest.mark.parametrize(
    ("block", "error"),
    [
        ((0, 32), ValueError),
        ((1, 0), ValueError),
        ((-1, 32), ValueError),
        ((1, -32), ValueError),
        ((1, 4097), ValueError),
        ((1, 2**31), ValueError),
        ((2**64, 1), ValueError),
        ((1, 2, 3), ValueError),
        ((), ValueError),
        ((1, 32.0), TypeError),
        ((True, 32), TypeError),
        (32.0, TypeError),
        ("32", TypeError),
        (None, TypeError),
    ],
)
def test_a_block_has_two_sizes_from_1_to_4096(block, error):
    with pytest.raises(error, match=r"^block must be"):
        dataclasses.replace(Q, block=block)


def test_a_block_may_be_one_size_or_a_list():
    for block in (32, [1, 32], (np.int64(1), np.uint8(32)), (32,)):
        q = dataclasses.replace(Q, block=block)
        assert q.block == (1, 32)
        assert [type(size) for size in q.block] == [int, int]
        assert np.array_equal(q.dequantize(), Q.dequantize())
    wide = dataclasses.replace(Q, block=4096, scales=Q.scales[:, :1])
    assert np.array_equal(wide.values()[:, :32], Q.values()[:, :32])


@pytest.mark.parametrize(
    "element",
    [
        "bf16",
        "fp16",
        "e8m0",
        ab.FixedFormat(bits=16, fraction_bits=8),
        ab.FixedFormat(bits=4, fraction_bits=0, signed=False),
        ab.FixedFormat(bits=8, fraction_bits=64),
        ab.FloatFormat(exponent_bits=3, mantissa_bits=2, bias=200),
        ab.FloatFormat(exponent_bits=2, mantissa_bits=1, padding_bits=4),
    ],
)
def test_elements_are_those_of_block_formats(element):
    dtype = np.int8 if isinstance(element, ab.FixedFormat) else ab.get_format(element).code_dtype
    with pytest.raises(ValueError, match=r"^element must"):
        dataclasses.replace(Q, element=element, codes=Q.codes.astype(dtype))
    with pytest.raises(ValueError, match=r"^element must"):
        ab.BlockFormat(element=element, scale=E8M0, block=32)


@pytest.mark.parametrize(
    ("scale", "error"),
    [
        (ab.FixedFormat(bits=8, fraction_bits=0), TypeError),
        (ab.get_format("bf16"), ValueError),
        (E4M3FN.replace(padding_bits=4), ValueError),
        (ab.FloatFormat(exponent_bits=4, mantissa_bits=3, bias=90), ValueError),
        (
            ab.FloatFormat(
                exponent_bits=5, mantissa_bits=0, specials="e8m0", signed=False, code0="ordinary"
            ),
            ValueError,
        ),
    ],
)
def test_scales_are_those_of_block_formats(scale, error):
    dtype = np.int8 if isinstance(scale, ab.FixedFormat) else scale.code_dtype
    with pytest.raises(error, match=r"^scale_format must"):
        dataclasses.replace(Q, scale_format=scale, scales=Q.scales.astype(dtype))
    with pytest.raises(error, match=r"^scale must"):
        ab.BlockFormat(element=E2M1, scale=scale, block=32)


def test_words_are_those_of_the_formats():
    codes = Q.codes.copy()
    codes[1, 7] = 16
    with pytest.raises(
        ValueError, match=r"^codes must be words of 4 bits, 0\.\.15, .* at \[1, 7\]"
    ):
        dataclasses.replace(Q, codes=codes)
    int4 = ab.FixedFormat(bits=4, fraction_bits=2)
    with pytest.raises(
        ValueError, match=r"^codes must be words of 4 bits, -8\.\.7, .* at \[1, 7\]"
    ):
        dataclasses.replace(Q, codes=(codes & 16).view(np.int8), element=int4)
    ue4m3 = ab.get_format("ue4m3")
    scales = np.full(Q.scales.shape, 127, np.uint8)
    assert np.isnan(dataclasses.replace(Q, scales=scales, scale_format=ue4m3).values()).all()
    scales[1, 0] = 128
    text = r"^scales must be words of 7 bits, 0\.\.127, not so at \[1, 0\]"
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(Q, scales=scales, scale_format=ue4m3)
    fmt = ab.BlockFormat(element="e4m3fn", scale=ue4m3, block=32)
    with pytest.raises(ValueError, match=text):
        ab.decode_blocks(Q.codes, scales, fmt)
    written = ab.quantize_blocks(np.ones((2, 64), np.float32), fmt)
    written.scales[1, 0] = 128
    with pytest.raises(ValueError, match=text):
        written.dequantize()


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (-1.0, ValueError),
        (1e300, ValueError),
        (1e-300, ValueError),
        pytest.param(10**300, TypeError, id="10**300"),
        (1j, TypeError),
        ("1", TypeError),
        (None, TypeError),
        (True, TypeError),
        ([1.0], TypeError),
        (np.ones((2, 1)), TypeError),
        (np.ones((2, 2), np.float32), ValueError),
        (np.float32([[1], [np.nan]]), ValueError),
        (np.float32([[1], [-1]]), ValueError),
        (np.float32([[0], [1]]), None),
        (np.float16(0.5), None),
        (0, None),
    ],
)
def test_tensor_scales_are_finite_float32_numbers_that_are_not_negative(value, error):
    if error is None:
        assert np.asarray(dataclasses.replace(Q, tensor_scale=value).tensor_scale).dtype == "f4"
        return
    with pytest.raises(error, match=r"^tensor_scale must be"):
        dataclasses.replace(Q, tensor_scale=value)
    codes, scales, _ = ab.encode_blocks(np.ones((2, 64), np.float32), "mxfp4")
    with pytest.raises(error, match=r"^tensor_scale must be"):
        ab.decode_blocks(codes, scales, "mxfp4", tensor_scale=value)


def test_messages_name_the_argument():
    zeros = np.zeros(2, np.uint8)
    for codes in (np.uint8(0), np.float32(0)):
        for name in ("mxfp4", "mxfp8_e4m3"):
            with pytest.raises(ValueError, match="codes must have at least one dimension"):
                ab.decode_blocks(codes, zeros[:1], name)
    with pytest.raises(ValueError, match="codes must have at least one dimension"):
        ab.BlockArray(
            codes=np.zeros((), np.uint8),
            element=E2M1,
            scales=zeros,
            scale_format=E8M0,
            block=1,
            axis=0,
        )
    for size in (4.0, "4", True):
        with pytest.raises(TypeError, match="size must be an integer, got"):
            ab.decode_blocks(zeros, zeros[:1], "mxfp4", size=size)
    with pytest.raises(TypeError, match="axis must be an integer"):
        ab.decode_blocks(zeros, zeros[:1], "mxfp8_e4m3", axis=0.0)


def test_a_tensor_scale_above_the_range_raises():
    fmt = ab.get_block_format("nvfp4").replace(maximum=2.0**-20)
    with pytest.raises(ValueError, match="tensor_scale must be finite"):
        ab.quantize_blocks(np.full(16, 3e38, np.float32), fmt)


def wide_array(scale_format, element=E2M1):
    """Return a block array whose values are float64."""
    rng = np.random.default_rng(1)
    if scale_format.bits == 32:
        scales = np.exp2(rng.uniform(-20, 20, (3, 8))).astype(np.float32).view(np.uint32)
        scales[0] = rng.integers(1, 1 << 20, 8)  # subnormal
    else:
        scales = rng.integers(30, 60, (3, 8)).astype(np.uint8)
    return ab.BlockArray(
        codes=rng.integers(0, 16, (3, 30)).astype(np.uint8),
        element=element,
        scales=scales,
        scale_format=scale_format,
        block=(1, 4),
        axis=1,
        tensor_scale=rng.uniform(1, 2, (3, 1)).astype(np.float32),
    )


@pytest.mark.parametrize(
    ("scale", "element"),
    [(BINARY32, E2M1), (E8M0, E2M1.replace(bias=60))],
)
def test_values_in_float64_times_a_tensor_scale(scale, element):
    q = wide_array(scale, element)
    assert q.values().dtype == np.float64
    elements, scales = (
        np.asarray(ab.decode(*pair), np.float64)
        for pair in ((q.codes, q.element), (np.repeat(q.scales, 4, axis=1)[:, :30], q.scale_format))
    )
    exact = [Fraction(e) * Fraction(s) for e, s in zip(elements.flat, scales.flat, strict=True)]
    assert list(map(Fraction, q.values().flat)) == exact
    expected = scaled_result(q.values(), q.tensor_scale, 1)
    assert np.array_equal(q.dequantize(), expected)
    assert not np.array_equal(expected, q.values().astype(np.float32) * q.tensor_scale)
    plain = dataclasses.replace(q, tensor_scale=1.0)
    assert plain.dequantize().ravel().tolist() == [float32_of(x) for x in exact]
    fmt = ab.BlockFormat(element=element, scale=scale, block=4)
    codes = (q.codes[:, ::2] | q.codes[:, 1::2] << 4).astype(np.uint8)
    out = np.empty((30, 3), np.float32).T
    for array in (q, plain):
        given = ab.decode_blocks(codes, q.scales, fmt, tensor_scale=array.tensor_scale, out=out)
        assert given is out
        assert np.array_equal(out, array.dequantize())


@pytest.mark.filterwarnings("error")
def test_infinite_values_raise_no_warning():
    q = wide_array(BINARY32)
    q.scales[1] = 0x7F800000
    q.scales[2] = 0x7F7FFFFF
    q.codes[:, :4] = [0, 7, 15, 1]
    assert q.dequantize()[1, 1:3].tolist() == [np.inf, -np.inf]
    assert np.isnan(q.values()[1, 0])
    assert q.dequantize()[2, 1] == np.inf


@pytest.mark.parametrize(("flush", "rounding"), STATES)
def test_the_callers_float_state_does_not_matter(flush, rounding):
    x = np.random.default_rng(2).standard_normal((4, 32)).astype(np.float32)
    tiny = x * np.float32(2.0**-130)
    below_normal = np.full(16, 2.0**-126 - 2.0**-149, np.float32)
    four_over_six = ab.get_block_format("nvfp4_4over6").replace(four_over_six="mae")
    maxima = np.float64([[1 / 3], [1e-40], [0.1], [7]])
    subnormal = wide_array(BINARY32)
    few_bits = dataclasses.replace(subnormal, scales=subnormal.scales & np.uint32(0xFFFFFFF0))
    codes, scales, _ = ab.encode_blocks(x, "nvfp4")
    a = ab.quantize_blocks(x, "nvfp4_row")
    b = ab.quantize_blocks(x.T, "nvfp4_headroom", axis=0)
    exact = ab.exact_accumulator()

    def run():
        small_a, small_b = (dataclasses.replace(q, tensor_scale=1e-39) for q in (a, b))
        arrays = (
            ab.quantize_blocks(x, "nvfp4", max_abs=0.1 + 1e-9),
            ab.quantize_blocks(x, "nvfp4_row", max_abs=maxima),
            ab.quantize_blocks(tiny, "nvfp4", max_abs=1e-39),
            ab.quantize_blocks(tiny, "nvfp4_4over6"),
            ab.quantize_blocks(below_normal, four_over_six),
            ab.quantize_blocks(tiny * np.float32(0), "nvfp4", max_abs=1e-39),
        )
        return [
            subnormal.values(),
            subnormal.dequantize(),
            ab.decode_blocks(codes, scales, "nvfp4", tensor_scale=0.1),
            ab.decode_blocks(codes, scales, "nvfp4", tensor_scale=1e-39),
            dataclasses.replace(a, tensor_scale=1 / 3).tensor_scale,
            small_a.tensor_scale,
            ab.matmul(a, b, exact),
            ab.matmul(small_a, b, exact),
            ab.matmul(a, small_b, exact),
            ab.matmul(few_bits, x.reshape(-1)[:90].reshape(30, 3), exact),
            *(part for q in arrays for part in (q.codes, q.scales, q.tensor_scale, q.dequantize())),
        ]

    expected = run()
    with float_state(flush, rounding):
        found = run()
    for i, (got, right) in enumerate(zip(found, expected, strict=True)):
        assert got.tobytes() == right.tobytes(), i


def test_a_result_written_over_an_array_does_not_change_its_other_fields():
    x = np.linspace(-3, 5, 64, dtype=np.float32)
    old = ab.quantize_blocks(x, "nvfp4")
    scale = old.tensor_scale
    new = ab.quantize_blocks(x * np.float32(3), "nvfp4", out=old)
    assert new.codes is old.codes
    assert old.tensor_scale == scale
    assert np.array_equal(
        new.dequantize(), ab.quantize_blocks(x * np.float32(3), "nvfp4").dequantize()
    )
