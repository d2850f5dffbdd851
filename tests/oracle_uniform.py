"""The exact oracle: uniform quantisers, with fractions for every float32 operation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from oracle_fixed import RawFixed, round_fixed

BLOCK = 65536
LARGEST = (2 - Fraction(1, 2**23)) * 2**127


def float32_of(value: Fraction) -> Fraction:
    """Return the float32 nearest to a fraction, ties to even."""
    if not value:
        return value
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent -= magnitude < Fraction(2) ** exponent
    quantum = Fraction(2) ** (max(exponent, -126) - 23)
    rounded = round(magnitude / quantum) * quantum
    return rounded if value > 0 else -rounded


def by_halves(terms: Sequence[float]) -> float:
    """Return the float64 sum of terms in the order of docs/uniform.md."""
    terms = list(terms)
    while len(terms) > 1:
        half = (len(terms) + 1) // 2
        upper = terms[half:]
        terms = [t + upper[i] if i < len(upper) else t for i, t in enumerate(terms[:half])]
    return terms[0] if terms else 0.0


def sum_of(terms: Sequence[float]) -> float:
    return by_halves([by_halves(terms[i : i + BLOCK]) for i in range(0, len(terms), BLOCK)])


def sawb(x: Sequence[float], c1: float, c2: float) -> float:
    """Return the SAWB clip of a flat sequence."""
    if not x:
        return 0.0
    mean_square = sum_of([v * v for v in x]) / len(x)
    clip = c1 * math.sqrt(mean_square) - c2 * (sum_of([abs(v) for v in x]) / len(x))
    return clip if clip > 0 else max(abs(v) for v in x)


class Grid(NamedTuple):
    """The scale and the range of the codes."""

    scale: Fraction
    low: int
    high: int


def grid_of(clip: float, low: int, high: int, doubled: bool) -> Grid:
    if not clip:
        return Grid(Fraction(1), low, high)
    scale = float32_of(Fraction((2 * clip if doubled else clip) / (high - low)))
    return Grid(scale or Fraction(2) ** -149, low, high)


def code_of(x: float, grid: Grid, rounding: str = "nearest_even", random: int | None = None) -> int:
    """Return the code of one element; `random` is the word of a stochastic rounding."""
    y = float32_of(Fraction(x) / grid.scale)
    y = max(min(y, Fraction(grid.high)), Fraction(grid.low))
    integers: Any = RawFixed(40, 0, True, rounding, "saturate", 0)
    return round_fixed(y, integers, random=random)


def value_of(code: int, grid: Grid) -> float:
    value = float32_of(code * grid.scale)
    return float(max(min(value, LARGEST), -LARGEST))
