"""What functions of N:M sparsity share: checked n and m, where the groups of an axis lie."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NoReturn, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import NARROW_INTEGERS, Array, as_array, as_float_array, first_index
from ._format_base import integer
from ._hadamard import check_axis
from ._names import canonical

LARGEST_GROUP: int = _core.nm_largest_group

_REMAINDER = {"error": "error", "pad": "pad"}
_INTEGERS = NARROW_INTEGERS | {np.dtype(t) for t in (np.int8, np.uint8, np.int16, np.uint16)}


def check_pattern(n: SupportsIndex, m: SupportsIndex) -> tuple[int, int]:
    """Return n and m as ints if 1 <= n <= m <= 32."""
    size = integer("m", m, 1, LARGEST_GROUP)
    return integer("n", n, 1, size), size


def as_scores(name: str, x: Any) -> Array:
    """Return `x` as float32 or float64, integers of at most 16 bits widened exactly."""
    array = as_array(name, x)
    if array.dtype.newbyteorder("=") in _INTEGERS:
        return array.astype(np.float32)
    if array.dtype.kind in "iu":
        raise TypeError(
            f"{name} must hold floats, or integers of at most 16 bits, got {array.dtype}"
        )
    return as_float_array(name, array)


@dataclasses.dataclass(frozen=True)
class Groups:
    """Groups of `m` elements along an axis, the last of which may be short."""

    shape: tuple[int, ...]
    axis: int
    m: int

    @classmethod
    def along(cls, shape: tuple[int, ...], axis: SupportsIndex, m: int, remainder: str) -> Groups:
        """Return the groups of an array of this shape, everything checked."""
        number = check_axis(axis, len(shape))
        if canonical("remainder", remainder, _REMAINDER) == "error" and shape[number] % m:
            raise ValueError(
                f"x: expected a multiple of m={m} elements along axis {number}, got "
                f"{shape[number]}; remainder='pad' fills up with virtual zeros"
            )
        return cls(shape, number, m)

    @property
    def count(self) -> int:
        """Groups of one line along the axis."""
        return -(-self.shape[self.axis] // self.m)

    @property
    def words_shape(self) -> tuple[int, ...]:
        """Shape of an array of one number a group, the axis of the groups last."""
        others = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        return (*others, self.count)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Number of elements before the axis, along it, and after it."""
        return (
            math.prod(self.shape[: self.axis]),
            self.shape[self.axis],
            math.prod(self.shape[self.axis + 1 :]),
        )


def refuse_nonfinite(name: str, x: npt.NDArray[Any]) -> NoReturn:
    """Raise the ValueError for the first element that is not finite."""
    at = first_index(~np.isfinite(x))
    raise ValueError(f"{name}: expected finite numbers, got NaN or an infinity at {at}")
