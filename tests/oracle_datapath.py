"""The exact oracle: one dot product through any datapath (docs/accumulators.md), in integers.

A datapath is any object with (some of) the fields of `Datapath`; an absent field has its default.
Everything is an integer in units of 2^unit (oracle.py); a sum of two numbers is therefore `p + s`,
and the only rounding is that of the quantisers. Random words are asked for by name and place:
`random(kind, k)` with kind "product" or "step" (k is the place of the term, or of the first term of
the group, in the order of summation) or "merge" (k is the chunk).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from oracle import NEG_ZERO, Number, Quantizer, Raw, from_units, raw
from oracle_events import Bits, Dot, Tally, straight_through_factors
from oracle_fields import EXACT, FUSED_STEPS, Fields, fields_of, prepare
from oracle_operands import Operands
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


def halves(
    begin: int, end: int, leaf: Callable[[int], Number], node: Callable[..., Number]
) -> Number:
    """Return the sum of leaves [begin, end) by recursive halves, the left one the longer.

    `node` gets the two sums and begin, middle and end of what they cover; `middle`, the first leaf
    of the right half, is no other node's middle and so names the node.
    """
    if end - begin == 1:
        return leaf(begin)
    middle = begin + (end - begin + 1) // 2
    left, right = halves(begin, middle, leaf, node), halves(middle, end, leaf, node)
    return node(left, right, begin, middle, end)


def dot(
    a: Iterable[Any],
    b: Iterable[Any],
    datapath: Any,
    c: Any = None,
    random: Random | None = None,
    events: bool = True,
    scales: tuple[Iterable[Any], Iterable[Any], Any] | None = None,
) -> Dot:
    """Compute one dot product a . b (+ c) through a datapath.

    Parameters
    ----------
    a, b : equally many Python scalars, or one-dimensional arrays.
    datapath : an object with fields of `Datapath`.
    c : scalar, optional.
    random : callable (kind, k) -> 32-bit word, for stochastic quantisers; R is its top bits.
    events : whether to count events and keep bits; without, both are empty.
    scales : for block operands of fused_trunc and scaled_groups: the scales of a and of b, one per
        16 terms, and the format of the scales.

    Returns
    -------
    Dot
        The value is not rounded to a NumPy dtype: an exact accumulator or merge gives the exact
        sum. It is -0.0 only where a matrix unit defines it.

    Raises
    ------
    ValueError
        For Inf or NaN with an accumulator that has no NaN, and for a field out of its set.
    """
    fields = fields_of(datapath)
    terms = Operands(a, b, c, fields, scales)
    run = _Run(fields, terms, random, events)
    return run.result()


class _Run:
    """One dot product in progress (docs/accumulators.md, Reference semantics)."""

    def __init__(
        self, fields: Fields, terms: Operands, random: Random | None, events: bool
    ) -> None:
        self.fields, self.terms, self.random = fields, terms, random
        self.unit = terms.unit
        self.q = fields.quantizers(terms.unit)
        self.tally = Tally(fields.is_integer, terms.unit) if events else None
        self.products, self.product_of = self.rounded_products()
        if fields.step in FUSED_STEPS:
            self.alignment = Alignment(
                self.unit, fields.alignment_bits, fields.zero_rule, fields.exponent_floor
            )
            self.c_format: Raw = raw(fields.addend or fields.accumulator.format)
            self.eight_bit = fields.operand_a is not None and raw(fields.operand_a).bits <= 8

    def word(self, q: Quantizer, kind: str, k: int) -> int:
        """Return R of a stochastic quantiser: the top bits of the random word at a place."""
        if not q.random_bits:
            return 0
        if self.random is None:
            raise ValueError("a stochastic datapath needs random")
        return self.random(kind, k) >> (32 - q.random_bits)

    def rounded_products(self) -> tuple[list[Number], list[int]]:
        """Return the products after Q_prod and, per product, its bit OF."""
        q, tally = self.q.product, self.tally
        if q is EXACT:
            return self.terms.products, [1] * len(self.terms.products)
        products, bits = [], []
        for k, exact in enumerate(self.terms.products):
            p, out_of_range = q.apply(exact, self.word(q, "product", k) if q.random_bits else 0)
            products.append(p)
            # "OF" of a truncating LBA product is |Q_prod(x w)| < R_OF
            at_largest = q.largest is not None and abs(p) >= q.largest
            bits.append(int(not (out_of_range or at_largest)))
            if tally:
                tally.product(exact, p, out_of_range)
        return products, bits

    def accumulate(
        self, q: Quantizer, kind: str, k: int, p: Number, s: Number, entering: Number | None = None
    ) -> Number:
        """Return s' = Q(p + s), or Q(entering) where a unit aligns and truncates before it adds."""
        if entering is None:
            entering = p + s if isinstance(p, int) and isinstance(s, int) else add(p, s)
        new, out_of_range = q.apply(entering, self.word(q, kind, k) if q.random_bits else 0)
        if self.tally and q is not EXACT:
            self.tally.step(p, s, new, out_of_range)
        elif self.tally:
            self.tally.exact_step(s, new)
        return new

    def group(self, first: int, last: int, s: Number) -> tuple[Number, Number | None]:
        """Return what a group contributes, and what enters Q_acc if that is not p + s."""
        q, step = self.q.group, self.fields.step
        if step == "tree":

            def leaf(k: int) -> Number:
                return q.apply(self.products[k], self.word(q, "product", k))[0]

            def node(left: Number, right: Number, _: int, middle: int, __: int) -> Number:
                return q.apply(add(left, right), self.word(q, "step", middle))[0]

            return halves(first, last, leaf, node), None
        if step == "exact_group":
            total = self.total(self.products[first:last])
            return q.apply(total, self.word(q, "step", first))[0], None
        return self.fused(first, last, s)

    @staticmethod
    def total(numbers: Iterable[Number]) -> Number:
        result: Number = 0
        for v in numbers:
            result = add(result, v)
        return result

    def fused(self, first: int, last: int, s: Number) -> tuple[Number, Number]:
        """Return the exact sum of a matrix unit's group, and what the unit rounds."""
        scales = self.terms.scales
        products = self.products[first:last]
        if scales:
            by_term = [scales[k // SCALED_GROUP_TERMS][0] for k in range(first, last)]
            exact = [multiply(p, scale) for p, scale in zip(products, by_term, strict=True)]
        else:
            exact = products
        p = self.total(exact)
        if not all(isinstance(v, int) for v in (*exact, s)):
            return p, add(p, s)
        rule, how = self.fields.zero_rule, self.alignment
        addend = (int(s), exponent_of(int(s), self.unit, self.c_format.emin, rule))
        if self.fields.step == "scaled_groups":
            used = scales[first // SCALED_GROUP_TERMS : -(-last // SCALED_GROUP_TERMS)]
            return p, scaled_group_sum([int(v) for v in products], used, addend, how)
        exponents = self.terms.exponents[first:last]
        if scales:
            of_scale = [scales[k // SCALED_GROUP_TERMS][1] for k in range(first, last)]
            exponents = [plus(e, x) for e, x in zip(exponents, of_scale, strict=True)]
        terms: list[Term] = [(int(v), e) for v, e in zip(exact, exponents, strict=True)]
        if self.fields.step == "two_level":
            return p, two_level_sum(terms, addend, how, self.eight_bit)
        return p, aligned_sum([*terms, addend], how)

    def merged(self, sums: list[Number]) -> tuple[Number, list[list[int]]]:
        """Return the sum of the chunk results, and the merges that each of them passes.

        A merge is a step like any other; an exact sum of all chunks has no steps.
        """
        q, count = self.q.merge, len(sums)
        paths: list[list[int]] = [[] for _ in sums]
        if count == 1:
            return sums[0], paths
        if q is EXACT:
            return self.total(sums), paths
        if self.fields.merge_order == "pairwise":

            def node(left: Number, right: Number, begin: int, middle: int, end: int) -> Number:
                merge = merges.setdefault(middle, len(merges))
                for j in range(begin, end):
                    paths[j].append(merge)
                return self.accumulate(q, "merge", middle, right, left)

            merges: dict[int, int] = {}
            return halves(0, count, sums.__getitem__, node), paths
        orders = {"forward": range(count), "first_then_back": [0, *range(count - 1, 0, -1)]}
        total: Number = 0
        for place, j in enumerate(orders[self.fields.merge_order]):
            total = self.accumulate(q, "merge", j, sums[j], total)
            paths[j] = list(range(place, count))
        return total, paths

    def result(self) -> Dot:
        """Run the reference semantics and return value, events and bits."""
        fields, count = self.fields, len(self.products)
        c, _ = self.q.addend.apply(self.terms.c, 0)  # raises no event
        chunk, at_end = fields.chunk or max(count, 1), fields.c_join == "end"
        sums: list[Number] = []
        contributions: list[Number] = []
        step_of: list[int] = []  # by place in the order of summation
        last_entering: Number | None = None
        chain = fields.step == "chain"
        for begin in range(0, max(count, 1), chunk):
            s = 0 if begin or at_end else c
            end = min(begin + chunk, count)
            for first in range(begin, end, fields.group):
                last = min(first + fields.group, end)
                if chain:
                    p = self.products[first]
                else:
                    p, last_entering = self.group(first, last, s)
                s = self.accumulate(self.q.step, "step", first, p, s, last_entering)
                step_of += [len(contributions)] * (last - first)
                contributions.append(p)
            sums.append(s)
        steps = len(contributions)
        total, paths = self.merged(sums)
        if at_end:
            merge = max((path[-1] + 1 for path in paths if path), default=0)
            if self.q.merge is EXACT:
                total = add(c, total)
            else:
                total = self.accumulate(self.q.merge, "merge", len(sums), c, total)
                paths = [[*path, merge] for path in paths]
        total, _ = self.q.output.apply(total, self.word(self.q.output, "output", 0))

        value = from_units(total, self.unit)
        if total == 0 and len(sums) == 1 and last_entering is not None and last_entering < 0:
            value = NEG_ZERO  # a negative sum of a matrix unit that rounds to zero
        if self.tally is None:
            return Dot(value, {}, Bits([], [], [], [], [], [], []))
        of, diff, order = self.tally.of, self.tally.diff, self.terms.order
        by_term: dict[str, list[int]] = {name: [0] * count for name in ("chunk", "of", "diff")}
        for place, k in enumerate(order):
            by_term["chunk"][k] = place // chunk
            by_term["of"][k] = of[step_of[place]] & self.product_of[place]
            by_term["diff"][k] = diff[step_of[place]]
        bits = Bits(order, **by_term, merge_of=of[steps:], merge_diff=diff[steps:], paths=paths)
        return Dot(value, self.tally.events(count, *self.prefix_overflow(contributions)), bits)

    def prefix_overflow(self, contributions: list[Number]) -> tuple[bool, bool]:
        """Return whether the exact sum leaves the integer range on the way only, and at its end."""
        if not self.fields.is_integer:
            return False, False
        limit = prepare(self.fields.first_limit, self.unit).apply
        at_end = self.fields.c_join == "end"
        total = 0 if at_end else int(self.terms.c)
        outside = False
        for p in contributions:
            total += int(p)
            outside = outside or limit(total, 0)[1]
        persistent = limit(total + (int(self.terms.c) if at_end else 0), 0)[1]
        return outside and not persistent, persistent


def ste_gradients(
    a: Iterable[Any],
    b: Iterable[Any],
    datapath: Any,
    variant: str,
    c: Any = None,
    random: Random | None = None,
) -> list[int]:
    """Return dL/dp_k of every term for dL/d(result) = 1: 0 or 1 each, in the order of `a`.

    `variant` is "identity", "recursive_of", "immediate_of" or "immediate_diff".
    """
    return straight_through_factors(dot(a, b, datapath, c, random).bits, variant)
