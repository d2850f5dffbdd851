"""The fast kernel of an integer product, and the condition that permits it."""

from __future__ import annotations

from . import _core
from ._arrays import Array
from ._fixed_format import FixedFormat
from .datapath import Datapath
from .plan import PathError, Plan, need


def plan_integer(
    datapath: Datapath, chunk: int, a: Array, b: Array, has_addend: bool
) -> tuple[Plan, _core.IntegerTile | None]:
    """Return the plan of an integer product without events, and its fast kernel's parameters."""
    assert datapath.accumulator is not None
    form = datapath.accumulator.format
    assert isinstance(form, FixedFormat)
    overflow = form.resolved_overflow(datapath.accumulator.overflow)
    tile = _core.IntegerTile()
    tile.bits, tile.is_signed = form.bits, form.signed
    try:
        need(datapath.product is None, "products are rounded")
        bits = form.bits + (not form.signed)
        need(bits <= 32, f"{bits} bits do not fit 32-bit lanes")
        same = datapath.merge in ("same", datapath.accumulator)
        if overflow == "wrap" and form.wrap_bits == 0:
            need(not chunk or same, "chunks merge with another rule")
            return Plan("integer", "sums modulo 2^32 hold those modulo 2^bits in any order"), tile
        need(overflow in ("saturate", "saturate_symmetric"), f"overflow is {overflow}")
        need(datapath.step == "chain", f"step is {datapath.step}")
        if chunk:
            need(same, "chunks merge with another quantiser")
            need(datapath.merge_order == "forward", f"merge_order is {datapath.merge_order}")
        tile.saturate, tile.chunk = True, chunk
        tile.highest = form.max_code
        tile.lowest = (
            -form.max_code if overflow == "saturate_symmetric" and form.signed else form.min_code
        )
        product = _largest(a) * _largest(b)
        need(max(product, tile.highest + 1) + tile.highest < 1 << 31, "a sum may need 33 bits")
        return Plan("integer", "no sum before saturation leaves 32 bits"), tile
    except PathError as why:
        return Plan("lanes", f"integer: {why}"), None


def _largest(x: Array) -> int:
    return max(int(x.max(initial=0)), -int(x.min(initial=0)))
