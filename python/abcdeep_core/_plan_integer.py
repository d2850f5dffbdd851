"""The fast kernel of an integer product, and the condition that permits it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from . import _core
from ._arrays import Array
from ._fixed_format import FixedFormat
from .datapath import Datapath, Quantizer
from .plan import PathError, Plan, need

Range = tuple[int, int]  # lowest, highest

# A group of more elements would make the packed panels large.
_MOST_ELEMENTS = 64
# A longer chunk that is one group is summed like a product that wraps.
_SHORT_CHUNK = 64
# Below so many products a look at the operands costs more than what it could save.
_WORTH_A_LOOK = 1 << 20


def plan_integer(
    datapath: Datapath,
    chunk: int,
    a: Array,
    b: Array,
    has_addend: bool,
    path: str | None = None,
) -> tuple[Plan, _core.IntegerTile | None]:
    """Return the plan of an integer product without events, and its fast kernel's parameters.

    `path` excludes the other fast kernels.
    """
    try:
        steps = _Steps.of(datapath, chunk, Products(a, b), has_addend)
    except PathError as why:
        return Plan("lanes", f"integer: {why}"), None
    kernels = {"dot8": _dot8, "integer16": _integer16, "dot16": _dot16, "integer": _integer}
    refused = ""
    for name, plan in kernels.items():
        if path in kernels and path != name:
            continue
        try:
            return Plan(name, plan(steps)), steps.tile
        except PathError as why:
            refused = f"{name}: {why}"
    return Plan("lanes", refused), None


class Products:
    """What the products of two operands can be: by their dtypes, and by their elements."""

    def __init__(self, a: Array, b: Array) -> None:
        self._a, self._b = a, b
        self.terms: int = a.shape[-1]
        self.dtypes = a.dtype, b.dtype
        self.of_dtypes = _products(_dtype_range(a), _dtype_range(b))
        self._of_data: Range | None = None

    def fit(self, condition: Callable[[Range], bool], look: bool = True) -> bool:
        """Whether `condition` holds for the range of the products."""
        if condition(self.of_dtypes):
            return True
        if not look:
            return False
        if self._of_data is None:
            self._of_data = _products(_data_range(self._a), _data_range(self._b))
        return condition(self._of_data)

    @property
    def count(self) -> int:
        """Number of products of one matrix of the batch."""
        rows: int = self._a.shape[-2]
        columns: int = self._b.shape[-1]
        return rows * columns * self.terms


def _dtype_range(x: Array) -> Range:
    info = np.iinfo(x.dtype)
    return int(info.min), int(info.max)


def _data_range(x: Array) -> Range:
    return int(x.min(initial=0)), int(x.max(initial=0))


def _products(a: Range, b: Range) -> Range:
    corners = [x * y for x in a for y in b]
    return min(corners), max(corners)


def largest_product(a: Array, b: Array) -> int:
    """Return the largest magnitude that a product of their elements can have."""
    return _largest(_products(_data_range(a), _data_range(b)))


def saturation_limits(form: FixedFormat, overflow: str) -> Range:
    """Return where sums of the format stop."""
    symmetric = overflow == "saturate_symmetric" and form.signed
    return -form.max_code if symmetric else form.min_code, form.max_code


def plain_accumulator(datapath: Datapath) -> tuple[Quantizer, FixedFormat, str]:
    """Return the only quantiser of the steps, its format and its overflow rule.

    PathError says which option of an integer datapath no fast kernel has.
    """
    accumulator = datapath.accumulator
    need(datapath.product is None, "products are rounded")
    need(datapath.step != "tree", "step is tree")
    need(datapath.group_quantizer is None, "group sums are rounded")
    need(datapath.output is None, "the result is rounded")
    if accumulator is None:
        raise PathError("sums are exact")
    form = accumulator.format
    assert isinstance(form, FixedFormat)
    need(form.fraction_bits == 0, "sums are shifted")
    return accumulator, form, form.resolved_overflow(accumulator.overflow)


def _largest(products: Range) -> int:
    return max(-products[0], products[1])


@dataclasses.dataclass
class _Steps:
    """Where a datapath applies its overflow rule, as far as the fast kernels know it."""

    products: Products
    tile: _core.IntegerTile
    group: int  # terms summed exactly before the rule applies; 0: only the end of a chunk matters
    reason: str  # why it is the end that matters

    @classmethod
    def of(cls, datapath: Datapath, chunk: int, products: Products, has_addend: bool) -> _Steps:
        """PathError says what no fast kernel does."""
        accumulator, form, overflow = plain_accumulator(datapath)
        bits = form.bits + (not form.signed)
        need(bits <= 32, f"{bits} bits do not fit 32-bit lanes")
        same = datapath.merge in ("same", accumulator)
        need(not chunk or same, "chunks merge with another quantiser")
        tile = _core.IntegerTile()
        tile.bits, tile.is_signed = form.bits, form.signed
        if overflow == "wrap" and form.wrap_bits == 0:
            reason = "sums modulo 2^32 hold those modulo 2^bits in any order"
            return cls(products, tile, 0, reason)
        need(overflow in ("saturate", "saturate_symmetric"), f"overflow is {overflow}")
        low, high = saturation_limits(form, overflow)
        terms = products.terms

        def in_range(of: Range) -> bool:
            return terms * of[0] >= low and terms * of[1] <= high

        if not has_addend and products.fit(in_range, products.count >= _WORTH_A_LOOK):
            return cls(products, tile, 0, "no sum can leave the range")
        if chunk:
            need(datapath.merge_order == "forward", f"merge_order is {datapath.merge_order}")
        tile.saturate, tile.chunk, tile.lowest, tile.highest = True, chunk, low, high
        longest = chunk or terms
        ends = (
            datapath.group >= longest
            and (not chunk or chunk > _SHORT_CHUNK)
            and products.fit(lambda of: longest * _largest(of) + high < 1 << 31)
        )
        return cls(products, tile, 0 if ends else min(datapath.group, longest), "sums fit 32 bits")

    def check_groups(self, terms_of_element: int) -> str:
        """Return why 32-bit lanes hold the sums; PathError if they do not."""
        if not self.group:
            return self.reason
        need(
            self.group <= _MOST_ELEMENTS * terms_of_element,
            f"groups of {self.group} terms are too long",
        )
        self.tile.group = self.group
        most, highest = self.group, self.tile.highest
        step = "no sum" if most == 1 else "no exact sum of a group"
        if self.products.fit(lambda of: most * _largest(of) + highest + 1 < 1 << 31):
            self.tile.may_carry = False
            return f"{step} before saturation leaves 32 bits"
        need(
            self.products.fit(lambda of: most * _largest(of) < 1 << 31),
            "the exact sum of a group may need 33 bits",
        )
        self.tile.may_carry = True
        return f"{step} leaves 32 bits before it is added"


def _dot8(steps: _Steps) -> str:
    need(_core.has_byte_dot_products(), "no VNNI")
    need(all(t.itemsize == 1 for t in steps.products.dtypes), "operands have more than 8 bits")
    need(steps.group != 1, "the accumulator saturates after every product")
    # what stands for an offset of signed bytes is taken off once for all terms, or in every group
    need(steps.group > 0 or not steps.tile.chunk, "long chunks merge")
    return steps.check_groups(4)


def _integer16(steps: _Steps) -> str:
    tile = steps.tile
    need(steps.group == 1, "the accumulator does not saturate after every product")
    need(tile.highest - tile.lowest < 1 << 16, f"{tile.bits} bits do not fit 16-bit lanes")
    need(
        steps.products.fit(lambda of: of[0] >= -(1 << 15) and of[1] < 1 << 15),
        "a product may need 17 bits",
    )
    return "products and sums fit 16 bits"


def _dot16(steps: _Steps) -> str:
    need(np.dtype(np.uint16) not in steps.products.dtypes, "operands are not signed 16-bit numbers")
    return steps.check_groups(2)


def _integer(steps: _Steps) -> str:
    return steps.check_groups(1)
