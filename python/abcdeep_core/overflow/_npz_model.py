"""Models in .npz files: named weights, and a manifest that says how they are used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays import Array
from .._operand_types import operand_range
from ._captured import (
    CapturedLayer,
    CapturedSource,
    captured_source,
    integer_input,
    integer_weight,
    is_integer,
    padded,
)
from ._data_files import Data, count_samples, read_data, read_npz
from ._integer_codes import as_finite
from .quantization import InputQuantizer, Quantization, QuantizedWeight
from .source import Skipped

_OPERAND_KEYS = ("input_type", "input_scale", "zero_point", "weight_type", "weight_scale")
_CONVOLUTION_KEYS = ("stride", "padding", "dilation", "groups")
_CHAIN_KEYS = ("input", "after", "activation", "flatten")
_ARRAY_KEYS = ("name", "weight", "kind", "transpose", "bias")
_KEYS = (*_ARRAY_KEYS, *_CHAIN_KEYS, *_CONVOLUTION_KEYS, *_OPERAND_KEYS)
_ACTIVATIONS = ("none", "relu")
_BLOCK = 16


def load_npz(
    path: str, data: Data, quantization: Quantization | None, zero_point: str
) -> CapturedSource:
    """Return the source of an .npz model.

    Raises
    ------
    TypeError, ValueError
        A damaged file, a manifest that does not fit its arrays, data that do not fit.
    """
    arrays = read_npz(path)
    entries, skipped = _manifest(path, arrays)
    if not entries:
        raise ValueError("expected at least one layer, got none")
    chain = _Chain()
    for position, entry in enumerate(entries):
        chain.add(_Entry(entry, position, arrays))
    chain.feed(*read_data(data))
    return captured_source(
        Path(path).name, chain, list(chain.found.values()), skipped, quantization, zero_point
    )


def _manifest(
    path: str, arrays: dict[str, Array]
) -> tuple[Sequence[Mapping[str, Any]], list[Skipped]]:
    beside = Path(path).with_suffix(".json")
    text: str | None = None
    if "manifest" in arrays:
        entry = arrays.pop("manifest")
        if entry.dtype.kind == "U" and entry.ndim == 0:
            text = str(entry)
        elif entry.dtype.kind == "S" and entry.ndim == 0:
            text = bytes(entry).decode("utf-8")
        elif entry.dtype == np.uint8 and entry.ndim == 1:
            text = entry.tobytes().decode("utf-8", "replace")
        else:
            raise ValueError("manifest: expected a text, or its UTF-8 bytes as uint8")
    elif beside.exists():
        text = beside.read_text(encoding="utf-8")
    if text is None:
        return _every_array(arrays)
    try:
        manifest = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"manifest: expected JSON: {error}") from None
    layers = manifest.get("layers") if isinstance(manifest, dict) else manifest
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise ValueError("manifest: expected a list of objects under 'layers'")
    if isinstance(manifest, dict) and (unknown := set(manifest) - {"layers"}):
        raise ValueError(f"manifest: expected only 'layers', got {sorted(unknown)} too")
    return layers, []


def _every_array(arrays: Mapping[str, Array]) -> tuple[list[Mapping[str, Any]], list[Skipped]]:
    entries: list[Mapping[str, Any]] = []
    skipped = []
    for name, array in arrays.items():
        if array.ndim in (2, 4):
            entries.append({"name": name})
        else:
            reason = f"an array of {array.ndim} dimensions: expected 2 or 4, or a manifest"
            skipped.append((name, reason))
    return entries, skipped


class _Entry:
    """One layer of a manifest, checked."""

    def __init__(self, entry: Mapping[str, Any], position: int, arrays: Mapping[str, Array]):
        self.entry, self.arrays = entry, arrays
        self.name = str(entry.get("name", entry.get("weight", "")))
        self.where = self.name or f"layer {position}"
        if not self.name:
            raise ValueError(f"manifest: {self.where}: expected a name")
        if unknown := set(entry) - set(_KEYS):
            raise ValueError(
                f"manifest: {self.where}: expected the keys {sorted(_KEYS)}, got {sorted(unknown)}"
            )
        self.weight = self._weight()
        self.kind = entry.get("kind", "linear" if self.weight.ndim == 2 else "conv2d")
        dimensions = {"linear": 2, "conv2d": 4}.get(self.kind, 0)
        if self.weight.ndim != dimensions:
            raise ValueError(
                f"manifest: {self.where}: expected the kind 'linear' for a weight of 2 dimensions,"
                f" 'conv2d' for 4, got {self.kind!r} for shape {self.weight.shape}"
            )
        self.activation = entry.get("activation", "none")
        if self.activation not in _ACTIVATIONS:
            raise self._expected("activation", "'relu' or 'none'")
        self.after = entry.get("after")
        self.source = None if self.after is not None else str(entry.get("input", self.name))
        self.flatten = bool(entry.get("flatten", False))

    def _expected(self, key: str, what: str) -> ValueError:
        return ValueError(
            f"manifest: {self.where}: {key}: expected {what}, got {self.entry.get(key)!r}"
        )

    def _array(self, key: str, name: Any) -> Array:
        if name not in self.arrays:
            raise ValueError(
                f"manifest: {self.where}: {key}: expected an array of the file"
                f" ({', '.join(sorted(self.arrays))}), got {name!r}"
            )
        return self.arrays[name]

    def _weight(self) -> Array:
        weight = self._array("weight", self.entry.get("weight", self.name))
        if self.entry.get("transpose", False):
            if weight.ndim != 2:
                raise self._expected("transpose", "a weight of 2 dimensions")
            weight = weight.T
        return weight

    def _numbers(self, key: str, default: int, counts: tuple[int, ...], least: int) -> list[int]:
        value = self.entry.get(key, default)
        numbers = value if isinstance(value, list) else [value]
        if (
            not all(type(number) is int and number >= least for number in numbers)
            or len(numbers) not in counts
        ):
            raise self._expected(key, f"{' or '.join(map(str, counts))} integers from {least}")
        return numbers * 2 if len(numbers) == 1 else numbers

    def _scale(self, key: str) -> Any:
        value = self.entry.get(key)
        if isinstance(value, str):
            value = self._array(key, value).astype(np.float64)
        if value is None:
            return None
        scale = np.asarray(value)
        if scale.dtype.kind not in "iuf" or scale.ndim > 1 or not (scale > 0).all():
            raise self._expected(key, "positive numbers")
        return float(scale.reshape(-1)[0]) if scale.size == 1 else scale.astype(np.float64)

    def quantizer(self, dtype: np.dtype[Any] | None) -> InputQuantizer | None:
        """Return what makes operands of the input, None for floats without a scale."""
        scale = self._scale("input_scale")
        if isinstance(scale, np.ndarray):
            raise self._expected("input_scale", "one number")
        kind = self.entry.get("input_type")
        integers = dtype is not None and is_integer(np.empty(0, dtype))
        if not integers and scale is None:
            return None
        name = f"{self.where}: input_type"
        if kind is None and not integers:
            raise self._expected("input_type", "a type such as 'u8' beside input_scale")
        if kind is None:
            assert dtype is not None
            taken = integer_input(f"{self.where}: input", dtype)
            lowest, highest = taken.lowest, taken.highest
        else:
            lowest, highest = operand_range(name, kind)
        zero = self.entry.get("zero_point", 0)
        if type(zero) is not int:
            raise self._expected("zero_point", "an integer")
        return InputQuantizer(lowest=lowest, highest=highest, scale=scale, zero_point=zero)

    def found(self, dtype: np.dtype[Any] | None) -> CapturedLayer:
        """Return the layer, given the dtype of its input data if it has data."""
        weight: QuantizedWeight | Array = self.weight
        if is_integer(self.weight):
            kind, scale = self.entry.get("weight_type"), self._scale("weight_scale")
            bounds = None if kind is None else operand_range(f"{self.where}: weight_type", kind)
            name = f"{self.where}: weight"
            weight = integer_weight(name, self.weight, bounds, scale=scale)
        else:
            as_finite(f"{self.where}: weight", self.weight)
        key = self.entry.get("bias")
        geometry: dict[str, Any] = {}
        if self.kind == "conv2d":
            pads = self._numbers("padding", 0, (1, 2, 4), 0)
            geometry = {
                "stride": tuple(self._numbers("stride", 1, (1, 2), 1)),
                "dilation": tuple(self._numbers("dilation", 1, (1, 2), 1)),
                "groups": self._numbers("groups", 1, (1,), 1)[0],
                "pads": tuple(pads * 2 if len(pads) == 2 else pads),
            }
        return CapturedLayer(
            name=self.name,
            kind=self.kind,
            weight=weight,
            input=self.quantizer(dtype),
            bias=None if key is None else self._array("bias", key),
            **geometry,
        )


class _Chain:
    """Layers fed by data or by the layer before: a `Capture`."""

    def __init__(self) -> None:
        self.entries: dict[str, _Entry] = {}
        self.found: dict[str, CapturedLayer] = {}
        self.data: dict[str, Any] = {}
        self.samples, self.block = 0, _BLOCK

    def __getstate__(self) -> dict[str, Any]:
        plain = {}
        for name, entry in self.entries.items():
            plain[name] = _Entry.__new__(_Entry)
            plain[name].__dict__ = {**entry.__dict__, "arrays": {}, "weight": None}
        return {**self.__dict__, "entries": plain}

    def add(self, entry: _Entry) -> None:
        if entry.name in self.entries:
            raise ValueError(f"manifest: {entry.name}: expected a name of its own")
        if entry.after is not None and entry.after not in self.entries:
            raise ValueError(
                f"manifest: {entry.name}: after: expected a layer before it, got {entry.after!r}"
            )
        self.entries[entry.name] = entry

    def feed(self, label: str, arrays: Mapping[str, Any]) -> None:
        """Connect the data and make the layers."""
        fed = [entry for entry in self.entries.values() if entry.source is not None]
        names = {str(entry.source) for entry in fed}
        if set(arrays) == {""} and len(names) == 1:
            arrays = dict.fromkeys(names, arrays[""])
        elif set(arrays) == {""}:
            raise ValueError(
                f"{label}: expected an .npz file with the inputs {sorted(names)}, got one array"
            )
        if missing := names - set(arrays):
            raise ValueError(
                f"{label}: expected the inputs {sorted(names)}, got {sorted(arrays)} without"
                f" {sorted(missing)}"
            )
        self.data = {name: arrays[name] for name in names}
        self.samples = count_samples(label, self.data)
        for entry in self.entries.values():
            dtype = None if entry.source is None else self.data[entry.source].dtype
            self.found[entry.name] = entry.found(dtype)

    def run(self, begin: int, end: int) -> Mapping[str, Array]:
        inputs: dict[str, Array] = {}
        needed = {entry.after for entry in self.entries.values()}
        outputs: dict[str, Array] = {}
        for name, entry in self.entries.items():
            if entry.source is not None:
                x = np.asarray(self.data[entry.source][begin:end])
            else:
                x = outputs[str(entry.after)]
            if entry.flatten:
                x = x.reshape(len(x), -1)
            inputs[name] = x
            if name in needed:
                y = real_output(self.found[name], x)
                outputs[name] = np.maximum(y, 0) if entry.activation == "relu" else y
        return inputs


def real_output(layer: CapturedLayer, x: Array) -> Array:
    """Return what a layer computes, in real units: exact integers times their scales, or floats."""
    weight, quantizer = layer.weight, layer.input
    zero = 0
    unit: Any = 1.0
    if isinstance(weight, QuantizedWeight) and quantizer is not None:
        if weight.scale is None or quantizer.scale is None:
            raise ValueError(
                f"{layer.name}: expected input_scale and weight_scale, as a layer comes after it"
            )
        x, values = quantizer.operand(f"{layer.name}: input", x), weight.values
        zero, unit = quantizer.padding, quantizer.scale * np.asarray(weight.scale)
    elif isinstance(weight, QuantizedWeight) or quantizer is not None:
        raise ValueError(
            f"{layer.name}: expected input and weight both integers or both floats, as a layer"
            " comes after it"
        )
    else:
        values = weight
        x = as_finite(f"{layer.name}: input", x)
    y = _product(layer, x.astype(np.float64), values.astype(np.float64), zero)
    last = (-1,) if layer.kind == "linear" else (-1, 1, 1)
    bias = np.zeros(1) if layer.bias is None else layer.bias
    if bias.dtype.kind in "iu":
        return np.asarray((y + bias.reshape(last)) * np.reshape(unit, last))
    return np.asarray(y * np.reshape(unit, last) + bias.reshape(last))


def _product(layer: CapturedLayer, x: Array, weight: Array, zero: int) -> Array:
    if layer.kind == "linear":
        if x.ndim < 2 or x.shape[-1] != weight.shape[0]:
            raise ValueError(
                f"{layer.name}: input: expected the shape (samples, ..., {weight.shape[0]}), got"
                f" {x.shape}"
            )
        return np.asarray(x @ weight)
    kernel, groups = weight.shape, layer.groups
    if x.ndim != 4 or x.shape[1] != kernel[1] * groups:
        raise ValueError(
            f"{layer.name}: input: expected the shape (samples, {kernel[1] * groups}, height,"
            f" width), got {x.shape}"
        )
    x = padded(x, layer.pads, kernel[2:], layer.stride, layer.dilation, zero)
    extent = [d * (size - 1) + 1 for d, size in zip(layer.dilation, kernel[2:], strict=True)]
    if any(size < most for size, most in zip(x.shape[2:], extent, strict=True)):
        raise ValueError(f"{layer.name}: input: expected at least {extent} pixels, got {x.shape}")
    views = np.lib.stride_tricks.sliding_window_view(x, extent, axis=(2, 3))
    (down, right), (tall, wide) = layer.stride, layer.dilation
    windows = views[:, :, ::down, ::right, ::tall, ::wide]
    split = windows.reshape(len(x), groups, kernel[1], *windows.shape[2:])
    kernels = weight.reshape(groups, kernel[0] // groups, *kernel[1:])
    y = np.einsum("ngchwij,gocij->ngohw", split, kernels, optimize=True)
    return np.asarray(y.reshape(len(x), kernel[0], *y.shape[3:]))
