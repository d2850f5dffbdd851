"""The exact oracle: what is counted along a dot product, and the straight-through factors."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

from oracle import Number, Value, from_units


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
    """The result of one dot product: its value, its event counts, the bits of the estimators."""

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

    def exact_step(self, s: Number, new: Number) -> None:
        """Keep the bits of an addition that nothing rounds; it is not counted."""
        self.of.append(1)
        self.diff.append(int(new != s))

    def step(self, p: Number, s: Number, new: Number, out_of_range: bool) -> None:
        """Record s' = Q(p + s), of a chain, a group or a merge."""
        self.steps += 1
        self.diff.append(int(new != s))
        if not isinstance(p, int) or not isinstance(s, int):
            self.of.append(0)  # |p + s| < R_OF does not hold; but it is no event any more
            return
        total = p + s
        self.of.append(int(not out_of_range))
        self.accumulator_overflow += out_of_range
        if new != total:
            self.rounded += 1
            if new == 0:
                self.accumulator_underflow += 1
        if p != 0:
            self.swamped += new == s
            self.absorbed += new == p and s != 0
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
        float_only = 0 if self.integer else 1
        return {
            "terms": terms,
            "steps": self.steps,
            "outputs": 1,
            "accumulator_overflow": self.accumulator_overflow,
            "product_overflow": self.product_overflow,
            "overflowed_outputs": int(self.accumulator_overflow + self.product_overflow > 0),
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


def straight_through_factors(bits: Bits, variant: str) -> list[int]:
    """Return dL/dp_k / g, 0 or 1, of every term (docs/accumulators.md, Training).

    A chunk's terms are multiplied by the OF bit of the merge addition of their chunk ("immediate")
    or by those of that and all later merges ("recursive").

    Raises
    ------
    ValueError
        For an unknown variant. recursive + DIFF does not exist: an absorbed product does not block
        the running sum.
    """
    if variant not in ("identity", "recursive_of", "immediate_of", "immediate_diff"):
        raise ValueError(f"unknown straight-through variant {variant!r}")
    if variant == "identity":
        return [1] * len(bits.of)
    recursive = variant == "recursive_of"
    own = bits.diff if variant == "immediate_diff" else bits.of
    chunk_factor = [
        min((bits.merge_of[i] for i in (path if recursive else path[:1])), default=1)
        for path in bits.paths
    ]
    factors = [0] * len(own)
    later: dict[int, int] = {}  # chunk -> product of the bits of its later terms
    for k in reversed(bits.order):
        j = bits.chunk[k]
        factor = own[k]
        if recursive:
            later[j] = factor = later.get(j, 1) & factor
        factors[k] = factor & chunk_factor[j]
    return factors
