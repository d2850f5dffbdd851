"""What one batch of inputs shows about a layer: widths of dot products, errors of accumulators."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .._accumulator_widths import WidthRequest, count_widths, exponent_spans
from .._arrays import Array
from .._fixed_format import FixedFormat
from .._matmul import matmul
from ..accumulators import exact_accumulator, integer_accumulator
from ..datapath import Datapath
from ..events import Events
from .exact_sums import sum_of_floats, sum_of_squares
from .layer import OverflowLayer
from .statistics import WIDTH_KINDS, AccumulatorStatistics, LayerStatistics, Place

# Bytes that an output takes beside its operands: four widths, the exact and the emulated result,
# their difference, and room for a copy.
_BYTES_PER_OUTPUT = 40
GIVEN, FINAL, ANY_ORDER = (WIDTH_KINDS.index(k) for k in ("given", "final", "any_order"))
_EXACT32, _EXACT63 = integer_accumulator(32), integer_accumulator(63)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examination:
    """What is asked about every layer.

    Attributes
    ----------
    request : WidthRequest
    accumulators : tuple of Datapath
    counted_samples : int
        The partial sums of every `counted_samples`-th sample are counted; 0: of none.
    piece_bytes : int
        Rows of outputs are cut into pieces of about so many bytes.
    threads : int or None
    """

    request: WidthRequest
    accumulators: tuple[Datapath, ...]
    counted_samples: int = 1
    piece_bytes: int = 1 << 27
    threads: int | None = None


def examine(layer: OverflowLayer, x: Array, begin: int, what: Examination) -> LayerStatistics:
    """Return the statistics of a layer's input, whose first sample is the model's `begin`-th.

    Places of first overflows count samples from the start of `x`.
    """
    x = layer.check_input(x)
    seen = LayerStatistics.empty(layer.groups, layer.terms, layer.channels, len(what.accumulators))
    samples = x.shape[0]
    if samples == 0:
        return seen
    positions = layer.position_shape(x.shape)
    each = math.prod(positions)
    seen.samples, seen.dots = samples, samples * each
    counted = np.zeros(samples, np.uint8)
    if what.counted_samples:
        counted[(np.arange(samples) + begin) % what.counted_samples == 0] = 1
    counted = np.repeat(counted, each)
    channels = layer.channels // layer.groups
    for group in range(layer.groups):
        rows = layer.rows(x, group)
        if rows.size:
            seen.input_lowest[group] = rows.min(axis=0)
            seen.input_highest[group] = rows.max(axis=0)
        part = slice(group * channels, (group + 1) * channels)
        for piece in _pieces(layer, channels, len(rows), what.piece_bytes):
            look = _Look(layer, group, part, rows[piece], what)
            look.at_widths(seen, counted[piece])
            look.at_first(seen, piece.start, positions)
            for i, accumulator in enumerate(what.accumulators):
                seen.accumulators[i] = seen.accumulators[i] + look.at_errors(accumulator)
    return seen


def _pieces(layer: OverflowLayer, channels: int, rows: int, most: int) -> Iterator[slice]:
    count = max(1, most // (4 * layer.terms + _BYTES_PER_OUTPUT * channels + 1))
    for start in range(0, rows, count):
        yield slice(start, min(start + count, rows))


def _cannot_err(accumulator: Datapath, width: int) -> bool:
    """Whether an accumulator holds exact sums that need `width` signed bits in any order."""
    q = accumulator.accumulator
    if q is None or not isinstance(q.format, FixedFormat):
        return False
    plain = Datapath(
        accumulator=q,
        step=accumulator.step,
        group=accumulator.group,
        chunk=accumulator.chunk,
        order=accumulator.order,
        merge_order=accumulator.merge_order,
    )
    form = q.format
    limits_lowest = q.overflow == "saturate_symmetric" or (
        q.overflow is None and form.overflow == "saturate_symmetric"
    )
    whole = form.signed and form.fraction_bits == 0 and not limits_lowest
    return whole and accumulator == plain and width <= form.bits


def _has_steps_of_its_own(accumulator: Datapath, request: WidthRequest) -> bool:
    """Whether an accumulator may overflow where one of the request's of its width does not."""
    q = accumulator.accumulator
    if q is None or not isinstance(q.format, FixedFormat):
        return False
    alike = integer_accumulator(
        q.format.bits,
        signed=request.signed,
        group=int(request.group),
        chunk=int(request.chunk),
    ).replace(merge=request.merge if request.chunk else accumulator.merge)
    if not request.is_greedy:
        alike = alike.replace(order=request.order)
    same_numbers = q.format.signed == request.signed and q.format.fraction_bits == 0
    return not same_numbers or accumulator.replace(accumulator=alike.accumulator) != alike


