"""The exact oracle: the fields of a datapath, and its quantisers made for one unit."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from oracle import BINARY32, Number, Quantizer, float_quantizer, raw, smallest_quantum
from oracle_fixed import fixed_quantizer, raw_fixed

FUSED_STEPS = ("fused_trunc", "scaled_groups", "two_level")
STEPS = ("chain", "exact_group", "tree", *FUSED_STEPS)
DEFAULTS = {
    "product": None,
    "accumulator": None,
    "step": "chain",
    "group": 1,
    "chunk": 0,
    "merge": "same",
    "merge_order": "forward",
    "order": "natural",
    "c_join": "early",
    "output": None,
    "arithmetic": "exact",
    "alignment_bits": None,
    "zero_rule": "ignore",
    "exponent_floor": None,
    "group_quantizer": None,
    "operand_a": None,
    "operand_b": None,
    "addend": None,
    "flush_inputs": False,
}


def _identity(v: Number, random: int) -> tuple[Number, bool]:
    return v, False


EXACT = Quantizer(_identity)


def prepare(q: Any, unit: int, deterministic: bool = False) -> Quantizer:
    """Return the quantiser that a `Quantizer` describes; None is exact."""
    if q is None:
        return EXACT
    rounding = getattr(q, "rounding", None)
    if deterministic and rounding == "stochastic":
        rounding = "nearest_even"
    overflow, underflow = getattr(q, "overflow", None), getattr(q, "underflow", None)
    bits, rule = getattr(q, "bits", None), getattr(q, "rule", "c")
    if hasattr(q.format, "fraction_bits"):
        return fixed_quantizer(raw_fixed(q.format, rounding, overflow), unit, bits, rule)
    rounding = rounding or "nearest_even"
    return float_quantizer(raw(q.format), unit, rounding, overflow, underflow, None, bits, rule)


def after_float32(q: Quantizer, unit: int) -> Quantizer:
    """Return the quantiser of fp32_mask: binary32 to nearest even first, then truncation."""
    to_float32 = float_quantizer(BINARY32, unit).apply

    def quantize(v: Number, random: int) -> tuple[Number, bool]:
        return q.apply(to_float32(v, 0)[0], random)

    return Quantizer(quantize, q.random_bits, q.largest)


class Quantizers(NamedTuple):
    """The quantisers of a datapath for one unit."""

    product: Quantizer
    step: Quantizer
    merge: Quantizer
    group: Quantizer
    output: Quantizer
    addend: Quantizer  # of c as it joins: Q_c before the first step, exact at the end


class Fields:
    """The fields of a datapath, the absent ones with their default."""

    def __init__(self, datapath: Any) -> None:
        for name, default in DEFAULTS.items():
            setattr(self, name, getattr(datapath, name, default))
        if self.step not in STEPS:
            raise ValueError(f"unknown step {self.step!r}")
        if self.arithmetic not in ("exact", "fp32_mask"):
            raise ValueError(f"unknown arithmetic {self.arithmetic!r}")
        if self.arithmetic == "fp32_mask" and self.step != "chain":
            raise ValueError("arithmetic='fp32_mask' is defined for step='chain' only")
        if self.step == "chain" and self.group != 1:
            raise ValueError(f"group must be 1 for step='chain', got {self.group}")
        if isinstance(self.merge, str):
            merges = {"same": self.accumulator, "exact": None}
            self.merge_quantizer = merges[self.merge]
        else:  # a quantizer, or a datapath whose accumulator it is
            self.merge_quantizer = getattr(self.merge, "accumulator", self.merge)

        self._by_unit: dict[int, Quantizers] = {}

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    @property
    def is_integer(self) -> bool:
        inner = (self.product, self.accumulator, self.merge_quantizer, self.group_quantizer)
        given = [q for q in inner if q is not None]
        if not given and self.output is not None:
            return getattr(self.output.format, "fraction_bits", 1) <= 0
        return any(hasattr(q.format, "fraction_bits") for q in given)

    @property
    def first_limit(self) -> Any:
        """The quantiser of the running sum or, if that is exact, of the merge or the result."""
        return self.accumulator or self.merge_quantizer or self.output

    def lowest_unit(self) -> int:
        """Return the lowest bit of any value that a quantiser gives."""
        quantizers = (self.product, self.accumulator, self.merge_quantizer, self.output,
                      self.group_quantizer)  # fmt: skip
        units = [
            smallest_quantum(q.format, getattr(q, "underflow", None))
            for q in quantizers
            if q is not None
        ]
        if self.addend is not None:
            units.append(smallest_quantum(self.addend))
        if self.arithmetic == "fp32_mask":
            units.append(smallest_quantum(BINARY32))
        return min(units, default=0)

    def quantizers(self, unit: int) -> Quantizers:
        """Return the quantisers of this datapath for one unit (kept: they serve many products)."""
        if unit not in self._by_unit:
            product, step, merge, group, output = (
                prepare(q, unit)
                for q in (self.product, self.accumulator, self.merge_quantizer,
                          self.group_quantizer, self.output)
            )  # fmt: skip
            if self.arithmetic == "fp32_mask":
                product, step = after_float32(product, unit), after_float32(step, unit)
                merge = merge if merge is EXACT else after_float32(merge, unit)
            if self.step in FUSED_STEPS and self.addend is not None:
                addend = float_quantizer(raw(self.addend), unit)
            elif self.c_join == "end":
                addend = EXACT
            else:
                addend = prepare(self.accumulator, unit, deterministic=True)
            self._by_unit[unit] = Quantizers(product, step, merge, group, output, addend)
        return self._by_unit[unit]


def fields_of(datapath: Any) -> Fields:
    """Return the fields of a datapath; those of a hashable one are read only once."""
    try:
        hash(datapath)
    except TypeError:
        return Fields(datapath)
    return _cached_fields(datapath)


_cached_fields = cache(Fields)
