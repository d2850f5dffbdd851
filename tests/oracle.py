"""The exact oracle: rounding a real number to any format, in plain Python integers.

This is the independent truth of the test suite. It shares no code with the library, reads only the
raw fields of a format and derives everything else from the definition (docs/formats.md). Values and
code words are in oracle_formats.py (its names can be imported from here too), fixed point is in
oracle_fixed.py, dot products are in oracle_datapath.py.

Inside, a finite number is an integer v that stands for v * 2^unit, with `unit` so low that neither
the number nor the smallest quantum of any format at hand lies below it. Zero has no sign there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import cache
from itertools import repeat
from typing import Any, NamedTuple

from oracle_formats import (
    BINARY32,
    INF,
    NAN,
    NEG_ZERO,
    Raw,
    Value,
    all_values,
    decode_code,
    encode_value,
    identical,
    raw,
    to_value,
)

__all__ = [
    "BINARY32", "INF", "NAN", "NEG_ZERO", "Raw", "Value", "all_values", "decode_code",
    "encode_value", "identical", "raw", "round_floats", "round_value", "to_value",
]  # fmt: skip

Number = int | float  # a finite number in units, or one of inf, -inf, nan

ALIASES = {
    "rne": "nearest_even",
    "rna": "nearest_away",
    "rtz": "toward_zero",
    "rup": "toward_positive",
    "rdn": "toward_negative",
    "rto": "to_odd",
    "RND": "nearest_up",
    "RND_ZERO": "nearest_zero",
    "RND_MIN_INF": "nearest_down",
    "RND_INF": "nearest_away",
    "RND_CONV": "nearest_even",
    "TRN": "toward_negative",
    "TRN_ZERO": "toward_zero",
    "ovf_inf": "ieee",
    "WRAP": "wrap",
    "SAT": "saturate",
    "SAT_ZERO": "saturate_zero",
    "SAT_SYM": "saturate_symmetric",
    "WRAP_SM": "wrap_sign_magnitude",
}


# The away conditions of docs/formats.md, Rounding: is |X| = (S0 + nu/one) quanta, 0 < nu < one,
# rounded to S0 + 1? `even` is the parity of the code of S0, `negative` the sign of X.
_AWAY: dict[str, Callable[[int, int, bool, bool], bool]] = {
    "nearest_even": lambda nu, one, even, negative: 2 * nu > one or (2 * nu == one and not even),
    "nearest_away": lambda nu, one, even, negative: 2 * nu >= one,
    "nearest_zero": lambda nu, one, even, negative: 2 * nu > one,
    "nearest_up": lambda nu, one, even, negative: 2 * nu > one or (2 * nu == one and not negative),
    "nearest_down": lambda nu, one, even, negative: 2 * nu > one or (2 * nu == one and negative),
    "nearest_odd": lambda nu, one, even, negative: 2 * nu > one or (2 * nu == one and even),
    "toward_zero": lambda nu, one, even, negative: False,
    "toward_positive": lambda nu, one, even, negative: not negative,
    "toward_negative": lambda nu, one, even, negative: negative,
    "away_from_zero": lambda nu, one, even, negative: True,
    "to_odd": lambda nu, one, even, negative: even,
}
ROUNDINGS = (*_AWAY, "jam", "stochastic")


def stochastic_away(nu: int, one: int, random: int, bits: int, rule: str) -> bool:
    """Whether a discarded fraction nu/one is rounded away with R = `random` in [0, 2^bits)."""
    one_r = 1 << bits
    if rule == "a":
        return nu * one_r // one + random >= one_r
    if rule == "b":
        return nu * 2 * one_r // one + 2 * random + 1 >= 2 * one_r
    if rule not in ("c", "odd"):
        raise ValueError(f"rule must be 'a', 'b', 'c' or 'odd', got {rule!r}")
    kept, rest = divmod(nu * one_r, one)
    up_on_tie = kept % 2 == 1 if rule == "c" else kept % 2 == 0
    kept += 2 * rest > one or (2 * rest == one and up_on_tie)
    return kept + random >= one_r


OFF_THRESHOLD = -126  # underflow "off" (LBA stage 1): nothing but float32's own threshold


def resolve_overflow(f: Raw, overflow: str | None) -> str:
    """Return the overflow rule that holds: the argument, the format's, its class's."""
    name = overflow or f.overflow or ("sat_finite" if f.specials == "none" else "ieee")
    name = ALIASES.get(name, name)
    if name not in ("sat_finite", "sat_propagate", "ieee", "to_nan", "to_inf"):
        raise ValueError(f"unknown overflow {name!r}")
    present = {"ieee": f.has_inf or f.has_nan, "to_nan": f.has_nan, "to_inf": f.has_inf}
    if not present.get(name, True):
        raise ValueError(f"overflow={name!r} needs an Inf or NaN that the format has not")
    return name


def resolve_underflow(f: Raw, underflow: str | None) -> str:
    """Return the underflow rule that holds: the argument, the format's, its class's."""
    name = underflow or f.underflow
    no_zero = f.specials == "e8m0"
    name = name or ("gradual" if f.code0 == "subnormal" or no_zero else "flush_before")
    if name not in ("gradual", "flush_before", "flush_after", "cell", "off"):
        raise ValueError(f"unknown underflow {name!r}")
    if no_zero != (name == "gradual") and f.code0 != "subnormal":
        raise ValueError(f"underflow={name!r} does not go with code0={f.code0!r}, {f.specials!r}")
    return name


def beyond_range(f: Raw, rounding: str, overflow: str, sign: int, infinite: bool) -> str:
    """Return what a number out of range becomes: "limit" (M_hi or M_lo), "inf" or "nan".

    docs/formats.md, Range and P3109. `sign` is the number's, `infinite` whether it is an infinity.
    "inf" comes back only if the format has that infinity.
    """
    inf = "inf" if f.has_inf and (f.signed or sign > 0) else "nan"
    if overflow == "sat_finite":
        return "limit"
    if overflow == "sat_propagate":
        return "inf" if infinite and inf == "inf" else "limit"
    if overflow == "to_nan":
        return "nan"
    if overflow == "to_inf":
        return inf
    if infinite:
        return "limit" if f.specials == "p3109_finite" and (f.signed or sign > 0) else inf
    inward = "toward_negative" if sign > 0 else "toward_positive"
    if rounding in ("toward_zero", inward):
        return "limit"
    if f.p3109:
        if rounding == "to_odd" and sign > 0 and f.specials == "p3109" and not f.signed:
            return "limit"
        if f.specials == "p3109_finite" and (f.signed or sign > 0):
            return "limit"
    return inf


class Quantizer(NamedTuple):
    """A quantiser made for one unit: (number, R) -> (number, whether it was out of range).

    Out of range (the overflow event): the value before saturation, wrap or Inf, that is rounded
    with unbounded exponent, is beyond the largest finite one; in an LBA format (code0 ordinary) the
    unrounded magnitude is at least R_OF.
    """

    apply: Callable[[Number, int], tuple[Number, bool]]
    random_bits: int = 0
    largest: int | None = None  # R_OF of an LBA format in units


def make_rounder(rounding: str, bits: int, rule: str) -> Callable[[int, int, bool, int, int], int]:
    """Return THE rounding: (m, q, negative, R, parity) -> S, for a magnitude of m * 2^-q quanta.

    `parity` 0 or 1 is, for formats with one significand bit, the parity of the exponent code of the
    quantum; -1 means that the code of S0 has the parity of S0.
    """
    away = _AWAY.get(rounding)

    def round_significand(m: int, q: int, negative: bool, random: int, parity: int) -> int:
        s0 = m >> q
        nu = m - (s0 << q)
        if rounding == "jam":
            return s0 | 1
        if nu == 0:
            return s0
        if away is None:
            return s0 + stochastic_away(nu, 1 << q, random, bits, rule)
        even = s0 % 2 == 0 if parity < 0 or s0 == 0 else parity == 0
        return s0 + away(nu, 1 << q, even, negative)

    return round_significand


@cache
def float_quantizer(
    f: Raw,
    unit: int,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    underflow: str | None = None,
    nan_to: str | None = None,
    bits: int | None = None,
    rule: str = "c",
) -> Quantizer:
    """Return the quantiser of a float format (docs/formats.md, Rounding, Range and P3109)."""
    rounding = ALIASES.get(rounding, rounding)
    if rounding not in ROUNDINGS:
        raise ValueError(f"unknown rounding {rounding!r}")
    random_bits, rule = (32, "a") if bits is None else (bits, rule)
    round_significand = make_rounder(rounding, random_bits, rule)
    overflow, below = resolve_overflow(f, overflow), resolve_underflow(f, underflow)
    nan_to = nan_to or f.nan_to or ("nan" if f.has_nan else "raise")

    # "off" has the grid of flush_before with a lower threshold.
    emin = min(f.emin, OFF_THRESHOLD) if below == "off" else f.emin
    below = "flush_before" if below == "off" else below
    m_bits = f.mantissa_bits
    if unit > emin - m_bits:
        raise ValueError(f"unit must be at most {emin - m_bits}, got {unit}")
    threshold_bits, first = emin - unit, 1 << (emin - unit)
    largest_n, largest_e = f.magnitude(f.largest_code)
    highest = largest_n << (largest_e - unit)
    lowest = -highest if f.signed else 0
    lba = f.code0 == "ordinary" and f.specials == "none"
    parity_of_unit = (unit + f.bias) % 2

    def beyond(sign: int, infinite: bool) -> Number:
        kind = beyond_range(f, rounding, overflow, sign, infinite)
        if kind == "limit":
            return highest if sign > 0 else lowest
        return NAN if kind == "nan" else sign * INF

    def special(x: float) -> Number:
        if x == x:
            return beyond(1 if x > 0 else -1, True)
        if nan_to == "nan":
            return NAN
        if nan_to == "raise":
            raise ValueError("nan has no value in this format")
        return highest if nan_to == "max_pos" else 0

    def quantize(v: Number, random: int = 0) -> tuple[Number, bool]:
        if not isinstance(v, int):
            return special(v), True
        magnitude = abs(v)
        if magnitude == 0:
            return 0, False
        negative = v < 0
        if negative and not (f.signed or f.p3109):
            raise ValueError("a negative number has no value in an unsigned format")
        exponent = magnitude.bit_length() - 1
        q = exponent - m_bits
        if exponent < threshold_bits:
            if below == "flush_before":
                return 0, False
            if below == "gradual":
                q = threshold_bits - m_bits
            elif below == "cell":
                q = threshold_bits
            elif q <= 0:  # flush_after: P bits hold it
                return 0, False
        parity = -1 if m_bits else (q + parity_of_unit) % 2
        magnitude_out = round_significand(magnitude, q, negative, random, parity) << q
        if magnitude_out < first and below == "flush_after":
            return 0, False
        out = -magnitude_out if negative else magnitude_out
        if out > highest or out < lowest:
            return beyond(-1 if negative else 1, False), True
        return out, lba and magnitude >= highest

    def quantize_e8m0(v: Number, random: int = 0) -> tuple[Number, bool]:
        if v == INF:
            return special(INF), True
        if not v > 0:
            return NAN, True
        return quantize(max(v, first), random)

    chosen = quantize_e8m0 if f.specials == "e8m0" else quantize
    return Quantizer(
        chosen, random_bits if rounding == "stochastic" else 0, highest if lba else None
    )


def smallest_quantum(fmt: Any, underflow: str | None = None) -> int:
    """Return the exponent of the lowest bit that a value of the format can have."""
    if hasattr(fmt, "fraction_bits"):
        return -int(fmt.fraction_bits)
    f = raw(fmt)
    off = (underflow or f.underflow) == "off"
    return (min(f.emin, OFF_THRESHOLD) if off else f.emin) - f.mantissa_bits


def depth(x: Fraction) -> int:
    """Return k with x an odd multiple of 2^-k, or 0 if x is an integer."""
    denominator = x.denominator
    if denominator & (denominator - 1):
        raise ValueError(f"x must be a multiple of a power of two, got {x}")
    return denominator.bit_length() - 1


def from_units(v: Number, unit: int) -> Value:
    """Return a number in units as a value (a zero is +0)."""
    if not isinstance(v, int):
        return v
    return Fraction(v << unit) if unit >= 0 else Fraction(v, 1 << -unit)


def round_value(
    x: Any,
    fmt: Any,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    underflow: str | None = None,
    nan_to: str | None = None,
    random: int | None = None,
    bits: int | None = None,
    rule: str = "c",
) -> Value:
    """Round one number to a float format.

    Parameters
    ----------
    x : a Python or NumPy scalar or a `Fraction` whose denominator is a power of two.
    fmt : an object with the raw fields of a float format.
    rounding, overflow, underflow, nan_to : names; None is the default of the format, or else of its
        class.
    random, bits, rule : R, its width and the rule of a stochastic rounding. ``bits=None`` is the
        exact rule: rule A with a 32-bit R.

    Raises
    ------
    ValueError
        For NaN without a value for it, a negative number in an unsigned format, an unknown name,
        a stochastic rounding without R.
    """
    f, value = raw(fmt), to_value(x)
    if rounding == "stochastic" and random is None:
        raise ValueError("stochastic rounding needs random")
    unit = smallest_quantum(f, underflow)
    if isinstance(value, Fraction):
        unit = min(unit, -depth(value))
        number: Number = value.numerator << (-depth(value) - unit)
    else:
        number = value or 0  # the sign of -0 is looked up again below
    quantizer = float_quantizer(f, unit, rounding, overflow, underflow, nan_to, bits, rule)
    out, _ = quantizer.apply(number, random or 0)
    negative = value < 0 or repr(value) == "-0.0"
    return NEG_ZERO if out == 0 and negative and f.has_negative_zero else from_units(out, unit)


def round_floats(
    xs: Iterable[float], fmt: Any, *, random: Sequence[int] | None = None, **rules: Any
) -> list[float]:
    """Return `round_value` of many floats as floats, faster, for formats within float64.

    `random` holds one R an element; `rules` are the other arguments of `round_value`.
    """
    xs = list(xs)
    numbers, unit = scaled(xs)
    f = raw(fmt)
    unit_out = min(unit, smallest_quantum(f, rules.get("underflow")))
    quantize = float_quantizer(f, unit_out, **rules).apply
    one = 1 << max(-unit_out, 0)
    out = []
    for x, v, r in zip(xs, numbers, repeat(0) if random is None else random, strict=False):
        z, _ = quantize(v << (unit - unit_out) if isinstance(v, int) else v, r)
        negative = z == 0 and f.has_negative_zero and str(x)[0] == "-"
        out.append(NEG_ZERO if negative else z / one if isinstance(z, int) else z)
    return out


def scaled(xs: Iterable[Any]) -> tuple[list[Number], int]:
    """Return numbers (Python scalars or an array) as numbers in one unit, and the unit."""
    xs = xs.tolist() if hasattr(xs, "tolist") else list(xs)
    numerators: list[Number] = []
    depths = []
    for x in xs:
        if not isinstance(x, int | float | Fraction):
            x = int(x) if hasattr(x, "__index__") else float(x)
        try:
            numerator, denominator = x.as_integer_ratio()
        except (OverflowError, ValueError):  # inf, nan
            numerator, denominator = float(x), 1
        numerators.append(numerator)
        if denominator & (denominator - 1):
            raise ValueError(f"x must be a multiple of a power of two, got {x}")
        depths.append(denominator.bit_length() - 1)
    deepest = max(depths, default=0)
    return [
        n << (deepest - d) if isinstance(n, int) else n
        for n, d in zip(numerators, depths, strict=True)
    ], -deepest
