"""`quantize_blocks`, `encode_blocks` and `decode_blocks`: arrays in block formats, and back."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, as_array, as_float32_array, check_out, is_plain
from ._block_job import (
    block_job,
    draw_words,
    lane_bits,
    nearest_float32,
    raise_not_finite,
    scaled_max,
    tensor_maxima,
)
from ._block_layout import BlockLayout, Float32Array, element_values
from ._block_packing import pack_nibbles, unpack_nibbles
from ._fixed_format import FixedFormat
from ._threads import check_threads
from .block_array import BlockArray
from .block_format import BlockFormat, get_block_format
from .random import check_address

_FIRST_SCALE_DRAW = 1 << 63
_ONE = np.ones(1, np.float32)


def quantize_blocks(
    x: npt.ArrayLike,
    fmt: str | BlockFormat,
    rounding: str | None = None,
    *,
    axis: SupportsIndex = -1,
    scale_rounding: str | None = None,
    max_abs: npt.ArrayLike | None = None,
    remainder: str = "pad",
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    bits: int | None = None,
    rule: str = "c",
    random_bits: npt.ArrayLike | None = None,
    scale_random_bits: npt.ArrayLike | None = None,
    out: BlockArray | None = None,
    threads: SupportsIndex | None = None,
) -> BlockArray:
    """Quantise `x` to a block format: a scale for each block, and elements rounded under it.

    Parameters
    ----------
    x : array_like of float32 or a narrower float, at least one dimension
        Narrower floats are widened exactly.
    fmt : str or BlockFormat
        See `get_block_format`.
    rounding : str, optional
        Rounding of the elements, any mode of `quantize`. Default: to nearest even (or a
        FixedFormat's own mode).
    axis : int
        Axis along which blocks lie. Blocks of several rows lie over the axis before it too.
    scale_rounding : str, optional
        Instead of the format's `scale_rounding`.
    max_abs : float, or array_like that broadcasts to one number a line, optional
        Largest magnitude from which the tensor scale follows, instead of that of `x`; a larger
        element is clipped. Only for formats with a tensor scale.
    remainder : {"pad", "error"}
        What to do if a last block is short: as if zeros filled it up, or raise.
    seed, stream, call : int
        Address of the random words (see `quantize`): element i, in C order of `x`, uses draw i, and
        scale i, in C order of the scales, word 2^63 + i.
    bits, rule : int, str
        Random bits an element and rule of stochastic rounding, as for `quantize`. Scales always use
        the exact rule.
    random_bits : array_like of uint32, shape of `x`, optional
        Explicit words of the elements instead of a seed.
    scale_random_bits : array_like of uint32, shape of the scales, optional
        Explicit words of the scales instead of a seed.
    out : BlockArray, optional
        An array of this shape and format whose codes and scales are written over (also by a call
        that raises because of a value that is not finite); the result shares them. Use only the
        result from then on: `out` is a frozen value that keeps its own `tensor_scale` and
        `clipped`, which do not belong to the new codes and scales.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    BlockArray

    Raises
    ------
    TypeError
        If `x` holds no float32 or narrower floats, or an argument is of the wrong type.
    ValueError
        If an argument is out of range or contradicts the format; rounding is stochastic without
        seed or words; a last block is short and ``remainder="error"``; or `x` holds Inf or NaN and
        scales are not e8m0 (under e8m0 such a block is NaN as a whole); or the tensor scale would
        be above float32's range.

    Notes
    -----
    The order of operations, all of them float32, is in docs/blocks.md. Sources: OCP Microscaling
    Formats (MX) v1.0; NVFP4: arXiv 2509.25149.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.float32([1, -2.4, 0.1, 5, 0, 0.3, 10, 100])
    >>> q = ab.quantize_blocks(x, ab.get_block_format("mxfp4").replace(block=4))
    >>> q.dequantize()
    array([ 1., -2.,  0.,  4.,  0.,  0.,  8., 96.], dtype=float32)
    >>> q.clipped
    1
    """
    array = as_float32_array("x", x)
    form = _with_scale_rounding(fmt, scale_rounding)
    layout = BlockLayout.of(array.shape, axis, form.block, form.tensor_scale == "row")
    _check_remainder(remainder, layout)
    element_rounding = form.element.resolved_rounding(rounding)
    job = block_job(form, element_rounding, bits, rule)
    address = check_address(seed, stream, call)
    seeded = seed is not None
    lane = lane_bits(bits) if element_rounding == "stochastic" else 0
    words = draw_words("random_bits", random_bits, array.shape, lane, 0, layout, address, seeded)
    scale_lane = 32 if form.scale_rounding == "stochastic" else 0
    scale_words = draw_words(
        "scale_random_bits",
        scale_random_bits,
        layout.scales_shape,
        scale_lane,
        _FIRST_SCALE_DRAW,
        layout,
        address,
        seeded,
    )
    count = check_threads(threads)
    rows = layout.to_rows(array)
    encode_scale, decode_scale, tensor_max = _ONE, _ONE, 0.0
    if form.tensor_scale is not None:
        largest = tensor_maxima(array, rows, form, layout, max_abs, count)
        encode_scale, decode_scale = np.empty_like(largest), np.empty_like(largest)
        target = nearest_float32(scaled_max(form) / Fraction(form.headroom))
        _core.tensor_scales(largest, target, encode_scale, decode_scale)
        with _core.NearestEnvironment():
            tensor_max = float(largest[0]) if largest.size else 0.0
    elif max_abs is not None:
        raise ValueError("max_abs must be None for a format without tensor_scale")
    kept_codes, kept_scales = None, None
    if out is not None:
        kept_codes, kept_scales = _arrays_of(out, form, layout)
    codes = _target(kept_codes, np.dtype(np.uint8), array.shape, layout)
    scales = _target(kept_scales, form.scale.code_dtype, layout.scales_shape, layout)
    with _core.NearestEnvironment():  # `tensor_max` becomes float32 on the way
        clipped, failed = _core.quantize_blocks(
            job,
            rows,
            codes,
            scales,
            layout.sizes,
            layout.block,
            encode_scale,
            decode_scale,
            tensor_max,
            element_values(form.element),
            *address,
            words,
            scale_words,
            count,
        )
    if failed:
        raise_not_finite(array, form)
    if isinstance(form.element, FixedFormat):
        codes = codes.view(np.int8)
    tensor_scale: Any
    if form.tensor_scale == "row":
        tensor_scale = layout.from_rows(decode_scale, layout.lines_shape)
    elif form.scale_by_power:
        tensor_scale = np.float32(nearest_float32(1 / Fraction(form.headroom)))
    else:
        tensor_scale = decode_scale[0]
    return BlockArray(
        codes=_delivered(codes, kept_codes, layout.shape, layout),
        element=form.element,
        scales=_delivered(scales, kept_scales, layout.scales_shape, layout),
        scale_format=form.scale,
        block=form.block,
        axis=layout.axis,
        tensor_scale=tensor_scale,
        clipped=clipped,
    )


def encode_blocks(
    x: npt.ArrayLike,
    fmt: str | BlockFormat,
    rounding: str | None = None,
    *,
    axis: SupportsIndex = -1,
    scale_rounding: str | None = None,
    max_abs: npt.ArrayLike | None = None,
    remainder: str = "pad",
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    bits: int | None = None,
    rule: str = "c",
    random_bits: npt.ArrayLike | None = None,
    scale_random_bits: npt.ArrayLike | None = None,
    threads: SupportsIndex | None = None,
) -> tuple[Array, Array, np.float32 | Float32Array]:
    """Quantise `x` to a block format and return the words as they are stored.

    Parameters
    ----------
    x : array_like of float32 or a narrower float, at least one dimension
        Narrower floats are widened exactly.
    fmt : str or BlockFormat
        See `get_block_format`.
    rounding, axis, ... :
        The others are those of `quantize_blocks`.

    Returns
    -------
    codes : ndarray of uint8 or int8
        Words of the elements. Those of 4 bits are packed two a byte along `axis`, the even index in
        the low half; an odd last one is alone in its byte.
    scales : ndarray of uint8 or uint32
        Words of the scales.
    tensor_scale : float32, or ndarray of float32
        As in `BlockArray`.

    Raises
    ------
    TypeError, ValueError
        As `quantize_blocks`.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> codes, scales, tensor_scale = ab.encode_blocks(np.float32([6, -1, 0.5]), "mxfp4")
    >>> [f"{word:02x}" for word in codes], scales
    (['a7', '01'], array([127], dtype=uint8))
    """
    q = quantize_blocks(
        x,
        fmt,
        rounding,
        axis=axis,
        scale_rounding=scale_rounding,
        max_abs=max_abs,
        remainder=remainder,
        seed=seed,
        stream=stream,
        call=call,
        bits=bits,
        rule=rule,
        random_bits=random_bits,
        scale_random_bits=scale_random_bits,
        threads=threads,
    )
    codes = pack_nibbles(q.codes, q.axis) if q.element.bits == 4 else q.codes
    return codes, q.scales, q.tensor_scale


def decode_blocks(
    codes: npt.ArrayLike,
    scales: npt.ArrayLike,
    fmt: str | BlockFormat,
    *,
    axis: SupportsIndex = -1,
    tensor_scale: npt.ArrayLike = 1.0,
    size: SupportsIndex | None = None,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> Float32Array:
    """Return the values of what `encode_blocks` returned.

    Parameters
    ----------
    codes : array_like of uint8, or int8 for a FixedFormat of more than 4 bits
        Words of the elements; those of 4 bits packed two a byte along `axis`.
    scales : array_like of uint8 or uint32
        Words of the scales.
    fmt : str or BlockFormat
        See `get_block_format`.
    axis : int
        Axis of the blocks.
    tensor_scale : float or array_like of float32
        One number, or one a line, as in `BlockArray`.
    size : int, optional
        Elements along `axis`, for packed words. Default: two for each byte.
    out : ndarray of float32, optional
        Array for the result, of its shape.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray of float32
        What `BlockArray.dequantize` gives.

    Raises
    ------
    TypeError, ValueError
        As `BlockArray`; if `size` is no length that the packed words can have.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> ab.decode_blocks(np.uint8([0xA7, 0x01]), np.uint8([128]), "mxfp4", size=3)
    array([12., -2.,  1.], dtype=float32)
    """
    form = get_block_format(fmt)
    words = as_array("codes", codes)
    at = BlockLayout.of(words.shape, axis, form.block, name="codes").axis
    if form.element.bits == 4:
        if words.dtype != np.uint8:
            raise TypeError(f"codes must have dtype uint8 (two words a byte), got {words.dtype}")
        words = unpack_nibbles(words, at, size)
        if isinstance(form.element, FixedFormat):
            words = (words << 4).view(np.int8) >> 4
    elif size is not None:
        raise ValueError(f"size must be None for elements of {form.element.bits} bits, got {size}")
    q = BlockArray(
        codes=words,
        element=form.element,
        scales=as_array("scales", scales),
        scale_format=form.scale,
        block=form.block,
        axis=at,
        tensor_scale=as_array("tensor_scale", tensor_scale),
    )
    if out is not None:
        check_out(out, q.shape, np.dtype(np.float32))
    return q._dequantized(out, check_threads(threads))


def _arrays_of(out: object, form: BlockFormat, layout: BlockLayout) -> tuple[Array, Array]:
    """Return the codes and scales of `out`, if they can be written over."""
    if not isinstance(out, BlockArray):
        raise TypeError(f"out must be a BlockArray, got {type(out).__name__}")
    same = (out.element, out.scale_format, out.block) == (form.element, form.scale, form.block)
    if not same or out.shape != layout.shape or out.axis != layout.axis:
        raise ValueError(
            f"out must have shape {layout.shape}, axis {layout.axis} and the format of the result"
        )
    return (
        check_out(out.codes, layout.shape, out.codes.dtype),
        check_out(out.scales, layout.scales_shape, out.scales.dtype),
    )


def _target(
    kept: Array | None, dtype: np.dtype[Any], shape: tuple[int, ...], layout: BlockLayout
) -> Array:
    """Return a flat array for the kernel: that of `out` if it can write there, or a new one."""
    if kept is not None and is_plain(kept) and layout.in_order:
        return kept.reshape(-1).view(dtype)
    return np.empty(math.prod(shape), dtype)


def _delivered(
    flat: Array, kept: Array | None, shape: tuple[int, ...], layout: BlockLayout
) -> Array:
    if kept is None:
        return layout.from_rows(flat, shape)
    if not np.may_share_memory(flat, kept):
        np.copyto(kept, layout.from_rows(flat, shape))
    return kept


def _with_scale_rounding(fmt: str | BlockFormat, scale_rounding: str | None) -> BlockFormat:
    form = get_block_format(fmt)
    return form if scale_rounding is None else form.replace(scale_rounding=scale_rounding)


def _check_remainder(remainder: str, layout: BlockLayout) -> None:
    if remainder not in ("pad", "error"):
        raise ValueError(f"remainder must be 'pad' or 'error', got {remainder!r}")
    if remainder == "error" and layout.short is not None:
        raise ValueError(
            f"x must be whole blocks of {layout.rows} x {layout.columns} with remainder='error', "
            f"got shape {layout.shape}, short along axis {layout.short}"
        )
