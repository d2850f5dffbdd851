"""Layers as they are found in a model, and the source of integer operands made of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from .._arrays import Array, as_array
from .._operand_types import LARGEST_BITS, operand_range
from ._integer_codes import as_finite, integer_type, type_label
from .layer import OverflowLayer
from .quantization import (
    ZERO_POINTS,
    InputQuantizer,
    Quantization,
    QuantizedWeight,
    quantize_bias,
    quantize_weight,
)
from .source import Skipped

Pads: TypeAlias = tuple[int, int, int, int] | str  # top, left, bottom, right, or SAME_UPPER, ...
Pair: TypeAlias = tuple[int, int]


class Capture(Protocol):
    """What computes the inputs of a model's layers, for samples that lie in one block.

    Float arithmetic may depend on how many samples are computed together. Blocks begin at
    multiples of `block`, so that a sample always has the same company.
    """

    samples: int
    block: int

    def run(self, begin: int, end: int) -> Mapping[str, Array]:
        """Return floats or integer codes by layer name, samples first."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CapturedLayer:
    """A product layer of a model before its operands are integers.

    Parameters
    ----------
    name, kind, stride, dilation, groups
        As `OverflowLayer`.
    weight : QuantizedWeight or ndarray of float
        Floats are quantised.
    input : InputQuantizer, optional
        None for floats whose scale is to be found.
    bias : ndarray, optional
        Integers in units of the accumulator, or floats in real units.
    pads : (int, int, int, int) or str
        Top, left, bottom, right, or SAME_UPPER or SAME_LOWER of ONNX.
    """

    name: str
    kind: str
    weight: QuantizedWeight | Array
    input: InputQuantizer | None = None
    bias: Array | None = None
    stride: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def is_integer(self) -> bool:
        """Whether nothing is left to quantise."""
        return self.input is not None and isinstance(self.weight, QuantizedWeight)

    def finished(
        self, quantization: Quantization | None, observed: tuple[float, float], fold: bool
    ) -> tuple[OverflowLayer, InputQuantizer]:
        """Return the layer with integer operands, and what makes those of its input."""
        weight, quantizer = self.weight, self.input
        if not isinstance(weight, QuantizedWeight):
            assert quantization is not None
            axis = (1 if self.kind == "linear" else 0) if quantization.per_channel else None
            name = f"{self.name}: weight"
            weight = quantize_weight(name, weight, quantization.weight_bits, axis)
        if quantizer is None:
            assert quantization is not None
            bits, affine = quantization.input_bits, quantization.affine
            quantizer = InputQuantizer.calibrated(*observed, bits, affine=affine, fold=fold)
        elif fold and not quantizer.fold:
            quantizer = dataclasses.replace(quantizer, fold=True)
        try:
            integer_type(*quantizer.operand_range)
        except ValueError as error:
            raise ValueError(f"{self.name}: input: {error}") from None
        channels = weight.values.shape[1 if self.kind == "linear" else 0]
        bias = self._accumulator_bias(weight, quantizer, channels)
        if quantizer.padding:
            terms = 0 if self.kind == "linear" else (1, 2, 3)
            shift = quantizer.zero_point * weight.values.sum(axis=terms, dtype=np.int64)
            bias = -shift if bias is None else bias - shift
        geometry: dict[str, Any] = {}
        if self.kind == "conv2d":
            padding = (0, 0) if needs_padding(self.pads) else self.pads[:2]
            geometry = {"stride": self.stride, "padding": padding, "dilation": self.dilation}
            geometry |= {"groups": self.groups, "padding_value": quantizer.padding}
        layer = OverflowLayer(
            name=self.name,
            kind=self.kind,
            weight=weight.values,
            input_range=quantizer.operand_range,
            weight_range=weight.range,
            input_type=quantizer.label,
            weight_type=weight.label,
            bias=bias,
            input_scale=quantizer.scale,
            weight_scale=weight.scale,
            **geometry,
        )
        return layer, quantizer

    def _accumulator_bias(
        self, weight: QuantizedWeight, quantizer: InputQuantizer, channels: int
    ) -> Array | None:
        if self.bias is None:
            return None
        if self.bias.dtype.kind in "iu":
            return np.broadcast_to(self.bias, (channels,)).astype(np.int64)
        bias = np.broadcast_to(self.bias, (channels,))
        if quantizer.scale is None or weight.scale is None:
            raise ValueError(f"{self.name}: expected scales of input and weight for a float bias")
        return quantize_bias(f"{self.name}: bias", bias, quantizer.scale, weight.scale)


