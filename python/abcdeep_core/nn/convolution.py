"""Convolution and pooling of images, (N, channels, height, width)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

import abcdeep_core as ab

from .arithmetic import Arithmetic
from .layers import Layer, check_input
from .linear import FORWARD, INPUT, WEIGHT, GemmLayer
from .operand import FloatArray, ScaledArray

Pair: TypeAlias = int | tuple[int, int]


def _pair(name: str, value: Pair, least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(size, int) and size >= least for size in pair):
        raise ValueError(f"{name}: expected one or two integers of at least {least}, got {value!r}")
    return pair


def _windows(
    x: npt.NDArray[np.generic], kernel: tuple[int, int], stride: tuple[int, int], dilation: Pair = 1
) -> FloatArray:
    """View (N, C, H, W) as (N, C, out_height, out_width, kernel_height, kernel_width)."""
    down, right = _pair("dilation", dilation, 1)
    extent = (down * (kernel[0] - 1) + 1, right * (kernel[1] - 1) + 1)
    if x.shape[2] < extent[0] or x.shape[3] < extent[1]:
        raise ValueError(f"x: expected at least {extent} pixels with padding, got {x.shape[2:]}")
    every = np.lib.stride_tricks.sliding_window_view(x, extent, axis=(2, 3))
    return every[:, :, :: stride[0], :: stride[1], ::down, ::right]


def _fold(
    windows: FloatArray, shape: tuple[int, ...], stride: tuple[int, int], dilation: Pair = 1
) -> FloatArray:
    """Apply the adjoint of `_windows`: each pixel is the sum of its copies in all windows."""
    down, right = _pair("dilation", dilation, 1)
    x = np.zeros(shape, windows.dtype)
    height, width, kernel_height, kernel_width = windows.shape[2:]
    for i in range(kernel_height):
        for j in range(kernel_width):
            rows = slice(i * down, i * down + (height - 1) * stride[0] + 1, stride[0])
            columns = slice(j * right, j * right + (width - 1) * stride[1] + 1, stride[1])
            x[:, :, rows, columns] += windows[..., i, j]
    return x


def _columns(windows: FloatArray, groups: int) -> FloatArray:
    """Write the windows as one matrix a group, (groups, N * pixels, C / groups * kH * kW)."""
    n, channels, height, width, kernel_height, kernel_width = windows.shape
    grouped = windows.reshape(n, groups, channels // groups, *windows.shape[2:])
    rows = n * height * width
    taps = channels // groups * kernel_height * kernel_width
    return grouped.transpose(1, 0, 3, 4, 2, 5, 6).reshape(groups, rows, taps)


def _to_rows(images: FloatArray, groups: int) -> FloatArray:
    """Rearrange (N, C, H, W) as (groups, N * H * W, C / groups)."""
    return _columns(images[..., np.newaxis, np.newaxis], groups)


def _to_images(rows: FloatArray, shape: tuple[int, int, int, int]) -> FloatArray:
    """Undo `_to_rows`."""
    n, channels, height, width = shape
    split = rows.reshape(rows.shape[0], n, height, width, channels // rows.shape[0])
    return split.transpose(1, 0, 4, 2, 3).reshape(shape)


class Conv2d(GemmLayer):
    """Cross-correlation of images with kernels, plus a bias.

    Parameters
    ----------
    in_channels, out_channels : int
        `weight` is (out_channels, in_channels / groups, kernel_height, kernel_width), `bias`
        (out_channels,).
    kernel_size, stride, padding, dilation : int or pair of int
        A pair is (height, width).
    groups : int
        Independent convolutions, each with its share of the channels.
    bias : bool
        Whether there is one.
    arithmetic, seed, dtype
        As `GemmLayer`.

    Raises
    ------
    TypeError, ValueError
        A dtype other than float32 and float64, sizes out of range, channels that `groups` does not
        divide.

    Notes
    -----
    The forward product reduces over (I, kH, kW), as `ab.conv2d`. With a datapath, the input
    gradient is the convolution of the output gradient, spread by the stride, with the mirrored
    kernels: one reduction over (O, kH, kW), in which the zeros between and around the pixels are
    terms. The weight gradient is one reduction over (N, out_height, out_width).

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> layer = ab.nn.Conv2d(1, 8, 3, padding=1, seed=0)
    >>> layer.forward(np.ones((2, 1, 28, 28), np.float32)).shape
    (2, 8, 28, 28)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        *,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        arithmetic: Arithmetic | None = None,
        seed: int | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups: expected a divisor of in_channels={in_channels} and"
                f" out_channels={out_channels}, got {groups}"
            )
        self.kernel = _pair("kernel_size", kernel_size, 1)
        self.stride = _pair("stride", stride, 1)
        self.padding = _pair("padding", padding, 0)
        self.dilation = _pair("dilation", dilation, 1)
        self.groups = groups
        shape = (out_channels, in_channels // groups, *self.kernel)
        fan_in = shape[1] * shape[2] * shape[3]
        bias_shape = out_channels if bias else None
        super().__init__(shape, fan_in, bias_shape, arithmetic, seed, dtype)

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        """Return (N, out_channels, out_height, out_width) for x (N, in_channels, H, W)."""
        in_channels = self.weight.value.shape[1] * self.groups
        check_input(self, x, ("N", in_channels, "H", "W"), self.dtype)
        call = self._begin(training)
        gemm, random = self.arithmetic.forward, self._random(FORWARD, call)
        operands = x, self.weight.value
        image, weight = self._quantize_operands(FORWARD, operands, (1, 1), call, training)
        if gemm.datapath is None:
            y = self._reference(image.dequantize(), weight.dequantize())
        else:
            y, events = gemm.emulate(
                ab.conv2d, image, weight, random, self._wanted_events(training), **self._geometry()
            )
            self._add_events(events)
        if self.bias is not None:
            y = y + self.bias.value[:, np.newaxis, np.newaxis]
        if training:
            if self.arithmetic.gradient_operands == "forward":
                operands = image.dequantize(), weight.dequantize()
            self._save(y, *operands, call)
        return y

    def backward(self, g: FloatArray) -> FloatArray:
        """Return the gradient of the input; sets those of weight and bias."""
        x, weight, call = self._take_saved(g)
        if self.bias is not None:
            self.bias.gradient = g.sum(axis=(0, 2, 3))
        arithmetic = self.arithmetic
        if arithmetic.ste == "identity":
            for_input, for_weight = self._quantize_output_gradient(g, 1, call)
            self.weight.gradient = self._weight_gradient(x, for_weight, call)
            return self._input_gradient(for_input, weight, x.shape, call)
        grad_x: FloatArray
        words = self._random(FORWARD, call).keywords(role=2)  # those of the forward accumulation
        assert arithmetic.forward.datapath is not None  # Arithmetic has seen to it
        grad_x, self.weight.gradient = ab.conv2d_backward(
            g,
            x,
            weight,
            arithmetic.forward.datapath,
            ste=arithmetic.ste,
            **self._geometry(),
            **words,
        )
        return grad_x

    def _geometry(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def _padded_windows(self, x: FloatArray) -> FloatArray:
        (top, left) = self.padding
        padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
        return _windows(padded, self.kernel, self.stride, self.dilation)

    def _matrices(self, weight: FloatArray) -> FloatArray:
        """Write the kernels as one matrix a group, (groups, O / groups, I / groups * kH * kW)."""
        return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)

    def _reference(self, x: FloatArray, weight: FloatArray) -> FloatArray:
        """Convolve by im2col and a matrix product."""
        windows = self._padded_windows(x)
        rows = np.matmul(_columns(windows, self.groups), self._matrices(weight).mT)
        return _to_images(rows, (len(x), len(weight), *windows.shape[2:4]))

    def _weight_gradient(self, x: FloatArray, g: ScaledArray, call: int) -> FloatArray:
        gemm, random = self.arithmetic.weight_gradient, self._random(WEIGHT, call)
        image, grad = self._quantize_operands(WEIGHT, (x, g), (0, 0), call)
        columns = _columns(self._padded_windows(image.values), self.groups)
        rows = _to_rows(grad.values, self.groups)
        product, _ = gemm.matmul(
            ScaledArray(columns.mT, image.scale), ScaledArray(rows, grad.scale), random
        )
        return product.mT.reshape(self.weight.value.shape)

    def _input_gradient(
        self, g: ScaledArray, weight: FloatArray, shape: tuple[int, ...], call: int
    ) -> FloatArray:
        gemm, random = self.arithmetic.input_gradient, self._random(INPUT, call)
        grad, kernels = self._quantize_operands(INPUT, (g, weight), (1, 0), call)
        (top, left), (height, width) = self.padding, shape[2:]
        padded_shape = (*shape[:2], height + 2 * top, width + 2 * left)
        if gemm.datapath is None:
            # The order of sums is free here: the short product over O, then the sum over taps.
            rows = _to_rows(grad.dequantize(), self.groups)
            columns = np.matmul(rows, self._matrices(kernels.dequantize()))
            pixels = grad.values.shape[2:]
            windows = _to_images(columns, (shape[0], columns.shape[2] * self.groups, *pixels))
            split = windows.reshape(shape[0], shape[1], *self.kernel, *pixels)
            padded = _fold(
                split.transpose(0, 1, 4, 5, 2, 3), padded_shape, self.stride, self.dilation
            )
        else:
            spread = ScaledArray(self._spread(grad.values, padded_shape), grad.scale)
            mirrored = ScaledArray(self._mirrored(kernels.values), kernels.scale)
            options = {"dilation": self.dilation, "groups": self.groups}
            padded, _ = gemm.emulate(ab.conv2d, spread, mirrored, random, False, **options)
        return padded[:, :, top : top + height, left : left + width]

    def _spread(self, g: FloatArray, padded_shape: tuple[int, ...]) -> FloatArray:
        """Put stride - 1 zeros between the pixels of g and room for the kernel around them."""
        margin = [d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True)]
        size = [padded_shape[2] + margin[0], padded_shape[3] + margin[1]]
        spread = np.zeros((*g.shape[:2], *size), g.dtype)
        rows = slice(margin[0], margin[0] + g.shape[2] * self.stride[0], self.stride[0])
        columns = slice(margin[1], margin[1] + g.shape[3] * self.stride[1], self.stride[1])
        spread[:, :, rows, columns] = g
        return spread

    def _mirrored(self, weight: FloatArray) -> FloatArray:
        """Reverse the taps and exchange the channels: kernels of the transposed convolution."""
        split = weight.reshape(self.groups, -1, *weight.shape[1:])[..., ::-1, ::-1]
        return split.swapaxes(1, 2).reshape(-1, split.shape[1], *self.kernel)


