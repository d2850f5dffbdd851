"""BlockArray: an array of narrow elements under one scale a block."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ._arrays import Array
from ._block_layout import BlockLayout, check_words, decode_rows, element_values
from ._fixed_format import FixedFormat
from ._float_format import FloatFormat
from ._quantize import decode
from .formats import get_format

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
        Format of the elements.
    scales : ndarray of uint8 or uint32
        Words of the scales. The shape is that of the array with `axis` (and the one before it, if a
        block has several rows) divided by the size of a block, rounded up.
    scale_format : FloatFormat
        Format of the scales.
    block : (int, int)
        Rows and columns of a block; columns are along `axis`, rows along the axis before it.
    axis : int
        Axis of the blocks; stored as a number from 0 on.
    tensor_scale : float32, or ndarray of float32
        Scale of the whole array, or one for each line along `axis`, an array of the same shape with
        1 at `axis`.
    clipped : int
        Elements whose scaled magnitude was above the largest element's and were cut.

    Raises
    ------
    TypeError, ValueError
        If fields have dtypes or shapes that do not belong together.

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
        element, scale = get_format(self.element), get_format(self.scale_format)
        for field, form, dtype in (("codes", element, np.int8), ("scales", scale, None)):
            array = getattr(self, field)
            expected = form.code_dtype if dtype is None or isinstance(form, FloatFormat) else dtype
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{field} must be a NumPy array, got {type(array).__name__}")
            if array.dtype != expected:
                raise TypeError(f"{field} must have dtype {np.dtype(expected)}, got {array.dtype}")
        layout = BlockLayout.of(self.codes.shape, self.axis, self.block)
        if self.scales.shape != layout.scales_shape:
            raise ValueError(
                f"scales must have shape {layout.scales_shape}, got {self.scales.shape}"
            )
        tensor_scale, lines = self.tensor_scale, layout.lines_shape
        if np.ndim(tensor_scale) == 0:
            tensor_scale = np.float32(tensor_scale)
        elif not (isinstance(tensor_scale, np.ndarray) and tensor_scale.dtype == np.float32):
            raise TypeError("tensor_scale must be a number or an array of float32")
        elif tensor_scale.shape != lines:
            raise ValueError(
                f"tensor_scale must be a number or have shape {lines}, got {tensor_scale.shape}"
            )
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
            float32; float64 where products need not be float32 numbers: if scales are binary32, or
            elements so small that some are below 2^-149.
        """
        if self._fits_float32:
            return self._decoded(_ONE)
        scales = np.asarray(decode(self.scales, self.scale_format), np.float64)
        rows, columns = self.block
        for axis, size in ((self.axis, columns), (self.axis - 1, rows)):
            if size > 1:
                scales = np.repeat(scales, size, axis=axis)
                scales = scales[(slice(None),) * axis + (slice(self.codes.shape[axis]),)]
        check_words("codes", self.codes, self.element)
        return np.asarray(element_values(self.element)[self.codes.view(np.uint8)] * scales)

    def dequantize(self) -> Float32Array:
        """Return element * scale * `tensor_scale`, the last product rounded to float32."""
        if not self._fits_float32:
            return self.values().astype(np.float32) * self.tensor_scale
        return self._decoded(np.asarray(self.tensor_scale))

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

    def _decoded(self, tensor_scale: Array) -> Float32Array:
        layout = BlockLayout.of(self.shape, self.axis, self.block, tensor_scale.ndim > 0)
        return decode_rows(
            self.codes, self.element, self.scales, self.scale_format, layout, tensor_scale, None, 0
        )
