"""`accumulator_widths`: how many bits the partial sums of every dot product need."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array
from ._format_base import integer
from ._gemm import as_addend, as_operand
from ._matmul import operand_order
from ._plan_integer import Products
from ._threads import check_threads
from .accumulators import integer_accumulator
from .datapath import Datapath

WIDTH_BINS: int = _core.WIDTH_BINS
NO_WIDTH: int = _core.NO_WIDTH
GREEDY = "greedy"

Counts = npt.NDArray[np.int64]
_OPERANDS = integer_accumulator(32)
_SPAN_ROWS = 1024  # rows whose steps are counted apart at a time


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AccumulatorWidths:
    """Bits of an accumulator that never overflows, for every dot product.

    Widths of an unsigned accumulator that meets a negative number are 65: there is none.

    Parameters
    ----------
    given : ndarray of uint8, shape (..., N)
        Holds every partial sum in the given order.
    final : ndarray of uint8
        Holds the sum: no order can do with less.
    any_order : ndarray of uint8 or None
        Holds every partial sum in every order.
    greedy : ndarray of uint8 or None
        Holds every partial sum of the greedy order (`greedy_order`).
    smallest, largest : int
        Extreme partial sums in the given order, the empty sum included.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> widths = ab.accumulator_widths(np.int8([[9, 9]]), np.int8([[9], [-9]]))
    >>> int(widths.given[0, 0]), int(widths.final[0, 0])
    (8, 1)
    """

    given: npt.NDArray[np.uint8]
    final: npt.NDArray[np.uint8]
    any_order: npt.NDArray[np.uint8] | None
    greedy: npt.NDArray[np.uint8] | None
    smallest: int
    largest: int


def accumulator_widths(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    *,
    c: npt.ArrayLike | None = None,
    order: str | tuple[int, ...] = "natural",
    group: SupportsIndex = 1,
    chunk: SupportsIndex = 0,
    merge: Literal["same", "exact"] = "same",
    signed: bool = True,
    every_order: bool = True,
    threads: SupportsIndex | None = None,
) -> AccumulatorWidths:
    """Return the widths that the partial sums of the dot products of x @ w need.

    One pass: the result says for every width at once which dot products overflow it. An accumulator
    of P bits overflows transiently where ``final <= P < given``, persistently where ``final > P``.

    Parameters
    ----------
    x : array_like of int8, uint8, int16, uint16, int4 or uint4, shape (..., K)
    w : array_like of the same dtypes, shape (K, N)
    c : array_like of int, optional
        Start values of the sums, broadcast to (..., N); magnitudes below 2^61.
    order : str or tuple of int
        An order of `Datapath`; or ``"greedy"``, by which `given` becomes that of the greedy order.
    group : int
        Products per step: partial sums inside a group are not seen by the accumulator.
    chunk : int
        Terms per partial sum, 0 for all.
    merge : {"same", "exact"}
        Whether the sums of chunks are added in the same accumulator, or in a wider one that does
        not count.
    signed : bool
        Two's complement, or unsigned.
    every_order : bool
        False leaves out `any_order` and `greedy`, which takes half the time, or less in groups.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    AccumulatorWidths

    Raises
    ------
    TypeError, ValueError
        Of dtypes, shapes and names as `matmul`; ``order="greedy"`` with a group or a chunk.

    Notes
    -----
    Source: the widths of partial sums in given, any and greedy order are section 9 of the
    project's definition of accumulators (docs/accumulator_bounds.md).

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x, w = np.int8([[100, 100, 100]]), np.int8([[1], [1], [-1]])
    >>> widths = ab.accumulator_widths(x, w)
    >>> int(widths.given[0, 0]), int(widths.final[0, 0]), widths.largest
    (9, 8, 200)
    """
    request = WidthRequest(
        order=order, group=group, chunk=chunk, merge=merge, signed=signed, every_order=every_order
    )
    rows = as_operand("x", x, _OPERANDS)
    weight = as_operand("w", w, _OPERANDS)
    if rows.ndim < 1 or weight.ndim != 2 or rows.shape[-1] != weight.shape[0]:
        raise ValueError(
            f"x must have shape (..., K) and w (K, N), got {rows.shape} and {weight.shape}"
        )
    shape = (*rows.shape[:-1], weight.shape[1])
    matrix = math.prod(rows.shape[:-1]), shape[-1]
    start = None if c is None else as_addend(c, _OPERANDS, shape).reshape(matrix)
    widths, extremes, _ = request.run(
        rows.reshape(matrix[0], rows.shape[-1]), weight, start, threads
    )
    given, final, any_order, greedy = (plane.reshape(shape) for plane in widths)
    return AccumulatorWidths(
        given=given,
        final=final,
        any_order=any_order if every_order else None,
        greedy=greedy if every_order else None,
        smallest=extremes[0],
        largest=extremes[1],
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WidthRequest:
    """How partial sums come about; checked."""

    order: str | tuple[int, ...] = "natural"
    group: SupportsIndex = 1
    chunk: SupportsIndex = 0
    merge: str = "same"
    signed: bool = True
    every_order: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", integer("group", self.group, 1, 2**62))
        object.__setattr__(self, "chunk", integer("chunk", self.chunk, 0, 2**62))
        if self.merge not in ("same", "exact"):
            raise ValueError(f"merge must be 'same' or 'exact', got {self.merge!r}")
        if self.is_greedy:
            if (self.group, self.chunk) != (1, 0):
                raise ValueError(
                    "order='greedy' needs group=1 and chunk=0, "
                    f"got group={self.group} and chunk={self.chunk}"
                )
        else:
            object.__setattr__(self, "order", Datapath(order=self.order).order)

    @property
    def is_greedy(self) -> bool:
        """Whether the order is found for each dot product."""
        return isinstance(self.order, str) and self.order == GREEDY

    def places(self, terms: int) -> Array | None:
        """Return the operand index of each place in the sum; None is the natural order."""
        return None if self.is_greedy else operand_order(Datapath(order=self.order), terms)

    def run(
        self,
        x: Array,
        w: Array,
        c: Array | None,
        threads: SupportsIndex | None,
        counted: Array | None = None,
    ) -> tuple[npt.NDArray[np.uint8], tuple[int, int], Counts]:
        """Return widths (4, M, N), extreme partial sums, and partial sums by sign and bits.

        `counted` says of which rows the partial sums are counted.
        """
        rows, terms = x.shape
        most = 0 if c is None or not c.size else max(-int(c.min()), int(c.max()), 0)
        if most >= 1 << 61:
            raise ValueError(f"c must be below 2^61 in magnitude, got {most}")
        products = Products(x, w)
        narrow = products.fit(
            lambda span: max(-span[0], span[1]) * terms + most < 1 << 31, x.size * w.shape[1] > 0
        )
        widths = np.empty((4, rows, w.shape[1]), np.uint8)
        partial_sums = np.zeros((2, WIDTH_BINS), np.int64)
        smallest, largest = _core.accumulator_widths(
            x,
            w,
            c,
            self.places(terms),
            int(self.group),
            int(self.chunk),
            self.signed,
            self.merge == "exact",
            self.every_order,
            self.is_greedy,
            not narrow,
            counted,
            widths,
            partial_sums,
            check_threads(threads),
        )
        return widths, (smallest, largest), partial_sums


def count_widths(widths: npt.NDArray[np.uint8]) -> tuple[Counts, dict[int, int]]:
    """Return how often each width occurs in every column, and the first place of each."""
    counts = np.zeros((widths.shape[1], WIDTH_BINS), np.int64)
    none = np.iinfo(np.int64).max
    first = np.full(WIDTH_BINS, none)
    _core.count_widths(widths, counts, first)
    return counts, {int(width): int(first[width]) for width in np.flatnonzero(first != none)}


def exponents(x: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Return floor(log2 |x|) of every element, and a mark for zeros."""
    _, e = np.frexp(x)
    return np.where(x == 0, _core.ZERO_EXPONENT, e - 1).astype(np.int16)


def exponent_spans(
    x: npt.NDArray[np.float32], w: npt.NDArray[np.float32], group: int, threads: Any
) -> Counts:
    """Return the steps by the span of their products' exponents, of x (M, K) @ w (K, N)."""
    total: Counts = np.zeros(_core.SPAN_BINS, np.int64)
    columns = np.ascontiguousarray(exponents(w).T)
    for start in range(0, x.shape[0] if x.shape[1] else 0, _SPAN_ROWS):
        rows = np.ascontiguousarray(exponents(x[start : start + _SPAN_ROWS]))
        counts = np.zeros((len(rows), _core.SPAN_BINS), np.int64)
        _core.exponent_spans(rows, columns, group, counts, check_threads(threads))
        total += counts.sum(axis=0)
    return total
