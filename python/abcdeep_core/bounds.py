"""Widths of integer accumulators that operand types, weights and input ranges prove to be safe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from ._arrays import Array, first_index
from ._format_base import integer
from ._integer_arrays import integer_array, weight_matrix
from ._operand_types import OperandType, Range, operand_range, type_name

METHODS = ("data_type", "l1", "sign_split", "input_ranges")
_INT64_LIMIT = 1 << 63
_BLOCK_ROWS = 256  # rows of the weights that are held as int64 at a time


def signed_width(lo: SupportsIndex, hi: SupportsIndex) -> int:
    """Return the bits of the narrowest two's complement integer that holds every value in [lo, hi].

    Parameters
    ----------
    lo, hi : int
        Smallest and largest value, of any size; Python integers throughout.

    Returns
    -------
    int
        bit_length(max(-lo - 1, hi, 0)) + 1; 1 for a range that is only 0, or -1 and 0.

    Raises
    ------
    TypeError, ValueError
        If a limit is no integer, or lo > hi.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.signed_width(-128, 127), ab.signed_width(0, 128), ab.signed_width(-(2**31) - 1, 0)
    (8, 9, 33)
    """
    low, high = integer("lo", lo), integer("hi", hi)
    if low > high:
        raise ValueError(f"lo must not be above hi, got {low} and {high}")
    return max(-low - 1, high, 0).bit_length() + 1


@dataclasses.dataclass(frozen=True, eq=False)
class SumRange:
    """What the running sums of each output channel can be, at most.

    Attributes
    ----------
    lo, hi : ndarray of int64, or of Python integers where int64 might not do, shape (N,)
        No running sum of channel n is outside [lo[n], hi[n]].

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> sums = ab.accumulator_bounds(np.int8([[5, 3], [5, -3]]), "u4").sign_split
    >>> sums.lo.tolist(), sums.hi.tolist()
    ([0, -45], [150, 45])
    >>> sums.widths.tolist(), sums.width, sums.unsigned_widths
    ([9, 7], 9, [8, None])
    """

    lo: Array
    hi: Array

    @property
    def widths(self) -> Array:
        """Bits of a signed accumulator for each channel: int64, shape (N,)."""
        return np.array([signed_width(lo, hi) for lo, hi in self._ranges()], np.int64)

    @property
    def width(self) -> int:
        """Bits of a signed accumulator for all channels; 1 if there is none."""
        return max(self.widths.tolist(), default=1)

    @property
    def unsigned_widths(self) -> list[int | None]:
        """Bits of an unsigned accumulator for each channel; None where a sum can be negative."""
        return [None if lo < 0 else max(hi.bit_length(), 1) for lo, hi in self._ranges()]

    @property
    def unsigned_width(self) -> int | None:
        """Bits of an unsigned accumulator for all channels; None if a sum can be negative."""
        found = [1, *self.unsigned_widths]
        widths = [width for width in found if width is not None]
        return max(widths) if len(widths) == len(found) else None

    def _ranges(self) -> Iterator[Range]:
        return zip(self.lo.tolist(), self.hi.tolist(), strict=True)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AccumulatorBounds:
    """Four bounds on the running sums of a layer, each sound for its own set of facts.

    Every bound holds for the running sum after each term or group of terms, in every order of the
    terms, for all inputs in the stated range; the sum before the first term, which is the bias or
    0, included.

    Attributes
    ----------
    terms, channels : int
        K and N.
    x_range, w_range : tuple of int
        Smallest and largest input, smallest and largest weight.
    data_type : SumRange
        Sound for any weights of `w_range`: K times the extreme products.
    l1 : SumRange
        Sound for any weights whose magnitudes have the same sum in each channel: that sum times
        the largest magnitude of an input (A2Q, in integers).
    sign_split : SumRange
        For these weights, and attained by some input and order: positive and negative weights with
        opposite ends of the input range.
    input_ranges : SumRange
        The same with a range of its own for every input; equal to `sign_split` if none were given.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> bounds = ab.accumulator_bounds(np.int8([[12], [10], [-10], [10]]), "s8")
    >>> bounds.width("sign_split"), bounds.widths
    (14, {'data_type': 18, 'l1': 14, 'sign_split': 14, 'input_ranges': 14})
    """

    terms: int
    channels: int
    x_range: Range
    w_range: Range
    data_type: SumRange
    l1: SumRange
    sign_split: SumRange
    input_ranges: SumRange

    def of(self, method: str) -> SumRange:
        """Return the bound named `method`, one of the four attributes."""
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        found: SumRange = getattr(self, method)
        return found

    def width(self, method: str = "input_ranges") -> int:
        """Return the bits of a signed accumulator for all channels under one bound."""
        return self.of(method).width

    @property
    def widths(self) -> dict[str, int]:
        """Bits of a signed accumulator for all channels, by the name of the bound."""
        return {method: self.of(method).width for method in METHODS}

    @property
    def channel_widths(self) -> dict[str, list[int]]:
        """Bits of a signed accumulator for each channel, by the name of the bound."""
        return {method: self.of(method).widths.tolist() for method in METHODS}

    @property
    def unsigned_widths(self) -> dict[str, int | None]:
        """Bits of an unsigned accumulator for all channels; None where a sum can be negative."""
        return {method: self.of(method).unsigned_width for method in METHODS}

    def to_dict(self) -> dict[str, Any]:
        """Return sizes, ranges and all widths as plain data (JSON holds it)."""
        return {
            "terms": self.terms,
            "channels": self.channels,
            "x_range": list(self.x_range),
            "w_range": list(self.w_range),
            "widths": self.widths,
            "channel_widths": self.channel_widths,
            "unsigned_widths": self.unsigned_widths,
        }

    def __str__(self) -> str:
        """Return one line of text."""
        types = f"{type_name(self.x_range)} x {type_name(self.w_range)}"
        widths = ", ".join(f"{method} {width}" for method, width in self.widths.items())
        return f"{self.terms} terms of {types}, {self.channels} channels, bits: {widths}"

    def union(self, other: AccumulatorBounds) -> AccumulatorBounds:
        """Return bounds that hold what either of two of the same size holds."""

        def both(method: str) -> SumRange:
            a, b = self.of(method), other.of(method)
            return SumRange(np.minimum(a.lo, b.lo), np.maximum(a.hi, b.hi))

        return dataclasses.replace(
            self,
            data_type=both("data_type"),
            l1=both("l1"),
            sign_split=both("sign_split"),
            input_ranges=both("input_ranges"),
        )

    @staticmethod
    def concatenate(parts: Sequence[AccumulatorBounds]) -> AccumulatorBounds:
        """Return the bounds of groups of channels side by side, as of a grouped convolution.

        Raises
        ------
        ValueError
            If there is no part, or parts differ in terms or ranges.
        """
        if not parts:
            raise ValueError("parts must hold at least one AccumulatorBounds, got none")
        first = parts[0]
        for part in parts[1:]:
            for field in ("terms", "x_range", "w_range"):
                if getattr(part, field) != getattr(first, field):
                    raise ValueError(
                        f"parts must have the same {field}, got {getattr(first, field)} "
                        f"and {getattr(part, field)}"
                    )

        def joined(method: str) -> SumRange:
            ranges = [part.of(method) for part in parts]
            return SumRange(
                np.concatenate([r.lo for r in ranges]), np.concatenate([r.hi for r in ranges])
            )

        return dataclasses.replace(
            first,
            channels=sum(part.channels for part in parts),
            data_type=joined("data_type"),
            l1=joined("l1"),
            sign_split=joined("sign_split"),
            input_ranges=joined("input_ranges"),
        )


def accumulator_bounds(
    w: npt.ArrayLike,
    x_range: OperandType,
    *,
    w_range: OperandType | None = None,
    bias: npt.ArrayLike | None = None,
    input_ranges: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
) -> AccumulatorBounds:
    """Return safe accumulator widths of dot products with the columns of a weight matrix.

    Parameters
    ----------
    w : array_like of integers, shape (K, N) or (K,)
        Weights, a column an output channel: any integer dtype, or Python integers.
    x_range : str, dtype or pair of int
        What an input can be: ``"u8"``, ``"s4"``, ``"int8"``, ``np.uint8``, or (lowest, highest)
        where a zero point was subtracted. It has to hold what padding taps hold too.
    w_range : str, dtype or pair of int, optional
        The type of the weights, for the data type bound. By default that of `w` if its dtype has
        at most 16 bits, else the narrowest signed type that holds all of `w`.
    bias : array_like of int, shape (N,), optional
        What the accumulator of each channel starts from. A bias that is added after the sum is no
        part of the sum: leave it out here and add its bits to the result.
    input_ranges : pair of array_like of int, each of shape (K,) or (), optional
        Lowest and highest value of each input k, within `x_range`.

    Returns
    -------
    AccumulatorBounds

    Raises
    ------
    TypeError
        If an argument holds anything but integers.
    ValueError
        If a shape is wrong, a weight is outside `w_range`, or an input range is empty or leaves
        `x_range`.

    Notes
    -----
    Where 0 is outside an input's range a sum of some terms can be further from 0 than the sum of
    all; all bounds therefore count a term that would pull a sum back as not yet added. For ranges
    that hold 0 that changes nothing: ``sign_split`` is x_max S+ + x_min S- and x_min S+ + x_max S-,
    S+ and S- the sums of the positive and of the negative weights of a channel.

    All is computed in integers: in int64 where K max abs(x) max abs(w) + max abs(bias) is below
    2^63, which bounds every intermediate, and in Python integers otherwise.

    Source of the l1 bound: Colbert, Pappalardo, Petri-Koenig, "A2Q: Accumulator-Aware Quantization
    with Guaranteed Overflow Avoidance", arXiv:2308.13504.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> w = np.random.default_rng(0).integers(-8, 8, (1024, 3)).astype(np.int8)
    >>> bounds = ab.accumulator_bounds(w, "u8", w_range="s4")
    >>> print(bounds)
    1024 terms of u8 x s4, 3 channels, bits: data_type 22, l1 22, sign_split 21, input_ranges 21
    >>> bounds.sign_split.widths.tolist()
    [21, 21, 21]
    >>> ab.accumulator_bounds(w, "u8", input_ranges=(0, np.arange(1024) % 16)).input_ranges.width
    16
    """
    weights = weight_matrix(w)
    terms, channels = weights.shape
    x_lo, x_hi = x_pair = operand_range("x_range", x_range)
    w_lo, w_hi = w_pair = _weight_range(weights, w_range)
    start = _bias(bias, channels)
    x_largest, w_largest = max(-x_lo, x_hi), max(-w_lo, w_hi)
    bias_largest = max((abs(value) for value in start.tolist()), default=0)
    # each factor at least 1: the weights themselves have to fit where x is always 0
    dtype = _sum_dtype(max(terms, 1) * max(x_largest, 1) * max(w_largest, 1) + bias_largest)
    start = start.astype(dtype)

    positive, negative = _sign_sums(weights, dtype)
    low, high = min(x_lo, 0), max(x_hi, 0)
    split = SumRange(
        start + low * positive + high * negative, start + high * positive + low * negative
    )
    norms = (positive - negative) * x_largest
    corners = [a * b for a in x_pair for b in w_pair]
    each = SumRange(start + terms * min(0, *corners), start + terms * max(0, *corners))
    per_input = split
    if input_ranges is not None:
        lows, highs = _input_ranges(input_ranges, terms, x_pair)
        down, up = _ranged_sums(weights, lows, highs, dtype)
        per_input = SumRange(start + down, start + up)
    return AccumulatorBounds(
        terms=terms,
        channels=channels,
        x_range=x_pair,
        w_range=w_pair,
        data_type=each,
        l1=SumRange(start - norms, start + norms),
        sign_split=split,
        input_ranges=per_input,
    )


def _extremes(array: Array) -> Range:
    return (int(array.min()), int(array.max())) if array.size else (0, 0)


def _weight_range(w: Array, given: OperandType | None) -> Range:
    lowest, highest = _extremes(w)
    if given is None:
        if w.dtype != object and w.dtype.itemsize <= 2:
            return operand_range("w_range", w.dtype)
        half = 1 << (signed_width(lowest, highest) - 1)
        return -half, half - 1
    pair = operand_range("w_range", given)
    if w.size and not pair[0] <= lowest <= highest <= pair[1]:
        bad = (w < pair[0]) | (w > pair[1])
        raise ValueError(
            f"w must be within w_range, {pair[0]} to {pair[1]}, got {w[bad][0]} at "
            f"{first_index(bad)}"
        )
    return pair


def _bias(bias: npt.ArrayLike | None, channels: int) -> Array:
    if bias is None:
        return np.zeros(channels, np.int64)
    array = integer_array("bias", bias)
    if array.shape != (channels,):
        raise ValueError(f"bias must have shape ({channels},), got {array.shape}")
    return array.astype(object)


def _sum_dtype(largest: int) -> np.dtype[Any]:
    return np.dtype(np.int64 if largest < _INT64_LIMIT else object)


def _row_blocks(w: Array, dtype: np.dtype[Any]) -> Iterator[tuple[slice, Array, Array]]:
    """Yield blocks of rows with their positive and negative weights, zeros in between."""
    for begin in range(0, len(w), _BLOCK_ROWS):
        rows = slice(begin, begin + _BLOCK_ROWS)
        block = w[rows].astype(dtype)
        positive = np.maximum(block, 0)
        yield rows, positive, block - positive


def _sign_sums(w: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return the sums of the positive and of the negative weights of each column."""
    positive = np.zeros(w.shape[1], dtype)
    negative = np.zeros(w.shape[1], dtype)
    for _, above, below in _row_blocks(w, dtype):
        positive += above.sum(axis=0)
        negative += below.sum(axis=0)
    return positive, negative


