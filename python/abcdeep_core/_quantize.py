"""`quantize`, `encode` and `decode`: floats to the values and code words of a format, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import (
    NARROW_INTEGERS,
    Array,
    as_array,
    as_float_array,
    check_out,
    deliver,
    explicit_words,
    first_index,
    is_plain,
)
from ._fixed_format import FixedFormat
from ._float_format import FloatFormat
from ._quantizer import fixed_quantizer, float_quantizer
from ._threads import check_threads
from .formats import FormatLike, get_format
from .random import check_address

# The failure flags of cpp/quantize.hpp.
_FAILED_NAN, _FAILED_NEGATIVE, _FAILED_CODE, _FAILED_INFINITY = 1, 2, 4, 8


def quantize(
    x: npt.ArrayLike,
    fmt: FormatLike,
    rounding: str | None = None,
    *,
    overflow: str | None = None,
    underflow: str | None = None,
    nan_to: str | None = None,
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    bits: int | None = None,
    rule: str = "c",
    random_bits: npt.ArrayLike | None = None,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> Array:
    """Round every element of `x` to a value of `fmt`.

    Parameters
    ----------
    x : array_like of float32, float64, or a narrower float, any shape
        float16 and the floats of ml_dtypes are widened exactly, to float32.
    fmt : str, FloatFormat, FixedFormat or dtype
        See `get_format`.
    rounding : str, optional
        One of nearest_even, nearest_away, nearest_zero, nearest_up, nearest_down, nearest_odd,
        toward_zero, toward_positive, toward_negative, away_from_zero, to_odd, jam, stochastic, or
        an alias. Default: the FixedFormat's own mode, else nearest_even.
    overflow, underflow, nan_to : str, optional
        Rules for values out of range and NaN; default: those of the format.
    seed, stream, call : int
        Address of the random words of stochastic rounding: 64, 32 and 32 bits. Element i (C order)
        uses draw i, whatever the strides, the threads or the instruction set.
    bits : int, optional
        Random bits an element, 1 to 32, with `rule` "a", "b", "c" or "odd". Default None: the exact
        rule, rule A with 32 bits.
    random_bits : array_like of uint32, shape of `x`, optional
        Explicit random words instead of a seed; the top `bits` bits are used.
    out : ndarray, optional
        Array for the result, of its shape and dtype; it may be `x` itself.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray
        The values, in float32 or float64 as the (widened) input.

    Raises
    ------
    TypeError
        If `x` holds no floats, or an argument is of the wrong type.
    ValueError
        If the values of `fmt` do not fit the dtype of `x`; a name is unknown; rounding is
        stochastic without seed or random_bits; or an element has no result: NaN where the format
        has none, a negative number where it has no sign, an infinity that would have to wrap.

    Notes
    -----
    The definition of every rule is in docs/formats.md. -0 is kept where the format has it.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> ab.quantize(np.float32([0.3, -1.7, 500]), "e4m3fn")
    array([ 0.3125, -1.75  ,     nan], dtype=float32)
    >>> ab.quantize(np.float32([0.3, -1.7, 500]), "e4m3fn", "toward_zero", overflow="sat_finite")
    array([ 2.8125e-01, -1.6250e+00,  4.4800e+02], dtype=float32)
    """
    array = as_float_array("x", x)
    form = get_format(fmt)
    _check_width(form, array)
    run = _runner(form, rounding, overflow, underflow, nan_to, bits, rule)
    return run(array, array.dtype, 0, (seed, stream, call), random_bits, out, threads)


def encode(
    x: npt.ArrayLike,
    fmt: FormatLike,
    rounding: str | None = None,
    *,
    overflow: str | None = None,
    underflow: str | None = None,
    nan_to: str | None = None,
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    bits: int | None = None,
    rule: str = "c",
    random_bits: npt.ArrayLike | None = None,
    dtype: bool = False,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> Array:
    """Round every element of `x` to `fmt` and return the code words.

    The parameters are those of `quantize`, and `dtype`.

    Parameters
    ----------
    dtype : bool
        Return the ml_dtypes or NumPy dtype with this code table (the same bytes, viewed) instead of
        plain unsigned integers.

    Returns
    -------
    ndarray
        uint8, uint16, uint32 or uint64, the smallest that holds a word; for a FixedFormat the
        integers value * 2^fraction_bits, signed if the format is.

    Raises
    ------
    TypeError, ValueError
        As `quantize`; also if a result has no word (+-2^emin of an LBA format), or with
        ``dtype=True`` where there is no such dtype.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> ab.encode(np.float32([0, 0.5, -6]), "e2m1")
    array([ 0,  1, 15], dtype=uint8)
    >>> ab.encode(np.float32([0.3]), "e4m3fn", dtype=True)
    array([0.3125], dtype='float8_e4m3fn')
    """
    array = as_float_array("x", x)
    form = get_format(fmt)
    if isinstance(form, FloatFormat):
        _check_width(form, array)
    view = form.ml_dtype if dtype else None
    if dtype and view is None:
        raise ValueError(f"dtype=True needs a format with a dtype, {form.name or form!r} has none")
    words = form.code_dtype
    target = out
    if out is not None and view is not None:
        target = check_out(out, array.shape, view).view(words)
    run = _runner(form, rounding, overflow, underflow, nan_to, bits, rule)
    codes = run(array, words, words.itemsize, (seed, stream, call), random_bits, target, threads)
    if view is None:
        return codes
    if view in NARROW_INTEGERS:  # ml_dtypes leaves the bits above the word zero
        codes = np.bitwise_and(codes, (1 << form.bits) - 1, out=target)
    return out if out is not None else codes.view(view)


def decode(
    codes: npt.ArrayLike,
    fmt: FormatLike,
    *,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> Array:
    """Return the values of code words of `fmt`.

    Parameters
    ----------
    codes : array_like of integers, or of the ml_dtypes dtype of `fmt`, any shape
        Words in [0, 2^bits); for a FixedFormat the integers value * 2^fraction_bits.
    fmt : str, FloatFormat, FixedFormat or dtype
        See `get_format`.
    out : ndarray, optional
        Array for the result, of its shape and dtype.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray
        float32 if it holds every value of the format, else float64. NaN is the quiet, positive one.

    Raises
    ------
    TypeError
        If `codes` are neither integers nor of the format's dtype.
    ValueError
        If a word is out of range; if the values of the format do not fit float64.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.decode([0x38, 0x7e, 0xff], "e4m3fn")
    array([  1., 448.,  nan], dtype=float32)
    """
    form = get_format(fmt)
    array = as_array("codes", codes)
    dtype = form.value_dtype
    array = _checked_words(array, form)
    if out is not None:
        check_out(out, array.shape, dtype)
    count = check_threads(threads)
    if isinstance(form, FixedFormat):
        fixed_quantizer(form)  # the same limits as for encode
        values = np.ldexp(array.astype(np.float64), -form.fraction_bits)
        if dtype == np.float32:
            # NumPy's cast flushes subnormals if the caller's thread does; the kernel never does.
            values = encode(values, "binary32").view(dtype)
        return deliver(np.asarray(values), out)
    target = out if out is not None and is_plain(out) else np.empty(array.shape, dtype)
    contiguous = np.ascontiguousarray(array)
    if np.may_share_memory(contiguous, target):
        contiguous = contiguous.copy()
    underflow = "gradual" if form.code0 == "subnormal" else None
    q = float_quantizer(form, "nearest_even", overflow="sat_finite", underflow=underflow)
    q.nan_value = np.nan
    _core.decode(contiguous.reshape(-1), target.reshape(-1), q, count)
    return deliver(target, out)


def _check_width(form: FloatFormat | FixedFormat, x: Array) -> None:
    if form.value_dtype.itemsize > x.dtype.itemsize:
        raise ValueError(
            f"x must be float64 for {form.name or repr(form)}, whose values do not fit float32, "
            f"got {x.dtype}"
        )


def _checked_words(array: Array, form: FloatFormat | FixedFormat) -> Array:
    words = form.code_dtype
    if array.dtype in NARROW_INTEGERS:
        array = array.astype(np.int8 if array.dtype.name.startswith("int") else np.uint8)
    elif (
        form.ml_dtype is not None and array.dtype == form.ml_dtype and array.dtype.kind not in "iu"
    ):
        return array.view(words)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"codes must hold integers or the dtype of {form.name or form!r}, got {array.dtype}"
        )
    if isinstance(form, FixedFormat):
        low, high = form.min_code, form.max_code
    else:
        low, high = 0, (1 << (form.bits + form.padding_bits)) - 1
    limits = np.iinfo(array.dtype)
    too_low = limits.min < low and array.size > 0 and int(array.min()) < low
    if too_low or (limits.max > high and array.size > 0 and int(array.max()) > high):
        beyond = (array < low) | (array > high)
        at = first_index(beyond)
        code = array.reshape(-1)[int(np.argmax(beyond))]
        raise ValueError(f"codes must be in {low}..{high}, got {code} at {at}")
    return array if array.dtype == words else array.astype(words)


_Run = Callable[..., Array]


def _runner(
    form: FloatFormat | FixedFormat,
    rounding: str | None,
    overflow: str | None,
    underflow: str | None,
    nan_to: str | None,
    bits: int | None,
    rule: str,
) -> _Run:
    """Return the call of the kernel for `form`, everything about the format checked."""
    stochastic = form.resolved_rounding(rounding) == "stochastic"
    q: Any
    kernel: Callable[..., int]
    if isinstance(form, FixedFormat):
        if underflow is not None or nan_to is not None:
            raise ValueError("underflow and nan_to must be None for a fixed-point format")
        q, kernel = fixed_quantizer(form, rounding, overflow, bits, rule), _core.quantize_fixed
        can_fail, only_nan_fails, no_word = True, False, False
    else:
        underflow = form.resolved_underflow(underflow)  # "off" is for datapaths only
        q = float_quantizer(form, rounding, overflow, underflow, nan_to, bits, rule)
        kernel = _core.quantize
        can_fail = form.resolved_nan_to(nan_to) == "raise" or not form.signed
        only_nan_fails, no_word = form.signed, form.code0 == "ordinary"

    def run(
        array: Array,
        dtype: np.dtype[Any],
        code_bytes: int,
        address: tuple[SupportsIndex | None, SupportsIndex, SupportsIndex],
        random_bits: npt.ArrayLike | None,
        out: Array | None,
        threads: SupportsIndex | None,
    ) -> Array:
        words = None
        seed, stream, call = address
        if stochastic:
            if random_bits is not None:
                given = explicit_words("random_bits", random_bits, array.shape)
                words = np.ascontiguousarray(given).reshape(-1)
            elif seed is None:
                raise ValueError("rounding='stochastic' needs seed= or random_bits=, got neither")
        where = check_address(seed, stream, call)
        if out is not None:
            check_out(out, array.shape, dtype)
        source = np.ascontiguousarray(array)
        # A call that fails leaves `out` as it was, hence a fresh array where it will or may.
        direct = out is not None and is_plain(out)
        if code_bytes:
            direct = direct and not (can_fail or no_word or np.may_share_memory(array, out))
        elif direct and can_fail:
            direct = only_nan_fails and not (source.size and np.isnan(source.max()))
        target = out if direct and out is not None else np.empty(array.shape, dtype)
        if np.may_share_memory(source, target) and source.ctypes.data != target.ctypes.data:
            source = source.copy()
        if words is not None and np.may_share_memory(words, target):
            words = words.copy()
        count = check_threads(threads)

        def apply(target: Array, code_bytes: int) -> int:
            return kernel(
                source.reshape(-1), target.reshape(-1), code_bytes, q, *where, words, count
            )

        failed = apply(target, code_bytes)
        if failed == _FAILED_CODE and isinstance(form, FloatFormat):
            values = np.empty(array.shape, array.dtype)
            apply(values, 0)
            _raise_no_word(array, values, form)
        if failed:
            _raise_failure(failed, array, form)
        return deliver(target, out)

    return run


def _raise_failure(failed: int, x: Array, form: FloatFormat | FixedFormat) -> None:
    name = form.name or repr(form)
    if failed & _FAILED_NAN:
        at = first_index(np.isnan(x))
        remedy = " (give nan_to='zero' or 'max_pos')" if isinstance(form, FloatFormat) else ""
        raise ValueError(f"x must not hold NaN: {name} has no NaN{remedy}, got NaN at {at}")
    if failed & _FAILED_NEGATIVE:
        at = first_index(x < 0)
        raise ValueError(f"x must not be negative: {name} is unsigned, got a negative at {at}")
    if failed & _FAILED_INFINITY:
        at = first_index(np.isinf(x))
        raise ValueError(f"x must be finite: {name} wraps, got an infinity at {at}")
    raise AssertionError(f"unknown failure {failed}")


def _raise_no_word(x: Array, values: Array, form: FloatFormat) -> None:
    smallest = form.smallest_normal
    without = np.abs(values) == smallest
    raise ValueError(
        f"x must round to values that have a word: the word of +-{smallest!r} is zero's in "
        f"{form.name or repr(form)}, got {x[without][0]} at {first_index(without)}"
    )
