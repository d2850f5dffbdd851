"""`ms_eden`: NVFP4 by a rotation, nearest rounding, and corrected, stochastic scales."""

from __future__ import annotations

import math
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core, _names
from ._arrays import Array, as_float_array, first_index
from ._hadamard import check_axis, random_hadamard
from ._quantize import decode, encode
from .block_array import BlockArray
from .formats import formats
from .random import check_address, check_unsigned
from .random import random_bits as draw_random_bits

GROUP, BLOCK = 128, 16
_LARGEST = np.float32(6)  # of E2M1
# A block's largest element becomes 6 / h, h = (17/16) * 0.93: the best clipping of a Gaussian.
_LARGEST_SCALED = _LARGEST / np.float32(17 / 16 * 0.93)
# The largest scale before correction; E4M3 leaves room for the correction above it.
_LARGEST_SCALE = np.float32(255.99)
# With it and the smallest scale, 2^-9, no divisor of elements is 0.
_SMALLEST_TENSOR_SCALE = np.float32(2.0**-126)
_FIRST_SCALE_WORD = 1 << 63
_GROUPS_AT_ONCE = 512  # their float64 numbers stay in a cache
_CORRECTIONS = {name: name for name in ("elements", "values")}


def ms_eden(
    x: npt.ArrayLike,
    *,
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    sign_stream: SupportsIndex = 0,
    signs: npt.ArrayLike | None = None,
    random_bits: npt.ArrayLike | None = None,
    correction: str = "elements",
    axis: SupportsIndex = -1,
    threads: SupportsIndex | None = None,
) -> BlockArray:
    """Quantise the rotated `x` to NVFP4 with nearest rounding and little bias (MS-EDEN).

    Groups of 128 along `axis` are rotated by random signs and a Hadamard matrix. Elements are then
    rounded to nearest, which has less than half the error of stochastic rounding; the scales of a
    group are multiplied by what makes up for the length lost, and only they are rounded
    stochastically. That is nearly unbiased where a rotated group scatters like normal numbers; a
    group with a single large outlier does not (docs/rotation.md).

    Parameters
    ----------
    x : array_like of float32 or a narrower float
        Finite; the length of `axis` is a multiple of 128.
    seed, stream, call : int
        Address of the random words of the scales: block i in C order of the scales takes word
        2^63 + i.
    sign_stream : int
        Stream of the signs, with the same seed and call: those of `random_hadamard`. Two operands
        of a product need the same signs and different scale words, hence the same `sign_stream` and
        different `stream`.
    signs : array_like of +1 and -1, optional
        Explicit signs instead of drawn ones, as `random_hadamard`.
    random_bits : array_like of uint32, shape of the scales, optional
        Explicit words for the scales instead of drawn ones. With both no seed is needed.
    correction : {"elements", "values"}
        What the scales of a group are multiplied by: <y, y> / <y, q> of its scaled elements y and
        their roundings q, as published, or of its values s * y and s * q. Scales s of a group
        differ, hence the published one leaves a bias of about -0.05 % on normal numbers; the other
        none to speak of.
    axis : int
        Axis along which groups lie: the reduction axis of the product.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    BlockArray
        The rotated array: e2m1 elements in blocks of 16 along `axis` under e4m3fn scales and one
        float32 tensor scale. ``random_hadamard(q.dequantize(), block=128, inverse=True, seed=seed,
        stream=sign_stream, call=call, axis=axis)`` rotates back.

    Raises
    ------
    TypeError
        If `x` is float64 or holds no floats, or an argument is of the wrong type.
    ValueError
        If `x` or its rotation is not finite, its length is no multiple of 128, or an argument is
        out of range.

    Notes
    -----
    The steps, with their roundings, are in docs/rotation.md. Source: Quartet II, arXiv 2601.22813.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.random.default_rng(1).standard_normal((64, 256)).astype(np.float32)
    >>> q = ab.ms_eden(x, seed=7)
    >>> q.codes.shape, q.scales.shape, q.element.name, q.scale_format.name
    ((64, 256), (64, 16), 'e2m1', 'e4m3fn')
    >>> back = ab.random_hadamard(q.dequantize(), block=128, inverse=True, seed=7)
    >>> bool(((back - x) ** 2).sum() < 0.0105 * (x**2).sum())
    True
    """
    array = as_float_array("x", x)
    where = check_axis(axis, array.ndim)
    correction = _names.canonical("correction", correction, _CORRECTIONS)
    if seed is None and (signs is None or random_bits is None):
        raise ValueError("seed: expected a seed, or signs= and random_bits=, got neither")
    word_seed, word_stream, number = check_address(seed, stream, call)
    rotated = random_hadamard(
        array,
        block=GROUP,
        signs=signs,
        seed=seed if signs is None else None,
        stream=check_unsigned("sign_stream", sign_stream, 32),
        call=number,
        axis=where,
        threads=threads,
    )
    groups = np.moveaxis(rotated, where, -1)
    shape = (*groups.shape[:-1], groups.shape[-1] // GROUP, GROUP // BLOCK, BLOCK)
    groups = np.ascontiguousarray(groups).reshape(shape)
    with _core.NearestEnvironment():
        largest = np.abs(groups).max(axis=-1, initial=0)
        tensor_scale = _tensor_scale(array, largest)
        unit = _LARGEST_SCALED * tensor_scale
        scale = decode(encode(largest / unit, "e4m3fn", threads=threads), "e4m3fn", threads=threads)
        scale = np.where(scale == 0, np.float32(1), scale)
        y = groups / (scale * tensor_scale)[..., None]
        codes = encode(y, "e2m1", threads=threads)
        q = decode(codes, "e2m1", threads=threads)
        weight = scale if correction == "values" else np.ones_like(scale)
        corrected = scale * _correction(y, q, weight).reshape(*shape[:-2], 1)

    def in_place(a: Array) -> Array:
        """Return an array of groups as one with `axis` where it was."""
        lines = a.reshape(*shape[:-3], math.prod(a.shape[len(shape) - 3 :]))
        return np.ascontiguousarray(np.moveaxis(lines, -1, where))

    corrected = in_place(corrected)
    if random_bits is None:
        random_bits = draw_random_bits(
            corrected.shape,
            seed=word_seed,
            stream=word_stream,
            call=number,
            start=_FIRST_SCALE_WORD,
            threads=threads,
        )
    scales = encode(
        corrected,
        "e4m3fn",
        "stochastic",
        overflow="sat_finite",
        random_bits=random_bits,
        threads=threads,
    )
    return BlockArray(
        codes=in_place(codes),
        element=formats()["e2m1"],
        scales=scales,
        scale_format=formats()["e4m3fn"],
        block=(1, BLOCK),
        axis=where,
        tensor_scale=tensor_scale,
        clipped=int(np.count_nonzero(np.abs(y) > _LARGEST)),
    )


def _tensor_scale(x: Array, largest: Array) -> np.float32:
    """Return the scale of the tensor from the largest magnitudes of its rotated blocks."""
    maximum = largest.max(initial=0)
    if not np.isfinite(maximum):
        wrong = ~np.isfinite(x)
        where = f"a number that is not at {first_index(wrong)}" if wrong.any() else "an overflow"
        raise ValueError(f"x: expected finite numbers with a finite rotation, got {where}")
    if maximum == 0:
        return np.float32(1)
    return max(np.float32(maximum / (_LARGEST_SCALE * _LARGEST_SCALED)), _SMALLEST_TENSOR_SCALE)


def _correction(y: Array, q: Array, weight: Array) -> npt.NDArray[np.float64]:
    """Return <wy, wy> / <wy, wq> of each group, in float64; 1 where every element became zero."""
    blocks = (GROUP // BLOCK, BLOCK)
    y, q, weight = y.reshape(-1, *blocks), q.reshape(-1, *blocks), weight.reshape(-1, blocks[0], 1)
    ratio = np.ones(len(y))
    for start in range(0, len(y), _GROUPS_AT_ONCE):
        part = slice(start, start + _GROUPS_AT_ONCE)
        w = weight[part].astype(np.float64)
        wy = w * y[part]
        squared, projected = _sum(wy * wy), _sum(wy * (w * q[part]))
        np.divide(squared, projected, out=ratio[part], where=projected > 0)
    return ratio


def _sum(terms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sums of groups, halves onto halves: an order that no version of NumPy changes."""
    terms = terms.reshape(*terms.shape[:-2], GROUP)
    half = GROUP // 2
    while half:
        terms = terms[..., :half] + terms[..., half : 2 * half]
        half //= 2
    return terms[..., 0]
