"""MF-BPROP: products of INT4 and 4-bit powers of two without a multiplier, in FP7 [1,4,2]."""

from __future__ import annotations

from typing import Any, Literal, SupportsIndex

import numpy as np
import numpy.typing as npt

from ._arrays import NARROW_INTEGERS, Array, as_array, check_out, first_index
from ._threads import check_threads
from .accumulators import float_accumulator
from .datapath import Datapath
from .formats import FormatLike

# |i| = 2^e (1 + m/4) for the magnitudes 1 to 8 of INT4; place 0 is not used.
_EXPONENTS = np.array([0, 0, 1, 1, 2, 2, 2, 2, 3], np.uint8)
_MANTISSAS = np.array([0, 0, 0, 2, 0, 1, 2, 3, 0], np.uint8)


def mf_bprop_accumulator(
    fmt: FormatLike = "binary32",
    *,
    rounding: str | None = None,
    chunk: int = 0,
    merge: Literal["same", "exact"] | Datapath = "same",
) -> Datapath:
    """Return the datapath of MF-BPROP: products in FP7 [1,4,2], summed in the format `fmt`.

    Operands of the product are the integers -8..7 (INT4) on one side and zero and powers of two
    2^0..2^7 (FP4, as `mf_bprop_product`) on the other, as float32; their product is exact in FP7.
    The scales of both are applied to the result. Products of other operands are rounded to nearest
    even in FP7.

    Parameters
    ----------
    fmt : FloatFormat, name or dtype
        Format of the running sum.
    rounding : str, optional
        Rounding of the running sum; default nearest_even.
    chunk : int
        Terms per partial sum, 0 for all.
    merge : {"same", "exact"} or Datapath
        How chunk sums are added, as for `float_accumulator`.

    Returns
    -------
    Datapath

    Raises
    ------
    TypeError, ValueError
        As `float_accumulator` does.

    Notes
    -----
    Source: "Accurate Neural Training with 4-bit Matrix Multiplications at Standard Formats" (LUQ),
    arXiv 2112.10769, multiplication-free backpropagation.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> weights, gradients = np.float32([[3, -7, 5]]), np.float32([[64], [2], [0]])
    >>> ab.matmul(weights, gradients, ab.mf_bprop_accumulator())
    array([[178.]], dtype=float32)
    """
    return float_accumulator(
        fmt,
        product="fp7_142",
        rounding=rounding,
        product_rounding="nearest_even",
        chunk=chunk,
        merge=merge,
    ).replace(name="mf_bprop")


def mf_bprop_product(
    int4: npt.ArrayLike,
    fp4_codes: npt.ArrayLike,
    *,
    levels: SupportsIndex = 7,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> Array:
    """Return the FP7 [1,4,2] codes of products, as hardware without a multiplier makes them.

    The sign is an exclusive or, the exponent code a sum of the FP4 code and a small number that
    follows from the integer, as does the mantissa; a zero operand gives the code 0.

    Parameters
    ----------
    int4 : array_like of integers
        -8 to 7.
    fp4_codes : array_like of integers, a shape that broadcasts with that of `int4`
        A sign bit above the magnitude code c: 0 is zero, c stands for 2^(c-1).
    levels : {7, 8}
        Non-zero magnitudes of FP4. 7: words of four bits, the format ``e3m0``. 8: the 17 values of
        LUQ's reference code, which need a sign bit above four bits of magnitude.
    out : ndarray of uint8, optional
        Array for the result.
    threads : int, optional
        Checked like every function's; this one looks up tables on one thread.

    Returns
    -------
    ndarray of uint8
        Words of the format ``fp7_142``: `decode` gives the products.

    Raises
    ------
    TypeError
        If an argument holds no integers.
    ValueError
        If an integer or a code is out of range (the word of -0 is none), or shapes do not
        broadcast.

    Notes
    -----
    Source: arXiv 2112.10769, multiplication-free backpropagation.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> codes = ab.encode(np.float32([64, -2, 0, 1]), "e3m0")
    >>> product = ab.mf_bprop_product([3, 5, -8, -7], codes)
    >>> ab.decode(product, "fp7_142")
    array([192., -10.,   0.,  -7.], dtype=float32)
    """
    check_threads(threads)
    if levels not in (7, 8):
        raise ValueError(f"levels: expected 7 or 8, got {levels!r}")
    integers = _integers("int4", int4)
    codes = _integers("fp4_codes", fp4_codes)
    _check_range("int4", integers, (integers >= -8) & (integers <= 7), "-8 to 7")
    sign_bit = 8 if levels == 7 else 16
    magnitude = codes & (sign_bit - 1)
    valid = (codes >= 0) & (codes < 2 * sign_bit) & (magnitude <= levels) & (codes != sign_bit)
    words = f"a sign bit {sign_bit} and a magnitude 0 to {levels}, and no {sign_bit}"
    _check_range("fp4_codes", codes, valid, words)
    try:
        integers, codes, magnitude = np.broadcast_arrays(integers, codes, magnitude)
    except ValueError:
        raise ValueError(
            f"fp4_codes: expected a shape that broadcasts with int4's {integers.shape}, "
            f"got {codes.shape}"
        ) from None
    if out is not None:
        check_out(out, integers.shape, np.dtype(np.uint8))
    absolute = np.abs(integers)
    negative = (integers < 0) ^ (codes >= sign_bit)
    word = negative.astype(np.uint8) << np.uint8(6)
    word |= (_EXPONENTS[absolute] + magnitude.astype(np.uint8)) << np.uint8(2)
    word |= _MANTISSAS[absolute]
    word = np.asarray(np.where((absolute == 0) | (magnitude == 0), np.uint8(0), word))
    if out is not None:
        np.copyto(out, word)
        return out
    return word[()] if word.ndim == 0 else word


def _integers(name: str, x: Any) -> Array:
    array = as_array(name, x)
    if array.dtype.kind not in "iu" and array.dtype not in NARROW_INTEGERS:
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    return array.astype(np.int64) if array.dtype != np.uint64 else array


def _check_range(name: str, array: Array, valid: Array, expected: str) -> None:
    wrong = ~np.asarray(valid)
    if wrong.any():
        at = first_index(wrong)
        raise ValueError(f"{name}: expected {expected}, got {array[wrong].reshape(-1)[0]} at {at}")
