"""Sums that no order or grouping of their terms changes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

_PIECE = 1 << 20
_LIMB = 21


def sum_of_squares(x: npt.NDArray[np.int64]) -> int:
    """Return the exact sum of the squares of integers below 2^62 in magnitude."""
    flat = x.reshape(-1)
    total = 0
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        mask = (1 << _LIMB) - 1
        if -mask <= piece.min() <= piece.max() <= mask:
            total += int(np.dot(piece, piece))
            continue
        limbs = (piece & mask, (piece >> _LIMB) & mask, piece >> 2 * _LIMB)
        for i, a in enumerate(limbs):
            for j, b in enumerate(limbs):
                total += int(np.dot(a, b)) << _LIMB * (i + j)
    return total


def sum_of_floats(x: npt.NDArray[Any]) -> Fraction:
    """Return the exact sum of finite float64 numbers."""
    mantissas, exponents = np.frexp(x.astype(np.float64).reshape(-1))
    whole = np.ldexp(mantissas, 53).astype(np.int64)
    total = Fraction(0)
    for exponent in np.unique(exponents):
        chosen = whole[exponents == exponent]
        high = int(np.sum(chosen >> 27))
        low = int(np.sum(chosen & ((1 << 27) - 1)))
        total += Fraction((high << 27) + low) * Fraction(2) ** (int(exponent) - 53)
    return total
