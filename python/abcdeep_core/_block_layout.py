"""How the blocks of an array lie in memory for the kernels, and decoding."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, deliver, first_index, is_plain
from ._fixed_format import FixedFormat
from ._float_format import FloatFormat
from ._quantize import decode

Format = FloatFormat | FixedFormat
Float32Array = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class BlockLayout:
    """Blocks of `rows` x `columns` elements over the axis before `axis`, and `axis`.

    The kernels see a stack of matrices with contiguous rows. If `axis` is the last one, it is that
    of the rows. If it is not, blocks of one row are blocks of one column there. Otherwise, and if
    `lines` along the axis have to be rows, the axis becomes the last, with a copy.
    """

    shape: tuple[int, ...]
    axis: int
    rows: int
    columns: int
    lines: bool = False

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        axis: SupportsIndex,
        block: tuple[int, int],
        lines: bool = False,
        name: str = "x",
    ) -> BlockLayout:
        """Return the layout of the array called `name`, `axis` checked and counted from 0."""
        try:
            number = operator.index(axis)
        except TypeError:
            raise TypeError(f"axis must be an integer, got {type(axis).__name__}") from None
        if not shape:
            raise ValueError(f"{name} must have at least one dimension, got a scalar")
        if not -len(shape) <= number < len(shape):
            raise ValueError(f"axis must be one of {len(shape)} dimensions, got {number}")
        number %= len(shape)
        if block[0] > 1 and number == 0:
            raise ValueError(
                f"axis must have another before it for blocks of {block[0]} rows, got {axis}"
            )
        return cls(shape, number, *block, lines)

    @property
    def scales_shape(self) -> tuple[int, ...]:
        """Shape of the array of scales."""
        shape = list(self.shape)
        shape[self.axis] = -(-shape[self.axis] // self.columns)
        if self.rows > 1:
            shape[self.axis - 1] = -(-shape[self.axis - 1] // self.rows)
        return tuple(shape)

    @property
    def lines_shape(self) -> tuple[int, ...]:
        """Shape of an array of one number a line along the axis."""
        return tuple(1 if i == self.axis else n for i, n in enumerate(self.shape))

    @property
    def short(self) -> int | None:
        """The axis whose last block is short, if one is."""
        if self.shape[self.axis] % self.columns:
            return self.axis
        if self.rows > 1 and self.shape[self.axis - 1] % self.rows:
            return self.axis - 1
        return None

    @property
    def _upright(self) -> bool:
        """Whether blocks of one row are columns for the kernels."""
        return self.rows == 1 and not self.lines and math.prod(self.shape[self.axis + 1 :]) > 1

    @property
    def in_order(self) -> bool:
        """Whether the kernels' order of elements is that of the array."""
        return self._upright or math.prod(self.shape[self.axis + 1 :]) == 1

    @property
    def _axes(self) -> tuple[int, ...]:
        return (self.axis,) if self.rows == 1 else (self.axis - 1, self.axis)

    def to_rows(self, array: Array) -> Array:
        """Return an array of elements, scales or lines as the kernels take it."""
        if not self.in_order:
            array = np.moveaxis(array, self._axes, tuple(range(-len(self._axes), 0)))
        return np.ascontiguousarray(array).reshape(-1)

    def from_rows(self, flat: Array, shape: tuple[int, ...]) -> Array:
        """Return the array of this shape that `to_rows` made `flat` of."""
        if self.in_order:
            return flat.reshape(shape)
        axes = self._axes
        moved = tuple(n for i, n in enumerate(shape) if i not in axes)
        moved += tuple(shape[i] for i in axes)
        return np.ascontiguousarray(
            np.moveaxis(flat.reshape(moved), tuple(range(-len(axes), 0)), axes)
        )

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Matrices, rows and columns, as the kernels count them."""
        length = self.shape[self.axis]
        if self._upright:
            return (
                math.prod(self.shape[: self.axis]),
                length,
                math.prod(self.shape[self.axis + 1 :]),
            )
        others = math.prod(n for i, n in enumerate(self.shape) if i not in self._axes)
        return (others, self.shape[self.axis - 1], length) if self.rows > 1 else (1, others, length)

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns of a block, as the kernels count them."""
        return (self.columns, 1) if self._upright else (self.rows, self.columns)


@functools.lru_cache(maxsize=64)
def element_values(form: Format) -> Float32Array:
    """Return the value of each byte as a word of `form`; 0 for bytes that are none."""
    values = np.zeros(256, np.float32)
    words = np.arange(1 << form.bits)
    if isinstance(form, FixedFormat):
        words -= 1 << (form.bits - 1)
    values[words % 256] = decode(words, form)
    values.setflags(write=False)
    return values


def check_words(name: str, codes: Array, form: Format) -> None:
    """Raise ValueError if elements of `codes` are no words of `form`."""
    if form.bits == 8 * codes.itemsize or codes.size == 0:
        return
    if isinstance(form, FixedFormat):
        low, high = form.min_code, form.max_code
    else:
        low, high = 0, (1 << form.bits) - 1
    if int(codes.max()) > high or (low < 0 and int(codes.min()) < low):
        at = first_index((codes > high) | (codes < low))
        raise ValueError(f"{name} must be words of {form.bits} bits, {low}..{high}, not so at {at}")


def decode_rows(
    codes: Array,
    form: Format,
    scales: Array,
    scale_format: FloatFormat,
    layout: BlockLayout,
    tensor_scale: Array,
    out: Array | None,
    threads: int,
) -> Float32Array:
    """Return element * scale, rounded to float32 (exact for narrow scales), times `tensor_scale`.

    `tensor_scale` is float32 and has one element, or one for each line.
    """
    check_words("codes", codes, form)
    check_words("scales", scales, scale_format)
    flat_scales = layout.to_rows(np.asarray(decode(scales, scale_format)))
    flat_tensor = (
        tensor_scale.reshape(1) if tensor_scale.size == 1 else layout.to_rows(tensor_scale)
    )
    flat_codes = layout.to_rows(codes).view(np.uint8)
    direct = out is not None and is_plain(out) and layout.in_order
    if direct and out is not None and not np.may_share_memory(out, flat_tensor):
        target = out.reshape(-1)
    else:
        target, direct = np.empty(codes.size, np.float32), False
    _core.decode_blocks(
        flat_codes,
        flat_scales,
        flat_tensor,
        target,
        layout.sizes,
        layout.block,
        element_values(form),
        isinstance(form, FloatFormat) and form.bits <= 4,
        threads,
    )
    if direct and out is not None:
        return out
    return deliver(layout.from_rows(target, layout.shape), out)
