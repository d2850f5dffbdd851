"""FixedFormat: a fixed-point format with its rounding and overflow mode as one frozen value."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import ml_dtypes
import numpy as np

from . import _names
from ._format_base import (
    BaseFormat,
    FloatArray,
    boolean,
    exact_float,
    integer,
    string,
    unsigned_dtype,
)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class FixedFormat(BaseFormat):
    """A fixed-point format: an integer of `bits` bits, two's complement if signed, times 2^-f.

    Parameters
    ----------
    bits : int
        Width W, 1..64.
    fraction_bits : int
        f, any integer; negative, or more than W, is allowed (``ap_fixed<W,I>`` has f = W - I).
    signed : bool
        Two's complement (default) or unsigned.
    rounding : str
        Rounding (quantisation) mode, any name of the library. Default TRN (toward negative), as in
        ap_fixed and SystemC.
    overflow : {"wrap", "saturate", "saturate_zero", "saturate_symmetric", "wrap_sign_magnitude"}
        Overflow mode, or its ap_fixed name in capitals. Default wrap.
    wrap_bits : int
        Number n of saturated bits of the two wrapping modes.
    name : str
        A label; it takes no part in equality and hashing.

    Raises
    ------
    TypeError, ValueError
        If a field has the wrong type, is out of range or contradicts another.

    Notes
    -----
    Names are stored in their canonical spelling: ``FixedFormat(..., rounding="TRN").rounding`` is
    ``"toward_negative"``.

    Examples
    --------
    >>> from abcdeep_core import FixedFormat
    >>> q = FixedFormat(bits=3, fraction_bits=1, overflow="SAT")
    >>> q.min, q.max, q.eps, q.overflow
    (-2.0, 1.5, 0.5, 'saturate')
    """

    bits: int
    fraction_bits: int
    signed: bool = True
    rounding: str = "toward_negative"
    overflow: str = "wrap"
    wrap_bits: int = 0
    name: str = dataclasses.field(default="", compare=False)

    _kind: ClassVar[str] = "fixed"

    def __post_init__(self) -> None:
        for field, value in (
            ("bits", integer("bits", self.bits, 1, 64)),
            ("fraction_bits", integer("fraction_bits", self.fraction_bits)),
            ("signed", boolean("signed", self.signed)),
            ("rounding", _names.canonical("rounding", self.rounding, _names.ROUNDING)),
            ("name", string("name", self.name)),
            ("wrap_bits", integer("wrap_bits", self.wrap_bits, 0, 64)),
        ):
            object.__setattr__(self, field, value)
        object.__setattr__(self, "overflow", self.resolved_overflow())
        if self.wrap_bits and not self.overflow.startswith("wrap"):
            raise ValueError(
                "wrap_bits must be 0 unless overflow is 'wrap' or 'wrap_sign_magnitude', "
                f"got {self.wrap_bits} with overflow={self.overflow!r}"
            )

    @property
    def max_code(self) -> int:
        """Largest integer."""
        return (1 << (self.bits - self.signed)) - 1

    @property
    def min_code(self) -> int:
        """Smallest integer (negative in a signed format)."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def max(self) -> float:
        """Largest value."""
        return exact_float(self.max_code, -self.fraction_bits, "max")

    @property
    def min(self) -> float:
        """Smallest value."""
        return exact_float(self.min_code, -self.fraction_bits, "min")

    @property
    def eps(self) -> float:
        """Distance of two neighbouring values, 2^-fraction_bits."""
        return exact_float(1, -self.fraction_bits, "eps")

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """Smallest NumPy integer dtype, signed as the format is, that holds a word."""
        unsigned = unsigned_dtype(self.bits)
        return np.dtype(unsigned.name[1:]) if self.signed else unsigned

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """float32 if it holds every value exactly, else float64; ValueError if neither does."""
        precision = self.bits - self.signed
        top = precision - self.fraction_bits
        if precision <= 24 and -self.fraction_bits >= -149 and top <= 127:
            return np.dtype(np.float32)
        if precision <= 53 and -self.fraction_bits >= -1074 and top <= 1023:
            return np.dtype(np.float64)
        raise ValueError(f"the values of {self.name or self!r} do not fit float64")

    def values(self) -> FloatArray:
        """Return all values, ascending, in `value_dtype`; ValueError above 16 bits."""
        if self.bits > 16:
            raise ValueError(f"bits must be at most 16 to list all values, got {self.bits}")
        integers = np.arange(self.min_code, self.max_code + 1, dtype=np.float64)
        return np.ldexp(integers, -self.fraction_bits).astype(self.value_dtype)

    @property
    def ml_dtype(self) -> np.dtype[Any] | None:
        """The NumPy or ml_dtypes integer dtype with the same codes and values, or None."""
        if self.fraction_bits != 0 or self.bits not in (1, 2, 4, 8, 16, 32, 64):
            return None
        name = f"{'' if self.signed else 'u'}int{self.bits}"
        return np.dtype(getattr(ml_dtypes, name, name))

    def resolved_rounding(self, override: str | None = None) -> str:
        """Return the canonical name of the rounding in force: `override`, else the format's own.

        Raises
        ------
        TypeError, ValueError
            If `override` is no string, or an unknown name.
        """
        rule = self.rounding if override is None else override
        return _names.canonical("rounding", rule, _names.ROUNDING)

    def resolved_overflow(self, override: str | None = None) -> str:
        """Return the canonical name of the overflow mode in force: `override`, else the format's.

        Raises
        ------
        TypeError, ValueError
            If the mode is no string, unknown, or "wrap_sign_magnitude" in an unsigned format.
        """
        rule = self.overflow if override is None else override
        rule = _names.canonical("overflow", rule, _names.FIXED_OVERFLOW)
        if rule == "wrap_sign_magnitude" and not self.signed:
            raise ValueError(f"overflow must be another mode for signed=False, got {rule!r}")
        return rule
