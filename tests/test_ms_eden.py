"""MS-EDEN: bit for bit against its steps in plain Python, its error and its bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from oracle_rotation import ms_eden, nvfp4_stochastic, rotate, sign_bits
from test_float_environment import STATES, control_word, float_state

SEED = 0x0123456789ABCDEF


def unrotated(q: ab.BlockArray, **address: Any) -> np.ndarray:
    return ab.random_hadamard(q.dequantize(), block=128, inverse=True, **address)


def slope(q: np.ndarray, x: np.ndarray) -> float:
    q, x = q.astype(np.float64), x.astype(np.float64)
    return float((q * x).sum() / (x * x).sum())


def relative_error(q: np.ndarray, x: np.ndarray) -> float:
    q, x = q.astype(np.float64), x.astype(np.float64)
    return float(((q - x) ** 2).sum() / (x * x).sum())


def cases() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    normal = rng.standard_normal((3, 256)).astype(np.float32)
    uneven = normal * np.exp2(rng.integers(-30, 10, (3, 1))).astype(np.float32)
    uneven[1] = 0  # a scale of 0 becomes 1
    heavy = rng.lognormal(0, 2, (3, 256)).astype(np.float32)
    tiny = normal * np.float32(2.0**-120)
    least = (normal * np.exp2(rng.integers(-9, 0, (3, 1))) * 2.0**-137).astype(np.float32)
    one = np.zeros((1, 128), np.float32)
    one[0, 5] = -3
    return {
        "normal": normal,
        "uneven": uneven,
        "heavy": heavy,
        "tiny": tiny,
        "least": least,
        "one": one,
    }


@pytest.mark.parametrize("correction", ["elements", "values"])
@pytest.mark.parametrize("name", cases())
def test_bits_against_the_steps(isa, name, correction):
    x = cases()[name]
    q = ab.ms_eden(x, seed=SEED, stream=3, call=4, sign_stream=5, correction=correction)
    signs = sign_bits(ab.random_bits(8, seed=SEED, stream=5, call=4), x.shape[1])
    blocks = (x.shape[0], x.shape[1] // 16)
    words = ab.random_bits(blocks, seed=SEED, stream=3, call=4, start=2**63)
    codes, scales, tensor = ms_eden(rotate(x, signs, 128, 1), words, correction == "values")
    assert np.array_equal(q.codes, codes)
    assert np.array_equal(q.scales, scales)
    assert q.tensor_scale == tensor
    assert q.tensor_scale.dtype == np.float32
    assert (q.element.name, q.scale_format.name) == ("e2m1", "e4m3fn")
    assert (q.block, q.axis) == ((1, 16), 1)


def test_axes_threads_and_strides(isa):
    x = np.random.default_rng(2).standard_normal((2, 256, 5)).astype(np.float32)
    address = {"seed": 1, "stream": 2, "call": 3}
    q = ab.ms_eden(x, axis=1, **address)
    assert q.codes.shape == (2, 256, 5)
    assert q.scales.shape == (2, 16, 5)
    for other, threads in ((np.asfortranarray(x), 1), (x, 2), (x, 7)):
        same = ab.ms_eden(other, axis=-2, threads=threads, **address)
        assert np.array_equal(q.codes, same.codes)
        assert np.array_equal(q.scales, same.scales)
    # Elements do not depend on where the axis is; scale words go by the order of the scales.
    last = ab.ms_eden(np.moveaxis(x, 1, -1), **address)
    assert np.array_equal(np.moveaxis(last.codes, -1, 1), q.codes)
    ups = np.abs(np.moveaxis(last.scales, -1, 1).astype(int) - q.scales)
    assert ups.max() == 1


def test_the_callers_float_state_does_not_matter(isa):
    inputs = [cases()[name] for name in ("heavy", "uneven", "tiny", "least")]
    expected = [ab.ms_eden(x, seed=1) for x in inputs]
    for flush, rounding in STATES:
        with float_state(flush, rounding):
            state = control_word()
            got = [ab.ms_eden(x, seed=1) for x in inputs]
            assert control_word() == state
        for q, e in zip(got, expected, strict=True):
            assert np.array_equal(q.codes, e.codes)
            assert np.array_equal(q.scales, e.scales)
            assert q.tensor_scale == e.tensor_scale


def test_many_groups():
    x = np.random.default_rng(9).lognormal(0, 1, (3, 1024)).astype(np.float32)
    few, many = ab.ms_eden(x, seed=1), ab.ms_eden(np.tile(x, (70, 1)), seed=1)
    assert np.array_equal(many.codes, np.tile(few.codes, (70, 1)))
    assert np.array_equal(many.scales[:3], few.scales)
    draws = many.scales.reshape(70, 3, 64)
    assert (np.ptp(draws, axis=0) <= 1).all()


def test_clipped_counts_elements_above_the_largest():
    # The largest element of a block becomes 6 / 0.988125 times at most 1 + 1/16: it is cut unless
    # its scale was rounded up by more than that.
    x = np.random.default_rng(3).standard_normal((64, 1280)).astype(np.float32)
    q = ab.ms_eden(x, seed=1)
    blocks = x.size // 16
    assert 0.5 * blocks < q.clipped < blocks


def test_error_is_less_than_half_that_of_stochastic_rounding():
    # 2^21 elements; the standard deviation of either error, over its value, is below
    # sqrt(8 / 2^21) = 0.2 % as long as the squares' kurtosis is below 9: the ratio is 2.41 and the
    # limits 2.2 and 2.6 are dozens of standard deviations away.
    rng = np.random.default_rng(4)
    for x in (rng.standard_normal((2048, 1024)), rng.lognormal(0, 1, (2048, 1024))):
        x = x.astype(np.float32)
        rotated = ab.random_hadamard(x, block=128, seed=9)
        eden = relative_error(ab.ms_eden(x, seed=9).dequantize(), rotated)
        stochastic = relative_error(nvfp4_stochastic(rotated, rng), rotated)
        assert 2.2 < stochastic / eden < 2.6
    assert abs(eden - 0.00976) < 0.0005


def test_bias():
    # The slope's standard deviation, given the data, is sqrt(0.0098 / 2^21) = 0.007 %: the known
    # bias of -0.05 to -0.06 % of the published correction lies five of them inside each limit, as
    # does zero with that of the values.
    x = np.random.default_rng(5).standard_normal((2048, 1024)).astype(np.float32)
    for correction, low, high in (("elements", -0.0009, -0.0002), ("values", -0.00035, 0.00035)):
        q = ab.ms_eden(x, seed=11, stream=1, correction=correction)
        assert low < slope(unrotated(q, seed=11), x) - 1 < high


def test_expected_scales_keep_the_length_of_a_group():
    # With the correction of the values, <q, r> is <r, r> in the mean over draws of the scales. Of 8
    # groups, |z| > 5 comes up once in 200,000 seeds; the seed is fixed. The published correction
    # does not have it: its z are far beyond.
    x = np.random.default_rng(6).standard_normal((1, 1024)).astype(np.float32)
    rotated = ab.random_hadamard(x, block=128, seed=1)[0].astype(np.float64)
    lengths = (rotated**2).reshape(8, 128).sum(axis=-1)
    worst = {}
    for correction in ("values", "elements"):
        sums = []
        for stream in range(1500):
            q = ab.ms_eden(x, seed=1, stream=stream, correction=correction)
            sums.append((q.dequantize()[0] * rotated).reshape(8, 128).sum(axis=-1))
        z = (np.mean(sums, axis=0) - lengths) / (np.std(sums, axis=0) / np.sqrt(1500))
        worst[correction] = np.abs(z).max()
    assert worst["values"] < 5
    assert worst["elements"] > 8


def test_operands_of_a_product_share_signs():
    rng = np.random.default_rng(7)
    a = rng.standard_normal((64, 1024)).astype(np.float32)
    b = rng.standard_normal((1024, 48)).astype(np.float32)
    qa = ab.ms_eden(a, seed=1, stream=1)
    qb = ab.ms_eden(b, seed=1, stream=2, axis=0)
    product = qa.dequantize() @ qb.dequantize()
    exact = a @ b
    # Two relative errors of 0.0098 add up; 3,072 outputs.
    assert relative_error(product, exact) < 0.022
    assert relative_error(qa.dequantize() @ ab.ms_eden(b, seed=2, axis=0).dequantize(), exact) > 1


def test_zeros_empty_and_narrow():
    zero = ab.ms_eden(np.zeros((2, 128), np.float32), seed=1)
    assert (zero.dequantize() == 0).all()
    assert zero.tensor_scale == 1
    for shape, axis in (((0, 128), 1), ((3, 0), 1), ((128, 0), 0)):
        assert ab.ms_eden(np.zeros(shape, np.float32), seed=1, axis=axis).shape == shape
    x = np.random.default_rng(8).standard_normal((2, 128)).astype(np.float16)
    wide = ab.ms_eden(x.astype(np.float32), seed=1)
    assert np.array_equal(ab.ms_eden(x, seed=1).codes, wide.codes)
    small = ab.ms_eden(np.full((1, 128), 2.0**-149, np.float32), seed=1)
    assert np.isfinite(small.dequantize()).all()


X = np.zeros((2, 128), np.float32)


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (TypeError, "float64", {"x": X.astype(float)}),
        (TypeError, "x must hold floats", {"x": X.astype(int)}),
        (ValueError, "seed", {"seed": None}),
        (TypeError, "axis", {"axis": 1.0}),
        (ValueError, "multiple of block=128", {"x": X[:, :64]}),
        (ValueError, "axis", {"axis": 2}),
        (ValueError, "axis", {"x": np.float32(1)}),
        (ValueError, "stream", {"stream": 1 << 32}),
        (ValueError, "sign_stream", {"sign_stream": -1}),
        (ValueError, "call", {"call": 1 << 32}),
        (ValueError, "correction", {"correction": "eden"}),
        (TypeError, "correction", {"correction": None}),
        (ValueError, "threads", {"threads": 0}),
        (ValueError, r"not at \[1, 3\]", {"x": np.where(np.arange(256).reshape(2, 128) == 131,
                                                        np.float32(np.nan), X)}),
        (ValueError, "overflow", {"x": np.full((1, 128), 3e38, np.float32)}),
    ],
)  # fmt: skip
def test_errors(error, message, change):
    call = {"x": X, "seed": 1, **change}
    with pytest.raises(error, match=message):
        ab.ms_eden(call.pop("x"), **call)


def test_explicit_signs_and_words_are_those_of_the_seed() -> None:
    x = np.random.default_rng(5).standard_normal((3, 256)).astype(np.float32)
    drawn = ab.ms_eden(x, seed=9, stream=2, call=4, sign_stream=1)
    signs = 1 - 2.0 * ab.random_bits(256, seed=9, stream=1, call=4, bits=1)
    words = ab.random_bits((3, 16), seed=9, stream=2, call=4, start=1 << 63)
    given = ab.ms_eden(x, signs=signs, random_bits=words)
    assert (given.codes == drawn.codes).all()
    assert (given.scales == drawn.scales).all()
    up = ab.ms_eden(x, signs=signs, random_bits=np.full((3, 16), 0xFFFFFFFF, np.uint32))
    assert (up.scales >= drawn.scales).all()
    assert (up.scales > drawn.scales).any()
    for missing in ({"signs": signs}, {"random_bits": words}, {}):
        with pytest.raises(ValueError, match="seed: expected a seed"):
            ab.ms_eden(x, **missing)
    with pytest.raises(ValueError, match=r"random_bits must have shape \(3, 16\)"):
        ab.ms_eden(x, signs=signs, random_bits=words[:, 1:])