class _Look:
    """Some rows of a group's operands."""

    def __init__(
        self, layer: OverflowLayer, group: int, part: slice, rows: Array, what: Examination
    ) -> None:
        self._layer, self._part, self._rows, self._what = layer, part, rows, what
        self._matrix = layer.matrix(group)
        self._first: dict[int, int] = {}
        self._widths: Array | None = None
        self._final_bits = 0
        self._exact: Array | None = None
        self._start: Array | None = None
        if layer.bias is not None:
            self._start = np.broadcast_to(layer.bias[part], (len(rows), self._matrix.shape[1]))

    def at_widths(self, seen: LayerStatistics, counted: Array) -> None:
        widths, (smallest, largest), partial_sums = self._what.request.run(
            self._rows, self._matrix, self._start, self._what.threads, np.ascontiguousarray(counted)
        )
        self._final_bits = int(widths[FINAL].max(initial=0)) + self._sign_bit
        if self._what.request.merge == "exact" and self._what.request.chunk:
            # the sum of the tiles is in another accumulator: only with a tile can this one overflow
            np.minimum(widths[FINAL], widths[GIVEN], out=widths[FINAL])
        for kind, plane in enumerate(widths):
            counts, first = count_widths(plane)
            seen.widths[kind, self._part] += counts
            if kind == GIVEN:
                self._first = first
        seen.smallest = min(seen.smallest, smallest)
        seen.largest = max(seen.largest, largest)
        seen.partial_sums += partial_sums
        self._widths = widths

    def at_first(self, seen: LayerStatistics, begin: int, positions: tuple[int, ...]) -> None:
        """Note the first output of each width, if it is before those of other groups and pieces."""
        each, columns = math.prod(positions), self._matrix.shape[1]
        for width, at in self._first.items():
            row, channel = divmod(at, columns)
            sample, position = divmod(begin + row, each)
            index = tuple(int(i) for i in np.unravel_index(position, positions))
            place = Place(sample, index, self._part.start + channel)
            if width not in seen.first or place < seen.first[width][0]:
                seen.first[width] = place, self._rows[row].copy()

    def at_errors(self, accumulator: Datapath) -> AccumulatorStatistics:
        if accumulator.is_integer:
            return self._integer_errors(accumulator)
        return self._float_errors(accumulator)

    def _integer_errors(self, accumulator: Datapath) -> AccumulatorStatistics:
        assert self._widths is not None
        if self._exact is None:
            exact = _EXACT32 if self._final_bits <= 32 else _EXACT63
            self._exact = self._matmul(exact).astype(np.int64)
        signal = sum_of_squares(self._exact)
        own = _has_steps_of_its_own(accumulator, self._what.request)
        # sums of later chunks start from 0, not from the bias
        biased_chunks = accumulator.chunk > 0 and self._start is not None
        width = int(self._widths[ANY_ORDER].max(initial=0)) + self._sign_bit
        if not biased_chunks and _cannot_err(accumulator, width):
            return AccumulatorStatistics(signal=signal, events=Events() if own else None)
        found, events = self._overflows(accumulator) if own else (self._matmul(accumulator), None)
        error = found.astype(np.int64) - self._exact
        return AccumulatorStatistics(
            wrong=int(np.count_nonzero(error)),
            largest_error=int(max(error.max(initial=0), -error.min(initial=0))),
            noise=sum_of_squares(error),
            signal=signal,
            events=events,
        )

    @property
    def _sign_bit(self) -> int:
        """What a signed accumulator needs beside the widths that were asked for."""
        return 0 if self._what.request.signed else 1

    def _overflows(self, accumulator: Datapath) -> tuple[Array, Events]:
        """Return the results, and how many outputs overflow: counts as those of a curve."""
        result, seen = self._matmul(accumulator, events="overflow", per_output=True)
        overflowed = seen.overflowed_outputs > 0
        q = accumulator.accumulator
        if self._start is not None and q is not None and isinstance(q.format, FixedFormat):
            overflowed |= (self._start < q.format.min_code) | (self._start > q.format.max_code)
        persistent = int(np.count_nonzero(overflowed & (seen.persistent > 0)))
        count = int(np.count_nonzero(overflowed))
        return result, Events(
            outputs=result.size,
            overflowed_outputs=count,
            persistent=persistent,
            transient=count - persistent,
        )

    def _matmul(self, datapath: Datapath, **events: Any) -> Any:
        threads = self._what.threads
        return matmul(self._rows, self._matrix, datapath, c=self._start, threads=threads, **events)

    def _float_errors(self, accumulator: Datapath) -> AccumulatorStatistics:
        x, w, c = self._real_operands()
        threads = self._what.threads
        result, events = matmul(x, w, accumulator, c=c, events=True, threads=threads)
        exact = matmul(x, w, exact_accumulator(), c=c, threads=threads).astype(np.float64)
        finite = np.isfinite(result) & np.isfinite(exact)
        exact = np.where(finite, exact, 0.0)
        lost = exact - np.where(finite, result, 0.0)
        rounded = lost.astype(np.float32).astype(np.float64)
        group = accumulator.group if accumulator.group > 1 else accumulator.chunk
        return AccumulatorStatistics(
            wrong=int(np.count_nonzero(lost)) + int(np.count_nonzero(~finite)),
            largest_error=float(np.abs(lost).max(initial=0)),
            noise=sum_of_floats(rounded * rounded),
            signal=sum_of_floats(exact * exact),
            lost=sum_of_floats(lost),
            lost_magnitude=sum_of_floats(np.abs(lost)),
            nonfinite=int(np.count_nonzero(~finite)),
            events=events,
            spans=exponent_spans(x, w, group or max(x.shape[1], 1), threads),
        )

    def _real_operands(self) -> tuple[Array, Array, Array | None]:
        """Return the operands times their scales, in float32; a scale that is not known is 1."""
        layer = self._layer
        x_scale = np.float64(1 if layer.input_scale is None else layer.input_scale)
        w_scale = np.asarray(1 if layer.weight_scale is None else layer.weight_scale, np.float64)
        w_scale = w_scale if w_scale.ndim == 0 else w_scale[self._part]
        x = (self._rows * x_scale).astype(np.float32)
        w = (self._matrix * w_scale).astype(np.float32)
        return x, w, None if self._start is None else self._start * (x_scale * w_scale)
