"""Block arrays as operands of products: their exact values, and the scale of the result."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, first_index
from .block_array import BlockArray

Operand: TypeAlias = npt.ArrayLike | BlockArray

_ONE = np.ones((), np.float32)


@dataclasses.dataclass(frozen=True)
class ResultScale:
    """The tensor scales of both operands, whose product multiplies a result once.

    The product of two float32 numbers is exact in float64. A result times it is rounded there, and
    then to the result's dtype.
    """

    left: Array
    right: Array

    def apply(self, result: Any, out: Array | None) -> Any:
        """Return `result`, which is `out` if that is given, scaled."""
        scaled = np.empty(np.shape(result), np.asarray(result).dtype) if out is None else out
        with _core.NearestEnvironment(), np.errstate(all="ignore"):
            factor = np.multiply(self.left, self.right, dtype=np.float64)
            np.multiply(result, factor, out=scaled, dtype=np.float64, casting="same_kind")
            scaled += 0  # -0, which a product too small leaves, becomes +0
        return scaled[()] if out is None else scaled


def matrix_operands(
    a: Operand, b: Operand, c: npt.ArrayLike | None
) -> tuple[Any, Any, ResultScale | None]:
    """Return the operands of a matrix product as arrays, and what scales the result."""
    left, right = _ONE, _ONE
    if isinstance(a, BlockArray):
        left = _tensor_scale("a", a, a.ndim - 1, "its rows")
        if left.ndim and np.ndim(b.codes if isinstance(b, BlockArray) else b) == 1:
            left = left[..., 0]
    if isinstance(b, BlockArray):
        right = _tensor_scale("b", b, b.ndim - 2, "its columns")
        if right.ndim and np.ndim(a.codes if isinstance(a, BlockArray) else a) == 1:
            right = right[..., 0, :]
    return _values("a", a), _values("b", b), _result_scale(left, right, c)


def image_operands(
    x: Operand, w: Operand, c: npt.ArrayLike | None
) -> tuple[Any, Any, ResultScale | None]:
    """Return the operands of a convolution as arrays, and what scales the result."""
    left = _tensor_scale("x", x, None, "") if isinstance(x, BlockArray) else _ONE
    right = _tensor_scale("w", w, None, "") if isinstance(w, BlockArray) else _ONE
    return _values("x", x), _values("w", w), _result_scale(left, right, c)


def _tensor_scale(name: str, operand: BlockArray, axis: int | None, lines: str) -> Array:
    scale = np.asarray(operand.tensor_scale)
    if scale.size == 1:
        return scale.reshape(())
    if operand.axis != axis:
        expected = f"one, or one for each of {lines}" if lines else "one"
        raise ValueError(
            f"{name} must have {expected} as its tensor scale, which multiplies the result; got "
            f"one for each line along axis {operand.axis}"
        )
    return scale


def _values(name: str, operand: Operand) -> Any:
    """Return element * scale of a block array as float32, exactly."""
    if not isinstance(operand, BlockArray):
        return operand
    values = operand.values()
    if values.dtype == np.float32 and not np.isinf(values).any():
        return values
    exact = operand._values64()
    with _core.NearestEnvironment(), np.errstate(over="ignore", under="ignore"):
        narrow = exact.astype(np.float32)
        changed = (narrow != exact) & ~np.isnan(exact)
    if changed.any():
        at = np.unravel_index(int(np.argmax(changed)), changed.shape)
        lies_within = 2.0**-126 <= abs(exact[at]) <= np.finfo(np.float32).max
        raise ValueError(
            f"{name}: expected values that float32 holds exactly, got element * scale = "
            f"{float(exact[at])!r} at {first_index(changed)}, which "
            f"{'needs more than 24 bits' if lies_within else 'is out of its range'}; pass "
            f"{name}.dequantize(), which rounds, or quantise with narrower scales, such as e4m3fn"
        )
    return narrow


def _result_scale(left: Array, right: Array, c: npt.ArrayLike | None) -> ResultScale | None:
    if np.all(left == 1) and np.all(right == 1):
        return None
    if c is not None:
        raise ValueError(
            "c must be None for operands with a tensor scale, which multiplies the whole result, "
            "start values included"
        )
    return ResultScale(left, right)
