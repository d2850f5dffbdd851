"""Slow, independent definitions of hardware stochastic rounding: integers and exact fractions."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

FP4 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def word_of(x: float) -> int:
    """Return the bits of a float32 number."""
    return int(struct.unpack("<I", struct.pack("<f", x))[0])


def float_of(word: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", word))[0])


def to_float32(x: Fraction) -> Fraction:
    """Round a positive fraction to float32, to nearest even; its exponent is in range."""
    if x == 0:
        return x
    exponent = max(x.numerator.bit_length() - x.denominator.bit_length(), -126)
    while x < Fraction(2) ** exponent and exponent > -126:
        exponent -= 1
    unit = Fraction(2) ** (exponent - 23)
    return round(x / unit) * unit


def carry_out(word: int, mantissa_bits: int, bias: int, random: int, bits: int) -> int | None:
    """Round a finite float32 word by an integer sum with its discarded bits, to a magnitude code.

    The field of discarded bits is cut to its top `bits` bits (or filled up with zeros), R is added,
    and a carry out of it is a unit of what is kept. Returns a code that may be beyond the largest.
    """
    exponent, significand = word >> 23 & 0xFF, word & 0x7FFFFF
    if exponent:
        significand |= 1 << 23
    else:
        exponent = 1
    code_exponent = exponent - 127 + bias  # of the target, 1 is the smallest normal
    shift = 23 - mantissa_bits + max(0, 1 - code_exponent)
    kept, dropped = significand >> shift, significand & ((1 << shift) - 1)
    field = dropped >> (shift - bits) if shift >= bits else dropped << (bits - shift)
    kept += (field + random) >> bits
    return kept + ((max(code_exponent, 1) - 1) << mantissa_bits)


def te_software_e2m1(x: float, byte: int) -> float:
    """Round a finite float32 number as t = fma(u, step(|x|), |x|), cut to step(t) and to 6."""

    def step(value: Fraction) -> Fraction:
        return Fraction(1, 2) if value < 2 else Fraction(1) if value < 4 else Fraction(2)

    magnitude = Fraction(abs(x))
    total = to_float32(Fraction(byte, 256) * step(magnitude) + magnitude)
    q = min(math.floor(total / step(total)) * step(total), Fraction(6))
    return math.copysign(float(q), x)


def hip_fp8(word: int, random: int, mantissa_bits: int, exponent_bits: int) -> int:
    """Return the FNUZ byte of HIP's cast_to_f8, stochastic and with saturation.

    Follows the published function's steps on its own terms: align, add the low bits, find the
    carry, shift out. A shift by more than a register holds is a shift by all of it.
    """
    fraction, exponent, sign = word & 0x7FFFFF, word >> 23 & 0xFF, word >> 31
    if exponent == 0xFF:
        return 0x80
    if word == 0:
        return 0
    bias = 1 << (exponent_bits - 1)
    subnormal_exponent = 1 - bias
    actual = exponent - 127 + (exponent == 0)
    difference = max(subnormal_exponent - actual, 0)
    mantissa = (fraction + ((exponent != 0) << 23)) >> difference
    code = actual + difference + bias - (0 if mantissa >> 23 & 1 else 1)
    mantissa += random & ((1 << (23 - mantissa_bits)) - 1)
    if code == 0:
        code = mantissa >> 23 & 1
    elif mantissa >> 24:
        mantissa >>= 1
        code += 1
    mantissa >>= 23 - mantissa_bits
    if code > (1 << exponent_bits) - 1:
        return sign << 7 | 0x7F
    mantissa &= (1 << mantissa_bits) - 1
    magnitude = code << mantissa_bits | mantissa
    return sign << 7 | magnitude if magnitude else 0
