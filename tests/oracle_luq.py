"""Logarithmic unbiased quantisation in exact fractions, one element at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MAX32 = Fraction((2 - 2.0**-23) * 2.0**127)
TWO32 = 2**32


def exponent_of(value: Fraction) -> int:
    """Return floor(log2 value) for value > 0."""
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= value else guess - 1


def round32(value: Fraction) -> Fraction | None:
    """Return value >= 0 in float32, to nearest even; None where it overflows."""
    if value == 0:
        return value
    unit = Fraction(2) ** (max(exponent_of(value), -126) - 23)
    steps, rest = divmod(value / unit, 1)
    if rest > Fraction(1, 2) or (rest == Fraction(1, 2) and steps % 2):
        steps += 1
    rounded = steps * unit
    return None if rounded > MAX32 else rounded


def spacing(maximum: Fraction, levels: int, alpha_rounding: str | None) -> Fraction:
    """Return alpha, exactly."""
    if alpha_rounding == "power_of_two":
        power = Fraction(2) ** exponent_of(maximum)
        maximum = power if power == maximum else 2 * power
    return maximum / 2 ** (levels - 1)


def level_of(
    r: Fraction, word: int, levels: int, underflow: str, log_rounding: str, over_range: str
) -> int | None:
    """Return k of the result alpha * 2^k, None for zero."""
    if r < 1:
        up = {
            "stochastic": word < math.floor(r * TWO32),
            "nearest": r >= Fraction(1, 2),
            "zero": False,
        }[underflow]
        return 0 if up else None
    n = exponent_of(r)
    significand = r / Fraction(2) ** n
    fraction = (significand - 1) * 2**23
    assert fraction.denominator == 1
    if log_rounding == "nearest":
        up = significand >= Fraction(3, 2)
    else:
        up = (word >> 9) < fraction
    level = n + up
    return min(level, levels - 1) if over_range == "clip" else level


def element(x: float, maximum: float, words: Sequence[int], **options: Any) -> float:
    """Return the mean over the words of one element, as the float32 number it is."""
    levels, alpha_rounding = options["levels"], options.pop("alpha_rounding")
    if maximum == 0:
        return 0.0
    alpha = spacing(Fraction(maximum), levels, alpha_rounding)
    r = round32(abs(Fraction(x)) / alpha)
    if r is None:
        if options["over_range"] == "grow":
            return math.inf
        r = Fraction(2) ** 200
    total = Fraction(0)
    for word in words:
        level = level_of(r, word, **options)
        total += 0 if level is None else Fraction(2) ** level
    if total == 0:
        return 0.0
    if len(words) == 1:
        result = round32(total * alpha)
        magnitude = math.inf if result is None else float(result)
    else:
        assert Fraction(float(total)) == total
        assert Fraction(float(alpha)) == alpha
        mean = float(total) * float(alpha) / len(words)
        result = round32(Fraction(mean))
        magnitude = math.inf if result is None else float(result)
    return math.copysign(magnitude, x)


def luq(
    x: Array,
    words: Array,
    *,
    maxima: Array | None = None,
    axis: Any = None,
    levels: int = 7,
    alpha_rounding: str | None = None,
    underflow: str = "stochastic",
    log_rounding: str = "stochastic",
    over_range: str = "clip",
) -> Array:
    """Return the float32 results; `words` of shape (samples, *x.shape)."""
    if maxima is None:
        maxima = np.abs(x.astype(np.float64)).max(axis=axis, keepdims=True)
    each = np.broadcast_to(np.asarray(maxima, np.float64), x.shape)
    out = np.empty(x.shape, np.float32)
    for index in np.ndindex(x.shape):
        out[index] = element(
            float(x[index]),
            float(each[index]),
            [int(word) for word in words[(slice(None), *index)]],
            levels=levels,
            alpha_rounding=alpha_rounding,
            underflow=underflow,
            log_rounding=log_rounding,
            over_range=over_range,
        )
    return out
