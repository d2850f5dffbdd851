"""The exact oracle: fixed point, as integers and lists of bits (docs/formats.md, Fixed point)."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

from oracle import ALIASES, INF, ROUNDINGS, Number, Quantizer, depth, make_rounder, to_value


class RawFixed(NamedTuple):
    """The raw fields of a fixed-point format, names in their canonical spelling."""

    bits: int
    fraction_bits: int
    signed: bool
    rounding: str
    overflow: str
    wrap_bits: int


def raw_fixed(
    fmt: Any, rounding: str | None = None, overflow: str | None = None, wrap_bits: int | None = None
) -> RawFixed:
    """Read the raw fields of any object that has them; an argument replaces the format's own."""
    rounding_name = str(rounding or getattr(fmt, "rounding", "TRN"))
    overflow_name = str(overflow or getattr(fmt, "overflow", "wrap"))
    return RawFixed(
        fmt.bits,
        fmt.fraction_bits,
        bool(getattr(fmt, "signed", True)),
        ALIASES.get(rounding_name, rounding_name),
        ALIASES.get(overflow_name, overflow_name),
        getattr(fmt, "wrap_bits", 0) if wrap_bits is None else wrap_bits,
    )


def integer_range(bits: int, signed: bool, overflow: str) -> tuple[int, int]:
    """Return the smallest and largest integer that the overflow mode leaves unchanged."""
    if not signed:
        return 0, 2**bits - 1
    highest = 2 ** (bits - 1) - 1
    return (-highest if ALIASES.get(overflow, overflow) == "saturate_symmetric" else -highest - 1,
            highest)  # fmt: skip


def wrap_integer(v: int, bits: int, signed: bool, overflow: str, wrap_bits: int = 0) -> int:
    """Return the integer of `bits` bits that an overflow mode makes of any integer v.

    Bit by bit, on the two's complement of v (SystemC, IEEE 1666; for unsigned WRAP with wrap_bits
    the ap_types headers differ). The word is a list of bits, the lowest first.

    Raises
    ------
    ValueError
        For an unknown mode, and for wrap_sign_magnitude of an unsigned format.
    """
    overflow = ALIASES.get(overflow, overflow)
    lowest, highest = integer_range(bits, signed, overflow)
    if overflow == "wrap_sign_magnitude" and not signed:
        raise ValueError("wrap_sign_magnitude is not defined for an unsigned format")
    if lowest <= v <= highest:
        return v
    if overflow.startswith("saturate") or (overflow.startswith("wrap") and wrap_bits >= bits):
        if overflow == "saturate_zero":
            return 0
        return highest if v > highest else lowest
    if overflow not in ("wrap", "wrap_sign_magnitude"):
        raise ValueError(f"unknown overflow {overflow!r}")

    def bit(i: int) -> int:
        return (v >> i) & 1

    negative = int(v < 0)
    low = [bit(i) for i in range(bits - wrap_bits)]
    if wrap_bits == 0:
        word = low
        if overflow == "wrap_sign_magnitude":
            sign = bit(bits)  # the bit above the word becomes the sign
            inverted = sign != bit(bits - 1)
            word = [b ^ inverted for b in low[:-1]] + [sign]
    else:
        # The saturated top bits: a sign that stays and, below it, bits that are its opposite.
        saturated = [1 - negative] * (wrap_bits - signed) + [negative] * signed
        if overflow == "wrap_sign_magnitude":
            inverted = saturated[0] != bit(bits - wrap_bits)
            low = [b ^ inverted for b in low]
        word = low + saturated
    total = sum(b << i for i, b in enumerate(word))
    return total - (1 << bits) if signed and word[-1] else total


@cache
def fixed_quantizer(
    f: RawFixed, unit: int, bits: int | None = None, rule: str = "c"
) -> Quantizer:  # fmt: skip
    """Return the quantiser of a fixed-point format on numbers in units: round, then limit."""
    if f.rounding not in ROUNDINGS:
        raise ValueError(f"unknown rounding {f.rounding!r}")
    if unit > -f.fraction_bits:
        raise ValueError(f"unit must be at most {-f.fraction_bits}, got {unit}")
    random_bits, rule = (32, "a") if bits is None else (bits, rule)
    round_significand = make_rounder(f.rounding, random_bits, rule)
    q = -f.fraction_bits - unit
    lowest, highest = integer_range(f.bits, f.signed, f.overflow)

    def quantize(v: Number, random: int = 0) -> tuple[Number, bool]:
        if not isinstance(v, int):
            return _limit_infinity(v, f) << q, True
        z = round_significand(abs(v), q, v < 0, random, -1) if v else 0
        z = -z if v < 0 else z
        if lowest <= z <= highest:
            return z << q, False
        return wrap_integer(z, f.bits, f.signed, f.overflow, f.wrap_bits) << q, True

    return Quantizer(quantize, random_bits if f.rounding == "stochastic" else 0)


def _limit_infinity(x: float, f: RawFixed) -> int:
    """Saturating modes give an infinity their limit; nothing else has a value."""
    if x != x or (f.overflow.startswith("wrap") and f.wrap_bits < f.bits):
        raise ValueError(f"{x} has no value in a fixed-point format with overflow={f.overflow!r}")
    lowest, highest = integer_range(f.bits, f.signed, f.overflow)
    return 0 if f.overflow == "saturate_zero" else highest if x == INF else lowest


def round_fixed(
    x: Any,
    fmt: Any,
    rounding: str | None = None,
    overflow: str | None = None,
    wrap_bits: int | None = None,
    random: int | None = None,
    bits: int | None = None,
    rule: str = "c",
) -> int:
    """Round one number to a fixed-point format; return the integer, whose value is integer * 2^-f.

    Parameters are those of `oracle.round_value`; None is the format's own rounding and overflow.
    """
    f = raw_fixed(fmt, rounding, overflow, wrap_bits)
    if f.rounding == "stochastic" and random is None:
        raise ValueError("stochastic rounding needs random")
    value = to_value(x)
    if not isinstance(value, Fraction):
        return _limit_infinity(value, f) if value else 0
    unit = min(-depth(value), -f.fraction_bits)
    number = value.numerator << (-depth(value) - unit)
    out, _ = fixed_quantizer(f, unit, bits, rule).apply(number, random or 0)
    return int(out) >> (-f.fraction_bits - unit)


def fixed_value(integer: int, fmt: Any) -> Fraction:
    """Return the value of an integer of a fixed-point format."""
    return Fraction(integer) * Fraction(2) ** -int(fmt.fraction_bits)


def word_of(integer: int, fmt: Any) -> int:
    """Return the two's complement word of an integer of a fixed-point format."""
    return integer % (1 << int(fmt.bits))
