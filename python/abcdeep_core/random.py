"""Random words as a function of seed, stream, call and logical index (Philox4x32-10)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import check_out, is_plain
from ._threads import check_threads

UIntArray = npt.NDArray[np.unsignedinteger[Any]]

_LANE_DTYPES: dict[int, np.dtype[Any]] = {
    32: np.dtype(np.uint32),
    16: np.dtype(np.uint16),
    8: np.dtype(np.uint8),
    1: np.dtype(np.uint8),
}


def check_unsigned(name: str, value: SupportsIndex, bits: int) -> int:
    """Return `value` as an int if it is an unsigned integer of at most `bits` bits."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}") from None
    if not 0 <= number < 1 << bits:
        raise ValueError(f"{name}: expected 0 <= {name} < 2**{bits}, got {number}")
    return number


def check_address(
    seed: SupportsIndex | None, stream: SupportsIndex, call: SupportsIndex
) -> tuple[int, int, int]:
    """Return the address of random words as ints; no seed, where none is needed, is 0."""
    return (
        check_unsigned("seed", 0 if seed is None else seed, 64),
        check_unsigned("stream", stream, 32),
        check_unsigned("call", call, 32),
    )


def philox4x32(
    counter: npt.ArrayLike,
    key: npt.ArrayLike,
    *,
    rounds: int = 10,
    out: npt.NDArray[np.uint32] | None = None,
    threads: SupportsIndex | None = None,
) -> npt.NDArray[np.uint32]:
    """Return the four output words of Philox4x32 for each counter and key.

    Parameters
    ----------
    counter : array_like of uint32, shape (..., 4)
        Counter words, word 0 first.
    key : array_like of uint32, shape (..., 2)
        Key words; the leading shapes broadcast.
    rounds : {10, 7, 5}
        Everything in this package uses 10; fewer are for comparison only.
    out : ndarray of uint32, optional
        C-contiguous array of the result's shape to write into.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray of uint32, shape (..., 4)

    Raises
    ------
    TypeError
        An array that does not hold integers; `out` of another dtype.
    ValueError
        A word outside 32 bits, a wrong last dimension, leading shapes that do not broadcast,
        another number of rounds, `out` of another shape or not C-contiguous.

    Notes
    -----
    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> [f"{int(word):08x}" for word in ab.philox4x32([0, 0, 0, 0], [0, 0])]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    if rounds not in (5, 7, 10):
        raise ValueError(f"rounds: expected 10, 7 or 5, got {rounds!r}")
    counters = _words("counter", counter, 4)
    keys = _words("key", key, 2)
    try:
        shape = np.broadcast_shapes(counters.shape[:-1], keys.shape[:-1])
    except ValueError:
        raise ValueError(
            f"key: expected leading dimensions that broadcast with counter's, "
            f"got {keys.shape} and {counters.shape}"
        ) from None
    words = _output(out, (*shape, 4), np.dtype(np.uint32))
    flat_counters = np.ascontiguousarray(np.broadcast_to(counters, (*shape, 4)).reshape(-1, 4))
    flat_keys = np.ascontiguousarray(np.broadcast_to(keys, (*shape, 2)).reshape(-1, 2))
    count = check_threads(threads)
    _core.philox_blocks(flat_counters, flat_keys, rounds, words.reshape(-1, 4), count)
    return words


def random_bits(
    shape: SupportsIndex | Sequence[SupportsIndex],
    *,
    seed: SupportsIndex,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    bits: int = 32,
    start: SupportsIndex = 0,
    out: UIntArray | None = None,
    threads: SupportsIndex | None = None,
) -> UIntArray:
    """Return uniform random bits that depend only on seed, stream, call and logical index.

    Draw i of 32 bits is word i % 4 of Philox4x32-10 with counter (i // 4 low, i // 4 high, stream,
    call) and key (seed low, seed high). Narrower draws are the parts of those words, low end first.

    Parameters
    ----------
    shape : int or sequence of int
        Shape of the result; the logical index runs in C order.
    seed : int
        64 bits.
    stream, call : int
        32 bits each: by convention one stream per tensor and one call per step.
    bits : {32, 16, 8, 1}
        Width of a draw.
    start : int
        Logical index of the first draw, 64 bits.
    out : ndarray, optional
        C-contiguous array of the result's shape and dtype to write into.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray
        uint32, uint16 or uint8; with ``bits=1`` uint8 holding 0 and 1.

    Raises
    ------
    TypeError
        A seed, stream, call, start, shape or threads that is no integer; `out` of another dtype.
    ValueError
        A value outside its range, another width, `out` of another shape or not C-contiguous.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> whole = ab.random_bits((2, 3), seed=7, bits=8)
    >>> bool((ab.random_bits(2, seed=7, bits=8, start=4) == whole[1, 1:]).all())
    True
    """
    width = check_unsigned("bits", bits, 32)
    if width not in _LANE_DTYPES:
        raise ValueError(f"bits: expected 32, 16, 8 or 1, got {width}")
    first = check_unsigned("start", start, 64)
    draws = _output(out, _shape(shape), _LANE_DTYPES[width])
    if first + draws.size > 1 << 64:
        raise ValueError(f"start: expected start + number of draws <= 2**64, got {first}")
    _core.random_lanes(
        check_unsigned("seed", seed, 64),
        check_unsigned("stream", stream, 32),
        check_unsigned("call", call, 32),
        width,
        first,
        draws.reshape(-1),
        check_threads(threads),
    )
    return draws


def _output(
    out: npt.NDArray[Any] | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Return `out` if a kernel can write the result into it, or a new array."""
    if out is None:
        return np.empty(shape, dtype)
    array = check_out(out, shape, dtype)
    if not is_plain(array):
        raise ValueError(f"out must be C-contiguous and aligned, got strides {array.strides}")
    return array


def _shape(shape: SupportsIndex | Sequence[SupportsIndex]) -> tuple[int, ...]:
    try:
        if isinstance(shape, Sequence):
            dimensions = tuple(operator.index(size) for size in shape)
        else:
            dimensions = (operator.index(shape),)
    except TypeError:
        raise TypeError(
            f"shape: expected an integer or a sequence of integers, got {shape!r}"
        ) from None
    if any(size < 0 for size in dimensions):
        raise ValueError(f"shape: expected sizes >= 0, got {dimensions}")
    return dimensions


def _words(name: str, value: npt.ArrayLike, last: int) -> npt.NDArray[np.uint32]:
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    if array.ndim == 0 or array.shape[-1] != last:
        raise ValueError(f"{name}: expected shape (..., {last}), got {array.shape}")
    if array.size and (int(array.min()) < 0 or int(array.max()) > 0xFFFFFFFF):
        raise ValueError(f"{name}: expected 32-bit words, got {array.min()} to {array.max()}")
    return array.astype(np.uint32)