def needs_padding(pads: Pads) -> bool:
    """Whether an input has to be padded, as the two sides differ."""
    return isinstance(pads, str) or pads[:2] != pads[2:]


class CapturedSource:
    """A `Source` whose inputs a capture computes and quantisers make integers.

    Parameters
    ----------
    title : str
    layers : sequence of OverflowLayer
    skipped : sequence of (str, str)
    capture : Capture
    quantizers : mapping of str to InputQuantizer
        By layer name.
    found : mapping of str to CapturedLayer
        The layers as found, for the sides of a padding that differ.
    """

    def __init__(
        self,
        title: str,
        layers: Sequence[OverflowLayer],
        skipped: Sequence[Skipped],
        capture: Capture,
        quantizers: Mapping[str, InputQuantizer],
        found: Mapping[str, CapturedLayer],
    ) -> None:
        self.title, self.layers, self.skipped = title, tuple(layers), tuple(skipped)
        self.samples = capture.samples
        self._capture, self._quantizers = capture, dict(quantizers)
        self._pads = {
            layer.name: (found[layer.name].pads, layer)
            for layer in layers
            if layer.kind == "conv2d" and needs_padding(found[layer.name].pads)
        }
        self._latest: tuple[int, dict[str, Array]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_latest": None}

    def inputs(self, begin: int, end: int) -> Mapping[str, Array]:
        """Return the integer inputs of samples [begin, end) by layer name, samples first."""
        if not 0 <= begin <= end <= self.samples:
            raise ValueError(
                f"begin, end: expected 0 <= begin <= end <= {self.samples}, got {begin}, {end}"
            )
        size = self._capture.block
        first, last = begin // size, max(begin, end - 1) // size
        first = min(first, (self.samples - 1) // size)
        pieces = [self._block(i) for i in range(first, max(first, last) + 1)]
        offset = first * size
        results = {}
        for layer in self.layers:
            parts = [piece[layer.name] for piece in pieces]
            whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
            results[layer.name] = whole[begin - offset : end - offset]
        return results

    def _block(self, index: int) -> dict[str, Array]:
        if self._latest is not None and self._latest[0] == index:
            return self._latest[1]
        begin = index * self._capture.block
        end = min(begin + self._capture.block, self.samples)
        arrays = self._capture.run(begin, end)
        block = {layer.name: self._operand(layer.name, arrays[layer.name]) for layer in self.layers}
        self._latest = (index, block)
        return block

    def _operand(self, name: str, x: Array) -> Array:
        quantizer = self._quantizers[name]
        operand = quantizer.operand(f"{name}: input", x)
        if name in self._pads:
            pads, layer = self._pads[name]
            kernel, padding = layer.weight.shape[2:], quantizer.padding
            operand = padded(operand, pads, kernel, layer.stride, layer.dilation, padding)
        return operand


def padded(
    x: Array, pads: Pads, kernel: Sequence[int], stride: Pair, dilation: Pair, value: int
) -> Array:
    """Return images with explicit padding."""
    if isinstance(pads, str):
        sides = [
            same_padding(size, *axis, upper=pads == "SAME_UPPER")
            for size, axis in zip(
                x.shape[2:], zip(kernel, stride, dilation, strict=True), strict=True
            )
        ]
    else:
        sides = [(pads[0], pads[2]), (pads[1], pads[3])]
    return np.pad(x, [(0, 0), (0, 0), *sides], constant_values=value)


def same_padding(size: int, kernel: int, stride: int, dilation: int, upper: bool) -> Pair:
    """Return the padding before and after an axis that gives ceil(size / stride) outputs."""
    outputs = math.ceil(size / stride)
    total = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return (total // 2, total - total // 2) if upper else (total - total // 2, total // 2)


def captured_source(
    title: str,
    capture: Capture,
    found: Sequence[CapturedLayer],
    skipped: Sequence[Skipped],
    quantization: Quantization | None,
    zero_point: str,
) -> CapturedSource:
    """Return the source of a model: scales found where they are needed, operands made integers.

    Raises
    ------
    ValueError
        Only float layers without a quantisation; values that are not finite.
    """
    if zero_point not in ZERO_POINTS:
        raise ValueError(f"zero_point: expected 'subtract' or 'fold', got {zero_point!r}")
    skipped = list(skipped)
    if quantization is None:
        reason = "its operands are floats: expected quantise='int8' or the like"
        floats = [layer for layer in found if not layer.is_integer]
        if floats and len(floats) == len(found):
            raise ValueError(f"{floats[0].name}: {reason}")
        skipped += [(layer.name, reason) for layer in floats]
        found = [layer for layer in found if layer.is_integer]
    unscaled = [layer.name for layer in found if layer.input is None]
    ranges = dict.fromkeys(unscaled, (math.inf, -math.inf))
    if unscaled:
        assert quantization is not None
        ranges = observed_ranges(capture, unscaled, quantization.calibration_samples)
    layers, quantizers = [], {}
    for layer in found:
        observed = ranges.get(layer.name, (0.0, 0.0))
        done, quantizers[layer.name] = layer.finished(quantization, observed, zero_point == "fold")
        layers.append(done)
    by_name = {layer.name: layer for layer in found}
    source = CapturedSource(title, layers, skipped, capture, quantizers, by_name)
    for name, x in source.inputs(0, 1).items():
        layer_of_name = next(layer for layer in layers if layer.name == name)
        layer_of_name.check_input(x)
    return source


def observed_ranges(
    capture: Capture, names: Sequence[str], count: int
) -> dict[str, tuple[float, float]]:
    """Return the smallest and largest value of inputs over the first samples.

    Raises
    ------
    TypeError, ValueError
        Inputs that are not floats, or not finite.
    """
    count = min(count, capture.samples)
    ranges = dict.fromkeys(names, (math.inf, -math.inf))
    for begin in range(0, count, capture.block):
        arrays = capture.run(begin, min(begin + capture.block, capture.samples))
        for name in names:
            x = as_finite(f"{name}: input", arrays[name][: count - begin])
            low, high = ranges[name]
            smallest, largest = x.min(initial=math.inf), x.max(initial=-math.inf)
            ranges[name] = (min(low, float(smallest)), max(high, float(largest)))
    return {name: r if r[0] <= r[1] else (0.0, 0.0) for name, r in ranges.items()}


def is_integer(x: Array) -> bool:
    """Whether an array holds integers, those of ml_dtypes included."""
    return x.dtype.kind in "iu" or x.dtype.name in ("int2", "uint2", "int4", "uint4")


def integer_input(name: str, dtype: np.dtype[Any]) -> InputQuantizer:
    """Return what takes integers of a dtype as they are.

    Raises
    ------
    TypeError
        More than 16 bits.
    """
    lowest, highest = operand_range(name, dtype)
    if highest - lowest >= 1 << LARGEST_BITS:
        raise TypeError(f"{name}: expected integers of at most {LARGEST_BITS} bits, got {dtype}")
    return InputQuantizer(lowest=lowest, highest=highest)


def integer_weight(
    name: str,
    weight: Array,
    bounds: tuple[int, int] | None = None,
    zero_point: Array | int = 0,
    scale: float | Array | None = None,
) -> QuantizedWeight:
    """Return integer weights as operands: their zero point, of any broadcasting shape, subtracted.

    Raises
    ------
    TypeError, ValueError
        Operands that no 16-bit type holds; weights beyond the bounds.
    """
    if bounds is None:
        code_range = integer_input(name, weight.dtype)
        bounds = code_range.lowest, code_range.highest
    codes, zeros = weight.astype(np.int64), np.asarray(zero_point, np.int64)
    if codes.size and not bounds[0] <= codes.min() <= codes.max() <= bounds[1]:
        raise ValueError(
            f"{name}: expected integers in [{bounds[0]}, {bounds[1]}], got {codes.min()} to"
            f" {codes.max()}"
        )
    low, high = bounds[0] - int(zeros.max()), bounds[1] - int(zeros.min())
    label = type_label(*bounds, int(zeros.flat[0]) if zeros.size == 1 else 0)
    if zeros.size > 1 and zeros.any():
        label += " - zero point"
    return QuantizedWeight(
        values=(codes - zeros).astype(integer_type(low, high)),
        range=(low, high),
        label=label,
        scale=scale,
    )


def operands_layer(name: str, x: Any, weight: Any, bias: Any = None) -> CapturedLayer:
    """Return a layer of arrays: integers as they are, floats to be quantised.

    Raises
    ------
    TypeError, ValueError
        Arrays of other dtypes and shapes.
    """
    x, weight = as_array(f"{name}: input", x), as_array(f"{name}: weight", weight)
    if weight.ndim not in (2, 4):
        raise ValueError(f"{name}: weight: expected 2 or 4 dimensions, got shape {weight.shape}")
    integers = is_integer(weight)
    return CapturedLayer(
        name=name,
        kind="linear" if weight.ndim == 2 else "conv2d",
        weight=integer_weight(f"{name}: weight", weight) if integers else weight,
        input=integer_input(f"{name}: input", x.dtype) if is_integer(x) else None,
        bias=None if bias is None else as_array(f"{name}: bias", bias),
    )
