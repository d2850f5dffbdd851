"""Integer operand types as text (u8, s4), dtypes or ranges."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from typing import Any, SupportsIndex, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

OperandType: TypeAlias = str | npt.DTypeLike | tuple[SupportsIndex, SupportsIndex]
Range: TypeAlias = tuple[int, int]  # lowest, highest

LARGEST_BITS = 16
_TEXT = re.compile(r"(u|s|uint|int)(\d+)")


def operand_range(name: str, given: OperandType) -> Range:
    """Return the lowest and the highest number of an operand type.

    `given` is a text (``"u8"``, ``"s4"``, ``"uint8"``, ``"int4"``), an integer dtype, or the pair
    itself.
    """
    if isinstance(given, str) and (match := _TEXT.fullmatch(given)):
        bits = int(match[2])
        if not 1 <= bits <= LARGEST_BITS:
            raise ValueError(f"{name} must have 1 to {LARGEST_BITS} bits, got {given!r}")
        return type_range(bits, not match[1].startswith("u"))
    if isinstance(given, Sequence) and not isinstance(given, str):
        return _pair(name, given)
    try:
        dtype = np.dtype(given)
    except TypeError:
        raise ValueError(
            f"{name} must be a type such as 'u8' or 's4', an integer dtype, or a pair (lowest, "
            f"highest), got {given!r}"
        ) from None
    if dtype.kind in "iu":
        info: Any = np.iinfo(dtype)
    elif dtype.name in ("int4", "uint4", "int2", "uint2"):
        info = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    else:
        raise TypeError(f"{name} must be an integer type, got {dtype}")
    return int(info.min), int(info.max)


def type_range(bits: int, signed: bool) -> Range:
    """Return the range of an integer of `bits` bits."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def type_of_range(bounds: Range) -> tuple[int, bool]:
    """Return bits and signedness of the narrowest integer type that holds a range."""
    lowest, highest = bounds
    if lowest >= 0:
        return max(highest.bit_length(), 1), False
    return max(-lowest - 1, highest, 0).bit_length() + 1, True


def type_name(bounds: Range) -> str:
    """Return ``"u8"`` or ``"s4"`` for the whole range of a type, else the range itself."""
    bits, signed = type_of_range(bounds)
    if type_range(bits, signed) == bounds:
        return f"{'s' if signed else 'u'}{bits}"
    return f"{bounds[0]}..{bounds[1]}"


def _pair(name: str, given: Sequence[Any]) -> Range:
    try:
        lowest, highest = (operator.index(value) for value in given)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a pair of integers, got {given!r}") from None
    if lowest > highest:
        raise ValueError(f"{name} must not be empty, got {lowest} to {highest}")
    return lowest, highest
