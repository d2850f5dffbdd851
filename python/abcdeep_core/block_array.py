"""BlockArray: an array of narrow elements under one scale a block."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, as_array, deliver, first_index, is_narrow_float
from ._block_layout import BlockLayout, check_words, decode_rows, element_values
from ._fixed_format import FixedFormat
from ._float_format import FloatFormat
from ._quantize import decode
from .block_format import block_shape, element_of, scale_of

Float32Array = npt.NDArray[np.float32]
_UNIT = np.float32(1)
_ONE = np.ones((), np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BlockArray:
    """An array quantised to a block format: what `quantize_blocks` returns and `matmul` takes.

    The value of an element is element * scale of its block * `tensor_scale`.

    Parameters
    ----------
    codes : ndarray of uint8 or int8
        Words of the elements, one each, in the shape of the array (int8 for a FixedFormat).
    element : FloatFormat or FixedFormat
        Format of the elements, one that BlockFormat takes.
    scales : ndarray of uint8 or uint32
        Words of the scales. The shape is that of the array with `axis` (and the one before it, if a
        block has several rows) divided by the size of a block, rounded up.
    scale_format : FloatFormat
        Format of the scales, one that BlockFormat takes.
    block : int or (int, int)
        Rows and columns of a block, 1..4096; columns are along `axis`, rows along the axis before
        it.
    axis : int
        Axis of the blocks; stored as a number from 0 on.
    tensor_scale : float32, or ndarray of float32
        Scale of the whole array, or one for each line along `axis`, an array of the same shape with
        1 at `axis`. Finite, not negative; a number is rounded to float32.
    clipped : int
        Elements whose scaled magnitude was above the largest element's and were cut.

    Raises
    ------
    TypeError
        If a field has the wrong type or dtype.
    ValueError
        If shapes do not belong together; a format is none for blocks; a word is none of its format;
        or a tensor scale is negative or not finite, or leaves float32's range.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> q = ab.BlockArray(codes=np.uint8([1, 2, 9, 7]), element=ab.get_format("e2m1"),
    ...                   scales=np.uint8([127, 129]), scale_format=ab.get_format("e8m0"),
    ...                   block=(1, 2), axis=0)
    >>> q.dequantize()
    array([ 0.5,  1. , -2. , 24. ], dtype=float32)
    """

    codes: npt.NDArray[np.uint8] | npt.NDArray[np.int8]
    element: FloatFormat | FixedFormat
    scales: npt.NDArray[np.uint8] | npt.NDArray[np.uint32]
    scale_format: FloatFormat
    block: tuple[int, int]
    axis: int
    tensor_scale: np.float32 | Float32Array = _UNIT
    clipped: int = 0

    def __post_init__(self) -> None:
        element = element_of(self.element)
        scale = scale_of("scale_format", self.scale_format)
        code_dtype = np.dtype(np.int8) if isinstance(element, FixedFormat) else element.code_dtype
        for field, dtype in (("codes", code_dtype), ("scales", scale.code_dtype)):
            array = getattr(self, field)
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{field} must be a NumPy array, got {type(array).__name__}")
            if array.dtype != dtype:
                raise TypeError(f"{field} must have dtype {dtype}, got {array.dtype}")
        layout = BlockLayout.of(self.codes.shape, self.axis, block_shape(self.block), name="codes")
        if self.scales.shape != layout.scales_shape:
            raise ValueError(
                f"scales must have shape {layout.scales_shape}, got {self.scales.shape}"
            )
        check_words("codes", self.codes, element)
        check_words("scales", self.scales, scale)
        tensor_scale = _checked_tensor_scale(self.tensor_scale, layout.lines_shape)
        for field, value in (
            ("element", element),
            ("scale_format", scale),
            ("block", (layout.rows, layout.columns)),
            ("axis", layout.axis),
            ("tensor_scale", tensor_scale),
        ):
            object.__setattr__(self, field, value)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.codes.shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.codes.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.codes.size

    @property
    def nbytes(self) -> int:
        """Bytes of the array if its elements were packed: elements, scales and tensor scales."""
        bits = self.codes.size * self.element.bits + self.scales.size * self.scale_format.bits
        return -(-bits // 8) + np.asarray(self.tensor_scale).nbytes

    def values(self) -> Array:
        """Return element * scale exactly, without `tensor_scale`.

        Returns
        -------
        ndarray
            float32, infinite where a product is above its range; float64 where products need not be
            float32 numbers: if scales are binary32, or elements so small that some are below
            2^-149.
        """
        return self._decoded(_ONE, None, 0) if self._fits_float32 else self._values64()

    def dequantize(self) -> Float32Array:
        """Return element * scale * `tensor_scale`.

        Both products are float32 operations, of which the first is exact (or above float32's range,
        and infinite). Where `values` are float64 the second product is one too, and is then rounded
        to float32.
        """
        return self._dequantized(None, 0)

    @property
    def _fits_float32(self) -> bool:
        """Whether element * scale is a float32 number for every pair of words, or too large."""
        element, scale = self.element, self.scale_format
        if scale.bits > 8:
            return False
        lowest = (
            -element.fraction_bits
            if isinstance(element, FixedFormat)
            else (element.emin - element.mantissa_bits)
        )
        return lowest + scale.emin - scale.mantissa_bits >= -149

    def _values64(self) -> npt.NDArray[np.float64]:
        """Return element * scale as float64, which holds every such product."""
        check_words("codes", self.codes, self.element)
        rows, columns = self.block
        with _core.NearestEnvironment(), np.errstate(invalid="ignore"):
            scales = np.asarray(decode(self.scales, self.scale_format), np.float64)
            for axis, size in ((self.axis, columns), (self.axis - 1, rows)):
                if size > 1:
                    scales = np.repeat(scales, size, axis=axis)
                    scales = scales[(slice(None),) * axis + (slice(self.codes.shape[axis]),)]
            return np.asarray(element_values(self.element)[self.codes.view(np.uint8)] * scales)

    def _dequantized(self, out: Float32Array | None, threads: int) -> Float32Array:
        scale = np.asarray(self.tensor_scale)
        if self._fits_float32 or bool(np.all(scale == 1)):  # one of the two products is exact
            return self._decoded(scale, out, threads)
        with _core.NearestEnvironment(), np.errstate(all="ignore"):
            result = (self._values64() * scale).astype(np.float32)
        return deliver(result, out)

    def _decoded(self, tensor_scale: Array, out: Float32Array | None, threads: int) -> Float32Array:
        layout = BlockLayout.of(self.shape, self.axis, self.block, tensor_scale.ndim > 0)
        return decode_rows(
            self.codes,
            self.element,
            self.scales,
            self.scale_format,
            layout,
            tensor_scale,
            out,
            threads,
        )


def _checked_tensor_scale(given: Any, lines: tuple[int, ...]) -> np.float32 | Float32Array:
    """Return a number as float32, or the array of one number a line, if all of them can scale."""
    if isinstance(given, np.float32) and 0 <= given < np.inf:
        return given
    array = as_array("tensor_scale", given)
    number = array.ndim == 0 and (array.dtype.kind in "fiu" or is_narrow_float(array.dtype))
    if not (number or (isinstance(given, np.ndarray) and given.dtype == np.float32)):
        raise TypeError(f"tensor_scale must be a number or an array of float32, got {array.dtype}")
    if not number and array.shape != lines:
        raise ValueError(f"tensor_scale must be a number or have shape {lines}, got {array.shape}")
    with _core.NearestEnvironment(), np.errstate(over="ignore", under="ignore"):
        scale: Float32Array = array.astype(np.float32, copy=False)
        wrong = ~(np.isfinite(scale) & (scale >= 0)) | ((scale == 0) & (array != 0))
    if wrong.any():
        found = f"{array[()]}" if number else f"another at {first_index(wrong)}"
        raise ValueError(f"tensor_scale must be finite float32 numbers >= 0, got {found}")
    return np.float32(scale[()]) if number else scale
