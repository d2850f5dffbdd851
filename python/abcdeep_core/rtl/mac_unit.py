"""MacUnit: the widths, ranges and rules of the multiply-accumulate unit that a datapath is."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np

from .._fixed_format import FixedFormat
from .._format_base import integer
from .._operand_types import type_of_range
from ..bounds import signed_width
from ..datapath import Datapath, Quantizer

_TYPE = re.compile(r"([su])(\d+)")


@dataclasses.dataclass(frozen=True)
class OperandType:
    """An integer type: two's complement or unsigned, of some bits."""

    bits: int
    signed: bool = True

    @property
    def lowest(self) -> int:
        """Smallest value."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """Largest value."""
        return (1 << (self.bits - self.signed)) - 1

    def __str__(self) -> str:
        """Return the short text: s8, u4."""
        return f"{'s' if self.signed else 'u'}{self.bits}"

    @classmethod
    def named(cls, argument: str, text: str) -> OperandType:
        """Return the type that a text like "s8" or "u4" names; 2 to 16 bits."""
        if not isinstance(text, str):
            raise TypeError(f"{argument} must be a text like 's8', got {type(text).__name__}")
        match = _TYPE.fullmatch(text)
        if not match or not 2 <= int(match[2]) <= 16:
            raise ValueError(f"{argument} must be s2..s16 or u2..u16, got {text!r}")
        return cls(int(match[2]), match[1] == "s")

    @classmethod
    def of_dtype(cls, argument: str, dtype: np.dtype[Any]) -> OperandType:
        """Return the type of an array's elements."""
        match = re.fullmatch(r"(u?)int(2|4|8|16)", dtype.name)
        if not match:
            raise TypeError(
                f"{argument} must hold int4, uint4, int8, uint8, int16 or uint16, got {dtype}; "
                f"name the operands' type with {argument}_type='s8'"
            )
        return cls(int(match[2]), not match[1])

    @classmethod
    def holding(cls, argument: str, lowest: int, highest: int) -> OperandType:
        """Return the smallest type of 2 to 16 bits that holds lowest..highest."""
        if lowest > highest:
            raise ValueError(f"{argument} must be a smallest and a largest number, got {lowest}, "
                             f"{highest}")  # fmt: skip
        bits, signed = type_of_range((lowest, highest))
        if bits > 16:
            raise ValueError(
                f"{argument} must be within 16 bits for a test vector, got {lowest}..{highest}"
            )
        return cls(max(bits, 2), signed)


@dataclasses.dataclass(frozen=True)
class OverflowRule:
    """What an accumulator makes of an exact sum: the rule of an integer Quantizer."""

    bits: int
    signed: bool
    mode: str
    wrap_bits: int

    @classmethod
    def of(cls, quantizer: Quantizer) -> OverflowRule:
        """Return the rule; wrapping with all bits saturated is saturation."""
        form = quantizer.format
        assert isinstance(form, FixedFormat)
        mode = form.resolved_overflow(quantizer.overflow)
        wrap_bits = form.wrap_bits if mode.startswith("wrap") else 0
        if wrap_bits >= form.bits:
            mode, wrap_bits = "saturate", 0
        return cls(form.bits, form.signed, mode, wrap_bits)

    @property
    def lowest(self) -> int:
        """Smallest sum that is in range."""
        if not self.signed:
            return 0
        return -(1 << (self.bits - 1)) + (self.mode == "saturate_symmetric")

    @property
    def highest(self) -> int:
        """Largest sum that is in range."""
        return (1 << (self.bits - self.signed)) - 1

    def in_range(self, v: int) -> bool:
        """Whether the rule leaves v as it is."""
        return self.lowest <= v <= self.highest

    def apply(self, v: int) -> int:
        """Return what becomes of v (docs/formats.md, section 7)."""
        if self.in_range(v):
            return v
        if self.mode == "saturate_zero":
            return 0
        if self.mode.startswith("saturate"):
            return self.highest if v > 0 else self.lowest
        return self._wrapped(v)

    def _wrapped(self, v: int) -> int:
        n = self.wrap_bits
        free = self.bits - n  # low bits that do not saturate
        if n == 0:
            top, sign_magnitude_top = 0, v >> self.bits & 1
            low_bits = free - 1 if self.mode == "wrap_sign_magnitude" else free
            if self.mode == "wrap_sign_magnitude":
                top = sign_magnitude_top << (self.bits - 1)
            inverted = sign_magnitude_top != (v >> (self.bits - 1) & 1)
        else:
            low_bits = free
            negative = int(v < 0)
            ones = [1 - negative] * (n - self.signed) + [negative] * self.signed
            top = sum(bit << (free + place) for place, bit in enumerate(ones))
            inverted = ones[0] != (v >> free & 1)
        low = v & ((1 << low_bits) - 1)
        if self.mode == "wrap_sign_magnitude" and inverted:
            low ^= (1 << low_bits) - 1
        word = top | low
        return word - (1 << self.bits) if self.signed and word >> (self.bits - 1) else word


