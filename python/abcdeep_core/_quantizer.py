"""A format with its rounding and range rules, resolved to the struct the kernels read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from . import _core
from ._format_base import integer

if TYPE_CHECKING:
    from ._fixed_format import FixedFormat
    from ._float_format import FloatFormat

# Rounding is an addend and a truncation (cpp/rounding.hpp). 2a + b stands for the addend
# a * 2^(d-1) - b: for positive and negative numbers, each with an even and an odd last kept bit.
_NONE, _BELOW_HALF, _HALF, _BELOW_ONE, _ONE = 0, 3, 2, 5, 4
_ADDENDS = {
    "nearest_even": ((_BELOW_HALF, _HALF), (_BELOW_HALF, _HALF)),
    "nearest_odd": ((_HALF, _BELOW_HALF), (_HALF, _BELOW_HALF)),
    "nearest_away": ((_HALF, _HALF), (_HALF, _HALF)),
    "nearest_zero": ((_BELOW_HALF, _BELOW_HALF), (_BELOW_HALF, _BELOW_HALF)),
    "nearest_up": ((_HALF, _HALF), (_BELOW_HALF, _BELOW_HALF)),
    "nearest_down": ((_BELOW_HALF, _BELOW_HALF), (_HALF, _HALF)),
    "toward_zero": ((_NONE, _NONE), (_NONE, _NONE)),
    "toward_positive": ((_BELOW_ONE, _BELOW_ONE), (_NONE, _NONE)),
    "toward_negative": ((_NONE, _NONE), (_BELOW_ONE, _BELOW_ONE)),
    "away_from_zero": ((_BELOW_ONE, _BELOW_ONE), (_BELOW_ONE, _BELOW_ONE)),
    "to_odd": ((_BELOW_ONE, _NONE), (_BELOW_ONE, _NONE)),
    "jam": ((_ONE, _NONE), (_ONE, _NONE)),
    "stochastic": ((_NONE, _NONE), (_NONE, _NONE)),
}
# The numbers of the enums in cpp/format.hpp.
_STOCHASTIC = {"a": 1, "b": 2, "c": 3, "odd": 4}
_UNDERFLOW = {"gradual": 0, "flush_before": 1, "flush_after": 2, "cell": 3}
_INTEGER_OVERFLOW = {
    "wrap": 0,
    "saturate": 1,
    "saturate_zero": 2,
    "saturate_symmetric": 3,
    "wrap_sign_magnitude": 4,
}
_NEGATIVE_IS_VALUE, _NEGATIVE_IS_ERROR, _NEGATIVE_IS_NAN = 0, 1, 2

EXACT_RANDOM_BITS = 32


def stochastic_rule(bits: int | None, rule: str) -> tuple[str, int]:
    """Return the rule and the number of random bits of `bits=` and `rule=`, checked."""
    if not isinstance(rule, str):
        raise TypeError(f"rule must be a string, got {rule!r} ({type(rule).__name__})")
    if rule not in _STOCHASTIC:
        raise ValueError(f"unknown rule {rule!r}; expected one of {', '.join(_STOCHASTIC)}")
    if bits is None:
        return "a", EXACT_RANDOM_BITS
    return rule, integer("bits", bits, 1, 32)


def _set_rounding(
    q: _core.Quantizer | _core.FixedQuantizer, rounding: str, bits: int | None, rule: str
) -> None:
    q.addend = _ADDENDS[rounding]
    rule, random_bits = stochastic_rule(bits, rule)
    if rounding == "stochastic":
        q.stochastic, q.random_bits = _STOCHASTIC[rule], random_bits


def float_quantizer(
    fmt: FloatFormat,
    rounding: str | None = None,
    overflow: str | None = None,
    underflow: str | None = None,
    nan_to: str | None = None,
    bits: int | None = None,
    rule: str = "c",
) -> _core.Quantizer:
    """Return what the kernels need to round to `fmt`; None is the format's own rule."""
    rounding = fmt.resolved_rounding(rounding)
    overflow = fmt.resolved_overflow(overflow)
    nan_to = fmt.resolved_nan_to(nan_to)
    is_p3109 = fmt.specials.startswith("p3109")
    if fmt.emin < -1022 or fmt.emax > 1023:
        raise ValueError(
            "format must have exponents in -1022..1023 to be rounded to, got "
            f"{fmt.emin}..{fmt.emax}"
        )
    q = _core.Quantizer()
    q.mantissa_bits, q.emin, max_index = fmt.mantissa_bits, fmt.emin, fmt.max_index
    if underflow == "off":
        # the same numbers continued down to 2^-126: more binades below, hence larger indices
        q.emin = min(fmt.emin, -126)
        max_index += (fmt.emin - q.emin) << fmt.mantissa_bits
        underflow = "flush_before"
    q.max_index = (max_index, max_index if fmt.signed else 0)
    q.underflow = _UNDERFLOW[fmt.resolved_underflow(underflow)]
    if fmt.mantissa_bits == 0:  # the code of 2^q.emin is even
        q.odd_first_code = (fmt.emin - q.emin + (fmt.code0 != "ordinary")) % 2 == 0
    q.negative_zero = fmt.has_negative_zero
    q.nan_is_error = nan_to == "raise"
    if not fmt.has_zero:
        q.negative = _NEGATIVE_IS_NAN
    elif not fmt.signed and not is_p3109:
        q.negative = _NEGATIVE_IS_ERROR
    _set_rounding(q, rounding, bits, rule)

    special = {"nan": (math.nan, fmt.nan_code or 0), "zero": (0.0, 0)}
    special["max_pos"] = (fmt.max, fmt.max_code)
    maximum = (special["max_pos"], (-fmt.max, fmt.max_code | fmt.sign_mask))
    infinity = ((math.inf, fmt.inf_code or 0), (-math.inf, fmt.negative_inf_code or 0))
    if not fmt.signed:
        maximum = (maximum[0], special["zero"])
    has_infinity = (fmt.has_inf, fmt.has_inf and fmt.signed)

    def out_of_range(sign: int, is_infinite: bool) -> tuple[float, int]:
        if overflow == "sat_finite":
            return maximum[sign]
        if overflow == "sat_propagate":
            return infinity[sign] if is_infinite and has_infinity[sign] else maximum[sign]
        if overflow == "to_nan":
            return special["nan"]
        inward = rounding in ("toward_zero", ("toward_negative", "toward_positive")[sign])
        if is_p3109 and rounding == "to_odd" and not fmt.signed and fmt.has_inf:
            inward = inward or sign == 0
        if overflow == "ieee" and inward and not is_infinite:
            return maximum[sign]
        if has_infinity[sign]:
            return infinity[sign]
        if is_p3109 and (fmt.signed or sign == 0):
            return maximum[sign]
        return special["nan"]

    overflowed = [out_of_range(sign, False) for sign in (0, 1)]
    infinite = [out_of_range(sign, True) for sign in (0, 1)]
    q.overflow_value = (overflowed[0][0], overflowed[1][0])
    q.overflow_code = (overflowed[0][1], overflowed[1][1])
    q.infinity_value = (infinite[0][0], infinite[1][0])
    q.infinity_code = (infinite[0][1], infinite[1][1])
    q.nan_value, q.nan_code = special["zero" if nan_to == "raise" else nan_to]
    set_code_layout(q, fmt)
    return q


