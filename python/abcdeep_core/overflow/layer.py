"""`OverflowLayer`: the integer operands of one layer of a model."""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import Any, SupportsIndex

import ml_dtypes
import numpy as np

from .._arrays import Array, as_array, first_index
from .._conv2d import Geometry
from .._format_base import integer
from .._operand_types import Range, operand_range, type_name

KINDS = ("linear", "conv2d")
_DTYPES = tuple(np.dtype(t) for t in (np.int8, np.uint8, np.int16, np.uint16))
_NARROW = {np.dtype(ml_dtypes.int4): np.int8, np.dtype(ml_dtypes.uint4): np.uint8}
Pair = tuple[int, int]


def as_integers(name: str, x: Any) -> Array:
    """Return `x` as int8, uint8, int16 or uint16; int4 and uint4 are widened."""
    array = as_array(name, x)
    if array.dtype in _NARROW:
        array = array.astype(_NARROW[array.dtype])
    if array.dtype.newbyteorder("=") not in _DTYPES:
        raise TypeError(
            f"{name} must hold int8, uint8, int16, uint16, int4 or uint4, got {array.dtype}"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OverflowLayer:
    """A layer whose outputs are integer dot products: its weights, and what its inputs can be.

    Parameters
    ----------
    name : str
        Unique in a model.
    weight : array_like of int8, uint8, int16, uint16, int4 or uint4
        (K, N) for ``kind="linear"``, as `b` of `matmul`; (O, C / groups, kH, kW) for ``"conv2d"``.
    kind : {"linear", "conv2d"}
    input_range : type or pair of int
        What the input's type can hold, after any zero point is subtracted: ``"u8"``, ``"s8"``, an
        integer dtype, or (lowest, highest).
    weight_range : type or pair of int, optional
        The same of the weight; by default its dtype.
    input_type, weight_type : str, optional
        Labels for people; by default made of the ranges.
    bias : array_like of int, shape (N,), optional
        In units of the accumulator, which starts from it.
    stride, padding, dilation : pair of int; groups : int
        Of a convolution, as for `conv2d`.
    padding_value : int
        What padding taps hold (a zero point that was not subtracted).
    input_scale : float, optional
        Real input = input_scale * integer.
    weight_scale : float or array of shape (N,), optional
        The same of the weight.

    Raises
    ------
    TypeError, ValueError
        Of a wrong dtype, shape or kind; of a weight out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> layer = ab.OverflowLayer(name="fc", weight=np.ones((64, 10), np.int8), input_range="u8")
    >>> layer.terms, layer.channels, layer.input_type, layer.weight_type
    (64, 10, 'u8', 's8')
    """

    name: str
    weight: Array
    input_range: Any  # given as an OperandType, kept as a Range
    kind: str = "linear"
    weight_range: Any = None
    input_type: str = ""
    weight_type: str = ""
    bias: Array | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    padding_value: int = 0
    input_scale: float | None = None
    weight_scale: Array | float | None = None

    def __post_init__(self) -> None:
        def put(field: str, value: object) -> None:
            object.__setattr__(self, field, value)

        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"name must be a text that is not empty, got {self.name!r}")
        if self.kind not in KINDS:
            raise ValueError(f"{self.name}: kind must be 'linear' or 'conv2d', got {self.kind!r}")
        weight = as_array(f"{self.name}: weight", self.weight)
        weight_range = weight.dtype if self.weight_range is None else self.weight_range
        put("weight", as_integers(f"{self.name}: weight", weight))
        dimensions = 2 if self.kind == "linear" else 4
        if self.weight.ndim != dimensions:
            raise ValueError(
                f"{self.name}: weight must have {dimensions} dimensions for kind={self.kind!r}, "
                f"got shape {self.weight.shape}"
            )
        put("groups", integer(f"{self.name}: groups", self.groups, 1))
        if self.kind == "linear" and self.groups != 1:
            raise ValueError(f"{self.name}: groups must be 1 for a linear layer, got {self.groups}")
        if self.channels % self.groups:
            raise ValueError(
                f"{self.name}: groups must divide the {self.channels} kernels, got {self.groups}"
            )
        put("input_range", operand_range(f"{self.name}: input_range", self.input_range))
        put("weight_range", operand_range(f"{self.name}: weight_range", weight_range))
        put("input_type", self.input_type or type_name(self.input_range))
        put("weight_type", self.weight_type or type_name(self.weight_range))
        _check_range(f"{self.name}: weight", self.weight, self.weight_range)
        lowest, highest = self.input_range
        if self.kind == "conv2d" and not lowest <= self.padding_value <= highest:
            raise ValueError(
                f"{self.name}: padding_value must be an input, {lowest} to {highest}, "
                f"got {self.padding_value}"
            )
        if self.bias is not None:
            put("bias", _as_bias(self.name, self.bias, self.channels))

    @property
    def terms(self) -> int:
        """K: terms of one dot product."""
        shape = self.weight.shape
        return int(shape[0] if self.kind == "linear" else np.prod(shape[1:]))

    @property
    def channels(self) -> int:
        """N: outputs side by side."""
        return int(self.weight.shape[1 if self.kind == "linear" else 0])

    def matrix(self, group: SupportsIndex = 0) -> Array:
        """Return the weight matrix (K, N / groups) of a group."""
        if self.kind == "linear":
            return self.weight
        kernels = self.weight.reshape(self.groups, self.channels // self.groups, self.terms)
        matrix: Array = kernels[group].T
        return matrix

    def geometry(self, shape: tuple[int, ...]) -> Geometry:
        """Return the sizes of the convolution of inputs of `shape` (N, C, H, W)."""
        # no memory behind it: only its shape counts
        x = np.broadcast_to(np.zeros((), np.int8), shape)
        return Geometry.of(x, self.weight, self.stride, self.padding, self.dilation, self.groups)

    def check_input(self, x: Any) -> Array:
        """Return an input, checked: dtype, shape and range."""
        array = as_integers(f"{self.name}: input", x)
        if self.kind == "linear":
            if array.ndim < 2 or array.shape[-1] != self.terms:
                raise ValueError(
                    f"{self.name}: input must have shape (samples, ..., {self.terms}), "
                    f"got {array.shape}"
                )
        else:
            try:
                self.geometry(array.shape)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from None
        _check_range(f"{self.name}: input", array, self.input_range)
        return array

    def position_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the dot products of one sample and one channel."""
        return shape[1:-1] if self.kind == "linear" else self.geometry(shape).size

    def rows(self, x: Array, group: SupportsIndex = 0) -> Array:
        """Return the operand rows (samples * positions, K) of an input, for one group.

        The terms of a convolution are ordered channel, kernel row, kernel column.
        """
        if self.kind == "linear":
            return x.reshape(math.prod(x.shape[:-1]), self.terms)
        channels = self.weight.shape[1]
        start = operator.index(group) * channels
        part = _holding(self.name, x[:, start : start + channels], self.padding_value)
        kernels = self.weight[: self.channels // self.groups]
        one = Geometry.of(part, kernels, self.stride, self.padding, self.dilation, 1)
        columns: Array = one.columns(part, self.padding_value)[0]
        return columns


def _holding(name: str, x: Array, value: int) -> Array:
    """Return `x` in a dtype of at most 16 bits that holds `value` too."""
    for dtype in (x.dtype, np.int16, np.uint16):
        info = np.iinfo(dtype)
        if np.can_cast(x.dtype, dtype) and info.min <= value <= info.max:
            return x.astype(dtype, copy=False)
    raise ValueError(f"{name}: input of {x.dtype} must fit 16 bits with padding_value {value}")


def _check_range(name: str, x: Array, bounds: Range) -> None:
    lowest, highest = bounds
    info = np.iinfo(x.dtype)
    if lowest <= info.min and highest >= info.max:
        return
    bad = (x.astype(np.int32) < lowest) | (x.astype(np.int32) > highest)
    if bad.any():
        raise ValueError(
            f"{name} must be within {lowest} to {highest}, got {x.reshape(-1)[int(np.argmax(bad))]}"
            f" at {first_index(bad)}"
        )


def _as_bias(layer: str, bias: Any, channels: int) -> Array:
    array = as_array(f"{layer}: bias", bias)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{layer}: bias must hold integers, got {array.dtype}")
    if array.shape != (channels,):
        raise ValueError(f"{layer}: bias must have shape ({channels},), got {array.shape}")
    limit = 1 << 61
    if array.size and not -limit < int(array.min()) <= int(array.max()) < limit:
        raise ValueError(f"{layer}: bias must be below 2^61 in magnitude")
    return array.astype(np.int64)
