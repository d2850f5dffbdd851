"""The first dot product that overflows a width, step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from .._accumulator_widths import WidthRequest
from .._arrays import Array
from .._greedy_order import greedy_order
from ._summary import factor
from .layer import OverflowLayer
from .statistics import Place


@dataclasses.dataclass(frozen=True)
class FirstOverflow:
    """Where an accumulator first leaves its range.

    Attributes
    ----------
    width : int
        Bits of the accumulator.
    sample : int
    coordinate : tuple of int
        Of the output in its sample: position, then channel (channel, row, column for a
        convolution).
    channel : int
    step : int
        Step of the sum, from 0 on, after which it is out of range; -1: the bias is.
    term : int
        The operand index k of the step's last product; -1 for the bias or a merge of tiles.
    before, value : int
        Running sum before and after that step.
    inputs, weights : tuple of int
        Operands of the dot product, in the order in which they are summed.
    input, weight : int
        Those of the step's last product; 0 for the bias or a merge of tiles.
    bias : int
    """

    width: int
    sample: int
    coordinate: tuple[int, ...]
    channel: int
    step: int
    term: int
    before: int
    value: int
    input: int
    weight: int
    bias: int
    inputs: tuple[int, ...]
    weights: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data; `step` is ``"k"``."""
        data = dataclasses.asdict(self)
        data["k"] = data.pop("step")
        for field in ("coordinate", "inputs", "weights"):
            data[field] = list(data[field])
        return data

    def __str__(self) -> str:
        """Return a sentence; k is the step, from 0 on."""
        where = ", ".join(map(str, self.coordinate))
        what = f"{self.before} -> {self.value}"
        if self.term >= 0 and self.before + self.input * self.weight == self.value:
            what = f"{self.before} + {factor(self.input)} x {factor(self.weight)} = {self.value}"
        return (
            f"sample {self.sample}, output ({where}), k={self.step}: "
            f"{what} needs more than {self.width} bits"
        )


def first_overflow(
    layer: OverflowLayer, place: Place, inputs: Array, width: int, request: WidthRequest
) -> FirstOverflow:
    """Return where the dot product at `place`, whose operands are `inputs`, leaves `width` bits."""
    channels = layer.channels // layer.groups
    group, column = divmod(place.channel, channels)
    x = [int(v) for v in inputs]
    w = [int(v) for v in layer.matrix(group)[:, column]]
    bias = 0 if layer.bias is None else int(layer.bias[place.channel])
    order = _order(request, x, w, bias)
    lowest = -(1 << (width - 1)) if request.signed else 0
    highest = (1 << (width - 1)) - 1 if request.signed else (1 << width) - 1
    step, term, before, value = next(
        found for found in _steps(x, w, bias, order, request) if not lowest <= found[3] <= highest
    )
    coordinate = (*place.position, place.channel)
    if layer.kind == "conv2d":
        coordinate = (place.channel, *place.position)
    return FirstOverflow(
        width=width,
        sample=place.sample,
        coordinate=coordinate,
        channel=place.channel,
        step=step,
        term=term,
        before=before,
        value=value,
        input=x[term] if term >= 0 else 0,
        weight=w[term] if term >= 0 else 0,
        bias=bias,
        inputs=tuple(x[k] for k in order),
        weights=tuple(w[k] for k in order),
    )


def _order(request: WidthRequest, x: list[int], w: list[int], bias: int) -> list[int]:
    if request.is_greedy:
        products = [a * b for a, b in zip(x, w, strict=True)]
        return [int(k) for k in greedy_order(products, start=bias)]
    places = request.places(len(x))
    return list(range(len(x))) if places is None else [int(k) for k in places]


def _steps(
    x: list[int], w: list[int], bias: int, order: list[int], request: WidthRequest
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (step, operand index, sum before, sum after) of everything the accumulator holds."""
    group, terms = int(request.group), len(x)
    chunk = int(request.chunk) if 0 < int(request.chunk) < terms else max(terms, 1)
    yield -1, -1, 0, bias
    step, merged, s = -1, 0, bias
    for begin in range(0, terms, chunk):
        s = bias if begin == 0 else 0
        end = min(begin + chunk, terms)
        for i in range(begin, end, group):
            part = order[i : min(i + group, end)]
            step, before = step + 1, s
            s += sum(x[k] * w[k] for k in part)
            yield step, part[-1], before, s
        if chunk < terms:
            before, merged = merged, merged + s
            if request.merge == "same":
                step += 1
                yield step, -1, before, merged
