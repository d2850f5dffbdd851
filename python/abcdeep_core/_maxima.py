"""Largest magnitudes along axes, as float bits: every element checked finite, or m as given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt
from numpy.lib.array_utils import normalize_axis_tuple

from . import _core
from ._arrays import Array, as_float32_array, first_index
from ._quantize import encode

# Maxima are uint32 arrays of float bits: integers in the order of the magnitudes, which the
# caller's flush-to-zero does not reach.
UIntArray = npt.NDArray[np.uint32]
Axis = SupportsIndex | Sequence[SupportsIndex] | None

INFINITY_BITS = 0x7F800000
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_ABOVE_FLOAT32 = 2.0**200
_NEGATIVE_ZERO = np.uint32(1 << 31)


def sorted_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """Return the reduction axes, sorted."""
    if axis is None:
        return tuple(range(ndim))
    try:
        axes = normalize_axis_tuple(axis, ndim, "axis")  # type: ignore[arg-type]
    except np.exceptions.AxisError as error:
        raise ValueError(
            f"axis: expected axes of an array of {ndim} dimensions, got {axis!r}"
        ) from error
    except ValueError:
        raise ValueError(f"axis: expected every axis once, got {axis!r}") from None
    except TypeError:
        raise TypeError(
            f"axis: expected an integer, a tuple of them or None, got {axis!r}"
        ) from None
    return tuple(sorted(axes))


def largest_magnitudes(rows: Array, threads: int) -> UIntArray:
    """Return the float bits of the largest magnitude of each row."""
    maxima = np.empty(rows.shape[0], np.uint32)
    _core.largest_magnitudes(rows, maxima, threads)
    return maxima


def maxima_along(
    x: Array, axes: tuple[int, ...], max_abs: npt.ArrayLike | None, threads: int
) -> UIntArray:
    """Return the float bits of the maxima, reduced axes kept; raise where `x` is not finite.

    `x` is C-contiguous.
    """
    shape = tuple(1 if i in axes else size for i, size in enumerate(x.shape))
    rows = len(axes)
    kept = x.shape[: x.ndim - rows]
    if max_abs is not None:
        found = largest_magnitudes(x.reshape(1, -1), threads)
    elif axes == tuple(range(x.ndim - rows, x.ndim)):
        groups = int(np.prod(kept, dtype=np.int64))
        columns = x.size // groups if groups else 0
        found = largest_magnitudes(x.reshape(groups, columns), threads)
    else:
        magnitudes = np.bitwise_and(x.view(np.uint32), _MAGNITUDE)
        found = magnitudes.max(axis=axes, initial=0)
    if found.size and int(found.max()) >= INFINITY_BITS:
        at = first_index(~np.isfinite(x))
        raise ValueError(f"x: expected finite numbers, got NaN or an infinity at {at}")
    if max_abs is None:
        return found.reshape(shape)
    return _given_maxima(max_abs, shape)


def _given_maxima(max_abs: npt.ArrayLike, shape: tuple[int, ...]) -> UIntArray:
    bits: Array
    if isinstance(max_abs, (int, float)) and type(max_abs) in (int, float):
        number = min(max_abs, _ABOVE_FLOAT32)
        # NumPy's cast flushes subnormals if the caller's thread does; the kernel never does.
        bits = np.asarray(encode(np.float64(number), "binary32"), np.uint32)
        if number > 0 and not 0 < int(bits) < INFINITY_BITS:
            raise ValueError(f"max_abs: expected a number within float32, got {max_abs!r}")
    else:
        bits = np.asarray(as_float32_array("max_abs", max_abs), order="C").view(np.uint32)
    bits = np.where(bits == _NEGATIVE_ZERO, np.uint32(0), bits)
    if bits.size and int(bits.max()) >= INFINITY_BITS:
        bad = bits >= INFINITY_BITS
        where = first_index(bad) if bad.ndim else ""
        got = bits[bad].view(np.float32)[0]
        raise ValueError(f"max_abs: expected finite numbers >= 0, got {got} {where}".rstrip())
    try:
        return np.ascontiguousarray(np.broadcast_to(bits, shape))
    except ValueError:
        raise ValueError(
            f"max_abs: expected a shape that broadcasts to {shape}, got {bits.shape}"
        ) from None


def segments(
    alphas: UIntArray, shape: tuple[int, ...], axes: tuple[int, ...]
) -> tuple[UIntArray, int]:
    """Return alphas for which element i, in C order, has number i // inner % size; and inner."""
    kept = [i for i in range(len(shape)) if i not in axes]
    if not kept:
        return alphas.reshape(-1), max(1, int(np.prod(shape, dtype=np.int64)))
    first, last = kept[0], kept[-1]
    inner = int(np.prod(shape[last + 1 :], dtype=np.int64))
    pattern = np.broadcast_to(
        alphas.reshape(alphas.shape[first : last + 1]), shape[first : last + 1]
    )
    return np.ascontiguousarray(pattern).reshape(-1), max(1, inner)