def _ranged_sums(w: Array, low: Array, high: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return the smallest and the largest sum of any terms, each with its own input range."""
    low, high = np.minimum(low, 0).astype(dtype), np.maximum(high, 0).astype(dtype)
    smallest = np.zeros(w.shape[1], dtype)
    largest = np.zeros(w.shape[1], dtype)
    for rows, above, below in _row_blocks(w, dtype):
        if low[rows].any():
            smallest += low[rows] @ above
            largest += low[rows] @ below
        smallest += high[rows] @ below
        largest += high[rows] @ above
    return smallest, largest


def _input_ranges(given: Any, terms: int, x_range: Range) -> tuple[Array, Array]:
    if not isinstance(given, Sequence) or len(given) != 2:
        raise TypeError(
            f"input_ranges must be a pair (lowest, highest), got {type(given).__name__}"
        )
    arrays = []
    for name, values in zip(("lowest", "highest"), given, strict=True):
        array = integer_array(f"input_ranges: {name}", values)
        if array.shape not in ((), (terms,)):
            raise ValueError(
                f"input_ranges: {name} must have shape ({terms},) or (), got {array.shape}"
            )
        arrays.append(np.broadcast_to(array, (terms,)).astype(object))
    lowest, highest = arrays
    bad = (lowest > highest) | (lowest < x_range[0]) | (highest > x_range[1])
    if bad.any():
        k = int(np.argmax(bad))
        raise ValueError(
            f"input_ranges must be within x_range, {x_range[0]} to {x_range[1]}, and not empty, "
            f"got {lowest[k]} to {highest[k]} for input {k}"
        )
    return lowest, highest
