"""Which kernel computes a product, and the condition that permits it."""

from __future__ import annotations

import dataclasses
import platform
from typing import Any

import numpy as np

from . import _core
from ._arrays import Array
from ._fixed_format import FixedFormat
from ._float_format import FloatFormat
from ._quantizer import float_quantizer
from .datapath import Datapath, Quantizer

_SMALLEST_NORMAL = -126  # exponent, of float32
_NONFINITE = 0x7F800000


@dataclasses.dataclass(frozen=True)
class Plan:
    """The kernel that would compute a product.

    Parameters
    ----------
    path : str
        "truncate", "nearest" and "native" (float32 lanes), "integer" (32-bit lanes), or "lanes",
        the general engine (float64 or 64-bit lanes) that also counts events and draws random bits.
    reason : str
        The condition that permits the path; for "lanes", what kept the others out.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> bytes_ = np.ones((4, 4), np.int8)
    >>> ab.integer_accumulator(40).plan(bytes_, bytes_)
    Plan(path='lanes', reason='integer: 40 bits do not fit 32-bit lanes')
    """

    path: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Operands:
    """What the planner knows of the values of float operands."""

    largest: float  # product of the largest magnitudes
    exponents: tuple[int, int]  # of the smallest magnitudes that are not zero
    bits: int  # significand bits of the widest product
    lowest: int  # exponent of the lowest bit that a product can have
    finite: bool


class _PathError(Exception):
    """Says why a fast path does not apply."""