@dataclasses.dataclass(frozen=True)
class MacUnit:
    """A unit that adds the products of `group` operand pairs each cycle.

    `chunk_steps` is the number of cycles of a chunk, 0 without chunks; then `merge` is the rule of
    their sum, None if it is exact, and `result_bits` the width of the result.
    """

    x: OperandType
    w: OperandType
    accumulator: OverflowRule
    group: int
    terms: int
    chunk: int
    merge: OverflowRule | None
    has_addend: bool

    @classmethod
    def of(
        cls, datapath: Datapath, x: OperandType, w: OperandType, terms: int, has_addend: bool
    ) -> MacUnit:
        """Return the unit of a datapath; NotImplementedError names what it does not cover."""
        if not isinstance(datapath, Datapath):
            raise TypeError(f"datapath must be a Datapath, got {type(datapath).__name__}")
        if not datapath.is_integer:
            raise NotImplementedError(
                "datapath must have an integer accumulator for a Verilog unit, "
                f"got {datapath.name or datapath!r}"
            )
        _refuse_other_fields(datapath, _COVERED)
        assert datapath.accumulator is not None
        for q in (datapath.accumulator, datapath.merge):
            if isinstance(q, Quantizer):
                _refuse_other_fields(q, {"format": None, "rounding": None, "overflow": None})
        rule = OverflowRule.of(datapath.accumulator)
        terms = integer("terms", terms, 1)
        chunk = datapath.chunk if datapath.chunk < terms else 0
        merge = rule if datapath.merge == "same" else None
        if isinstance(datapath.merge, Quantizer):
            merge = OverflowRule.of(datapath.merge)
        unit = cls(
            x, w, rule, min(datapath.group, chunk or terms), terms, chunk, merge, has_addend
        )  # fmt: skip
        if unit.result.bits > 63:
            raise ValueError(f"merge='exact' must need at most 63 bits, got {unit.result.bits}")
        return unit

    @property
    def chunk_steps(self) -> int:
        """Cycles of a chunk; 0 without chunks."""
        return -(-self.chunk // self.group)

    @property
    def steps(self) -> int:
        """Cycles of a dot product."""
        if not self.chunk:
            return -(-self.terms // self.group)
        whole, rest = divmod(self.terms, self.chunk)
        return whole * self.chunk_steps + -(-rest // self.group)

    @property
    def chunks(self) -> int:
        """Chunks of a dot product."""
        return -(-self.terms // self.chunk) if self.chunk else 1

    @property
    def result(self) -> OperandType:
        """Type of the result."""
        if not self.chunk:
            return OperandType(self.accumulator.bits, self.accumulator.signed)
        if self.merge is not None:
            return OperandType(self.merge.bits, self.merge.signed)
        lowest = self.chunks * self.accumulator.lowest
        return OperandType(
            signed_width(lowest, self.chunks * self.accumulator.highest) - (lowest == 0), lowest < 0
        )

    @property
    def sum_bits(self) -> int:
        """Bits of the exact sum of the running sum and the products of a cycle."""
        products = [x * w for x in (self.x.lowest, self.x.highest)
                    for w in (self.w.lowest, self.w.highest)]  # fmt: skip
        rule = self.accumulator
        full = OperandType(rule.bits, rule.signed)
        needed = signed_width(
            full.lowest + self.group * min(products), full.highest + self.group * max(products)
        )
        return max(needed, rule.bits + 1, self.x.bits + 1, self.w.bits + 1)

    @property
    def merge_bits(self) -> int:
        """Bits of the exact sum of the result so far and a chunk's."""
        chunk = OperandType(self.accumulator.bits, self.accumulator.signed)
        needed = signed_width(
            chunk.lowest + self.result.lowest, chunk.highest + self.result.highest
        )  # fmt: skip
        return max(needed, chunk.bits + 1, self.result.bits + 1)


# What a unit may have in each field; None: anything. Other fields must be at their default.
_COVERED: dict[str, tuple[Any, ...] | None] = {
    "accumulator": None,
    "step": ("chain", "exact_group"),
    "group": None,
    "chunk": None,
    "merge": None,
    "order": None,
    "name": None,
}


def _refuse_other_fields(
    value: Datapath | Quantizer, covered: dict[str, tuple[Any, ...] | None]
) -> None:
    for field in dataclasses.fields(value):
        found = getattr(value, field.name)
        known = covered.get(field.name, (field.default,))
        if known is not None and found not in known:
            raise NotImplementedError(f"{field.name}={found!r} has no Verilog unit")
