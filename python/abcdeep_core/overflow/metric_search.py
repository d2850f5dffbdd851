"""The search for the narrowest accumulators with which a metric of the caller is good enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TypeAlias

from ..datapath import Datapath
from .choice import AccumulatorChoice, LayerChoice, accumulator_bits, label

Metric: TypeAlias = Callable[[Mapping[str, Datapath]], float]


class MetricSearch:
    """The search by a metric; what it has computed it keeps."""

    def __init__(self, options: dict[str, list[Datapath]], metric: Metric, minimum: float) -> None:
        self.options = options
        self.metric = metric
        self.minimum = minimum
        self.known: dict[tuple[int, ...], float] = {}
        self.widest = {name: len(choices) - 1 for name, choices in options.items()}

    def value(self, places: Mapping[str, int]) -> float:
        """Return the metric of a choice, given as a place in the options of each layer."""
        key = tuple(places.values())
        if key not in self.known:
            choice = {name: self.options[name][place] for name, place in places.items()}
            value = self.metric(MappingProxyType(choice))
            try:
                self.known[key] = float(value)
            except (TypeError, ValueError):
                raise TypeError(
                    f"metric must return a number, got {type(value).__name__}"
                ) from None
        return self.known[key]

    def good(self, places: Mapping[str, int]) -> bool:
        """Return whether a choice meets the minimum."""
        return self.value(places) >= self.minimum

    def run(self, *, bisect: bool) -> AccumulatorChoice:
        """Return the choice, by bisection of the options or one by one from the widest."""
        if not self.good(self.widest):
            raise ValueError(
                f"metric: expected at least {self.minimum} with the widest accumulators, "
                f"got {self.value(self.widest)}"
            )
        alone = self._bisect if bisect else self._step_down
        places = {name: alone(name) for name in self.options}
        while not self.good(places):
            places = max(self._one_wider(places), key=self._comparable)
        value = self.value(places)
        return AccumulatorChoice(
            layers=tuple(self._choice(name, place) for name, place in places.items()),
            criterion="metric",
            limit=self.minimum,
            metric=value,
            evaluations=len(self.known),
        )

    def _alone(self, name: str, place: int) -> dict[str, int]:
        return self.widest | {name: place}

    def _bisect(self, name: str) -> int:
        low, high = 0, self.widest[name]
        while low < high:
            middle = (low + high) // 2
            if self.good(self._alone(name, middle)):
                high = middle
            else:
                low = middle + 1
        return high

    def _step_down(self, name: str) -> int:
        place = self.widest[name]
        while place and self.good(self._alone(name, place - 1)):
            place -= 1
        return place

    def _one_wider(self, places: dict[str, int]) -> Iterator[dict[str, int]]:
        for name, place in places.items():
            if place < self.widest[name]:
                yield places | {name: place + 1}

    def _comparable(self, places: Mapping[str, int]) -> float:
        value = self.value(places)
        return -math.inf if math.isnan(value) else value

    def _choice(self, name: str, place: int) -> LayerChoice:
        chosen = self.options[name][place]
        bits = accumulator_bits(chosen)
        narrower = tuple(self._alone(name, place - 1).values())
        if place and narrower in self.known and self.known[narrower] < self.minimum:
            other = self.options[name][place - 1]
            what = f"{accumulator_bits(other)} bits" if other.is_integer else label(other)
            reason = f"{what}: metric {self.known[narrower]:.6g} alone"
        elif place:
            reason = "together with the other layers no narrower one is enough"
        else:
            reason = "the narrowest that was allowed"
        return LayerChoice(name=name, accumulator=chosen, bits=bits, reason=reason)
