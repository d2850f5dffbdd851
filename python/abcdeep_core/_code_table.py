"""The code table of a small float format, from the definition in NumPy (independent of cpp/)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._format_base import FloatArray

if TYPE_CHECKING:
    from ._float_format import FloatFormat


def code_values(fmt: FloatFormat) -> FloatArray:
    """Return the value of every word of `fmt`; see `FloatFormat.code_values`."""
    if fmt.bits > 16:
        raise ValueError(f"a format must have at most 16 bits to list its words, got {fmt.bits}")
    dtype = fmt.value_dtype  # raises where float64 does not hold the values
    words = np.arange(1 << fmt.bits, dtype=np.int64) << fmt.padding_bits
    magnitude = (words & ~fmt.sign_mask) >> fmt.padding_bits
    field = magnitude >> fmt.mantissa_bits
    mantissa = magnitude & ((1 << fmt.mantissa_bits) - 1)

    normal = (1 << fmt.mantissa_bits) + mantissa
    if fmt.code0 == "ordinary":
        significand, exponent = normal, field - fmt.bias
        if fmt.has_zero:
            significand = np.where(magnitude == 0, 0, significand)
    else:
        below = mantissa if fmt.code0 == "subnormal" else np.zeros_like(mantissa)
        significand = np.where(field == 0, below, normal)
        exponent = np.maximum(field, 1) - fmt.bias
    # Words above the largest finite one would leave float64's range in the widest formats.
    finite = magnitude <= fmt.max_code >> fmt.padding_bits
    values = np.ldexp(
        np.where(finite, significand, 0).astype(np.float64),
        np.where(finite, exponent - fmt.mantissa_bits, 0),
    )
    values = np.where((words & fmt.sign_mask) != 0, -values, values)
    if not fmt.has_negative_zero:
        values += 0.0  # -0 + 0 is +0, and nothing else changes

    values[~finite] = np.nan
    if fmt.nan_code is not None:  # fnuz and P3109: where -0 would be
        values[words == fmt.nan_code] = np.nan
    for code, infinity in ((fmt.inf_code, np.inf), (fmt.negative_inf_code, -np.inf)):
        if code is not None:
            values[words == code] = infinity
    return values.astype(dtype)


def finite_values(fmt: FloatFormat) -> FloatArray:
    """Return the distinct finite values of `fmt`, ascending; see `FloatFormat.values`."""
    values = code_values(fmt)
    values = values[np.isfinite(values)] + values.dtype.type(0)  # one zero, +0
    if fmt.code0 == "ordinary" and fmt.has_zero:
        smallest = np.ldexp(values.dtype.type(1), fmt.emin)
        values = np.append(values, [smallest, -smallest] if fmt.signed else [smallest])
    return np.unique(values)
