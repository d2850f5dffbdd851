"""Slow, independent definitions of rotations: Hadamard butterflies and MS-EDEN in plain NumPy."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def inverse_root(n: int) -> np.float32:
    """Return fl32(1 / sqrt(n)) of a power of two, from integers alone."""
    exponent = n.bit_length() - 1
    if exponent % 2 == 0:
        return np.float32(2.0 ** -(exponent // 2))
    # 2^-(k + 1/2) = 2^-(k+1) sqrt(2): 24 bits of sqrt(2), rounded to nearest; no tie, irrational.
    doubled = math.isqrt(2 << (2 * 24))
    return np.float32((doubled + 1) // 2 * 2.0 ** (-23 - exponent // 2 - 1))


def rotate(x: Floats, signs: npt.ArrayLike, n: int, axis: int, inverse: bool = False) -> Floats:
    """Rotate groups of n along `axis`, element by element as the definition says.

    `signs` has one entry for each position of the axis.
    """
    moved = np.moveaxis(np.asarray(x, np.float32), axis, -1)
    d = np.asarray(signs, np.float32)
    with np.errstate(all="ignore"):
        y = (moved.copy() if inverse else moved * d).reshape(-1, n)
        step = 1
        while step < n:
            z = y.copy()
            for i in range(n):
                u, v = y[:, i & ~step], y[:, i | step]
                z[:, i] = u - v if i & step else u + v
            y = z
            step *= 2
        y = (y * inverse_root(n)).reshape(moved.shape)
        if inverse:
            y = y * d
    y[np.isnan(y)] = np.nan
    return np.ascontiguousarray(np.moveaxis(y, -1, axis))


def hadamard_matrix(n: int) -> npt.NDArray[Any]:
    """Return Sylvester's matrix: entry (i, j) is -1 to the number of common bits of i and j."""
    return np.array([[1 - 2 * ((i & j).bit_count() & 1) for j in range(n)] for i in range(n)])


def sign_bits(words: npt.ArrayLike, length: int) -> npt.NDArray[np.float32]:
    """Return signs from 32-bit words: -1 where bit i % 32 of word i // 32 is 1."""
    flat = [int(word) for word in np.asarray(words)]
    bits = [flat[i // 32] >> (i % 32) & 1 for i in range(length)]
    return np.array([-1.0 if bit else 1.0 for bit in bits], np.float32)


def magnitudes(exponent_bits: int, mantissa_bits: int, bias: int, count: int) -> list[Fraction]:
    """Return the first `count` magnitudes of a small float format, in the order of their codes."""
    values = []
    for code in range(count):
        exponent, mantissa = code >> mantissa_bits, code & ((1 << mantissa_bits) - 1)
        significand = mantissa + (1 << mantissa_bits if exponent else 0)
        values.append(significand * Fraction(2) ** (max(exponent, 1) - bias - mantissa_bits))
    return values


E2M1 = magnitudes(2, 1, 1, 8)
E4M3 = magnitudes(4, 3, 7, 0x7F)  # 0x7f is NaN


def nearest_code(x: float, values: list[Fraction]) -> int:
    """Return the code of the nearest magnitude to |x|, ties to the even code, saturating."""
    distance = [abs(Fraction(abs(float(x))) - value) for value in values]
    least = min(distance)
    codes = [code for code, d in enumerate(distance) if d == least]
    return codes[0] if len(codes) == 1 or codes[0] % 2 == 0 else codes[1]


def stochastic_code(x: float, values: list[Fraction], word: int) -> int:
    """Return the code below x >= 0, or the next one with 32 random bits by rule A, saturating."""
    exact = Fraction(float(x))
    low = max(code for code, value in enumerate(values) if value <= exact)
    if low + 1 == len(values):
        return low
    nu = (exact - values[low]) / (values[low + 1] - values[low])
    return low + (math.floor(nu * 2**32) + word >= 2**32)


def ms_eden(
    rotated: Floats, words: npt.NDArray[Any], of_values: bool = False
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], np.float32]:
    """Quantise rows of rotated groups of 128 by the numbered steps of docs/rotation.md.

    Returns element codes, scale codes and the tensor scale; `words` has one word a scale.
    `of_values`: the correction is that of the values, not of the scaled elements.
    """
    f = np.float32
    largest = f(6) / f(1.0625 * 0.93)
    amax = np.abs(rotated).max()
    tensor = max(f(amax / f(f(255.99) * largest)), f(2.0**-126)) if amax else f(1)
    unit = f(largest * tensor)
    codes = np.zeros(rotated.shape, np.uint8)
    scales = np.zeros((rotated.shape[0], rotated.shape[1] // 16), np.uint8)
    for row in range(rotated.shape[0]):
        for start in range(0, rotated.shape[1], 128):
            chosen, yy, yq = [], [], []
            for block in range(start, start + 128, 16):
                x = rotated[row, block : block + 16]
                s = E4M3[nearest_code(f(np.abs(x).max() / unit), E4M3)] or Fraction(1)
                chosen.append(s)
                for i, v in enumerate(x):
                    y = f(v / f(f(s) * tensor))
                    code = nearest_code(y, E2M1)
                    codes[row, block + i] = code | (8 if np.signbit(y) else 0)
                    weight = float(s) if of_values else 1.0
                    wy = weight * abs(float(y))
                    yy.append(wy * wy)
                    yq.append(wy * (weight * float(E2M1[code])))
            while len(yy) > 1:
                half = len(yy) // 2
                yy = [yy[i] + yy[half + i] for i in range(half)]
                yq = [yq[i] + yq[half + i] for i in range(half)]
            correction = yy[0] / yq[0] if yq[0] > 0 else 1.0
            for i, s in enumerate(chosen):
                at = start // 16 + i
                word = int(words[row, at])
                scales[row, at] = stochastic_code(float(s) * correction, E4M3, word)
    return codes, scales, tensor


def nvfp4_stochastic(x: Floats, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return rows quantised to NVFP4 with headroom 17/16 and stochastic elements, in float64."""
    blocks = np.asarray(x, np.float64).reshape(-1, 16)
    tensor = np.abs(blocks).max() / 448 / 6 * 17 / 16
    grid = np.array([float(value) for value in E4M3])
    wanted = np.abs(blocks).max(axis=1) / 6 * 17 / 16 / tensor
    scale = grid[np.abs(wanted[:, None] - grid).argmin(axis=1)]
    unit = (np.where(scale == 0, 1, scale) * tensor)[:, None]
    magnitude = np.abs(blocks) / unit
    steps = np.array([float(value) for value in E2M1])
    low = np.minimum(np.searchsorted(steps, magnitude, side="right") - 1, 6)
    part = (magnitude - steps[low]) / (steps[low + 1] - steps[low])
    up = rng.random(blocks.shape) < part
    return (np.copysign(steps[low + up], blocks) * unit).reshape(x.shape)
