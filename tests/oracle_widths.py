"""Widths by trying, and running sums by enumeration: the truth that bounds are compared with."""

from __future__ import annotations

import itertools


def narrowest(values: list[int]) -> int:
    """Return the smallest P whose two's complement range holds all values, by trying."""
    return next(
        bits
        for bits in itertools.count(1)
        if all(-(1 << (bits - 1)) <= v < 1 << (bits - 1) for v in values)
    )


def running_sums(w: list[int], ranges: list[tuple[int, int]], bias: int = 0) -> list[int]:
    """Return the sums of every subset of the terms: what any prefix of any order can be."""
    found = []
    for inputs in itertools.product(*ranges):
        products = [a * b for a, b in zip(inputs, w, strict=True)]
        for chosen in itertools.product((False, True), repeat=len(w)):
            found.append(bias + sum(itertools.compress(products, chosen)))
    return found
