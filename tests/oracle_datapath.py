"""The exact oracle: one dot product through any datapath (docs/accumulators.md), in integers.

A datapath is any object with (some of) the fields of `Datapath`; an absent field has its default.
Everything is an integer in units of 2^unit (oracle.py); a sum of two numbers is therefore `p + s`,
and the only rounding is that of the quantisers. Random words are asked for by name and place:
`random(kind, k)` with kind "product" or "step" (k is the place of the term, or of the first term of
the group, in the order of summation) or "merge" (k is the chunk).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from oracle import (
    BINARY32,
    NEG_ZERO,
    Number,
    Quantizer,
    Raw,
    Value,
    float_quantizer,
    from_units,
    raw,
    scaled,
    smallest_quantum,
)
from oracle_fixed import fixed_quantizer, integer_range, raw_fixed
from oracle_units import (
    SCALED_GROUP_TERMS,
    Alignment,
    Term,
    add,
    aligned_sum,
    exponent_of,
    multiply,
    plus,
    scaled_group_sum,
    two_level_sum,
)

Random = Callable[[str, int], int]
Node = Callable[[Number, Number, int], Number]

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


class Bits(NamedTuple):
    """The bits of the straight-through estimators; 1 lets the gradient through.

    Per term in the order of `a`: `of`, `diff` and the `chunk` it is in. Per merge in the order of
    execution: `merge_of`, `merge_diff`. `paths[j]` lists the merges that the sum of chunk j passes.
    """

    order: list[int]
    chunk: list[int]
    of: list[int]
    diff: list[int]
    merge_of: list[int]
    merge_diff: list[int]
    paths: list[list[int]]


class Dot(NamedTuple):
    """The result of one dot product: its value, its event counts, the bits of section 10."""

    value: Value
    events: dict[str, Any]
    bits: Bits


class Tally:
    """Counts the events of one dot product (docs/accumulators.md, Events)."""

    def __init__(self, integer: bool, unit: int) -> None:
        self.integer = integer
        self.unit = unit
        self.steps = self.accumulator_overflow = self.product_overflow = 0
        self.product_underflow = self.accumulator_underflow = 0
        self.swamped = self.rounded = self.absorbed = self.nonfinite = 0
        self.smallest: int | None = None
        self.largest: int | None = None
        self.of: list[int] = []  # one bit a step
        self.diff: list[int] = []

    def product(self, exact: Number, p: Number, out_of_range: bool) -> None:
        if not isinstance(exact, int):
            return
        self.product_overflow += out_of_range
        self.product_underflow += p == 0 and exact != 0
        self.nonfinite += not isinstance(p, int)

    def step(self, p: Number, s: Number, new: Number, out_of_range: bool) -> None:
        """Record s' = Q(p + s), of a chain, a group or a merge."""
        self.steps += 1
        self.diff.append(int(new != s))
        if not isinstance(p, int) or not isinstance(s, int):  # Inf and NaN raise no events later
            self.of.append(1)
            return
        total = p + s
        self.of.append(int(not out_of_range))
        self.accumulator_overflow += out_of_range
        if new != total:
            self.rounded += 1
            if new == 0:
                self.accumulator_underflow += 1
        if new == s:
            self.swamped += p != 0
        elif new == p:
            self.absorbed += s != 0
        self.nonfinite += not isinstance(new, int)
        if self.smallest is None or self.largest is None:
            self.smallest = self.largest = total
        elif total < self.smallest:
            self.smallest = total
        elif total > self.largest:
            self.largest = total

    def partial(self, v: int | None) -> Fraction | float:
        value = from_units(v or 0, self.unit)
        return value if self.integer else float(value)

    def events(self, terms: int, transient: bool, persistent: bool) -> dict[str, Any]:
        any_overflow = self.accumulator_overflow or self.product_overflow
        float_only = 0 if self.integer else 1
        return {
            "terms": terms,
            "steps": self.steps,
            "outputs": 1,
            "accumulator_overflow": self.accumulator_overflow,
            "product_overflow": self.product_overflow,
            "overflowed_outputs": int(any_overflow > 0),
            "transient": int(transient),
            "persistent": int(persistent),
            "product_underflow": self.product_underflow * float_only,
            "accumulator_underflow": self.accumulator_underflow * float_only,
            "swamped": self.swamped * float_only,
            "rounded": self.rounded * float_only,
            "absorbed": self.absorbed * float_only,
            "min_partial": self.partial(self.smallest),
            "max_partial": self.partial(self.largest),
            "nonfinite": self.nonfinite * float_only,
        }
