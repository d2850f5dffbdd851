"""The exact oracle: values, and the code words of every float format, from the raw fields.

Values. A finite number is a `fractions.Fraction`. The four specials are Python floats: -0.0, inf,
-inf and nan. `identical` compares with the sign of zero and takes nan equal to nan.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

Value = Fraction | float

INF = math.inf
NAN = math.nan
NEG_ZERO = -0.0


def to_value(x: Any) -> Value:
    """Return a Python or NumPy scalar as a value, exactly."""
    if isinstance(x, int | Fraction):
        return Fraction(x)
    x = float(x)
    return Fraction(x) if x and math.isfinite(x) else (x if x or math.copysign(1, x) < 0
                                                       else Fraction(0))  # fmt: skip


def identical(x: Value, y: Value) -> bool:
    """Whether two values are the same one, with +0 and -0 different and nan equal to nan."""
    return repr(to_value(x)) == repr(to_value(y))


class Raw(NamedTuple):
    """The raw fields of a float format; nothing derived."""

    exponent_bits: int
    mantissa_bits: int
    bias: int
    code0: str
    specials: str
    signed: bool
    overflow: str | None
    underflow: str | None
    nan_to: str | None
    negative_zero: bool  # False: -0 does not exist although the layout has a word for it (e3m0)
    padding_bits: int

    @property
    def bits(self) -> int:
        return self.signed + self.exponent_bits + self.mantissa_bits

    @property
    def p3109(self) -> bool:
        return self.specials in ("p3109", "p3109_finite")

    @property
    def has_inf(self) -> bool:
        return self.specials in ("ieee", "p3109")

    @property
    def has_nan(self) -> bool:
        return self.mantissa_bits > 0 if self.specials == "ieee" else self.specials != "none"

    @property
    def has_negative_zero(self) -> bool:
        return self.signed and self.negative_zero and self.specials in ("ieee", "fn", "none")

    @property
    def emin(self) -> int:
        return -self.bias if self.code0 == "ordinary" else 1 - self.bias

    @property
    def largest_code(self) -> int:
        """Magnitude code of the largest finite value."""
        top = (1 << (self.exponent_bits + self.mantissa_bits)) - 1
        specials_above = {
            "ieee": 1 << self.mantissa_bits,  # the whole top exponent code
            "fn": 1,
            "e8m0": 1,
            "p3109": 1 if self.signed else 2,
            "p3109_finite": 0 if self.signed else 1,
        }
        return top - specials_above.get(self.specials, 0)

    def magnitude(self, code: int) -> tuple[int, int]:
        """Return (n, e) with n * 2^e the finite number of a magnitude code (no sign)."""
        exponent, significand = code >> self.mantissa_bits, code & ((1 << self.mantissa_bits) - 1)
        if self.code0 == "ordinary":
            if code == 0 and self.specials != "e8m0":
                return 0, 0
        elif exponent == 0:
            return (0 if self.code0 == "zero" else significand), self.emin - self.mantissa_bits
        significand += 1 << self.mantissa_bits
        return significand, exponent - self.bias - self.mantissa_bits


def raw(fmt: Any) -> Raw:
    """Read the raw fields of any object that has them."""
    if isinstance(fmt, Raw):
        return fmt
    bias = fmt.bias
    if bias is None:
        bias = 2 ** (fmt.exponent_bits - 1) - (not fmt.specials.startswith("p3109"))
    return Raw(
        fmt.exponent_bits,
        fmt.mantissa_bits,
        bias,
        getattr(fmt, "code0", "subnormal"),
        fmt.specials,
        bool(getattr(fmt, "signed", True)),
        getattr(fmt, "overflow", None),
        getattr(fmt, "underflow", None),
        getattr(fmt, "nan_to", None),
        getattr(fmt, "negative_zero", None) is not False,
        getattr(fmt, "padding_bits", 0),
    )


BINARY32 = Raw(8, 23, 127, "subnormal", "ieee", True, None, None, None, True, 0)


def decode_code(code: int, fmt: Any) -> Value:
    """Return the value of a code word (docs/formats.md); words that stand for nothing are zero."""
    f = raw(fmt)
    code = int(code) >> f.padding_bits
    magnitude_bits = f.exponent_bits + f.mantissa_bits
    negative, magnitude = divmod(code, 1 << magnitude_bits)
    if negative > f.signed:
        raise ValueError(f"code must have {f.signed + magnitude_bits} bits, got {code:#x}")
    if negative and magnitude == 0 and f.specials in ("fnuz", "p3109", "p3109_finite"):
        return NAN
    if magnitude > f.largest_code:
        is_inf = f.has_inf and magnitude == f.largest_code + 1
        return (-INF if negative else INF) if is_inf else NAN
    significand, exponent = f.magnitude(magnitude)
    if significand == 0:
        return NEG_ZERO if negative and f.has_negative_zero else Fraction(0)
    return (-1 if negative else 1) * significand * Fraction(2) ** exponent


def encode_value(value: Any, fmt: Any) -> int:
    """Return the code word of a value that the format has; NaN gives the canonical NaN.

    Raises
    ------
    ValueError
        If the value has no word (also +-2^-bias of an LBA format, whose word is zero's).
    """
    f, value = raw(fmt), to_value(value)
    sign_bit = 1 << (f.exponent_bits + f.mantissa_bits) if f.signed else 0
    top = (1 << (f.exponent_bits + f.mantissa_bits)) - 1
    problem = ValueError(f"{value!r} has no code in {f}")
    if isinstance(value, float) and value != value:
        if not f.has_nan:
            raise problem
        if f.specials == "ieee":  # quiet
            code = f.largest_code + 1 + (1 << (f.mantissa_bits - 1))
        else:
            code = sign_bit if f.signed and f.specials != "fn" else top
    elif isinstance(value, float) and value:
        if not f.has_inf or (value < 0 and not f.signed):
            raise problem
        code = f.largest_code + 1 + (sign_bit if value < 0 else 0)
    elif not value:
        if f.specials == "e8m0" or (isinstance(value, float) and not f.has_negative_zero):
            raise problem
        code = sign_bit if isinstance(value, float) else 0
    else:
        magnitude = _magnitude_code(abs(Fraction(value)), f)
        if magnitude is None or (value < 0 and not f.signed):
            raise problem
        code = magnitude + (sign_bit if value < 0 else 0)
    return code << f.padding_bits


def _magnitude_code(x: Fraction, f: Raw) -> int | None:
    """Return the magnitude code of x > 0, None if there is none."""
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    exponent = max(exponent, f.emin)  # x is a value only if the denominator is a power of two
    while x < Fraction(2) ** exponent and exponent > f.emin:
        exponent -= 1
    significand = x / Fraction(2) ** (exponent - f.mantissa_bits)
    hidden = 1 << f.mantissa_bits
    if significand.denominator != 1:
        return None
    first_code = 0 if f.code0 == "ordinary" else 1  # exponent code of 2^emin
    if significand < hidden and f.code0 != "subnormal":
        return None
    code = int(significand) - hidden + ((exponent - f.emin + first_code) << f.mantissa_bits)
    if code > f.largest_code or (code == 0 and f.specials != "e8m0"):
        return None
    return code


def all_values(fmt: Any) -> list[Value]:
    """Return the value of every code word, in the order of the words."""
    f = raw(fmt)
    return [decode_code(code << f.padding_bits, f) for code in range(1 << f.bits)]
