"""The constructors of common datapaths, and their names as text."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from ._float_format import FloatFormat
from ._integer_accumulator import integer_accumulator, integer_from_text, merge_quantizer
from .datapath import Datapath, Quantizer
from .formats import FormatLike, get_format, lba_format

__all__ = [
    "exact_accumulator",
    "float_accumulator",
    "get_accumulator",
    "integer_accumulator",
    "lba_accumulator",
]


def lba_accumulator(
    mantissa_bits: int = 7,
    exponent_bits: int = 4,
    bias: int = 10,
    product_bias: int = 12,
    chunk: int = 16,
    *,
    rounding: str = "toward_zero",
    underflow: bool = True,
    arithmetic: str = "exact",
) -> Datapath:
    """Return the accumulator of LBA: FMAq(x, w, s) = Q_acc(Q_prod(x * w) + s), in chunks.

    Parameters
    ----------
    mantissa_bits, exponent_bits : int
        M and E of both quantisers.
    bias, product_bias : int
        Exponent biases of the accumulator and of the products.
    chunk : int
        Terms per chunk; 0 is no chunks.
    rounding : str
        Rounding of both; the paper truncates.
    underflow : bool
        False is the paper's first training stage: nothing above 2^-126 flushes to zero.
    arithmetic : {"exact", "fp32_mask"}
        See `Datapath`.

    Returns
    -------
    Datapath

    Raises
    ------
    TypeError, ValueError
        As `Datapath`, `Quantizer` and `lba_format` do.

    Notes
    -----
    Source: arXiv 2401.14110. The defaults are its 12-bit accumulator M7E4.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> a = np.full((1, 64), 0.37, np.float32)
    >>> float(ab.matmul(a, a.T, ab.lba_accumulator())[0, 0]), round(float((a @ a.T)[0, 0]), 4)
    (8.5, 8.7616)
    """
    flush = None if underflow else "off"
    product = lba_format(mantissa_bits, exponent_bits, product_bias)
    accumulator = lba_format(mantissa_bits, exponent_bits, bias)
    return Datapath(
        product=Quantizer(format=product, rounding=rounding, underflow=flush),
        accumulator=Quantizer(format=accumulator, rounding=rounding, underflow=flush),
        chunk=chunk,
        arithmetic=arithmetic,
        name=f"m{mantissa_bits}e{exponent_bits}",
    )


def float_accumulator(
    fmt: FormatLike,
    *,
    product: FormatLike | None = None,
    rounding: str | None = None,
    product_rounding: str | None = None,
    overflow: str | None = None,
    underflow: str | None = None,
    group: int = 1,
    chunk: int = 0,
    merge: Literal["same", "exact"] | Datapath = "same",
    arithmetic: str = "exact",
    bits: int | None = None,
    rule: str = "c",
) -> Datapath:
    """Return an accumulator in a floating-point format, rounded after every step.

    Parameters
    ----------
    fmt : FloatFormat, name or dtype
        Format of the running sum.
    product : FloatFormat, name or dtype, optional
        Format of the products; None keeps them exact (a fused multiply-add).
    rounding, product_rounding : str, optional
        Default nearest_even; that of the products defaults to that of the sums.
    overflow, underflow : str, optional
        Rules of both formats; default: their own.
    group : int
        Products per step, summed exactly with the running sum before the one rounding.
    chunk : int
        Terms per partial sum, 0 for all.
    merge : {"same", "exact"} or Datapath
        How chunk sums are added; a Datapath stands for its accumulator (promotion to fp32:
        ``merge=float_accumulator("binary32")``).
    arithmetic : {"exact", "fp32_mask"}
        See `Datapath`.
    bits, rule
        Random bits and rule of stochastic rounding, as for `quantize`.

    Returns
    -------
    Datapath

    Raises
    ------
    TypeError, ValueError
        As `Datapath`, `Quantizer` and `get_format` do.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> ones = np.ones((1, 4096), np.float32)
    >>> float(ab.matmul(ones, ones.T, ab.float_accumulator("fp16"))[0, 0])
    2048.0
    """
    sums = Quantizer(
        format=_float_format("fmt", fmt),
        rounding="nearest_even" if rounding is None else rounding,
        overflow=overflow,
        underflow=underflow,
        bits=bits,
        rule=rule,
    )
    products = None
    if product is not None:
        products = dataclasses.replace(
            sums,
            format=_float_format("product", product),
            rounding=sums.rounding if product_rounding is None else product_rounding,
        )
    return Datapath(
        product=products,
        accumulator=sums,
        step="chain" if group == 1 else "exact_group",
        group=group,
        chunk=chunk,
        merge=merge_quantizer(merge),
        arithmetic=arithmetic,
        name=sums.format.name,
    )


def exact_accumulator(out: FormatLike = "float32") -> Datapath:
    """Return the exact accumulator (Kulisch): one rounding, to nearest even, of the exact sum.

    Parameters
    ----------
    out : FloatFormat, name or dtype
        Format of the result.

    Returns
    -------
    Datapath

    Raises
    ------
    TypeError, ValueError
        As `get_format` does.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> a = np.float32([[1e8, 1, -1e8]])
    >>> float(ab.matmul(a, np.ones((3, 1), np.float32), ab.exact_accumulator())[0, 0])
    1.0
    """
    return Datapath(output=Quantizer(format=_float_format("out", out)), name="exact")


_DEFAULT_BIASES = {(10, 5): (16, 18), (7, 4): (10, 12), (5, 4): (10, 12), (4, 3): (4, 6)}
_ROUNDING_TEXT = {"rtz": "toward_zero", "rne": "nearest_even", "sr": "stochastic"}
_LBA_TEXT = re.compile(r"m(\d+)e(\d+)((?::[a-z]+\d*)*)")


def get_accumulator(text: str | Datapath) -> Datapath:
    """Return the accumulator that a short text names.

    Parameters
    ----------
    text : str or Datapath
        ``"exact"``, ``"fp32"``; ``"m7e4"`` or in full ``"m7e4:b10:p12:c16:rtz"`` (biases of
        accumulator and product, chunk, rounding rtz, rne or sr); ``"int16:wrap"``,
        ``"int16:saturate"``, ``"int16:saturate:g4"`` (group). Further fields of integers, in any
        order: ``t64`` (tile), ``s4`` (shift) with a rounding mode such as ``rnd_conv``, ``n2``
        (saturated bits), ``tree``, ``exact`` (merge), and where the limit stands: ``product``,
        ``step``, ``group``, ``tile`` or ``end``. A Datapath is returned as it is.

    Returns
    -------
    Datapath

    Raises
    ------
    TypeError, ValueError
        If `text` is of another type, or not of these forms.

    Notes
    -----
    Default biases (accumulator / product): m10e5 16/18, m7e4 and m5e4 10/12, m4e3 4/6, any other E
    2^(E-1) / 2^(E-1)+2; default chunk 16.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.get_accumulator("m7e4") == ab.lba_accumulator(7, 4, 10, 12, 16)
    True
    >>> ab.get_accumulator("int16:saturate:g4").group
    4
    >>> ab.get_accumulator("uint16:sat:s4:rnd_conv:t64:tile").saturates_at
    'tile'
    """
    if isinstance(text, Datapath):
        return text
    if not isinstance(text, str):
        raise TypeError(f"accumulator must be a text or a Datapath, got {type(text).__name__}")
    if text == "exact":
        return exact_accumulator()
    if text == "fp32":
        return float_accumulator("binary32")
    if match := _LBA_TEXT.fullmatch(text):
        return _lba_from_text(text, int(match[1]), int(match[2]), match[3].split(":")[1:])
    integers = integer_from_text(text)
    if integers is not None:
        return integers
    raise ValueError(
        "accumulator must be 'exact', 'fp32', 'm7e4' ('m7e4:b10:p12:c16:rtz' in full) or "
        f"'int16:saturate' ('int16:saturate:g4'), got {text!r}"
    )


def _lba_from_text(
    text: str, mantissa_bits: int, exponent_bits: int, fields: list[str]
) -> Datapath:
    default = 1 << exponent_bits >> 1
    bias, product_bias = _DEFAULT_BIASES.get((mantissa_bits, exponent_bits), (default, default + 2))
    values: dict[str, int] = {"b": bias, "p": product_bias, "c": 16}
    rounding = "toward_zero"
    for field in fields:
        if field in _ROUNDING_TEXT:
            rounding = _ROUNDING_TEXT[field]
        elif field[0] in values and field[1:].isdigit():
            values[field[0]] = int(field[1:])
        else:
            raise ValueError(
                f"accumulator {text!r}: expected b<bias>, p<product bias>, c<chunk>, rtz, rne "
                f"or sr, got {field!r}"
            )
    return lba_accumulator(
        mantissa_bits, exponent_bits, values["b"], values["p"], values["c"], rounding=rounding
    )


def _float_format(argument: str, fmt: FormatLike) -> FloatFormat:
    form = get_format(fmt)
    if not isinstance(form, FloatFormat):
        raise TypeError(f"{argument} must be a floating-point format, got {form!r}")
    return form
