"""`bias_report`: how far a quantised array is from its original, on average and in all."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, as_float_array, first_index
from ._sums import sum_rows


@runtime_checkable
class Dequantizable(Protocol):
    """What a quantised array with codes and scales offers: its values and its clipped elements."""

    @property
    def clipped(self) -> int:
        """Number of elements that were cut to the largest magnitude."""

    def dequantize(self) -> Array:
        """Return the values."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiasReport:
    """The average and the total error of a quantised array q of x.

    Parameters
    ----------
    slope : float
        <q, x> / <x, x>: the factor by which q is longer than x, along x. 1 if q is unbiased, up to
        noise; NaN if every element of x is 0.
    relative_mse : float
        sum (q - x)^2 / sum x^2; NaN if every element of x is 0.
    clipped : float
        Share of elements that were cut to the largest magnitude.
    elements : int
        Number of elements.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> print(ab.bias_report(np.float32([1, 2, 8]), np.float32([1, 2, 6])))
    slope 0.76812 (bias -23.188 %), relative MSE 5.797 %, clipped 33.333 % of 3 elements
    """

    slope: float
    relative_mse: float
    clipped: float
    elements: int

    @property
    def bias(self) -> float:
        """The projection bias, slope - 1."""
        return self.slope - 1

    def to_dict(self) -> dict[str, float | int]:
        """Return the fields and the bias as a dict of plain Python values (JSON holds it)."""
        return {**dataclasses.asdict(self), "bias": self.bias}

    def __str__(self) -> str:
        """Return one line of text."""
        return (
            f"slope {self.slope:.5f} (bias {100 * self.bias:+.3f} %), "
            f"relative MSE {100 * self.relative_mse:.4g} %, "
            f"clipped {100 * self.clipped:.5g} % of {self.elements} elements"
        )


def bias_report(x: npt.ArrayLike, q: npt.ArrayLike | Dequantizable) -> BiasReport:
    """Return slope, projection bias, relative MSE and clipped share of a quantised array.

    Parameters
    ----------
    x : array_like of float32, float64, or a narrower float, any shape
        The original.
    q : array_like of floats, or a BlockArray, shape of `x`
        The quantised array: its values, or anything with ``dequantize()`` and ``clipped``.

    Returns
    -------
    BiasReport
        For an array of values an element counts as clipped if its magnitude is above the largest
        one of `q`.

    Raises
    ------
    TypeError
        If `x` or the values of `q` are no floats.
    ValueError
        If the shapes differ, or an element is not finite.

    Notes
    -----
    Sums are float64, in the order of `sawb_clip`. One draw of an unbiased quantiser has a slope
    that differs from 1 by noise: its variance is sum x^2 var(q) / (sum x^2)^2.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    >>> for rounding in ("toward_zero", "stochastic"):
    ...     q = ab.quantize_uniform(x, clip="max_abs", rounding=rounding, seed=1)
    ...     print(ab.bias_report(x, q))
    slope 0.72943 (bias -27.057 %), relative MSE 13.22 %, clipped 0 % of 100000 elements
    slope 1.00183 (bias +0.183 %), relative MSE 7.601 %, clipped 0 % of 100000 elements
    """
    original = _finite("x", x)
    cut: int | None = None
    if isinstance(q, Dequantizable):
        values, cut = _finite("q", q.dequantize()), int(q.clipped)
    else:
        values = _finite("q", q)
    if values.shape != original.shape:
        raise ValueError(f"q must have the shape of x, {original.shape}, got {values.shape}")
    if cut is None:
        largest = np.max(np.abs(values), initial=0)
        cut = int(np.count_nonzero(np.abs(original) > largest))
    with _core.NearestEnvironment():
        slope, mse = _slope_and_error(original, values)
    share = cut / original.size if original.size else 0.0
    return BiasReport(slope=slope, relative_mse=mse, clipped=share, elements=original.size)


def _slope_and_error(x: Array, q: Array) -> tuple[float, float]:
    """Return <q, x> / <x, x> and sum (q - x)^2 / <x, x>; NaN where x is zero."""
    a, b = (np.ascontiguousarray(v).reshape(1, -1) for v in (x, q))
    if np.float64 in (a.dtype, b.dtype):  # both by one power of two: no square leaves float64
        power = -int(np.frexp(np.max(np.abs(a), initial=0))[1])
        a, b = (np.ldexp(v.astype(np.float64), power) for v in (a, b))
    square = float(sum_rows(a, a)[0])
    error = np.subtract(b, a, dtype=np.float64)
    if square == 0:
        return math.nan, math.nan
    return float(sum_rows(b, a)[0]) / square, float(sum_rows(error, error)[0]) / square


def _finite(name: str, x: Any) -> Array:
    array = as_float_array(name, x)
    finite = np.isfinite(array)
    if not finite.all():
        at = first_index(~finite)
        raise ValueError(f"{name} must be finite, got {array[~finite][0]} at {at}")
    return array
