"""Integer codes of real numbers: dtypes and labels of ranges, exact quotients, scales."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .._operand_types import type_of_range

_DTYPES = tuple(map(np.dtype, (np.int8, np.uint8, np.int16, np.uint16)))
_LARGEST_CODE = 2.0**17  # more than any code of 16 bits: what lies beyond saturates


def integer_type(lowest: int, highest: int) -> np.dtype[Any]:
    """Return the first of int8, uint8, int16 and uint16 that holds a range.

    Raises
    ------
    ValueError
        A range that none of them holds.

    Examples
    --------
    >>> from abcdeep_core.overflow import _integer_codes
    >>> _integer_codes.integer_type(-3, 252)
    dtype('int16')
    """
    for dtype in _DTYPES:
        info: Any = np.iinfo(dtype)
        if info.min <= lowest and highest <= info.max:
            return dtype
    raise ValueError(
        f"expected operands that int8, uint8, int16 or uint16 hold, got the range [{lowest},"
        f" {highest}]; a zero point of 16 bits has to be folded: zero_point='fold'"
    )


def type_label(lowest: int, highest: int, zero_point: int = 0) -> str:
    """Return a short name of a range, such as ``"s8"`` or ``"u8 - 3"`` with a zero point.

    Examples
    --------
    >>> from abcdeep_core.overflow import _integer_codes
    >>> _integer_codes.type_label(-127, 127), _integer_codes.type_label(0, 255, 3)
    ('s8', 'u8 - 3')
    """
    bits, signed = type_of_range((lowest, highest))
    label = f"{'s' if signed else 'u'}{bits}"
    if not zero_point:
        return label
    return f"{label} - {zero_point}" if zero_point > 0 else f"{label} + {-zero_point}"


def nearest_even_quotient(
    x: npt.NDArray[np.float64], scale: float | npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Return the integers nearest to x / scale, ties to even, of the exact quotient.

    Quotients beyond 2^17 count as 2^17. The division rounds once, which can only move a quotient
    onto a tie; there the sign of x - tie * scale, computed without rounding, decides.

    Examples
    --------
    >>> import numpy as np
    >>> from abcdeep_core.overflow import _integer_codes
    >>> _integer_codes.nearest_even_quotient(np.array([0.75, 1.25, 1.2500001]), 0.5).tolist()
    [2, 2, 3]
    """
    with np.errstate(over="ignore", under="ignore"):
        quotient = np.clip(x / scale, -_LARGEST_CODE, _LARGEST_CODE)
        nearest = np.rint(quotient)
        tie = np.abs(quotient - np.trunc(quotient)) == 0.5
        if tie.any():
            half = quotient[tie]
            factor = np.broadcast_to(np.asarray(scale, np.float64), x.shape)[tie]
            high = factor.astype(np.float32).astype(np.float64)
            above = x[tie] - half * high
            correction = half * (factor - high)
            nearest[tie] = np.where(
                above > correction,
                np.ceil(half),
                np.where(above < correction, np.floor(half), nearest[tie]),
            )
    return nearest.astype(np.int64)


def as_finite(name: str, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return a float array as float64, after a look for NaN and infinities.

    Raises
    ------
    TypeError
        Something else than floats.
    ValueError
        An element that is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from abcdeep_core.overflow import _integer_codes
    >>> _integer_codes.as_finite("x", np.float32([0.5]))
    array([0.5])
    """
    array = np.asarray(x)
    if array.dtype.kind != "f" and array.dtype.name not in ("bfloat16",):
        raise TypeError(f"{name}: expected floats, got {array.dtype}")
    wide = array.astype(np.float64)
    finite = np.isfinite(wide)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(f"{name}: expected finite values, got {wide[index]} at {index}")
    return wide


def symmetric_scale(name: str, largest: float, highest: int) -> float:
    """Return the float32 nearest to largest / highest, the scale of symmetric codes.

    Raises
    ------
    ValueError
        A scale beyond float32.

    Examples
    --------
    >>> from abcdeep_core.overflow import _integer_codes
    >>> _integer_codes.symmetric_scale("x", 254.0, 127)
    2.0
    """
    if largest == 0:
        return 1.0
    with np.errstate(over="ignore", under="ignore"):
        scale = float(np.float32(largest / highest))
    if not math.isfinite(scale):
        raise ValueError(f"{name}: expected values within the range of float32, got {largest}")
    return scale or float(np.finfo(np.float32).smallest_subnormal)
