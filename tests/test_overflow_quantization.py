"""Scales, codes, zero points and biases against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from abcdeep_core.overflow import _integer_codes, quantization

RNG = np.random.default_rng(8)


def float32(*shape):
    return np.float32(RNG.standard_normal(shape))


def nearest(x, scale):
    codes = [round(Fraction(float(v)) / Fraction(float(scale))) for v in x.reshape(-1)]
    return np.array(codes).reshape(x.shape)


@pytest.mark.parametrize("scale", [0.1, float(np.float32(0.1)), 1 / 3, 0.25, 3e-40, 1e30])
def test_quotients_are_rounded_once(scale):
    # Products of half-integers and the scale, rounded to either side of the tie, or exact ties.
    ties = (np.arange(-300, 300) + 0.5) * scale
    x = np.concatenate([ties, np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf)])
    got = _integer_codes.nearest_even_quotient(x, scale)
    assert np.array_equal(got, nearest(x, scale))


def test_quotients_of_float32():
    x = np.concatenate([float32(2000), np.float32(np.arange(-50, 50) / 8)]).astype(np.float64)
    for scale in (0.25, 0.125, float(np.float32(1 / 127)), 0.01):
        assert np.array_equal(_integer_codes.nearest_even_quotient(x, scale), nearest(x, scale))


@pytest.mark.parametrize("bits", range(2, 17))
def test_symmetric_inputs(bits):
    x = float32(500)
    largest = 2 ** (bits - 1) - 1
    low, high = float(x.min()), float(x.max())
    quantizer = quantization.InputQuantizer.calibrated(low, high, bits, affine=False)
    assert quantizer.operand_range == (-largest, largest)
    assert quantizer.scale == np.float32(max(-low, high) / largest)
    got = quantizer.operand("x", x * 2)
    assert np.array_equal(got, np.clip(nearest(x * 2, quantizer.scale), -largest, largest))
    assert got.dtype == (np.int8 if bits <= 8 else np.int16)


@pytest.mark.parametrize("bits", [2, 4, 8, 12, 16])
@pytest.mark.parametrize("shift", [-0.5, 0.0, 5.0, -5.0])
def test_affine_inputs(bits, shift):
    x = float32(500) + np.float32(shift)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    quantizer = quantization.InputQuantizer.calibrated(
        float(x.min()), float(x.max()), bits, affine=True, fold=True
    )
    largest = 2**bits - 1
    assert quantizer.scale == np.float32((high - low) / largest)
    zero = min(round(-Fraction(low) / Fraction(quantizer.scale)), largest)
    assert quantizer.zero_point == zero
    codes = np.clip(nearest(x, quantizer.scale) + zero, 0, largest)
    assert np.array_equal(quantizer.operand("x", x), codes)
    assert quantizer.operand("x", np.zeros(1)) == zero == quantizer.padding
    if bits < 16:
        subtracting = quantization.InputQuantizer.calibrated(
            float(x.min()), float(x.max()), bits, affine=True
        )
        assert np.array_equal(subtracting.operand("x", x), codes - zero)
        assert subtracting.operand_range == (-zero, largest - zero)
        assert subtracting.padding == 0


@pytest.mark.parametrize("bits", [2, 4, 8, 9, 16])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_weights(bits, axis):
    w = float32(6, 5)
    w[:, 2] = 0
    got = quantization.quantize_weight("w", w, bits, axis)
    highest = 2 ** (bits - 1) - 1
    assert got.range == (-highest, highest)
    scales = np.broadcast_to(got.scale if axis != 0 else got.scale[:, np.newaxis], w.shape)
    for index in np.ndindex(w.shape):
        code = round(Fraction(float(w[index])) / Fraction(float(scales[index])))
        assert got.values[index] == min(max(code, -highest), highest)
    if axis == 1:
        assert got.scale[2] == 1
        assert np.array_equal(
            got.scale[0], np.float32(np.abs(w[:, 0]).max().astype(float) / highest)
        )


def test_bias_in_accumulator_units():
    bias, scales = float32(20), np.abs(float32(20)).astype(np.float64)
    got = quantization.quantize_bias("b", bias, 0.01, scales)
    expected = [
        round(Fraction(float(b)) / (Fraction(0.01) * Fraction(float(s))))
        for b, s in zip(bias, scales, strict=True)
    ]
    assert got.tolist() == expected
    with pytest.raises(ValueError, match=r"b: expected a bias of less than 2\^62"):
        quantization.quantize_bias("b", np.float32([1e30]), 1e-3, 1.0)


def test_quantisation_arguments():
    for name in ("int1", "int17", "w8", "fp8", "int8 ", 8):
        with pytest.raises(ValueError, match=r"quantise: expected 'int8'|_bits: expected 2 to 16"):
            quantization.Quantization.from_name(name)
    with pytest.raises(ValueError, match="calibration_samples"):
        quantization.Quantization(calibration_samples=0)
    with pytest.raises(ValueError, match="x: expected finite values, got inf at"):
        quantization.quantize_weight("x", np.float32([[1, np.inf]]))
    with pytest.raises(TypeError, match="x: expected floats, got int64"):
        quantization.quantize_weight("x", np.int64([[1]]))
    with pytest.raises(ValueError, match="range of float32"):
        quantization.quantize_weight("x", np.array([1e300]))
    with pytest.raises(ValueError, match=r"zero_point: expected a number in \[0, 255\]"):
        quantization.InputQuantizer(lowest=0, highest=255, zero_point=256)
    with pytest.raises(ValueError, match="scale: expected a positive number"):
        quantization.InputQuantizer(lowest=0, highest=255, scale=0.0)
    plain = quantization.InputQuantizer(lowest=0, highest=15)
    with pytest.raises(ValueError, match=r"x: expected integers in \[0, 15\], got 0 to 16"):
        plain.operand("x", np.uint8([0, 16]))
    with pytest.raises(TypeError, match="x: expected integers, as the input has no scale"):
        plain.operand("x", np.float32([0]))