def set_code_layout(q: _core.Quantizer, fmt: FloatFormat) -> None:
    """Fill in how indices and code words of `fmt` correspond."""
    q.code_offset = 1 << fmt.mantissa_bits if fmt.code0 == "ordinary" else 0
    q.sign_mask, q.padding_bits = fmt.sign_mask, fmt.padding_bits
    q.infinity_magnitude_code = (fmt.inf_code or 0) >> fmt.padding_bits
    q.has_zero, q.zero_code_only = fmt.has_zero, fmt.code0 == "zero"
    q.sign_only_is_nan = fmt.signed and fmt.specials in ("fnuz", "p3109", "p3109_finite")


def fixed_quantizer(
    fmt: FixedFormat,
    rounding: str | None = None,
    overflow: str | None = None,
    bits: int | None = None,
    rule: str = "c",
) -> _core.FixedQuantizer:
    """Return what the kernels need to round to `fmt`; None is the format's own rule."""
    if fmt.bits == 64 and not fmt.signed:
        raise ValueError("bits must be at most 63 for an unsigned fixed-point format, got 64")
    if abs(fmt.fraction_bits) > 1022:
        raise ValueError(f"fraction_bits must be in -1022..1022, got {fmt.fraction_bits}")
    q = _core.FixedQuantizer()
    q.bits, q.fraction_bits, q.is_signed = fmt.bits, fmt.fraction_bits, fmt.signed
    q.overflow = _INTEGER_OVERFLOW[fmt.resolved_overflow(overflow)]
    q.wrap_bits = fmt.wrap_bits
    _set_rounding(q, fmt.resolved_rounding(rounding), bits, rule)
    return q
