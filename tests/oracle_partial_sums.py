"""Exact partial sums and widths of one dot product, in Python integers."""

from __future__ import annotations

import dataclasses


def signed_bits(lowest: int, highest: int) -> int:
    """Return the fewest bits P with -2^(P-1) <= lowest and highest < 2^(P-1)."""
    bits = 1
    while not (-(1 << (bits - 1)) <= lowest and highest < 1 << (bits - 1)):
        bits += 1
    return bits


def unsigned_bits(lowest: int, highest: int) -> int:
    if lowest < 0:
        return 65
    bits = 0
    while highest >= 1 << bits:
        bits += 1
    return bits


@dataclasses.dataclass
class Sums:
    """Partial sums of a dot product, the empty one and the start value included."""

    partial: list[int]
    final: int
    stepped: list[int]  # after each step, and each merge of chunks that counts


def partial_sums(
    terms: list[int], start: int = 0, group: int = 1, chunk: int = 0, merges: bool = True
) -> Sums:
    """Return what the accumulator holds, step by step."""
    size = chunk or max(len(terms), 1)
    partial, stepped = [0, start], []
    merged = 0
    chunks = [terms[i : i + size] for i in range(0, len(terms), size)]
    for number, piece in enumerate(chunks):
        s = start if number == 0 else 0
        for i in range(0, len(piece), group):
            s += sum(piece[i : i + group])
            stepped.append(s)
            partial.append(s)
        merged += s
        if len(chunks) > 1 and merges:
            partial.append(merged)
    return Sums(partial, merged if chunks else start, stepped)


def greedy_sums(terms: list[int], start: int = 0) -> list[int]:
    """Return the partial sums of the greedy order."""
    positive = [p for p in terms if p > 0]
    negative = [p for p in terms if p < 0]
    s, partial = start, [0, start]
    while positive or negative:
        take = positive if (s <= 0 and positive) or not negative else negative
        s += take.pop(0)
        partial.append(s)
    return partial
