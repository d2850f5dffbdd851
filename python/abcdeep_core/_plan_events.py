"""The fast kernel of an integer product with events, and the condition that permits it."""

from __future__ import annotations

from . import _core
from ._arrays import Array
from ._plan_integer import largest_product, plain_accumulator, saturation_limits
from .datapath import Datapath
from .plan import PathError, Plan, need


def plan_integer_events(
    datapath: Datapath, chunk: int, a: Array, b: Array, has_addend: bool
) -> tuple[Plan, _core.IntegerTile | None]:
    """Return the plan of an integer product with events, and its fast kernel's parameters.

    Every step counts: the order of terms, groups and chunks matters to sums that wrap as well.
    """
    try:
        accumulator, form, overflow = plain_accumulator(datapath)
        need(datapath.step == "chain", f"step is {datapath.step}")
        tile = _core.IntegerTile()
        tile.bits, tile.is_signed, tile.chunk = form.bits, form.signed, chunk
        tile.saturate = overflow != "wrap"
        wraps = overflow == "wrap" and form.wrap_bits == 0
        need(wraps or overflow in ("saturate", "saturate_symmetric"), f"overflow is {overflow}")
        if chunk:
            same = datapath.merge in ("same", accumulator)
            need(same, "chunks merge with another quantiser")
            need(datapath.merge_order == "forward", f"merge_order is {datapath.merge_order}")
        need(not has_addend, "exact sums that do not start at zero")
        tile.lowest, tile.highest = saturation_limits(form, overflow)
        product, magnitude = largest_product(a, b), max(tile.highest, -tile.lowest)
        need(max(product, magnitude) + magnitude < 1 << 31, "a sum may need 33 bits")
        inside = a.shape[-1] * product + tile.highest - tile.lowest < (1 << 32) - 1
        need(inside, "exact sums may need 33 bits")
        return Plan("integer", "no sum before its limit leaves 32 bits"), tile
    except PathError as why:
        return Plan("lanes", f"integer: {why}"), None
