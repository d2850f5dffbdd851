"""Which combinations of the fields of a FloatFormat, and which of its rules, make sense."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _names

if TYPE_CHECKING:
    from ._float_format import FloatFormat


def check_layout(fmt: FloatFormat) -> None:
    """Raise ValueError where `specials`, `code0` and the widths contradict each other."""
    kind = fmt.specials

    def need(condition: bool, field: str, expected: str) -> None:
        if not condition:
            got = getattr(fmt, field)
            raise ValueError(f"{field} must be {expected} for specials={kind!r}, got {got!r}")

    word_bits = fmt.bits + fmt.padding_bits
    if not 1 <= word_bits <= 64:
        raise ValueError(
            "signed + exponent_bits + mantissa_bits + padding_bits must be in 1..64, "
            f"got {word_bits}"
        )
    if fmt.exponent_bits == 0 and (kind != "none" or fmt.code0 != "subnormal"):
        raise ValueError(
            "exponent_bits must be at least 1 unless specials='none' and code0='subnormal', got 0"
        )
    if kind == "fn":
        need(fmt.mantissa_bits > 0, "mantissa_bits", "at least 1")
    elif kind == "fnuz":
        need(fmt.signed, "signed", "True")
    elif kind == "e8m0":
        need(not fmt.signed, "signed", "False")
        need(fmt.mantissa_bits == 0, "mantissa_bits", "0")
        need(fmt.code0 == "ordinary", "code0", "'ordinary' (there is no zero)")
    elif kind.startswith("p3109"):
        need(fmt.code0 == "subnormal", "code0", "'subnormal'")
        need(fmt.bits >= 3, "bits", "at least 3")
    # "ordinary" needs one more: its first value, 2^emin, gives its word to zero.
    first = 1 if fmt.code0 == "subnormal" else 1 << fmt.mantissa_bits
    if fmt.max_index < first + (fmt.code0 == "ordinary" and fmt.has_zero):
        raise ValueError(
            f"a format must have a finite value other than zero, got none in {fmt.bits} bits with "
            f"specials={kind!r}, code0={fmt.code0!r}"
        )


def checked_overflow(fmt: FloatFormat, rule: object) -> str:
    """Return the canonical overflow rule, or raise where it needs a word that `fmt` has not."""
    name = _names.canonical("overflow", rule, _names.FLOAT_OVERFLOW)
    needs = {
        "to_inf": ("Inf", fmt.has_inf),
        "to_nan": ("NaN", fmt.has_nan),
        "ieee": ("Inf or NaN", fmt.has_inf or fmt.has_nan),
    }
    what, present = needs.get(name, ("", True))
    if not present:
        raise ValueError(
            f"overflow={rule!r} needs a format with {what}; expected 'sat_finite' or "
            f"'sat_propagate' for specials={fmt.specials!r}, mantissa_bits={fmt.mantissa_bits}"
        )
    return name


def checked_underflow(fmt: FloatFormat, rule: object) -> str:
    """Return the canonical underflow rule, or raise where `fmt` cannot follow it."""
    name = _names.canonical("underflow", rule, _names.UNDERFLOW)
    if not fmt.has_zero:
        if name != "gradual":
            raise ValueError(f"underflow must be 'gradual' for specials='e8m0', got {rule!r}")
    elif name == "gradual" and fmt.code0 != "subnormal":
        raise ValueError(
            "underflow must be 'flush_before', 'flush_after' or 'cell' for "
            f"code0={fmt.code0!r}, got 'gradual'"
        )
    return name


def checked_nan_to(fmt: FloatFormat, rule: object) -> str:
    """Return the canonical rule for NaN, or raise where it needs a zero that `fmt` has not."""
    name = _names.canonical("nan_to", rule, _names.NAN_TO)
    if name == "zero" and not fmt.has_zero:
        raise ValueError("nan_to must be 'raise' or 'max_pos' for specials='e8m0', got 'zero'")
    return name
