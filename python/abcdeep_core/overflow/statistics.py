"""`LayerStatistics`: what was seen of one layer's dot products; statistics of batches add up."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any, Self

import numpy as np

from .._accumulator_widths import NO_WIDTH, WIDTH_BINS, Counts
from .._arrays import Array
from ..events import Events

WIDTH_KINDS = ("given", "final", "any_order", "greedy")  # the order of cpp/accumulator_widths.hpp


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an output is; the order is sample, position, channel."""

    sample: int
    position: tuple[int, ...]
    channel: int

    def __lt__(self, other: Place) -> bool:
        return dataclasses.astuple(self) < dataclasses.astuple(other)


@dataclasses.dataclass(frozen=True, eq=False)
class AccumulatorStatistics:
    """How the results of one accumulator differ from the exact ones.

    Sums are exact, so that they do not depend on how the samples were batched: of integers `noise`
    and `signal` are ints; of floats, of which `lost` is the sum of exact - result, Fractions.
    """

    wrong: int = 0
    largest_error: float = 0
    noise: int | Fraction = 0
    signal: int | Fraction = 0
    lost: Fraction = Fraction(0)
    lost_magnitude: Fraction = Fraction(0)
    nonfinite: int = 0
    events: Events | None = None
    spans: Counts | None = None

    def __add__(self, other: AccumulatorStatistics) -> AccumulatorStatistics:
        """Return the statistics of both."""
        return AccumulatorStatistics(
            wrong=self.wrong + other.wrong,
            largest_error=max(self.largest_error, other.largest_error),
            noise=self.noise + other.noise,
            signal=self.signal + other.signal,
            lost=self.lost + other.lost,
            lost_magnitude=self.lost_magnitude + other.lost_magnitude,
            nonfinite=self.nonfinite + other.nonfinite,
            events=_sum(self.events, other.events),
            spans=_sum(self.spans, other.spans),
        )


@dataclasses.dataclass(eq=False)
class LayerStatistics:
    """Counts, extremes and first overflows of one layer.

    Attributes
    ----------
    samples, dots : int
        Samples, and dot products of one channel.
    widths : ndarray of int64, shape (4, N, WIDTH_BINS)
        Outputs by width: the kinds are WIDTH_KINDS.
    smallest, largest : int
        Extreme partial sums.
    partial_sums : ndarray of int64, shape (2, WIDTH_BINS)
        Of the counted rows, by bit length of the magnitude: negative, then zero and positive ones.
    first : dict of int to (Place, ndarray)
        The first output of each given width, and its inputs in their own order.
    input_lowest, input_highest : ndarray of int32, shape (groups, K)
        Of each input.
    accumulators : list of AccumulatorStatistics
    """

    samples: int
    dots: int
    widths: Counts
    smallest: int
    largest: int
    partial_sums: Counts
    first: dict[int, tuple[Place, Array]]
    input_lowest: Array
    input_highest: Array
    accumulators: list[AccumulatorStatistics]

    @classmethod
    def empty(cls, groups: int, terms: int, channels: int, accumulators: int) -> Self:
        """Return the statistics of no samples."""
        return cls(
            samples=0,
            dots=0,
            widths=np.zeros((4, channels, WIDTH_BINS), np.int64),
            smallest=0,
            largest=0,
            partial_sums=np.zeros((2, WIDTH_BINS), np.int64),
            first={},
            input_lowest=np.full((groups, terms), np.iinfo(np.int32).max, np.int32),
            input_highest=np.full((groups, terms), np.iinfo(np.int32).min, np.int32),
            accumulators=[AccumulatorStatistics() for _ in range(accumulators)],
        )

    def __add__(self, other: LayerStatistics) -> LayerStatistics:
        """Return the statistics of both; the samples of `other` come after those of this one."""
        first = dict(self.first)
        for width, (place, inputs) in other.first.items():
            if width not in first:
                moved = dataclasses.replace(place, sample=place.sample + self.samples)
                first[width] = moved, inputs
        return LayerStatistics(
            samples=self.samples + other.samples,
            dots=self.dots + other.dots,
            widths=self.widths + other.widths,
            smallest=min(self.smallest, other.smallest),
            largest=max(self.largest, other.largest),
            partial_sums=self.partial_sums + other.partial_sums,
            first=first,
            input_lowest=np.minimum(self.input_lowest, other.input_lowest),
            input_highest=np.maximum(self.input_highest, other.input_highest),
            accumulators=[
                a + b for a, b in zip(self.accumulators, other.accumulators, strict=True)
            ],
        )

    @property
    def outputs(self) -> int:
        """Number of dot products."""
        channels: int = self.widths.shape[1]
        return self.dots * channels

    def widest(self, kind: str) -> list[int]:
        """Return the widest width of each channel; 1 where there was no output."""
        counts = self.widths[WIDTH_KINDS.index(kind)]
        bins = np.arange(WIDTH_BINS)
        return [int(w) for w in np.where(counts > 0, bins, 1).max(axis=1, initial=1)]

    def wider(self, kind: str, width: int) -> Counts:
        """Return how many outputs of each channel need more than `width` bits."""
        count: Counts = self.widths[WIDTH_KINDS.index(kind), :, width + 1 :].sum(axis=1)
        return count

    def first_wider(self, width: int) -> tuple[Place, Array] | None:
        """Return the first output that overflows `width` bits, and its inputs."""
        places = [found for bits, found in self.first.items() if bits > width]
        return min(places, key=lambda found: dataclasses.astuple(found[0]), default=None)


def _sum(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b


__all__ = ["NO_WIDTH", "WIDTH_KINDS", "AccumulatorStatistics", "LayerStatistics", "Place"]
