"""FloatFormat: every small floating-point format as one frozen value."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal, TypeAlias

import ml_dtypes
import numpy as np

from . import _names
from ._code_table import code_values, finite_values
from ._float_checks import check_layout, checked_nan_to, checked_overflow, checked_underflow
from ._format_base import (
    BaseFormat,
    FloatArray,
    boolean,
    exact_float,
    integer,
    string,
    unsigned_dtype,
)
from ._presets import LAYOUT_FIELDS, PRESETS

Code0: TypeAlias = Literal["subnormal", "ordinary", "zero"]
Specials: TypeAlias = Literal["ieee", "fn", "fnuz", "none", "e8m0", "p3109", "p3109_finite"]


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class FloatFormat(BaseFormat):
    """A binary floating-point format of at most 64 bits: sign, exponent, stored significand.

    Parameters
    ----------
    exponent_bits, mantissa_bits : int
        Widths E (0..11; up to 16 for P3109) and M (0..52) of the two fields. The mantissa is what
        is stored, without the leading 1. E = 0 is allowed for ``specials="none"`` only and makes a
        sign-magnitude fixed-point format.
    bias : int, optional
        Exponent bias, any integer. Default 2^(E-1)-1, and 2^(E-1) for P3109; needed if E = 0.
    code0 : {"subnormal", "ordinary", "zero"}
        Meaning of exponent code 0: subnormals 0.m * 2^(1-bias); ordinary numbers 1.m * 2^-bias
        where only the all-zero magnitude is zero; or zero whatever the mantissa.
    specials : {"ieee", "fn", "fnuz", "none", "e8m0", "p3109", "p3109_finite"}
        Which words are Inf and NaN. "ieee": the top exponent code. "fn": NaN is the all-ones
        magnitude. "fnuz": the word of negative zero is the only NaN. "none": no such words.
        "e8m0": the all-ones word is NaN and there is no zero. "p3109", "p3109_finite": the
        extended (with Inf) and the finite domain of IEEE P3109.
    signed : bool
        Whether there is a sign bit (the most significant bit, sign-magnitude).
    overflow, underflow, nan_to : str, optional
        What to do out of range and with NaN; None is the default of the class of format.
    name : str
        A label. It takes no part in equality and hashing: two formats that do the same are equal.
    negative_zero : bool, optional
        Whether -0 exists. Default: in every signed format but fnuz and P3109.
    padding_bits : int
        Zero bits below the mantissa in a stored word (tf32: 13). They are not counted in `bits`.

    Raises
    ------
    TypeError, ValueError
        If a field has the wrong type, is out of range or contradicts another; the text names the
        field, what was expected and what came.

    Notes
    -----
    Formats are hashable, picklable and equal by value. Properties that are floats are exact; they
    raise ValueError where float64 does not hold the value.

    Examples
    --------
    >>> from abcdeep_core import FloatFormat
    >>> e4m3 = FloatFormat(exponent_bits=4, mantissa_bits=3, specials="fn")
    >>> e4m3.bits, e4m3.max, e4m3.smallest_subnormal
    (8, 448.0, 0.001953125)
    >>> e4m3 == FloatFormat(exponent_bits=4, mantissa_bits=3, bias=7, specials="fn", name="mine")
    True
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int = None  # type: ignore[assignment]  # None is resolved on construction
    code0: Code0 = "subnormal"
    specials: Specials = "ieee"
    signed: bool = True
    overflow: str | None = None
    underflow: str | None = None
    nan_to: str | None = None
    name: str = dataclasses.field(default="", compare=False)
    negative_zero: bool | None = None
    padding_bits: int = 0

    _kind: ClassVar[str] = "float"

    def __post_init__(self) -> None:
        for field, known in (("specials", _names.SPECIALS), ("code0", _names.CODE0)):
            _names.canonical(field, getattr(self, field), known)
        is_p3109 = self.specials.startswith("p3109")
        # P3109 of width 16 and precision 1 has a 16-bit exponent; its values never meet an array.
        e = integer("exponent_bits", self.exponent_bits, 0, 16 if is_p3109 else 11)
        if self.bias is None and e == 0:
            raise ValueError("bias must be given for exponent_bits=0, got None")
        default_bias = (1 << e >> 1) - (0 if is_p3109 else 1)
        # Fields are stored in one spelling each, so that equality is equality of meaning.
        for field, value in (
            ("exponent_bits", e),
            ("mantissa_bits", integer("mantissa_bits", self.mantissa_bits, 0, 52)),
            ("bias", default_bias if self.bias is None else integer("bias", self.bias)),
            ("signed", boolean("signed", self.signed)),
            ("padding_bits", integer("padding_bits", self.padding_bits, 0, 63)),
            ("name", string("name", self.name)),
        ):
            object.__setattr__(self, field, value)
        check_layout(self)
        if self.negative_zero is not None:
            if boolean("negative_zero", self.negative_zero) and not self._negative_zero_by_rule:
                raise ValueError(
                    "negative_zero must be None or False for an unsigned, fnuz, e8m0 or P3109 "
                    "format, got True"
                )
            departs = self._negative_zero_by_rule and not self.negative_zero
            object.__setattr__(self, "negative_zero", False if departs else None)
        for field in ("overflow", "underflow", "nan_to"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, getattr(self, "resolved_" + field)())

    # The words, as unsigned integers. Without sign and padding a word is the magnitude code.

    @property
    def bits(self) -> int:
        """Width in bits: sign, exponent and stored significand."""
        return self.signed + self.exponent_bits + self.mantissa_bits

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """Smallest unsigned NumPy dtype that holds a word (with its padding)."""
        return unsigned_dtype(self.bits + self.padding_bits)

    @property
    def sign_mask(self) -> int:
        """Word with only the sign bit set; 0 in an unsigned format."""
        return 1 << (self.bits - 1 + self.padding_bits) if self.signed else 0

    @property
    def max_code(self) -> int:
        """Word of the largest finite value."""
        return self._max_magnitude << self.padding_bits

    @property
    def inf_code(self) -> int | None:
        """Word of +Inf, None if there is none."""
        if not self.has_inf:
            return None
        return (self._max_magnitude + 1) << self.padding_bits

    @property
    def negative_inf_code(self) -> int | None:
        """Word of -Inf, None if there is none."""
        inf = self.inf_code
        return None if inf is None or not self.signed else inf | self.sign_mask

    @property
    def nan_code(self) -> int | None:
        """Word of the canonical NaN, None if there is none. IEEE style: quiet, positive."""
        if not self.has_nan:
            return None
        magnitude_bits = self.exponent_bits + self.mantissa_bits
        if self.specials == "ieee":
            top = ((1 << self.exponent_bits) - 1) << self.mantissa_bits
            return (top | 1 << (self.mantissa_bits - 1)) << self.padding_bits
        if self.signed and self.specials != "fn":  # fnuz and P3109: where -0 would be
            return self.sign_mask
        return ((1 << magnitude_bits) - 1) << self.padding_bits

    @property
    def _max_magnitude(self) -> int:
        """Magnitude code of the largest finite value."""
        top = (1 << (self.exponent_bits + self.mantissa_bits)) - 1
        if self.specials == "ieee":
            return top - (1 << self.mantissa_bits)
        if self.specials in ("fn", "e8m0"):
            return top - 1
        if self.specials.startswith("p3109"):  # Inf is the top magnitude; unsigned, NaN is above
            return top - (self.specials == "p3109") - (not self.signed)
        return top

    # What exists.

    @property
    def has_inf(self) -> bool:
        """Whether +Inf has a word."""
        return self.specials in ("ieee", "p3109")

    @property
    def has_nan(self) -> bool:
        """Whether NaN has a word."""
        if self.specials == "ieee":
            return self.mantissa_bits > 0
        return self.specials != "none"

    @property
    def has_zero(self) -> bool:
        """Whether zero has a word (not in e8m0)."""
        return self.specials != "e8m0"

    @property
    def has_negative_zero(self) -> bool:
        """Whether -0 has a word of its own."""
        return self._negative_zero_by_rule and self.negative_zero is not False

    @property
    def _negative_zero_by_rule(self) -> bool:
        return self.signed and self.specials in ("ieee", "fn", "none")

    # The values. On the index line zero is 0, a subnormal k * 2^(emin-M) is k, and a normal
    # (2^M + m) * 2^(e-M) is (2^M + m) + ((e - emin) << M), so that neighbours differ by one.

    @property
    def emin(self) -> int:
        """Exponent of the smallest normal number."""
        return -self.bias if self.code0 == "ordinary" else 1 - self.bias

    @property
    def emax(self) -> int:
        """Exponent of the largest finite value."""
        significand, exponent = self.significand_exponent(self.max_index)
        return significand.bit_length() - 1 + exponent

    @property
    def max_index(self) -> int:
        """Position of the largest finite value on the index line of the magnitudes."""
        shift = 1 << self.mantissa_bits if self.code0 == "ordinary" else 0
        return self._max_magnitude + shift

    def significand_exponent(self, index: int) -> tuple[int, int]:
        """Return the magnitude at `index` exactly, as (integer, exponent of two)."""
        binade = max((index >> self.mantissa_bits) - 1, 0)
        significand = index - (binade << self.mantissa_bits)
        return significand, self.emin - self.mantissa_bits + binade

    def _value(self, index: int, what: str) -> float:
        return exact_float(*self.significand_exponent(index), what)

    @property
    def max(self) -> float:
        """Largest finite value."""
        return self._value(self.max_index, "max")

    @property
    def min(self) -> float:
        """Most negative finite value; 0 in an unsigned format, 2^emin in e8m0."""
        if self.signed:
            return -self.max
        return 0.0 if self.has_zero else self._value(1, "min")

    @property
    def smallest_normal(self) -> float | None:
        """2^emin; None if there is no normal number (E = 0, or E = 1 in IEEE style)."""
        first = 1 << self.mantissa_bits
        return self._value(first, "smallest_normal") if first <= self.max_index else None

    @property
    def smallest_subnormal(self) -> float | None:
        """2^(emin-M); None if there are no subnormals (M = 0 or `code0` is not "subnormal")."""
        if self.mantissa_bits == 0 or self.code0 != "subnormal":
            return None
        return self._value(1, "smallest_subnormal")

    @property
    def eps(self) -> float:
        """2^-M: the distance from a normal power of two to the value above it, relative to it."""
        return math.ldexp(1.0, -self.mantissa_bits)

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """float32 if it holds every finite value exactly, else float64, which is what decode gives.

        Raises
        ------
        ValueError
            If float64 does not hold every finite value.
        """
        lowest = self.emin - self.mantissa_bits
        precision = min(self.mantissa_bits + 1, self.max_index.bit_length())
        if precision <= 24 and lowest >= -149 and self.emax <= 127:
            return np.dtype(np.float32)
        if precision <= 53 and lowest >= -1074 and self.emax <= 1023:
            return np.dtype(np.float64)
        raise ValueError(f"the values of {self.name or self!r} do not fit float64")

    def code_values(self) -> FloatArray:
        """Return the value of every word, in the order of the words, as an array of 2^bits floats.

        Infinities and NaN are in it. The words that no value encodes to are zeros: 0x8 of e3m0, and
        those of exponent code 0 and ``code0="zero"``.

        Raises
        ------
        ValueError
            If the format has more than 16 bits, or values that do not fit float64.

        Examples
        --------
        >>> from abcdeep_core import get_format
        >>> get_format("e2m1").code_values()[:8]
        array([0. , 0.5, 1. , 1.5, 2. , 3. , 4. , 6. ], dtype=float32)
        """
        return code_values(self)

    def values(self) -> FloatArray:
        """Return the distinct finite values, ascending, in `value_dtype`; zero appears once.

        With ``code0="ordinary"`` +-2^emin are among them: arithmetic keeps them, though they have
        no word (the magnitude code 0 is zero's).

        Raises
        ------
        ValueError
            If the format has more than 16 bits, or values that do not fit float64.

        Examples
        --------
        >>> from abcdeep_core import get_format
        >>> get_format("e3m0").values()[7:]
        array([ 0.,  1.,  2.,  4.,  8., 16., 32., 64.], dtype=float32)
        """
        return finite_values(self)

    @property
    def ml_dtype(self) -> np.dtype[Any] | None:
        """The ml_dtypes or NumPy dtype with the same code table, None if there is none."""
        for row in PRESETS:
            if row.dtype_name and all(getattr(self, f) == getattr(row, f) for f in LAYOUT_FIELDS):
                return np.dtype(getattr(ml_dtypes, row.dtype_name, row.dtype_name))
        return None

    # The rules in force: the argument of a call, else the format's own, else those of its class.

    def resolved_rounding(self, override: str | None = None) -> str:
        """Return the canonical name of the rounding in force; a float format has none of its own.

        Raises
        ------
        TypeError, ValueError
            If `override` is no string, or an unknown name.
        """
        rule = "nearest_even" if override is None else override
        return _names.canonical("rounding", rule, _names.ROUNDING)

    def resolved_overflow(self, override: str | None = None) -> str:
        """Return the overflow rule in force: "sat_finite" without special words, else "ieee".

        Raises
        ------
        TypeError, ValueError
            If the rule is no string, unknown, or needs an Inf or NaN that the format does not have.

        Examples
        --------
        >>> from abcdeep_core import get_format
        >>> get_format("e4m3fn").resolved_overflow(), get_format("e2m1").resolved_overflow()
        ('ieee', 'sat_finite')
        """
        rule = self.overflow if override is None else override
        if rule is None:
            return "sat_finite" if self.specials == "none" else "ieee"
        return checked_overflow(self, rule)

    def resolved_underflow(self, override: str | None = None) -> str:
        """Return the underflow rule in force: "gradual" with subnormals, else "flush_before".

        For e8m0 it is "gradual" and cannot be changed: there is no zero, and what would round to
        zero becomes 2^emin.

        Raises
        ------
        TypeError, ValueError
            If the rule is no string, unknown, or "gradual" in a format without subnormals.
        """
        rule = self.underflow if override is None else override
        if rule is None:
            flush = self.code0 != "subnormal" and self.has_zero
            return "flush_before" if flush else "gradual"
        return checked_underflow(self, rule)

    def resolved_nan_to(self, override: str | None = None) -> str:
        """Return what NaN becomes: "nan" (if it has a word), "raise", "zero" or "max_pos".

        Raises
        ------
        TypeError, ValueError
            If the rule is no string, or unknown; or "zero" in a format without zero.
        """
        rule = self.nan_to if override is None else override
        if rule is None:
            return "nan" if self.has_nan else "raise"
        return checked_nan_to(self, rule)
