"""Arrays of integers of any size: NumPy's integer dtypes, or Python integers as objects."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from ._arrays import Array, as_array
from ._format_base import integer

_NARROW = {np.dtype(getattr(ml_dtypes, name)) for name in ("int2", "uint2", "int4", "uint4")}


def integer_array(name: str, values: Any) -> Array:
    """Return an array of a NumPy integer dtype, or of Python integers if it was given those."""
    array = as_array(name, values)
    if array.dtype in _NARROW:
        return array.astype(np.int8)
    if array.dtype.kind in "iu":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if not isinstance(values, np.ndarray):
        # NumPy makes floats of Python integers that no one of its dtypes holds together
        array = np.array(values, dtype=object)
    if array.dtype != object and array.size:
        raise TypeError(f"{name} must hold integers, got {array.dtype}")
    result = np.empty(array.shape, object)
    result.reshape(-1)[:] = [integer(name, value) for value in array.ravel().tolist()]
    return result


def weight_matrix(w: Any) -> Array:
    """Return weights (K, N), or (K,) as one column, as an array of integers."""
    weights = integer_array("w", w)
    if weights.ndim == 1:
        weights = weights[:, None]
    if weights.ndim != 2:
        raise ValueError(f"w must have shape (K, N) or (K,), got {weights.shape}")
    return weights
