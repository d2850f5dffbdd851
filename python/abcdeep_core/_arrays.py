"""Arrays in and out of the compiled functions: dtype checks, exact widening, `out=`."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_NARROW_FLOATS = frozenset(
    np.dtype(getattr(ml_dtypes, name))
    for name in dir(ml_dtypes)
    if name.startswith(("float", "bfloat")) and isinstance(getattr(ml_dtypes, name), type)
) | {np.dtype(np.float16)}
NARROW_INTEGERS = frozenset(
    np.dtype(getattr(ml_dtypes, name))
    for name in dir(ml_dtypes)
    if name.startswith(("int", "uint")) and isinstance(getattr(ml_dtypes, name), type)
)
_WIDE_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def as_array(name: str, x: Any) -> Array:
    """Return `x` as an aligned array, without a copy where possible (NumPy, torch, DLPack)."""
    if isinstance(x, np.ndarray):
        return x if x.flags.aligned else x.copy()
    try:
        if hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
            return np.from_dlpack(x)
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(f"{name} must be an array, got {type(x).__name__}: {error}") from None


def is_narrow_float(dtype: np.dtype[Any]) -> bool:
    """Whether float32 holds every value of `dtype`, one of ml_dtypes' floats or float16."""
    return dtype in _NARROW_FLOATS


def as_float_array(name: str, x: Any) -> Array:
    """Return `x` as float32 or float64: those two as they are, narrower floats widened exactly."""
    array = as_array(name, x)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype in _WIDE_FLOATS:
        return array
    if is_narrow_float(array.dtype):
        return array.astype(np.float32)
    raise TypeError(
        f"{name} must hold floats (float32, float64, float16 or a float of ml_dtypes), "
        f"got {array.dtype}"
    )


def as_float32_array(name: str, x: Any) -> Array:
    """Return `x` as float32, narrower floats widened exactly; float64 is refused, not rounded."""
    array = as_float_array(name, x)
    if array.dtype != np.float32:
        raise TypeError(
            f"{name} must hold float32 or narrower floats, got {array.dtype}; convert it explicitly"
        )
    return array


def explicit_words(name: str, words: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return explicit random words if they are uint32 of this shape."""
    array = as_array(name, words)
    if array.dtype != np.uint32:
        raise TypeError(f"{name} must have dtype uint32, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return array


def is_plain(out: Array) -> bool:
    """Whether a kernel can write into `out`: C-contiguous and aligned."""
    return out.flags.c_contiguous and out.flags.aligned


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return `out` if it can take a result of this shape and dtype."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array of {dtype}, got {type(out).__name__}")
    if out.dtype != dtype:
        raise TypeError(f"out must have dtype {dtype}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    return out


def deliver(result: Array, out: Array | None) -> Array:
    """Return `result`, copied into `out` if there is one and it is another array."""
    if out is None:
        return result[()] if result.ndim == 0 else result
    if result is not out:
        np.copyto(out, result)
    return out


def first_index(mask: Array) -> str:
    """Return the index of the first true element, as text for an error message."""
    where = np.unravel_index(int(np.argmax(mask)), mask.shape)
    return "[" + ", ".join(str(int(i)) for i in where) + "]"
