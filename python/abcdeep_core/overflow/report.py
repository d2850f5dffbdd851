"""`OverflowReport`: what narrow accumulators do to each layer, as numbers, table, HTML and JSON."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from .._accumulator_widths import NO_WIDTH, Counts
from .._format_base import integer
from ..bounds import AccumulatorBounds
from ..datapath import Datapath
from ..width_rules import dsp_fits
from .first_overflow import FirstOverflow, first_overflow
from .layer import OverflowLayer
from .layer_bounds import layer_bounds
from .settings import Settings
from .statistics import WIDTH_KINDS, AccumulatorStatistics, LayerStatistics

VERSION = 1


@dataclasses.dataclass(frozen=True, eq=False)
class WidthCurve:
    """How many outputs overflow an accumulator, by its width.

    Attributes
    ----------
    widths : ndarray of int64
    persistent : ndarray of int64
        Outputs whose exact sum is out of range.
    transient : ndarray of int64
        Outputs whose sum is in range though a partial sum is not.
    overflowed : ndarray of int64
        Both.
    outputs : int
        All outputs.
    """

    widths: Counts
    persistent: Counts
    transient: Counts
    overflowed: Counts
    outputs: int


@dataclasses.dataclass(frozen=True, eq=False)
class LayerReport:
    """The report of one layer.

    Attributes
    ----------
    layer : OverflowLayer
    statistics : LayerStatistics
    settings : Settings
    """

    layer: OverflowLayer
    statistics: LayerStatistics
    settings: Settings

    @functools.cached_property
    def proven(self) -> AccumulatorBounds:
        """Widths that need no data; ``input_ranges`` is that of the inputs that were seen."""
        seen = self.statistics
        observed = (seen.input_lowest, seen.input_highest) if seen.dots else None
        tiled = 0 < int(self.settings.request.chunk) < self.layer.terms
        return layer_bounds(self.layer, observed, tiled=tiled)

    @property
    def bounds(self) -> dict[str, int]:
        """Safe widths by the name of the bound (see `accumulator_bounds`)."""
        return self.proven.widths

    @property
    def data_widths(self) -> dict[str, int]:
        """Width that the data needs, by order: given, final (the sum alone), any_order, greedy."""
        return {kind: max(self.statistics.widest(kind), default=1) for kind in WIDTH_KINDS}

    @property
    def curve(self) -> WidthCurve:
        """Overflow against width."""
        low, high = self.settings.widths
        widths = np.arange(low, high + 1)
        given, final = (
            np.array([self.statistics.wider(kind, int(width)).sum() for width in widths], np.int64)
            for kind in ("given", "final")
        )
        return WidthCurve(widths, final, given - final, given, self.statistics.outputs)

    def rate(self, width: int) -> float:
        """Return the share of outputs that overflow `width` bits, 0 without outputs."""
        seen = self.statistics
        return int(seen.wider("given", width).sum()) / seen.outputs if seen.outputs else 0.0

    def first_overflow(self, width: int) -> FirstOverflow | None:
        """Return the first output, in the order of the samples, that overflows `width` bits."""
        bits = integer("width", width, 1)
        found = self.statistics.first_wider(bits)
        if found is None:
            return None
        return first_overflow(self.layer, *found, bits, self.settings.request)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        layer, seen, curve = self.layer, self.statistics, self.curve
        wanted = sorted(
            {bits for a in self.settings.accumulators if (bits := self.settings.bits(a))}
        )
        firsts = {
            str(width): found.to_dict()
            for width in self._widths_with_first(wanted)
            if (found := self.first_overflow(width))
        }
        given = self.data_widths["given"]
        return {
            "name": layer.name,
            "kind": layer.kind,
            "terms": layer.terms,
            "channels": layer.channels,
            "dots": seen.dots,
            "outputs": seen.outputs,
            "operands": {
                "input": layer.input_type,
                "weight": layer.weight_type,
                "input_range": list(layer.input_range),
                "weight_range": list(layer.weight_range),
                "observed_input_range": [
                    int(seen.input_lowest.min()),
                    int(seen.input_highest.max()),
                ]
                if seen.dots and layer.terms
                else [0, 0],
            },
            "bounds": self.bounds,
            "data_widths": self.data_widths,
            "curve": {
                "widths": curve.widths.tolist(),
                "persistent": curve.persistent.tolist(),
                "transient": curve.transient.tolist(),
                "overflowed": curve.overflowed.tolist(),
            },
            "partial_sums": self._partial_sums(),
            "first_overflow": firsts,
            "channel_bounds": self.proven.channel_widths,
            "channel_data_widths": {kind: seen.widest(kind) for kind in WIDTH_KINDS},
            "channel_overflowed": {
                str(width): seen.wider("given", width).tolist() for width in wanted
            },
            "accumulators": [
                self._accumulator(name, datapath, errors)
                for name, datapath, errors in zip(
                    self.settings.names,
                    self.settings.accumulators,
                    seen.accumulators,
                    strict=True,
                )
            ],
            "fits": dsp_fits(layer.input_range, layer.weight_range, given)
            if given < NO_WIDTH
            else {},
        }

    def _widths_with_first(self, wanted: list[int]) -> list[int]:
        low, high = self.settings.widths
        changes = [min(bits - 1, high) for bits in self.statistics.first if low <= bits - 1]
        return sorted({*wanted, *changes})

    def _partial_sums(self) -> dict[str, Any] | None:
        seen = self.statistics
        if not seen.partial_sums.any():
            return None
        used = int(np.flatnonzero(seen.partial_sums.any(axis=0)).max())
        return {
            "smallest": seen.smallest,
            "largest": seen.largest,
            "bits": list(range(used + 1)),
            "negative": seen.partial_sums[0, : used + 1].tolist(),
            "positive": seen.partial_sums[1, : used + 1].tolist(),
        }

    def _accumulator(
        self, name: str, datapath: Datapath, errors: AccumulatorStatistics
    ) -> dict[str, Any]:
        seen = self.statistics
        data: dict[str, Any] = {
            "name": name,
            "saturates_at": datapath.saturates_at,
            "wrong": errors.wrong,
            "rate": errors.wrong / seen.outputs if seen.outputs else 0.0,
            "largest_error": errors.largest_error,
            "sqnr_db": _decibels(errors.signal, errors.noise),
        }
        bits = self.settings.bits(datapath)
        if bits is not None:
            persistent = int(seen.wider("final", bits).sum())
            overflowed = int(seen.wider("given", bits).sum())
            if errors.events is not None:  # its steps are not those of the curve
                persistent = int(errors.events.persistent)
                overflowed = int(errors.events.overflowed_outputs)
            return data | {
                "persistent": persistent,
                "transient": overflowed - persistent,
                "overflowed": overflowed,
            }
        if datapath.is_integer:
            return data
        if errors.events is not None:
            data["events"] = errors.events.to_dict()
        if errors.spans is not None:
            spans = np.flatnonzero(errors.spans)
            data["exponent_spans"] = {
                "spans": spans.tolist(),
                "steps": errors.spans[spans].tolist(),
            }
        return data | {
            "lost": float(errors.lost),
            "lost_magnitude": float(errors.lost_magnitude),
            "nonfinite": errors.nonfinite,
        }

    def __add__(self, other: LayerReport) -> LayerReport:
        """Return the report of both; samples of `other` come after those of this one."""
        if not isinstance(other, LayerReport):
            return NotImplemented
        a, b = self.layer, other.layer
        same = all(
            np.array_equal(np.asarray(getattr(a, f.name)), np.asarray(getattr(b, f.name)))
            for f in dataclasses.fields(OverflowLayer)
        )
        if not same:
            raise ValueError(f"{a.name}: reports of different layers cannot be added")
        return LayerReport(a, self.statistics + other.statistics, self.settings)


@dataclasses.dataclass(frozen=True, eq=False)
class OverflowReport:
    """What accumulators of every width do to the layers of a model; ``a + b`` merges two.

    The samples of `b` then count as coming after those of `a`.

    Attributes
    ----------
    title : str
    samples : int
    settings : Settings
    layers : tuple of LayerReport
        ``report["name"]`` is that of one layer.
    skipped : tuple of (str, str)
        Nodes that were not looked at, and why.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> layer = ab.OverflowLayer(name="fc", weight=np.full((4, 1), 127, np.int8), input_range="u8")
    >>> report = ab.overflow_report(layer, np.full((1, 4), 100, np.uint8))
    >>> print(report.first_overflow("fc", 16))
    sample 0, output (0), k=2: 25400 + 100 x 127 = 38100 needs more than 16 bits
    """

    title: str
    samples: int
    settings: Settings
    layers: tuple[LayerReport, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    def __getitem__(self, name: str) -> LayerReport:
        """Return the report of a layer."""
        for layer in self.layers:
            if layer.layer.name == name:
                return layer
        raise KeyError(f"no layer {name!r}; layers are {[one.layer.name for one in self.layers]}")

    def curve(self, layer: str) -> WidthCurve:
        """Return overflow against width of a layer."""
        return self[layer].curve

    def first_overflow(self, layer: str, width: int = 16) -> FirstOverflow | None:
        """Return the first output of a layer that overflows `width` bits, or None."""
        return self[layer].first_overflow(width)

    def rate(self, width: int | None = None) -> float:
        """Return the largest share of outputs, of any layer, that overflows.

        Parameters
        ----------
        width : int, optional
            Of the accumulator; by default the narrowest integer one of the report.
        """
        chosen = self.narrowest() if width is None else integer("width", width, 1)
        return max((one.rate(chosen) for one in self.layers), default=0.0)

    def narrowest(self) -> int:
        """Return the bits of the narrowest integer accumulator of the report, 16 without one."""
        bits = [b for a in self.settings.accumulators if (b := self.settings.bits(a))]
        return min(bits, default=16)

    def table(self) -> str:
        """Return a compact table, worst layers first."""
        from .table import table_text

        return table_text(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data; docs/overflow.md describes it."""
        return {
            "version": VERSION,
            "title": self.title,
            "samples": self.samples,
            "settings": self.settings.to_dict(),
            "skipped": [{"name": name, "reason": reason} for name, reason in self.skipped],
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return `to_dict` as JSON text, and write it to a file if there is a path."""
        text = json.dumps(self.to_dict(), allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the report as one self-contained HTML page, written to a file if there is a path.

        Raises
        ------
        ImportError
            Without the extra ``[report]``.
        """
        from .page import render

        text = render(self.to_dict())
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def __add__(self, other: OverflowReport) -> OverflowReport:
        """Return the report of the samples of both."""
        if not isinstance(other, OverflowReport):
            return NotImplemented
        if self.settings != other.settings:
            raise ValueError("reports of different settings cannot be added")
        names = [[one.layer.name for one in report.layers] for report in (self, other)]
        if names[0] != names[1]:
            raise ValueError(f"reports must have the same layers, got {names[0]} and {names[1]}")
        return dataclasses.replace(
            self,
            samples=self.samples + other.samples,
            layers=tuple(a + b for a, b in zip(self.layers, other.layers, strict=True)),
            skipped=tuple(dict.fromkeys((*self.skipped, *other.skipped))),
        )


def _decibels(signal: Any, noise: Any) -> float | None:
    """Return 10 log10(signal / noise); None where there is no noise or no signal."""
    if not signal or not noise:
        return None
    return 10 * (_log10(signal) - _log10(noise))


def _log10(x: Any) -> float:
    """Return log10 of a positive int or Fraction of any size."""
    numerator, denominator = x.numerator, x.denominator
    return math.log10(numerator) - math.log10(denominator)
