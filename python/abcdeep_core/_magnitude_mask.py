"""`magnitude_mask`: the largest elements or blocks of an array, without the structure of n:m."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from numbers import Real
from types import MappingProxyType
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, check_out, deliver, first_index
from ._format_base import integer
from ._hadamard import check_axis
from ._names import canonical
from ._nm_groups import as_scores

_NORMS: Mapping[str, str] = MappingProxyType({"l1": "l1", "l2": "l2"})


def magnitude_mask(
    x: npt.ArrayLike,
    *,
    density: float | Fraction | None = None,
    keep: SupportsIndex | None = None,
    axis: SupportsIndex | None = None,
    block: Sequence[SupportsIndex] | None = None,
    norm: str = "l1",
    out: Array | None = None,
) -> npt.NDArray[np.bool_]:
    """Return the mask of the elements of largest magnitude, or of the blocks of largest norm.

    What n:m masks are compared with: at the same density, a mask without their structure keeps
    more, one of whole blocks keeps less.

    Parameters
    ----------
    x : array_like of floats, or integers of at most 16 bits
        No NaN. Narrower floats than float64 are widened exactly.
    density : float or Fraction, optional
        Share to keep, 0 to 1, of the whole array or of each line; the number is rounded to the
        nearest integer, a half up.
    keep : int, optional
        Number of elements or blocks to keep, instead of `density`.
    axis : int, optional
        Keep so many of each line along this axis; by default of the whole array.
    block : (int, int), optional
        Keep whole blocks of so many rows and columns of the last two axes, which they divide.
    norm : {"l1", "l2"}
        Norm of a block.
    out : ndarray of bool, optional
        Array for the mask, of the shape of `x`.

    Returns
    -------
    ndarray of bool, shape of `x`
        Ties go to the lowest index in C order.

    Raises
    ------
    TypeError
        If `x` holds neither floats nor narrow integers, or an argument is of the wrong type.
    ValueError
        If `x` holds NaN; neither or both of `density` and `keep` are given; a number is out of
        range, or blocks do not divide the axes.

    Notes
    -----
    Norms are float64 sums, of squares of numbers scaled by a power of two. Magnitude pruning: Han
    et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.float32([[4, -1, 0, 3], [-2, 2, 5, 1]])
    >>> ab.magnitude_mask(x, density=0.5).astype(int)
    array([[1, 0, 0, 1],
           [1, 0, 1, 0]])
    >>> ab.magnitude_mask(x, keep=1, axis=1).astype(int)
    array([[1, 0, 0, 0],
           [0, 0, 1, 0]])
    >>> ab.magnitude_mask(x, keep=1, block=(2, 2), norm="l2").astype(int)
    array([[0, 0, 1, 1],
           [0, 0, 1, 1]])
    """
    array = as_scores("x", x)
    form = canonical("norm", norm, _NORMS)
    if np.isnan(array).any():
        raise ValueError(f"x: expected no NaN, got one at {first_index(np.isnan(array))}")
    scores = np.abs(array)
    rows, columns = (1, 1) if block is None else _block(block, array.shape)
    if block is not None:
        scores = _block_norms(scores, rows, columns, form)
    where = None if axis is None else check_axis(axis, array.ndim)
    lines = scores.reshape(1, -1) if where is None else np.moveaxis(scores, where, -1)
    count = _count(density, keep, lines.shape[-1])
    mask = _largest(lines, count)
    mask = mask.reshape(scores.shape) if where is None else np.moveaxis(mask, -1, where)
    if block is not None:
        mask = mask.repeat(rows, axis=-2).repeat(columns, axis=-1)
    if out is not None:
        check_out(out, array.shape, np.dtype(np.bool_))
    return deliver(np.ascontiguousarray(mask).reshape(array.shape), out)


def _count(density: Any, keep: SupportsIndex | None, length: int) -> int:
    if (density is None) == (keep is None):
        given = "neither" if keep is None else "both"
        raise ValueError(f"density: expected either density= or keep=, got {given}")
    if keep is not None:
        return integer("keep", keep, 0, length)
    if isinstance(density, (bool, np.bool_)) or not isinstance(density, Real):
        raise TypeError(f"density must be a number, got {density!r} ({type(density).__name__})")
    if not 0 <= float(density) <= 1:
        raise ValueError(f"density must be in 0..1, got {density}")
    share = density if isinstance(density, Fraction) else Fraction(float(density))
    return int(share * length + Fraction(1, 2))


def _block(block: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    if not isinstance(block, Sequence) or isinstance(block, str) or len(block) != 2:
        raise TypeError(f"block must be a pair of integers, got {block!r}")
    rows, columns = (integer("block", size, 1) for size in block)
    if len(shape) < 2 or shape[-2] % rows or shape[-1] % columns:
        raise ValueError(
            f"block: expected sizes that divide the last two axes of shape {shape}, "
            f"got ({rows}, {columns})"
        )
    return rows, columns


def _block_norms(magnitudes: Array, rows: int, columns: int, norm: str) -> Array:
    *lead, height, width = magnitudes.shape
    blocks = magnitudes.reshape(*lead, height // rows, rows, width // columns, columns)
    if not magnitudes.size:
        return np.asarray(blocks.sum(axis=(-3, -1)))
    with _core.NearestEnvironment(), np.errstate(all="ignore"):
        blocks = blocks.astype(np.float64)
        finite = np.where(np.isfinite(blocks), blocks, 0)
        # Scaled so that no sum overflows; a power of two rounds nothing but what underflows.
        scaled = np.ldexp(blocks, -int(np.frexp(finite.max())[1]))
        if norm == "l2":  # squares order as their roots do
            scaled = scaled * scaled
        return np.asarray(scaled.sum(axis=(-3, -1)))


def _largest(scores: Array, count: int) -> npt.NDArray[np.bool_]:
    """Return the mask of the `count` largest along the last axis, ties to the lowest index."""
    if count == 0 or scores.size == 0:
        return np.zeros(scores.shape, bool)
    with _core.NearestEnvironment():
        least = np.partition(scores, scores.shape[-1] - count, axis=-1)[..., -count, None]
        above, ties = scores > least, scores == least
    missing = count - above.sum(axis=-1, keepdims=True)
    return np.asarray(above | (ties & (ties.cumsum(axis=-1) <= missing)))