class _Pool2d(Layer):
    """Windows of kernel_size pixels every stride pixels."""

    def __init__(self, kernel_size: Pair, *, stride: Pair | None = None) -> None:
        self.kernel = _pair("kernel_size", kernel_size, 1)
        self.stride = self.kernel if stride is None else _pair("stride", stride, 1)

    def _pool_windows(self, x: FloatArray) -> FloatArray:
        check_input(self, x, ("N", "C", "H", "W"))
        return _windows(x, self.kernel, self.stride)


class MaxPool2d(_Pool2d):
    """The largest pixel of each window; the gradient goes to the first of equals.

    Parameters
    ----------
    kernel_size, stride : int or pair of int
        Of the windows; the stride is the kernel size by default. Pixels at the bottom and at the
        right that fill no window are left out.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> ab.nn.MaxPool2d(2).forward(np.ones((1, 8, 28, 28), np.float32)).shape
    (1, 8, 14, 14)
    """

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        """Return (N, C, out_height, out_width) for x (N, C, H, W)."""
        windows = self._pool_windows(x)
        y: FloatArray = windows.max(axis=(4, 5))
        if training:
            first = windows.reshape(*y.shape, self.kernel[0] * self.kernel[1]).argmax(axis=-1)
            self._save(y, x.shape, first)
        return y

    def backward(self, g: FloatArray) -> FloatArray:
        """Return the gradient of the input."""
        shape, first = self._take_saved(g)
        windows = np.zeros((*g.shape, self.kernel[0] * self.kernel[1]), g.dtype)
        np.put_along_axis(windows, first[..., np.newaxis], g[..., np.newaxis], axis=-1)
        return _fold(windows.reshape(*g.shape, *self.kernel), shape, self.stride)


class AvgPool2d(_Pool2d):
    """The mean of each window.

    Parameters
    ----------
    kernel_size, stride : int or pair of int
        As `MaxPool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> ab.nn.AvgPool2d(2).forward(np.float32([[[[1, 2], [3, 6]]]]))
    array([[[[3.]]]], dtype=float32)
    """

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        """Return (N, C, out_height, out_width) for x (N, C, H, W)."""
        y: FloatArray = self._pool_windows(x).mean(axis=(4, 5))
        if training:
            self._save(y, x.shape)
        return y

    def backward(self, g: FloatArray) -> FloatArray:
        """Return the gradient of the input."""
        (shape,) = self._take_saved(g)
        share = g / (self.kernel[0] * self.kernel[1])
        windows = np.broadcast_to(share[..., np.newaxis, np.newaxis], (*g.shape, *self.kernel))
        return _fold(windows, shape, self.stride)
