"""Number formats as values: the two classes, the named formats, and `get_format`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from . import _names
from ._fixed_format import FixedFormat
from ._float_format import FloatFormat
from ._presets import ALIASES, LAYOUT_FIELDS, PRESETS, Preset, parse_p3109

__all__ = ["FixedFormat", "FloatFormat", "formats", "get_format", "lba_format"]

Format: TypeAlias = FloatFormat | FixedFormat
FormatLike: TypeAlias = "Format | str | np.dtype[Any] | type[np.generic]"


def _from_preset(row: Preset) -> FloatFormat:
    return FloatFormat(name=row.name, **{field: getattr(row, field) for field in LAYOUT_FIELDS})


_FORMATS: Mapping[str, FloatFormat] = MappingProxyType(
    {row.name: _from_preset(row) for row in PRESETS}
)


def formats() -> Mapping[str, FloatFormat]:
    """Return the named formats, as a read-only mapping from name to format.

    Aliases and the names of P3109 formats, which `get_format` takes too, are not in it.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> list(ab.formats())[:3]
    ['e4m3fn', 'e5m2', 'e4m3fnuz']
    >>> ab.formats()["e5m2"].max
    57344.0
    """
    return _FORMATS


def get_format(fmt: FormatLike) -> Format:
    """Return the format that `fmt` names or is.

    Parameters
    ----------
    fmt : str, FloatFormat, FixedFormat, numpy.dtype or NumPy scalar type
        A name (a key of `formats`, an alias such as ``"bfloat16"`` or ``"float8_e4m3fn"``, or a
        P3109 name such as ``"binary8p4se"``), a floating-point dtype of NumPy or ml_dtypes (or its
        scalar type), or a format, which is returned as it is.

    Returns
    -------
    FloatFormat or FixedFormat
        A name or a dtype always gives a FloatFormat.

    Raises
    ------
    TypeError
        If `fmt` is of another type, or a dtype that is not a floating-point format of the table.
    ValueError
        If the name is unknown (the text gives the nearest names), or has the form of a P3109 name
        with a width or precision that does not exist.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> import ml_dtypes
    >>> ab.get_format(ml_dtypes.float4_e2m1fn).name
    'e2m1'
    >>> ab.get_format("Binary8p4se").max
    224.0
    """
    if isinstance(fmt, FloatFormat | FixedFormat):
        return fmt
    if isinstance(fmt, np.dtype) or (isinstance(fmt, type) and issubclass(fmt, np.generic)):
        name = np.dtype(fmt).name
        if name not in ALIASES:
            raise TypeError(
                f"format must be a floating-point dtype with a named format, got {name}"
                + (
                    "; write an integer format as FixedFormat(bits=..., fraction_bits=0)"
                    if "int" in name
                    else ""
                )
            )
        return _FORMATS[ALIASES[name]]
    if not isinstance(fmt, str):
        raise TypeError(
            "format must be a name, a FloatFormat or FixedFormat, or a floating-point dtype, "
            f"got {fmt!r} ({type(fmt).__name__})"
        )
    if fmt in _FORMATS:
        return _FORMATS[fmt]
    if fmt in ALIASES:
        return _FORMATS[ALIASES[fmt]]
    p3109 = parse_p3109(fmt)
    if p3109 is not None:
        return _from_preset(p3109)
    # Two examples stand for the 504 names of the P3109 family.
    known = (*_FORMATS, *ALIASES, "binary8p4se", "binary4p2sf")
    raise ValueError(f"unknown format {fmt!r}; {_names.nearest(fmt, known)}")


def lba_format(mantissa_bits: int, exponent_bits: int, bias: int) -> FloatFormat:
    """Return the accumulator format Q_{M,E,b} of LBA, written MxEy in the paper.

    Sign, E exponent bits and M mantissa bits, all exponent codes ordinary (no subnormals), no
    special words; values below 2^-bias flush to zero, values above the largest saturate.

    Parameters
    ----------
    mantissa_bits, exponent_bits, bias : int
        M, E and b.

    Returns
    -------
    FloatFormat
        With ``code0="ordinary"`` and ``specials="none"``.

    Raises
    ------
    TypeError, ValueError
        As `FloatFormat` does.

    Notes
    -----
    Source: "Towards Cheaper Inference in Deep Networks with Lower Bit-Width Accumulators",
    arXiv 2401.14110: R_OF = 2^(2^E-b-1) * (2-2^-M) is `max`, R_UF = 2^-b is `smallest_normal`.

    Examples
    --------
    >>> from abcdeep_core import lba_format
    >>> m7e4 = lba_format(7, 4, bias=10)
    >>> m7e4.bits, m7e4.max, m7e4.smallest_normal
    (12, 63.75, 0.0009765625)
    """
    return FloatFormat(
        exponent_bits=exponent_bits,
        mantissa_bits=mantissa_bits,
        bias=bias,
        code0="ordinary",
        specials="none",
    )


def format_from_dict(data: Mapping[str, Any]) -> Format:
    """Return the format that the `to_dict` of either class described.

    Raises
    ------
    TypeError, ValueError
        As the class's `from_dict`; also if ``data["kind"]`` is neither "float" nor "fixed".
    """
    kind = data.get("kind")
    if kind == "float":
        return FloatFormat.from_dict(data)
    if kind == "fixed":
        return FixedFormat.from_dict(data)
    raise ValueError(f"data['kind'] must be 'float' or 'fixed', got {kind!r}")
