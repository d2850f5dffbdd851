"""`conv2d` and `conv2d_backward`: convolutions as the products of their image columns."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from ._arrays import Array, check_out
from ._backward import as_gradient, backward_stacks, check_estimator, check_out_pair
from ._block_operands import Operand, image_operands
from ._gemm import as_addend, as_operand, check_finite, compile_datapath
from ._masked_operands import mask_operands
from ._matmul import EventLevel, gemm
from .block_array import BlockArray
from .datapath import Datapath
from .events import Events

Pair = SupportsIndex | Sequence[SupportsIndex]


def conv2d(
    x: Operand,
    w: Operand,
    datapath: Datapath,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: SupportsIndex = 1,
    c: npt.ArrayLike | None = None,
    w_mask: npt.ArrayLike | None = None,
    events: EventLevel = False,
    per_output: bool = False,
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> Any:
    """Return the 2-D convolution (cross-correlation) of `x` and `w`, computed by `datapath`.

    The terms of an output are summed in the order input channel, kernel row, kernel column; padding
    taps are zero terms and count for chunks and groups.

    Parameters
    ----------
    x : array_like or BlockArray, shape (N, C, H, W)
        Images; dtypes as for `matmul`.
    w : array_like or BlockArray, shape (O, C / groups, kH, kW)
        Kernels.
    datapath : Datapath
        See `matmul`.
    stride, padding, dilation : int or pair of int
        For rows and columns.
    groups : int
        Channel groups; each is a reduction of its own.
    c : array_like, optional
        Start values, broadcast to the result (shape (1, O, 1, 1) for a bias a channel).
    w_mask : array_like of bool, optional
        Which weights take part, as the masks of `matmul`; the images must be finite.
    events, per_output, seed, stream, call, threads
        As for `matmul`; random words are those of the product of image columns, with the group as
        the batch index and (n, row, column) as the row.
    out : ndarray, optional
        Array for the result, of its shape and dtype.

    Returns
    -------
    ndarray of shape (N, O, H', W'), or (ndarray, Events) if `events`
        H' = (H + 2 padding - dilation (kH - 1) - 1) // stride + 1; dtype as for `matmul`.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As `matmul`; also for shapes that do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.ones((1, 1, 4, 4), np.float32)
    >>> w = np.ones((1, 1, 3, 3), np.float32)
    >>> ab.conv2d(x, w, ab.lba_accumulator(), padding=1)[0, 0, 0]
    array([4., 6., 6., 4.], dtype=float32)
    """
    if not isinstance(datapath, Datapath):
        raise TypeError(f"datapath must be a Datapath, got {type(datapath).__name__}")
    scale = None
    if isinstance(x, BlockArray) or isinstance(w, BlockArray):
        x, w, scale = image_operands(x, w, c)
    images, kernels = as_operand("x", x, datapath), as_operand("w", w, datapath)
    images, kernels = mask_operands((images, kernels), ("x", "w"), (None, w_mask))
    geometry = Geometry.of(images, kernels, stride, padding, dilation, groups)
    start = None if c is None else geometry.start_values(c, datapath)
    result, seen = gemm(
        geometry.columns(images),
        geometry.kernel_matrices(kernels),
        datapath,
        start,
        geometry.stack_shape,
        events,
        per_output,
        (seed, stream, call),
        None,
        threads,
        given={"x": images, "w": kernels},
        masked=(False, w_mask is not None),
    )
    image = geometry.to_images(result)
    if scale is not None:
        image = scale.apply(image, None)
    if out is not None:
        np.copyto(check_out(out, geometry.shape, image.dtype), image)
        image = out
    else:
        image = np.ascontiguousarray(image)
    if seen is None:
        return image
    if per_output:
        fields = {
            f.name: geometry.to_images(getattr(seen, f.name)) for f in dataclasses.fields(seen)
        }
        seen = Events(**fields)
    return image, seen


def conv2d_backward(
    g: npt.ArrayLike,
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    datapath: Datapath,
    *,
    ste: str = "identity",
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: SupportsIndex = 1,
    c: npt.ArrayLike | None = None,
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    out: tuple[Array, Array] | None = None,
    threads: SupportsIndex | None = None,
) -> tuple[Array, Array]:
    """Return the gradients of a loss with respect to `x` and `w` of ``conv2d(x, w, datapath)``.

    Parameters
    ----------
    g : array_like of float32 or narrower, shape (N, O, H', W')
        Gradient of the loss with respect to the convolution.
    x, w, datapath, stride, padding, dilation, groups, c, seed, stream, call
        Those of the convolution.
    ste : {"identity", "recursive_of", "immediate_of", "immediate_diff"}
        See `matmul_backward`.
    out : tuple of two ndarrays, optional
        Arrays for the two gradients, float32.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    grad_x, grad_w : ndarray of float32
        The gradients of the image columns (see `matmul_backward`) and, for `x`, their float32 sum
        over the taps that read a pixel, in the order of the taps.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As `matmul_backward` and `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x, w = np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 2, 2), np.float32)
    >>> g = np.ones((1, 1, 2, 2), np.float32)
    >>> ab.conv2d_backward(g, x, w, ab.lba_accumulator())[0][0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]], dtype=float32)
    """
    check_estimator(ste, datapath)
    images, kernels = as_operand("x", x, datapath), as_operand("w", w, datapath)
    geometry = Geometry.of(images, kernels, stride, padding, dilation, groups)
    gradient = as_gradient(g, geometry.shape)
    check_out_pair(out, images.shape, kernels.shape)
    start = None if c is None else geometry.start_values(c, datapath)
    grad_columns, grad_matrices = backward_stacks(
        geometry.to_rows(gradient),
        geometry.columns(images),
        geometry.kernel_matrices(kernels),
        datapath,
        ste,
        start,
        (seed, stream, call),
        threads,
        given={"x": images, "w": kernels},
    )
    grads = (
        geometry.sum_columns(grad_columns),
        np.ascontiguousarray(np.swapaxes(grad_matrices, -1, -2)).reshape(kernels.shape),
    )
    if out is None:
        return grads
    for target, grad in zip(out, grads, strict=True):
        np.copyto(target, grad)
    return out


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Sizes of a convolution, and the arrays as stacks of matrices, one a group."""

    images: int
    channels: int
    height: int
    width: int
    kernels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(
        cls, x: Array, w: Array, stride: Pair, padding: Pair, dilation: Pair, groups: SupportsIndex
    ) -> Geometry:
        """Return the geometry of `x` and `w`, checked."""
        if x.ndim != 4:
            raise ValueError(f"x must have shape (N, C, H, W), got {x.shape}")
        if w.ndim != 4:
            raise ValueError(f"w must have shape (O, C / groups, kH, kW), got {w.shape}")
        try:
            count = operator.index(groups)
        except TypeError:
            raise TypeError(f"groups must be an integer, got {type(groups).__name__}") from None
        if count < 1 or x.shape[1] % count or w.shape[0] % count:
            raise ValueError(
                f"groups must divide the channels of x and the kernels of w, got {count} for "
                f"{x.shape[1]} and {w.shape[0]}"
            )
        if w.shape[1] * count != x.shape[1]:
            raise ValueError(
                f"w must have C / groups = {x.shape[1] // count} channels, got {w.shape[1]}"
            )
        if 0 in w.shape[2:]:
            raise ValueError(f"kernels must have at least one tap, got shape {w.shape}")
        images, channels, height, width = x.shape
        geometry = cls(
            images,
            channels,
            height,
            width,
            w.shape[0],
            (w.shape[2], w.shape[3]),
            _pair("stride", stride, 1),
            _pair("padding", padding, 0),
            _pair("dilation", dilation, 1),
            count,
        )
        if min(geometry.size) < 1:
            raise ValueError(
                f"kernels must fit into the padded images, got {w.shape[2:]} (dilation "
                f"{geometry.dilation}) and {x.shape[2:]} (padding {geometry.padding})"
            )
        return geometry

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        extents = zip(
            (self.height, self.width),
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            strict=True,
        )
        h, w = (
            (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
            for size, taps, stride, padding, dilation in extents
        )
        return h, w

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the result."""
        return (self.images, self.kernels, *self.size)

    @property
    def terms(self) -> int:
        """Terms of one output: channels of a group times taps."""
        return self.channels // self.groups * self.kernel[0] * self.kernel[1]

    @property
    def stack_shape(self) -> tuple[int, int, int]:
        """Shape of the product of columns: group, row (n, y, x), kernel of the group."""
        rows = self.images * self.size[0] * self.size[1]
        return self.groups, rows, self.kernels // self.groups

    def _windows(self, padded: Array) -> Array:
        """Return the view (group, n, y, x, channel, tap row, tap column) of padded images."""
        n, channel, row, column = padded.strides
        group = channel * (self.channels // self.groups)
        return np.lib.stride_tricks.as_strided(
            padded,
            (self.groups, self.images, *self.size, self.channels // self.groups, *self.kernel),
            (
                group,
                n,
                row * self.stride[0],
                column * self.stride[1],
                channel,
                row * self.dilation[0],
                column * self.dilation[1],
            ),
        )

    @property
    def _pads(self) -> tuple[tuple[int, int], ...]:
        return ((0, 0), (0, 0), (self.padding[0],) * 2, (self.padding[1],) * 2)

    def columns(self, x: Array, padding_value: int = 0) -> Array:
        """Return the image columns (group, row, term); padding taps hold `padding_value`."""
        groups, rows, _ = self.stack_shape
        padded = np.pad(x, self._pads, constant_values=padding_value)
        return self._windows(padded).reshape(groups, rows, self.terms)

    def sum_columns(self, columns: Array) -> Array:
        """Return the images whose pixels are the sums of the columns' entries that read them."""
        padded = np.zeros(
            (
                self.images,
                self.channels,
                self.height + 2 * self.padding[0],
                self.width + 2 * self.padding[1],
            ),
            np.float32,
        )
        target = self._windows(padded)
        entries = columns.reshape(target.shape)
        for row in range(self.kernel[0]):
            for column in range(self.kernel[1]):
                target[..., row, column] += entries[..., row, column]
        inside = padded[
            :,
            :,
            self.padding[0] : self.padding[0] + self.height,
            self.padding[1] : self.padding[1] + self.width,
        ]
        return np.ascontiguousarray(inside)

    def kernel_matrices(self, w: Array) -> Array:
        """Return the kernels as matrices (group, term, kernel of the group)."""
        return np.swapaxes(w.reshape(self.groups, self.kernels // self.groups, self.terms), 1, 2)

    def start_values(self, c: Any, datapath: Datapath) -> Array:
        """Return the start values of the sums, checked, as rows."""
        start = as_addend(c, datapath, self.shape)
        check_finite("c", start, compile_datapath(datapath, self.terms).nan_format)
        return self.to_rows(start)

    def to_rows(self, image: Array) -> Array:
        """Return an array of the result's shape as (group, row, kernel of the group)."""
        split = image.reshape(self.images, self.groups, self.kernels // self.groups, *self.size)
        return split.transpose(1, 0, 3, 4, 2).reshape(self.stack_shape)

    def to_images(self, rows: Array) -> Array:
        """Return the inverse of `to_rows`."""
        split = rows.reshape(self.groups, self.images, *self.size, self.kernels // self.groups)
        return split.transpose(1, 0, 4, 2, 3).reshape(self.shape)


def _pair(name: str, value: Pair, low: int) -> tuple[int, int]:
    values = list(value) if isinstance(value, Sequence) else [value, value]
    try:
        pair = tuple(operator.index(v) for v in values)
    except TypeError:
        raise TypeError(f"{name} must be an integer or a pair of integers, got {value!r}") from None
    if len(pair) != 2 or min(pair) < low:
        raise ValueError(f"{name} must be one or two integers of at least {low}, got {value!r}")
    return pair
