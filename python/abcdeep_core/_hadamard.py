"""`random_hadamard`: rotation of groups along an axis by signs and a Hadamard matrix."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, as_array, as_float32_array, check_out, deliver, is_plain
from ._format_base import boolean, integer
from ._threads import check_threads
from .random import check_unsigned, random_bits

LARGEST_BLOCK = 1024

# The published default of Transformer Engine's 16-point random Hadamard transform.
_TRANSFORMER_ENGINE = (1, 1, 1, -1, 1, -1, -1, -1, -1, -1, -1, 1, -1, 1, -1, -1)


def random_hadamard(
    x: npt.ArrayLike,
    *,
    block: SupportsIndex = 16,
    signs: npt.ArrayLike | str | None = None,
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    axis: SupportsIndex = -1,
    inverse: bool = False,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> Array:
    """Rotate each group of `block` elements along `axis`: y = H D x / sqrt(block).

    H is the Hadamard matrix of Sylvester and D the diagonal matrix of signs. The matrix product of
    two operands that are rotated alike along the reduction axis is that of the operands themselves,
    while an outlier of one element is spread over its group before it is rounded.

    Parameters
    ----------
    x : array_like of float32 or a narrower float
        Narrower floats are widened exactly, to float32.
    block : int
        Elements of a group, a power of two from 2 to 1024, which divides the length of `axis`.
    signs : array_like of +1 and -1, or "transformer_engine", optional
        `block` signs, the same for each group, or one for each position of the axis.
        ``"transformer_engine"`` is the published vector of 16 signs.
    seed, stream, call : int
        Address of random signs, if `signs` is None: position i of the axis is negated if bit i of
        ``random_bits(length, bits=1)`` is 1, in every row, so that another operand is rotated alike
        by the same address.
    axis : int
        Axis along which the groups lie.
    inverse : bool
        Rotate back: x = D H y / sqrt(block).
    out : ndarray of float32, optional
        Array for the result, of the shape of `x`; it may be `x` itself.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray of float32, shape of `x`

    Raises
    ------
    TypeError
        If `x` is float64 or holds no floats, or an argument is of the wrong type.
    ValueError
        If `block` is no power of two from 2 to 1024 or does not divide the axis; `signs` hold
        another number than +1 and -1, are of another length or an unknown name; neither or both of
        `signs` and `seed` are given.

    Notes
    -----
    Bit-exact definition (docs/rotation.md): float32 butterflies u + v, u - v of elements 1, 2, 4,
    ... apart, then one multiplication by fl32(1 / sqrt(block)), each rounded to nearest even. NaN
    and infinities propagate; NaN is the quiet, positive one. The 16-point rotation before
    quantisation to NVFP4: arXiv 2509.25149.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.float32([[8, 0, 0, 0, 1, 2, 3, 4]])
    >>> y = ab.random_hadamard(x, block=4, signs=[-1, 1, 1, 1])
    >>> y
    array([[-4., -4., -4., -4.,  4., -2., -3., -1.]], dtype=float32)
    >>> ab.random_hadamard(y, block=4, signs=[-1, 1, 1, 1], inverse=True)
    array([[8., 0., 0., 0., 1., 2., 3., 4.]], dtype=float32)
    >>> w = np.float32([[1, 1, 1, 1, 1, 1, 1, 1]])
    >>> rotated = ab.random_hadamard(w, block=4, seed=1)
    >>> float((rotated @ ab.random_hadamard(x, block=4, seed=1).T)[0, 0]), float((w @ x.T)[0, 0])
    (18.0, 18.0)
    """
    array = as_float32_array("x", x)
    size = check_block(block)
    where = check_axis(axis, array.ndim)
    length = array.shape[where]
    if length % size:
        raise ValueError(
            f"x: expected a multiple of block={size} elements along axis {where}, got {length}"
        )
    masks = sign_masks(signs, size, length, seed, stream, call)
    inverse = boolean("inverse", inverse)
    if out is not None:
        check_out(out, array.shape, np.dtype(np.float32))
    count = check_threads(threads)
    source = np.ascontiguousarray(array)
    target = out if out is not None and is_plain(out) else np.empty(array.shape, np.float32)
    if np.may_share_memory(source, target) and source.ctypes.data != target.ctypes.data:
        source = source.copy()
    inner = int(np.prod(array.shape[where + 1 :], dtype=np.int64))
    if array.size:
        _core.hadamard(source.reshape(-1), target.reshape(-1), size, inner, masks, inverse, count)
    return deliver(target, out)


def check_block(block: SupportsIndex) -> int:
    """Return `block` as an int if it is a power of two from 2 to 1024."""
    size = integer("block", block)
    if not 2 <= size <= LARGEST_BLOCK or size & (size - 1):
        raise ValueError(f"block: expected a power of two from 2 to {LARGEST_BLOCK}, got {size}")
    return size


def check_axis(axis: SupportsIndex, ndim: int) -> int:
    """Return `axis` counted from the front, if an array of `ndim` dimensions has it."""
    number = integer("axis", axis)
    if not -ndim <= number < ndim:
        raise ValueError(f"axis: expected an axis of an array of {ndim} dimensions, got {number}")
    return number % ndim


def sign_masks(
    signs: npt.ArrayLike | str | None,
    block: int,
    length: int,
    seed: SupportsIndex | None,
    stream: SupportsIndex,
    call: SupportsIndex,
) -> npt.NDArray[np.uint32]:
    """Return the sign bits of one period of the axis, and of the kernel's margin after it."""
    address = (check_unsigned("stream", stream, 32), check_unsigned("call", call, 32))
    if (signs is None) == (seed is None):
        given = "neither" if seed is None else "both"
        raise ValueError(f"signs: expected either signs= or seed=, got {given}")
    if seed is not None:
        negative = random_bits(length, seed=seed, stream=address[0], call=address[1], bits=1) != 0
    else:
        negative = _given_signs(signs, block, length) < 0
    margin = _core.hadamard_sign_margin
    periods = -(-margin // max(negative.size, 1))
    masks = negative.astype(np.uint32) << np.uint32(31)
    return np.resize(masks, periods * negative.size + margin)


def _given_signs(signs: Any, block: int, length: int) -> Array:
    if isinstance(signs, str):
        if signs != "transformer_engine":
            raise ValueError(
                f"signs: expected 'transformer_engine' or an array of +1 and -1, got {signs!r}"
            )
        if block != len(_TRANSFORMER_ENGINE):
            raise ValueError(f"signs: 'transformer_engine' expects block=16, got block={block}")
        return np.array(_TRANSFORMER_ENGINE)
    array = as_array("signs", signs)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"signs: expected integers or floats, got {array.dtype}")
    if array.ndim != 1 or array.size not in (block, length):
        raise ValueError(f"signs: expected shape ({block},) or ({length},), got {array.shape}")
    if not (np.abs(array) == 1).all():
        raise ValueError("signs: expected +1 and -1 only")
    return array
