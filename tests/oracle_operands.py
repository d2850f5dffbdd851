"""The exact oracle: the terms of a dot product in integers, in the order of summation."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from oracle import Number, raw, scaled
from oracle_units import Scale, exponent_of, multiply, plus


def permutation(order: Any, terms: int) -> list[int]:
    """Return the operand index of each place in the order of summation."""
    k = range(terms)
    if order == "natural":
        return list(k)
    if order == "reverse":
        return list(k)[::-1]
    if order == "even_then_odd":
        return [*k[0::2], *k[1::2]]
    if order == "pair4":
        return [i for i in k if i % 4 < 2] + [i for i in k if i % 4 >= 2]
    indices = [int(i) for i in order]
    if sorted(indices) != list(k):
        raise ValueError(f"order must be a permutation of {terms} terms, got {order!r}")
    return indices


class Operands:
    """The terms of a dot product in the order of summation: products, exponents, addend."""

    def __init__(
        self, a: Iterable[Any], b: Iterable[Any], c: Any, fields: Any, scales: Any
    ) -> None:
        x, unit_x = scaled(a)
        y, unit_y = scaled(b)
        (self.c,), unit_c = scaled([0 if c is None else c])
        if len(x) != len(y):
            raise ValueError(f"a and b must have equal lengths, got {len(x)} and {len(y)}")
        finite = all(isinstance(v, int) for v in (*x, *y, self.c))
        on_the_way = (fields.product, fields.accumulator, fields.merge_quantizer)
        has_nan = not fields.is_integer and all(
            raw(q.format).has_nan for q in on_the_way if q is not None
        )
        if not (finite or has_nan):
            raise ValueError("inf or nan in a, b or c, and a format without nan on the way")
        if fields.flush_inputs:
            x = _flush(x, unit_x, fields.operand_a)
            y = _flush(y, unit_y, fields.operand_b)
            (self.c,) = _flush([self.c], unit_c, fields.addend or fields.accumulator.format)
        self.order = permutation(fields.order, len(x))
        x, y = [x[i] for i in self.order], [y[i] for i in self.order]

        self.scales: list[Scale] = []
        unit_scale = 0
        if scales is not None:
            self.scales, unit_scale = _scale_products(*scales)
        self.unit = min(unit_x + unit_y + unit_scale, unit_c, fields.lowest_unit())
        # A product times its scale is in units; without scales the product itself is.
        shift = unit_x + unit_y + unit_scale - self.unit
        self.c = self.c << (unit_c - self.unit) if isinstance(self.c, int) else self.c
        self.products: list[Number] = []
        for v, w in zip(x, y, strict=True):
            p = v * w if isinstance(v, int) and isinstance(w, int) else multiply(v, w)
            self.products.append(p << shift if isinstance(p, int) else p)

        self.exponents: list[int | None] = []
        if fields.step in ("fused_trunc", "two_level"):
            emin_x, emin_y = raw(fields.operand_a).emin, raw(fields.operand_b).emin
            rule = fields.zero_rule
            self.exponents = [
                plus(exponent_of(v, unit_x, emin_x, rule), exponent_of(w, unit_y, emin_y, rule))
                if isinstance(v, int) and isinstance(w, int)
                else None
                for v, w in zip(x, y, strict=True)
            ]


def _flush(values: list[Number], unit: int, fmt: Any) -> list[Number]:
    """Return the values with the subnormals of their format as zero."""
    smallest_normal = Fraction(2) ** (raw(fmt).emin - unit)
    return [v if abs(v) >= smallest_normal or v != v else 0 for v in values]


def _scale_products(
    scale_a: Iterable[Any], scale_b: Iterable[Any], scale_format: Any
) -> tuple[list[Scale], int]:
    """Return the product of the two scales of each group (sign ignored), and their unit."""
    a, unit_a = scaled(scale_a)
    b, unit_b = scaled(scale_b)
    emin = raw(scale_format).emin
    products: list[Scale] = []
    for v, w in zip(a, b, strict=True):
        exponent = None
        if isinstance(v, int) and isinstance(w, int):
            exponent = plus(
                exponent_of(v, unit_a, emin, "emin"), exponent_of(w, unit_b, emin, "emin")
            )
        products.append((multiply(abs(v), abs(w)), exponent))
    return products, unit_a + unit_b
