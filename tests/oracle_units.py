"""The exact oracle: the sums inside matrix units (docs/accumulators.md, Matrix units), in integers.

Numbers are integers in units of 2^unit, as in oracle.py. A term is a number with the exponent that
aligns it: the sum of its factors' exponents, which is not that of the product (the significand of
the product lies in [0, 4) and is not normalised). An exponent of None takes no part in alignment.
"""

from __future__ import annotations

from typing import NamedTuple

from oracle import INF, Number

Term = tuple[int, int | None]
Scale = tuple[Number, int | None]

SCALED_GROUP_TERMS = 16  # terms that `scaled_groups` sums exactly before a scale applies


class Alignment(NamedTuple):
    """How one fused step aligns and truncates its terms."""

    unit: int
    fraction_bits: int  # F: bits kept below the largest exponent
    zero_rule: str = "ignore"
    exponent_floor: int | None = None


def add(x: Number, y: Number) -> Number:
    """Return x + y; an infinity or nan in either gives what IEEE 754 gives."""
    if isinstance(x, int):
        return x + y if isinstance(y, int) else y
    return x if isinstance(y, int) else x + y


def multiply(x: Number, y: Number) -> Number:
    """Return x * y; an infinity or nan in either gives what IEEE 754 gives."""
    if isinstance(x, int) and isinstance(y, int):
        return x * y
    # Only the sign of a finite factor matters, and that it is zero.
    return _sign(x) * _sign(y)


def _sign(x: Number) -> float:
    return float((x > 0) - (x < 0)) if isinstance(x, int) else x


def exponent_of(v: int, unit: int, emin: int, zero_rule: str) -> int | None:
    """Return the exponent of a decoded operand: a subnormal one keeps emin, zero has a rule."""
    if v == 0:
        return {"ignore": None, "subnormal_exponent": -126, "emin": emin}[zero_rule]
    return max(abs(v).bit_length() - 1 + unit, emin)


def plus(*exponents: int | None) -> int | None:
    """Return the exponent of a product of factors: None if that of any factor is None."""
    total = 0
    for e in exponents:
        if e is None:
            return None
        total += e
    return total


def toward_zero(v: int, drop: int) -> int:
    """Clear the low `drop` bits of the magnitude."""
    if drop <= 0:
        return v
    return (v >> drop) << drop if v >= 0 else -((-v >> drop) << drop)


def toward_negative(v: int, drop: int) -> int:
    """Clear the low `drop` bits of the two's complement."""
    return (v >> drop) << drop if drop > 0 else v


def largest_exponent(terms: list[Term], floor: int | None) -> int | None:
    """Return the exponent to which the terms are aligned; None if there is no term to align."""
    exponents = [e for _, e in terms if e is not None]
    if not exponents:
        return None
    return max(exponents) if floor is None else max(max(exponents), floor)


def aligned_sum(terms: list[Term], how: Alignment) -> int:
    """Return the sum of the terms, each truncated F bits below the largest exponent."""
    top = largest_exponent(terms, how.exponent_floor)
    if top is None:
        return sum(v for v, _ in terms)
    drop = top - how.fraction_bits - how.unit
    return sum(toward_zero(v, drop) for v, _ in terms)


def scaled_group_sum(products: list[int], scales: list[Scale], addend: Term, how: Alignment) -> int:
    """Return the sum of exact groups times their scales, and c, aligned like terms.

    `scales` holds, for each group of 16 products, the integer that multiplies its sum and the sum
    of the two scales' exponents, by which the group is aligned.
    """
    terms: list[Term] = []
    for i, (scale, exponent) in enumerate(scales):
        first = i * SCALED_GROUP_TERMS
        v = sum(products[first : first + SCALED_GROUP_TERMS]) * int(scale)
        terms.append((v, None if v == 0 and how.zero_rule == "ignore" else exponent))
    return aligned_sum([*terms, addend], how)


def two_level_sum(products: list[Term], addend: Term, how: Alignment, eight_bit: bool) -> Number:
    """Return the sum that a CDNA3 step rounds once: products first, c late.

    `eight_bit` selects the rule of FP8 operands: even and odd terms are summed apart, and a c that
    lies far below the products counts as zero.
    """
    limit = 1 << (128 - how.unit)
    infinite = [INF if v > 0 else -INF for v, _ in products if abs(v) >= limit]
    if infinite:
        return sum(infinite)
    halves = (products[0::2], products[1::2]) if eight_bit else (products,)
    sums: list[Term] = [
        (aligned_sum(half, how), largest_exponent(half, how.exponent_floor)) for half in halves
    ]
    top = largest_exponent(sums, None)
    if top is not None and eight_bit:
        sums = [(toward_negative(v, top - how.fraction_bits - how.unit), e) for v, e in sums]
    s = sum(v for v, _ in sums)
    c, c_exponent = addend
    both = largest_exponent([(s, top), addend], None)
    if both is None:
        return s + c
    if eight_bit and c_exponent is not None and c_exponent < both - 25:
        c = 0
    s = toward_negative(s, both - 31 - how.unit)
    return s + toward_negative(c, both - how.fraction_bits - how.unit)
