"""Blocks along any axis: strides, threads, random words, packed words, arrays given for results."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import abcdeep_core as ab
from test_blocks import POWERS, SEED, check, wide


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4_row", "nvfp4_2d"])
@pytest.mark.parametrize("rounding", ["nearest_even", "stochastic"])
def test_axes_strides_and_threads_do_not_matter(name, rounding, isa):
    rng = np.random.default_rng(4)
    fmt = ab.get_block_format(name)
    if fmt.scale_rule == "max":
        fmt = fmt.replace(scale_rounding=rounding)
    x = wide(rng, (18, 20, 40), -2, 2)
    for axis in (0, 1, 2) if fmt.block[0] == 1 else (1, 2):
        for bits in (None, 1, 4, 16):
            options = {"axis": axis, "seed": SEED, "stream": 2, "call": 3, "bits": bits}
            lane = {None: 32, 1: 1, 4: 8, 16: 16}[bits]
            draws = ab.random_bits(x.shape, seed=SEED, stream=2, call=3, bits=lane)
            plain = ab.quantize_blocks(x, fmt, rounding, threads=1, **options)
            scale_draws = ab.random_bits(
                plain.scales.shape, seed=SEED, stream=2, call=3, start=2**63
            )
            explicit = ab.quantize_blocks(
                x,
                fmt,
                rounding,
                axis=axis,
                bits=bits,
                random_bits=draws.astype(np.uint32) << np.uint32(32 - lane),
                scale_random_bits=scale_draws,
            )
            strided = np.zeros((36, 20, 80), np.float32)[::2, :, ::2]
            strided[...] = x
            others = [
                explicit,
                ab.quantize_blocks(x, fmt, rounding, threads=3, **options),
                ab.quantize_blocks(np.asfortranarray(x), fmt, rounding, **options),
                ab.quantize_blocks(strided, fmt, rounding, **options),
            ]
            for other in others:
                assert np.array_equal(plain.codes, other.codes)
                assert np.array_equal(plain.scales, other.scales)
                assert np.array_equal(plain.tensor_scale, other.tensor_scale)
                assert plain.clipped == other.clipped
                assert np.array_equal(plain.dequantize(), other.dequantize())
            if rounding == "nearest_even":
                break


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_axis_against_the_oracle(axis):
    rng = np.random.default_rng(5)
    x = wide(rng, (5, 6, 7), -3, 3)
    words = rng.integers(0, 2**32, x.shape, dtype=np.uint32)
    fmt = ab.get_block_format("mxfp4").replace(block=4)
    check(x, fmt, axis=axis)
    check(x, fmt, "stochastic", axis=axis, words=words)
    check(x, fmt, "stochastic", axis=axis, words=words, bits=5)


@pytest.mark.parametrize("name", [name for name in ab.block_formats() if name != "nvfp4_2d"])
def test_blocks_along_another_axis_are_those_of_the_transpose(name, isa):
    rng = np.random.default_rng(13)
    for shape in ((70, 1100), (2, 33, 45), (16, 2), (5, 1)):
        x = wide(rng, shape, -3, 3)
        if name in POWERS:
            x[..., 0, 1 % shape[-1]] = np.nan
        words = rng.integers(0, 2**32, shape, dtype=np.uint32)
        for rounding, bits in (
            ("nearest_even", None),
            ("toward_positive", None),
            ("stochastic", None),
            ("stochastic", 7),
            ("stochastic", 20),
        ):
            options = {"bits": bits, "threads": 2}
            turned = ab.quantize_blocks(
                np.swapaxes(x, -1, -2),
                name,
                rounding,
                random_bits=np.swapaxes(words, -1, -2),
                **options,
            )
            q = ab.quantize_blocks(x, name, rounding, axis=-2, random_bits=words, **options)
            assert np.array_equal(q.codes, np.swapaxes(turned.codes, -1, -2))
            assert np.array_equal(q.scales, np.swapaxes(turned.scales, -1, -2))
            assert q.clipped == turned.clipped
            assert np.array_equal(
                q.dequantize(), np.swapaxes(turned.dequantize(), -1, -2), equal_nan=True
            )


@pytest.mark.parametrize("name", ab.block_formats())
@pytest.mark.parametrize("axis", [0, 1])
def test_words_round_trip(name, axis, isa):
    fmt = ab.get_block_format(name)
    if fmt.block[0] > 1 and axis == 0:
        pytest.skip("blocks of several rows need an axis before theirs")
    x = wide(np.random.default_rng(9), (37, 50), -3, 3)
    q = ab.quantize_blocks(x, name, axis=axis)
    codes, scales, tensor_scale = ab.encode_blocks(x, name, axis=axis)
    packed = fmt.element.bits == 4
    if packed:
        expected = [(n + 1) // 2 if i == axis else n for i, n in enumerate(x.shape)]
        assert list(codes.shape) == expected
        first = np.take(codes, 0, axis)
        assert np.array_equal(first & 15, np.take(q.codes, 0, axis))
        assert np.array_equal(first >> 4, np.take(q.codes, 1, axis))
    size = x.shape[axis] if packed else None
    values = ab.decode_blocks(
        codes, scales, name, axis=axis, tensor_scale=tensor_scale, size=size, threads=2
    )
    assert np.array_equal(values.view(np.uint32), q.dequantize().view(np.uint32))
    out = np.zeros((50, 37), np.float32).T
    returned = ab.decode_blocks(
        codes, scales, name, axis=axis, tensor_scale=tensor_scale, size=size, out=out
    )
    assert returned is out
    assert np.array_equal(values, out)
    # independent decoding
    exact = ab.decode(q.codes, q.element).astype(np.float64)
    scale = ab.decode(q.scales, q.scale_format).astype(np.float64)
    for a, n in ((axis, fmt.block[1]), (axis - 1, fmt.block[0])):
        if n > 1:
            scale = np.take(np.repeat(scale, n, axis=a), range(x.shape[a]), axis=a)
    assert np.array_equal(q.values(), exact * scale)
    # a product of float64 numbers with few bits: rounded once, by the cast
    assert np.array_equal(values, (q.values() * np.float32(q.tensor_scale)).astype(np.float32))


@pytest.mark.parametrize("shape", [(0,), (4, 0), (0, 16), (2, 0, 3)])
@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "nvfp4_row"])
def test_empty_arrays(shape, name):
    q = ab.quantize_blocks(np.zeros(shape, np.float32), name)
    assert q.shape == shape
    assert q.dequantize().shape == shape
    assert q.clipped == 0


@pytest.mark.parametrize("name", ["mxint8", "nvfp4_row"])
@pytest.mark.parametrize("axis", [0, 1])
def test_out_is_written_over(name, axis, isa):
    rng = np.random.default_rng(11)
    x, y = wide(rng, (32, 48), -3, 3), wide(rng, (32, 48), -3, 3)
    expected = ab.quantize_blocks(x, name, axis=axis)
    plain = ab.quantize_blocks(y, name, axis=axis)
    transposed = dataclasses.replace(plain, codes=np.asfortranarray(plain.codes))
    for out in (plain, transposed):
        q = ab.quantize_blocks(x, name, axis=axis, out=out)
        assert q.codes is out.codes
        assert q.scales is out.scales
        assert np.array_equal(q.codes, expected.codes)
        assert np.array_equal(q.dequantize(), expected.dequantize())
        assert q.clipped == expected.clipped
    for bad, error in (
        (x, TypeError),
        (ab.quantize_blocks(x, "mxfp4", axis=axis), ValueError),
        (ab.quantize_blocks(x[:16], name, axis=axis), ValueError),
        (ab.quantize_blocks(x, name, axis=1 - axis), ValueError),
    ):
        with pytest.raises(error, match="out must"):
            ab.quantize_blocks(x, name, axis=axis, out=bad)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 0), (0, 3), (2, 3, 7)])
@pytest.mark.parametrize("axis", [0, -1])
def test_four_bit_integers_are_packed_too(shape, axis):
    int4 = ab.FixedFormat(bits=4, fraction_bits=2, rounding="RND_CONV", overflow="SAT_SYM")
    fmt = ab.BlockFormat(element=int4, scale=ab.get_format("e8m0"), block=(1, 4))
    x = wide(np.random.default_rng(12), shape, -2, 2)
    q = ab.quantize_blocks(x, fmt, axis=axis)
    codes, scales, tensor_scale = ab.encode_blocks(x, fmt, axis=axis)
    assert codes.dtype == np.uint8
    assert codes.shape[axis] == (shape[axis] + 1) // 2
    values = ab.decode_blocks(
        codes, scales, fmt, axis=axis, tensor_scale=tensor_scale, size=shape[axis]
    )
    assert np.array_equal(values, q.dequantize())
    if x.size:
        check(x, fmt, axis=axis)
