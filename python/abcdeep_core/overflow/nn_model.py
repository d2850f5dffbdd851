"""Sources from models in Python: `network_source` for `ab.nn`, `callable_source` for the rest."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import nn
from .._arrays import Array, as_array
from .._format_base import integer
from ._captured import CapturedLayer, CapturedSource, captured_source, operands_layer
from ._data_files import Data, count_samples, read_data
from .quantization import Quantization

Function = Callable[[Any], Mapping[str, tuple[Any, ...]]]


class _NetworkCapture:
    """The inputs of the product layers of an `ab.nn` model."""

    def __init__(self, model: nn.Layer, names: Mapping[int, str], data: Any, block: int) -> None:
        self.model, self.names, self.data, self.block = model, dict(names), data, block
        self.samples = int(data.shape[0])

    def run(self, begin: int, end: int) -> Mapping[str, Array]:
        x = np.asarray(self.data[begin:end])
        inputs = {}
        for index, leaf in enumerate(self.model.leaves()):
            if isinstance(leaf, nn.GemmLayer):
                leaf.evaluation_calls = begin // self.block  # random words of the block's own
            if index in self.names:
                inputs[self.names[index]] = x
            x = leaf.forward(x)
        return inputs


def network_source(
    model: nn.Layer,
    data: Data,
    *,
    quantise: str = "int8",
    per_channel: bool = True,
    affine: bool = False,
    zero_point: str = "subtract",
    calibration_samples: int = 256,
    batch: int = 16,
    title: str = "",
) -> CapturedSource:
    """Return the integer operands of the Linear and Conv2d layers of an `ab.nn` model.

    The forward pass runs with the model's own arithmetic; each product layer's input is quantised
    as it arrives.

    Parameters
    ----------
    model : nn.Layer
        A `nn.Sequential`, or one layer. A layer is called by its place and class: ``"0 Linear"``.
    data : path, ndarray
        A .npy file or the array itself, float32, samples first.
    quantise, per_channel, affine, zero_point, calibration_samples
        As `load_model`.
    batch : int
        Samples that a forward pass takes together.
    title : str
        For people; by default the class of the model.

    Returns
    -------
    CapturedSource
        A `Source`. It does not see later changes of the weights.

    Raises
    ------
    TypeError, ValueError
        A model without product layers, data that do not fit, values that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> model = ab.nn.Sequential(ab.nn.Linear(8, 4), ab.nn.ReLU(), ab.nn.Linear(4, 2), seed=0)
    >>> x = np.linspace(-1, 1, 40, dtype=np.float32).reshape(5, 8)
    >>> source = ab.overflow.network_source(model, x)
    >>> [(layer.name, layer.terms) for layer in source.layers]
    [('0 Linear', 8), ('2 Linear', 4)]
    >>> source.inputs(0, 1)["0 Linear"]
    array([[-127, -120, -114, -107, -101,  -94,  -88,  -81]], dtype=int8)
    """
    if not isinstance(model, nn.Layer):
        raise TypeError(f"model: expected an ab.nn layer, got {type(model).__name__}")
    quantization = Quantization.from_name(
        quantise, per_channel=per_channel, affine=affine, calibration_samples=calibration_samples
    )
    label, arrays = read_data(data)
    if set(arrays) != {""}:
        raise ValueError(f"{label}: expected one array, got those named {sorted(arrays)}")
    count_samples(label, arrays)
    copied = copy.deepcopy(model)
    names, found = {}, []
    for index, leaf in enumerate(copied.leaves()):
        if not isinstance(leaf, (nn.Linear, nn.Conv2d)):
            continue
        names[index] = f"{index} {type(leaf).__name__}"
        found.append(_network_layer(names[index], leaf))
    if not found:
        raise ValueError("model: expected a Linear or Conv2d layer, got none")
    capture = _NetworkCapture(copied, names, arrays[""], integer("batch", batch, 1))
    title = title or type(model).__name__
    return captured_source(title, capture, found, [], quantization, zero_point)


def _network_layer(name: str, layer: nn.Linear | nn.Conv2d) -> CapturedLayer:
    bias = None if layer.bias is None else layer.bias.value
    if isinstance(layer, nn.Linear):
        return CapturedLayer(name=name, kind="linear", weight=layer.weight.value, bias=bias)
    return CapturedLayer(
        name=name,
        kind="conv2d",
        weight=layer.weight.value,
        bias=bias,
        stride=layer.stride,
        pads=(*layer.padding, *layer.padding),
        dilation=layer.dilation,
        groups=layer.groups,
    )


class _CallableCapture:
    """The inputs that a function reports."""

    def __init__(self, function: Function, data: Any, single: bool, block: int) -> None:
        self.function, self.data, self.single, self.block = function, data, single, block
        self.samples = int(next(iter(data.values())).shape[0])

    def call(self, begin: int, end: int) -> dict[str, tuple[Any, ...]]:
        batch = {name: np.asarray(x[begin:end]) for name, x in self.data.items()}
        layers = self.function(batch[""] if self.single else batch)
        if not isinstance(layers, Mapping):
            raise TypeError(
                f"function: expected a mapping of layer names, got {type(layers).__name__}"
            )
        for name, operands in layers.items():
            if not isinstance(operands, tuple) or len(operands) not in (2, 3):
                raise TypeError(
                    f"function: {name}: expected (input, weight) or (input, weight, bias)"
                )
        return dict(layers)

    def run(self, begin: int, end: int) -> Mapping[str, Array]:
        inputs = {}
        for name, operands in self.call(begin, end).items():
            x = as_array(f"{name}: input", operands[0])
            if x.shape[:1] != (end - begin,):
                raise ValueError(
                    f"{name}: input: expected {end - begin} samples along axis 0, got {x.shape}"
                )
            inputs[name] = x
        return inputs


def callable_source(
    function: Function,
    data: Data,
    *,
    quantise: str | None = None,
    per_channel: bool = True,
    affine: bool = False,
    zero_point: str = "subtract",
    calibration_samples: int = 256,
    batch: int = 16,
    title: str = "",
) -> CapturedSource:
    """Return the integer operands of the products that a Python function does.

    Parameters
    ----------
    function : callable
        Takes a batch of samples, an array (or a mapping of arrays where `data` has names), and
        returns a mapping of a layer's name to ``(input, weight)`` or ``(input, weight, bias)``.
        Weights are (K, N), or (O, C, kH, kW) for a convolution with stride 1 and no padding, and
        are those of the first call. Inputs have the samples first. Each operand is floats, which
        need `quantise`, or integers of at most 16 bits, whose dtype is their range; an integer
        bias is in units of the accumulator, a float one in real units.
    data : path, ndarray, or mapping of str to ndarray
        Samples first; a .npy or .npz file, or arrays.
    quantise, per_channel, affine, zero_point, calibration_samples
        As `load_model`.
    batch : int
        Samples that a call of the function takes together.
    title : str
        For people; by default the name of the function.

    Returns
    -------
    CapturedSource
        A `Source`, to be pickled if the function can be.

    Raises
    ------
    TypeError, ValueError
        Another result of the function, float operands without `quantise`, values that are not
        finite.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> w1, w2 = np.eye(4, dtype=np.int8), np.ones((4, 2), np.int8)
    >>> def forward(x):
    ...     return {"first": (x, w1), "second": (np.maximum(x, 0).astype(np.uint8), w2)}
    >>> x = np.array([[-1, 2, -3, 4]], np.int8)
    >>> source = ab.overflow.callable_source(forward, x)
    >>> source.inputs(0, 1)["second"], source.layers[1].input_type
    (array([[0, 2, 0, 4]], dtype=uint8), 'u8')
    """
    if not callable(function):
        raise TypeError(f"function: expected a callable, got {type(function).__name__}")
    quantization = None
    if quantise is not None:
        settings = {"per_channel": per_channel, "affine": affine}
        quantization = Quantization.from_name(
            quantise, calibration_samples=calibration_samples, **settings
        )
    label, arrays = read_data(data)
    count_samples(label, arrays)
    block = integer("batch", batch, 1)
    capture = _CallableCapture(function, arrays, set(arrays) == {""}, block)
    found = [
        operands_layer(str(name), *operands)
        for name, operands in capture.call(0, min(block, capture.samples)).items()
    ]
    if not found:
        raise ValueError("function: expected at least one layer, got none")
    title = title or getattr(function, "__name__", type(function).__name__)
    return captured_source(title, capture, found, [], quantization, zero_point)
