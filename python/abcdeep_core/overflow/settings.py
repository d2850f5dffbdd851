"""What a report is asked: accumulators, widths, and how partial sums come about."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from .._accumulator_widths import GREEDY, WidthRequest
from .._fixed_format import FixedFormat
from .._format_base import integer
from ..accumulators import get_accumulator
from ..datapath import Datapath, Quantizer

WIDEST = 64
DEFAULT_ACCUMULATORS = ("int16:wrap", "int16:saturate")
DEFAULT_UNSIGNED = ("uint16:wrap", "uint16:saturate")
DEFAULT_WIDTHS = (8, 32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The questions of an overflow report, checked.

    Attributes
    ----------
    names : tuple of str
        Of the accumulators, as they were given.
    accumulators : tuple of Datapath
    widths : tuple of int
        Narrowest and widest accumulator of the curves.
    request : WidthRequest
    """

    names: tuple[str, ...]
    accumulators: tuple[Datapath, ...]
    widths: tuple[int, int]
    request: WidthRequest

    @classmethod
    def of(
        cls,
        accumulators: Sequence[str | Datapath] | str | Datapath | None,
        widths: Sequence[int],
        *,
        group: int = 1,
        tile: int = 0,
        tile_merge: str = "same",
        order: str | tuple[int, ...] = "natural",
        signed: bool = True,
    ) -> Settings:
        """Return settings; integer accumulators given as text take on group, tile and order."""
        if accumulators is None:
            accumulators = DEFAULT_ACCUMULATORS if signed else DEFAULT_UNSIGNED
        request = WidthRequest(
            order=order, group=group, chunk=tile, merge=tile_merge, signed=signed
        )
        given = [accumulators] if isinstance(accumulators, str | Datapath) else list(accumulators)
        found = [_with_steps(one, request) for one in given]
        names = [_name(one, datapath) for one, datapath in zip(given, found, strict=True)]
        for name, datapath in zip(names, found, strict=True):
            if _is_stochastic(datapath):
                raise ValueError(f"accumulators must not round stochastically, got {name!r}")
        if len(set(names)) != len(names):
            raise ValueError(f"accumulators must differ in their names, got {names}")
        try:
            narrowest, widest = widths
        except (TypeError, ValueError):
            raise ValueError(f"widths must be a pair (narrowest, widest), got {widths!r}") from None
        narrowest = integer("widths", narrowest, 2, WIDEST)
        widest = integer("widths", widest, narrowest, WIDEST)
        return cls(
            names=tuple(names),
            accumulators=tuple(found),
            widths=(narrowest, widest),
            request=request,
        )

    def bits(self, accumulator: Datapath) -> int | None:
        """Return the width of the sums that an integer datapath holds; None for the others.

        A shifted register holds sums as wide as its bits and its shift; exact sums are limited by
        the output.
        """
        q = accumulator.accumulator or accumulator.output
        if q is None or not isinstance(q.format, FixedFormat) or not accumulator.is_integer:
            return None
        return q.format.bits - q.format.fraction_bits

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain data."""
        order = self.request.order
        return {
            "accumulators": list(self.names),
            "widths": list(self.widths),
            "group": self.request.group,
            "tile": self.request.chunk,
            "tile_merge": self.request.merge,
            "order": order if isinstance(order, str) else list(order),
            "signed": self.request.signed,
        }


def _is_stochastic(datapath: Datapath) -> bool:
    quantizers = (datapath.product, datapath.accumulator, datapath.merge, datapath.output)
    return any(isinstance(q, Quantizer) and q.rounding == "stochastic" for q in quantizers)


def _with_steps(given: str | Datapath, request: WidthRequest) -> Datapath:
    datapath = get_accumulator(given)
    if isinstance(given, Datapath) or not datapath.is_integer:
        return datapath
    changes: dict[str, Any] = {}
    group = int(request.group)
    if datapath.group == 1 and group > 1:
        changes |= {"step": "exact_group", "group": group}
    if datapath.chunk == 0 and request.chunk:
        changes |= {"chunk": request.chunk, "merge": request.merge}
    if request.order != GREEDY:
        changes["order"] = request.order
    return datapath.replace(**changes)


def _name(given: str | Datapath, datapath: Datapath) -> str:
    if isinstance(given, str):
        return given
    if datapath.name and datapath.is_integer:
        q = datapath.accumulator or datapath.output or datapath.product
        overflow = "" if q is None else f":{q.overflow or getattr(q.format, 'overflow', '')}"
        return f"{datapath.name}{overflow}" + (f":g{datapath.group}" if datapath.group > 1 else "")
    return datapath.name or repr(datapath)