def _need(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _PathError(otherwise)


def plan_float(
    datapath: Datapath, chunk: int, terms: int, operands: Operands, has_addend: bool
) -> tuple[Plan, _core.FloatTile | None]:
    """Return the plan of a float product without events, and the parameters of its fast kernel."""
    reasons = []
    for find in (_native, _truncate, _nearest):
        try:
            _common(datapath, chunk)
            tile, reason = find(datapath, operands)
            if find is not _native:
                _scale(datapath, operands, tile)
                tile.clamp = has_addend or _may_overflow(datapath, chunk or terms, operands)
                reason += ", limits checked" if tile.clamp else ", no sum can leave the range"
            tile.chunk = chunk
            return Plan(find.__name__[1:], reason), tile
        except _PathError as why:
            reasons.append(f"{find.__name__[1:]}: {why}")
    return Plan("lanes", "; ".join(reasons)), None


def _common(d: Datapath, chunk: int) -> None:
    _need(d.accumulator is not None, "the accumulator is exact")
    _need(d.step == "chain", f"step is {d.step}")
    if chunk:
        _need(d.merge == "same" or d.merge == d.accumulator, "chunks merge with another quantiser")
        _need(d.merge_order == "forward", f"merge_order is {d.merge_order}")


def _quantizers(d: Datapath) -> list[tuple[Quantizer, FloatFormat]]:
    pairs = []
    for q in (d.accumulator, d.product):
        if q is not None:
            assert isinstance(q.format, FloatFormat)
            pairs.append((q, q.format))
    return pairs


def _underflow(q: Quantizer, form: FloatFormat) -> str:
    return "off" if q.underflow == "off" else form.resolved_underflow(q.underflow)


def _emin(q: Quantizer, form: FloatFormat) -> int:
    return min(form.emin, _SMALLEST_NORMAL) if _underflow(q, form) == "off" else form.emin


def overflow_value(q: Quantizer, of_infinity: bool = False) -> float:
    """Return what a positive number past the largest value, or Inf, becomes: that, Inf or NaN."""
    assert isinstance(q.format, FloatFormat)
    struct = float_quantizer(q.format, q.rounding, q.overflow, q.underflow)
    return float((struct.infinity_value if of_infinity else struct.overflow_value)[0])


def _native(d: Datapath, operands: Operands) -> tuple[_core.FloatTile, str]:
    for q, form in _quantizers(d):
        is_binary32 = (form.exponent_bits, form.mantissa_bits, form.bias) == (8, 23, 127)
        _need(is_binary32 and form.specials == "ieee", "formats are not binary32")
        _need(q.rounding == "nearest_even", f"rounding is {q.rounding}")
        ieee = form.resolved_overflow(q.overflow) == "ieee" and _underflow(q, form) == "gradual"
        _need(ieee, "range rules are not those of IEEE 754")
    tile = _core.FloatTile()
    tile.product_exact = d.product is None
    _need(not tile.product_exact or _core.has_fused_multiply_add(), "no fused multiply-add")
    return tile, "binary32 to nearest even is the processor's own arithmetic"


def _truncate(d: Datapath, operands: Operands) -> tuple[_core.FloatTile, str]:
    tile = _float32_tile(d, operands, "toward_zero", 23)
    tile.nearest = d.arithmetic == "fp32_mask"
    if tile.nearest:
        off = any(_underflow(q, form) == "off" for q, form in _quantizers(d))
        _need(tile.flush and not off, "fp32_mask without a threshold")
        # elsewhere a result is flushed by its size before rounding
        x86 = platform.machine() in ("x86_64", "AMD64")
        _need(x86, "the processor flushes before rounding")
    return tile, "binary32 truncated toward zero, truncated again, is truncated once"


def _nearest(d: Datapath, operands: Operands) -> tuple[_core.FloatTile, str]:
    tile = _float32_tile(d, operands, "nearest_even", 21)
    if d.product is not None and np.isinf(overflow_value(d.product)):
        # the kernel takes Inf, as what enters a sum, for a number past the largest
        assert d.accumulator is not None
        same = overflow_value(d.accumulator) == overflow_value(d.accumulator, of_infinity=True)
        _need(same, "infinite products propagate, but sums saturate")
    _need(tile.mantissa_bits > 0, "ties between powers of two")  # their codes' parity is another
    exact = operands.bits <= 24
    if not (tile.flush or tile.product_exact):  # also below the smallest normal product
        assert d.product is not None
        assert isinstance(d.product.format, FloatFormat)
        exact = exact and operands.lowest >= d.product.format.emin - 23
    tile.odd_sums = tile.mantissa_bits > 10
    tile.odd_products = tile.odd_sums or not exact
    if tile.product_exact or tile.odd_products:
        _need(_core.float32_rounds_to_odd(), "no rounding of single instructions (AVX-512)")
        return tile, "binary32 rounded to odd, rounded again, is rounded once"
    return tile, "a sum of two numbers of at most 11 bits may be rounded twice"


def _float32_tile(
    d: Datapath, operands: Operands, rounding: str, most_bits: int
) -> _core.FloatTile:
    pairs = _quantizers(d)
    _need(_core.has_fused_multiply_add(), "no fused multiply-add")
    _need(operands.finite, "an operand is not finite")
    widths = {form.mantissa_bits for _, form in pairs}
    _need(len(widths) == 1, "products and sums have different mantissa bits")
    tile = _core.FloatTile()
    tile.mantissa_bits = widths.pop()
    _need(tile.mantissa_bits <= most_bits, f"more than {most_bits} mantissa bits")
    flushes = set()
    for q, form in pairs:
        _need(q.rounding == rounding, f"rounding is {q.rounding}")
        underflow = _underflow(q, form)
        _need(underflow in ("flush_before", "off", "gradual"), f"underflow is {underflow}")
        flushes.add(underflow != "gradual")
        beyond = overflow_value(q)
        _need(rounding == "nearest_even" or beyond == form.max, f"overflow gives {beyond}")
        _need(form.emax - _emin(q, form) <= 253, "the exponent range is wider than float32's")
    _need(len(flushes) == 1, "only one of products and sums flushes")
    tile.flush = flushes.pop()
    tile.product_exact = d.product is None
    return tile


def _scale(d: Datapath, operands: Operands, tile: _core.FloatTile) -> None:
    """Choose the powers of two that bring both thresholds to float32's own."""
    assert d.accumulator is not None
    assert isinstance(d.accumulator.format, FloatFormat)
    product = d.product or d.accumulator
    assert isinstance(product.format, FloatFormat)
    product_emin = _emin(product, product.format)
    sum_emin = _emin(d.accumulator, d.accumulator.format)
    _need(product_emin >= _SMALLEST_NORMAL and sum_emin >= _SMALLEST_NORMAL, "exponents below -126")
    _need(abs(product_emin - sum_emin) <= 8, "thresholds of products and sums are far apart")
    _need(max(product_emin, sum_emin) <= 1, "thresholds above 2")  # the way back is at most 2^127
    _need(d.accumulator.format.emax <= 127, "sums beyond float32's range")
    tile.sum_scale = _SMALLEST_NORMAL - sum_emin
    tile.product_to_sum = product_emin - sum_emin
    total = _SMALLEST_NORMAL - product_emin
    # an operand may shrink as long as its smallest number stays normal
    least_a, least_b = (
        max(_SMALLEST_NORMAL - e, total, _SMALLEST_NORMAL) for e in operands.exponents
    )
    most_a = min(0, total - least_b)
    _need(min(operands.exponents) >= _SMALLEST_NORMAL, "an operand holds subnormal numbers")
    _need(least_a <= most_a, "operands are too small to be scaled")
    tile.scale_a = min(max(total // 2, least_a), most_a)
    tile.scale_b = total - tile.scale_a
    tile.product_limit, tile.sum_limit = product.format.max, d.accumulator.format.max
    tile.product_overflow = overflow_value(product)
    tile.sum_overflow = overflow_value(d.accumulator)


def _may_overflow(d: Datapath, terms: int, operands: Operands) -> bool:
    """Whether a product or the sum of a chunk could leave its range."""
    assert d.accumulator is not None
    ulp = 2.0**-d.accumulator.format.mantissa_bits  # type: ignore[union-attr]
    product = operands.largest * (1 + ulp)
    if d.product is not None and product >= d.product.format.max:
        return True
    # each step grows a sum by at most half an ulp; past 2^20 terms the bound is worthless anyway
    growth = (1 + ulp) ** min(terms, 1 << 20)
    return product * terms * growth >= d.accumulator.format.max


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
        _need(datapath.product is None, "products are rounded")
        bits = form.bits + (not form.signed)
        _need(bits <= 32, f"{bits} bits do not fit 32-bit lanes")
        if overflow == "wrap" and form.wrap_bits == 0:
            same = datapath.merge in ("same", datapath.accumulator)
            _need(not chunk or same, "chunks merge with another rule")
            return Plan("integer", "sums modulo 2^32 hold those modulo 2^bits in any order"), tile
        _need(overflow in ("saturate", "saturate_symmetric"), f"overflow is {overflow}")
        _common(datapath, chunk)
        tile.saturate, tile.chunk = True, chunk
        tile.highest = form.max_code
        tile.lowest = (
            -form.max_code if overflow == "saturate_symmetric" and form.signed else form.min_code
        )
        product = _largest(a) * _largest(b)
        _need(max(product, tile.highest + 1) + tile.highest < 1 << 31, "a sum may need 33 bits")
        return Plan("integer", "no sum before saturation leaves 32 bits"), tile
    except _PathError as why:
        return Plan("lanes", f"integer: {why}"), None


def _largest(x: Array) -> int:
    return max(int(x.max(initial=0)), -int(x.min(initial=0)))


def look_at(summaries: list[tuple[int, int, int]]) -> Operands:
    """Return what two operand summaries (cpp/datapath.hpp) say."""
    largest, exponents, bits = 1.0, [], []
    for most, least_less_one, significand in summaries:
        value = float(np.uint32(min(most, _NONFINITE)).view(np.float32))
        largest *= value
        least = least_less_one + 1
        exponents.append((least >> 23) - 127 if least <= most else 0)
        trailing_zeros = (significand & -significand).bit_length() - 1 if significand else 23
        bits.append(24 - trailing_zeros)
    finite = all(most < _NONFINITE for most, _, _ in summaries)
    lowest = sum(exponents) - sum(width - 1 for width in bits)
    return Operands(largest, (exponents[0], exponents[1]), sum(bits), lowest, finite)


Tile = Any  # a FloatTile or an IntegerTile
