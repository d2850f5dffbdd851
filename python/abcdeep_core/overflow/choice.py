"""`AccumulatorChoice`: an accumulator for each layer of a model, and why it is enough."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from ..datapath import Datapath


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """The accumulator of one layer.

    Attributes
    ----------
    name : str
        The layer.
    accumulator : Datapath
    bits : int
        Width of its accumulator format.
    reason : str
        Why it is enough, and what one narrower would do where that is known.
    rate : float, optional
        Share of outputs that overflow on the data, where a rate was asked for.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> layer = ab.OverflowLayer(name="fc", weight=np.ones((64, 10), np.int8), input_range="u8")
    >>> ab.minimize_accumulators([layer]).layers[0].reason
    'sign_split proves 15 bits'
    """

    name: str
    accumulator: Datapath
    bits: int
    reason: str
    rate: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AccumulatorChoice:
    """The narrowest accumulators of the layers of a model.

    Attributes
    ----------
    layers : tuple of LayerChoice
    criterion : str
        What decided: the name of a bound, ``"rate"`` or ``"metric"``.
    limit : float, optional
        The largest rate or the smallest metric that was allowed.
    metric : float, optional
        The metric with all these accumulators together.
    evaluations : int
        Times the metric was computed.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> layer = ab.OverflowLayer(name="fc", weight=np.ones((64, 10), np.int8), input_range="u8")
    >>> choice = ab.minimize_accumulators([layer])
    >>> print(choice.table())
    layer  accumulator  bits  why
    fc     int15:wrap   15    sign_split proves 15 bits
    >>> choice.bits, choice.datapaths["fc"] == ab.integer_accumulator(15)
    ({'fc': 15}, True)
    """

    layers: tuple[LayerChoice, ...]
    criterion: str
    limit: float | None = None
    metric: float | None = None
    evaluations: int = 0

    @property
    def datapaths(self) -> dict[str, Datapath]:
        """The accumulator of each layer, by name."""
        return {layer.name: layer.accumulator for layer in self.layers}

    @property
    def bits(self) -> dict[str, int]:
        """The width of the accumulator of each layer, by name."""
        return {layer.name: layer.bits for layer in self.layers}

    def table(self) -> str:
        """Return a table as text: a line a layer, in the order of the layers."""
        rows = [
            ("layer", "accumulator", "bits", "why"),
            *((x.name, label(x.accumulator), str(x.bits), x.reason) for x in self.layers),
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        if self.metric is not None:
            lines.append(f"metric of all together: {self.metric:.6g}, at least {self.limit:.6g}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data (JSON holds it); `Datapath.from_dict` reads each datapath."""
        return {
            "version": 1,
            "criterion": self.criterion,
            "limit": self.limit,
            "metric": self.metric,
            "evaluations": self.evaluations,
            "layers": [
                {
                    "name": layer.name,
                    "accumulator": label(layer.accumulator),
                    "bits": layer.bits,
                    "reason": layer.reason,
                    "rate": layer.rate,
                    "datapath": layer.accumulator.to_dict(),
                }
                for layer in self.layers
            ],
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)


def label(datapath: Datapath) -> str:
    """Return a short name of an accumulator: ``"int16:wrap"``, ``"m7e4"``."""
    if not datapath.is_integer:
        return datapath.name or f"{accumulator_bits(datapath)} bits"
    assert datapath.accumulator is not None
    mode = datapath.accumulator.overflow or datapath.accumulator.format.overflow
    return f"{datapath.name or f'int{accumulator_bits(datapath)}'}:{mode}"


def accumulator_bits(datapath: Datapath) -> int:
    """Return the width of a datapath's accumulator format."""
    if datapath.accumulator is None:
        raise ValueError("candidates must have an accumulator format, got an exact accumulator")
    return datapath.accumulator.format.bits
