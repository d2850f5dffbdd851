"""The product layers of an ONNX graph, operator by operator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .._arrays import Array
from ._captured import CapturedLayer, Pads, integer_weight, is_integer
from ._onnx_graph import (
    STANDARD_DOMAINS,
    Constant,
    Graph,
    SkippedNodeError,
    attributes,
    node_name,
)
from ._qonnx import QONNX_DOMAINS, QONNX_OPERATORS
from .quantization import InputQuantizer, QuantizedWeight
from .source import Skipped

_PRODUCTS = ("MatMul", "Gemm", "Conv", "Attention", "LSTM", "GRU", "RNN", "Einsum")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FoundNode:
    """A layer and the tensor that is its input.

    `swap`: its last two axes are exchanged (the weight is the first operand). `flat`: images of
    one axis become images of height 1. `zero_point`: a tensor to subtract, computed from data.
    """

    layer: CapturedLayer
    tensor: str
    swap: bool = False
    flat: bool = False
    zero_point: str = ""


def find_layers(graph: Graph) -> tuple[list[FoundNode], list[Skipped]]:
    """Return the layers of a graph, and the nodes that are not analysed with the reason.

    Raises
    ------
    ValueError
        A node that is not as its operator demands.
    """
    found: list[FoundNode] = []
    skipped: list[Skipped] = []
    names: set[str] = set()
    for node in graph.nodes:
        name = base = node_name(node)
        for copy in range(2, len(graph.nodes) + 2):
            if name not in names:
                break
            name = f"{base} #{copy}"
        read = _READERS.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
        reason = None
        if read is None:
            reason = _reason(node)
        else:
            try:
                found.append(read(graph, node, name))
            except SkippedNodeError as error:
                reason = str(error)
            except (IndexError, AssertionError):
                raise ValueError(
                    f"node {name!r} ({node.op_type}): expected the inputs of the operator, got"
                    f" {list(node.input)}"
                ) from None
            except (TypeError, ValueError) as error:
                raise ValueError(f"node {name!r} ({node.op_type}): {error}") from None
            names.add(name)
        if reason is not None:
            names.add(name)
            skipped.append((name, reason))
    return found, skipped


def _reason(node: Any) -> str | None:
    """Return why a node that may hold products is not analysed, None for other nodes."""
    if node.domain in STANDARD_DOMAINS or node.domain == "com.microsoft":
        if any(part in node.op_type for part in _PRODUCTS):
            return f"the operator {node.op_type} is not analysed"
        inner = [graph for a in node.attribute for graph in (*a.graphs, a.g) if graph.node]
        if any(_reason(n) or n.op_type in _READERS for graph in inner for n in graph.node):
            return f"the graphs inside a node {node.op_type} are not analysed"
        return None
    if node.domain in QONNX_DOMAINS and node.op_type in QONNX_OPERATORS:
        return None
    if node.domain == "ai.onnx.ml":
        return None
    return f"the operator {node.domain}.{node.op_type} is not known"


def _input(node: Any, index: int) -> str:
    return node.input[index] if len(node.input) > index else ""


def _data_and_weight(graph: Graph, node: Any, data: int, weight: int) -> tuple[str, Constant]:
    constant = graph.constant(node.input[weight])
    if constant is None:
        both = graph.constant(node.input[data]) is None
        raise SkippedNodeError(
            "both operands are computed from data" if both else "its weight is computed from data"
        )
    if graph.constant(node.input[data]) is not None:
        raise SkippedNodeError("both operands are constant")
    return node.input[data], constant


def _grid_weight(
    name: str, constant: Constant, reduction: tuple[int, ...]
) -> QuantizedWeight | Array:
    """Return weights on a grid as integers, others as floats."""
    if constant.codes is None:
        if is_integer(constant.values):
            raise SkippedNodeError(f"its weight holds {constant.values.dtype}, not floats")
        return constant.values
    codes, scale, zero = constant.codes, constant.scale, constant.zero
    assert scale is not None
    assert zero is not None
    if scale.size > 1 and scale.ndim != codes.ndim:
        scale = scale.reshape((1,) * (codes.ndim - scale.ndim) + scale.shape)
    if scale.size > 1 and any(scale.shape[axis] != 1 for axis in reduction):
        raise SkippedNodeError("its weight's scale changes along the reduction")
    if constant.bounds[1] - constant.bounds[0] >= 1 << 16:
        raise SkippedNodeError("its weight has more than 16 bits")
    factors = scale.astype(np.float64).reshape(-1)
    found = float(factors[0]) if factors.size == 1 else factors
    return integer_weight(name, codes, constant.bounds, zero, found)


def _matrix(constant: Constant) -> Constant:
    """Return a weight (..., K, N) whose leading axes have size 1, as (K, N)."""
    if constant.codes is None:
        values = constant.values
        if values.ndim == 1:
            values = values[:, np.newaxis]
        if any(size != 1 for size in values.shape[:-2]):
            raise SkippedNodeError(f"its weight is a batch of matrices, {values.shape}")
        return Constant(values.reshape(values.shape[-2:]))
    shape = constant.codes.shape
    if len(shape) < 2 or any(size != 1 for size in shape[:-2]):
        raise SkippedNodeError(f"expected a weight matrix, got the shape {shape}")

    def cut(x: Array) -> Array:
        return x.reshape(x.shape[-2:]) if x.ndim > 2 else x

    return constant.moved(constant.codes, cut)


def _transposed(constant: Constant) -> Constant:
    def turn(x: Array) -> Array:
        return x.T if x.ndim == 2 else x

    return constant.moved(
        turn(constant.values) if constant.codes is None else turn(constant.codes), turn
    )


def _bias(
    constant: Constant, weight: QuantizedWeight | Array, quantizer: InputQuantizer | None
) -> Array:
    """Return a bias: the integers of its grid where that is the accumulator's, else floats."""
    if constant.codes is None or constant.scale is None:
        return constant.values
    known = isinstance(weight, QuantizedWeight) and weight.scale is not None
    if known and quantizer is not None and quantizer.scale is not None:
        assert isinstance(weight, QuantizedWeight)
        unit = quantizer.scale * np.asarray(weight.scale)
        if (np.abs(constant.scale.reshape(-1) / unit - 1) <= 2**-20).all() and not np.any(
            constant.zero
        ):
            return constant.codes
    return constant.values.astype(np.float64)


def _linear(name: str, weight: Any, quantizer: InputQuantizer | None, **rest: Any) -> CapturedLayer:
    return CapturedLayer(name=name, kind="linear", weight=weight, input=quantizer, **rest)


def _matmul(graph: Graph, node: Any, name: str) -> FoundNode:
    swap = graph.constant(node.input[1]) is None and graph.constant(node.input[0]) is not None
    tensor, constant = _data_and_weight(graph, node, int(swap), int(not swap))
    matrix = _transposed(_matrix(constant)) if swap else _matrix(constant)
    weight = _grid_weight(f"{name}: weight", matrix, (0,))
    layer = _linear(name, weight, graph.grid(tensor))
    return FoundNode(layer=layer, tensor=tensor, swap=swap)


def _gemm(graph: Graph, node: Any, name: str) -> FoundNode:
    settings = attributes(node)
    if graph.constant(node.input[1]) is None and graph.constant(node.input[0]) is not None:
        raise SkippedNodeError("its weight is the first operand")
    tensor, constant = _data_and_weight(graph, node, 0, 1)
    alpha, beta = float(settings.get("alpha", 1.0)), float(settings.get("beta", 1.0))
    if not alpha:
        raise SkippedNodeError("alpha is 0")
    matrix = _transposed(constant) if settings.get("transB", 0) else constant
    weight = _grid_weight(f"{name}: weight", matrix, (0,))
    quantizer = graph.grid(tensor)
    addend = graph.constant(_input(node, 2)) if _input(node, 2) else None
    bias = None
    if addend is not None and addend.values.size in (1, matrix_channels(weight)):
        bias = _bias(addend, weight, quantizer).reshape(-1)
        if alpha != 1 or beta != 1:
            bias = beta * addend.values.astype(np.float64).reshape(-1)
    if isinstance(weight, QuantizedWeight):
        scale = None if weight.scale is None else weight.scale * alpha
        weight = dataclasses.replace(weight, scale=scale)
    else:
        weight = weight.astype(np.float64) * alpha
    layer = _linear(name, weight, quantizer, bias=bias)
    return FoundNode(layer=layer, tensor=tensor, swap=bool(settings.get("transA", 0)))


def matrix_channels(weight: QuantizedWeight | Array) -> int:
    """Return N of a weight (K, N)."""
    return int((weight.values if isinstance(weight, QuantizedWeight) else weight).shape[1])


def _conv(graph: Graph, node: Any, name: str) -> FoundNode:
    tensor, constant = _data_and_weight(graph, node, 0, 1)
    kernels, flat = _kernels(constant)
    weight = _grid_weight(f"{name}: weight", kernels, (1, 2, 3))
    quantizer = graph.grid(tensor)
    addend = graph.constant(_input(node, 2)) if _input(node, 2) else None
    bias = None if addend is None else _bias(addend, weight, quantizer).reshape(-1)
    layer = _convolution(node, name, weight, quantizer, bias, flat)
    return FoundNode(layer=layer, tensor=tensor, flat=flat)


def _kernels(constant: Constant) -> tuple[Constant, bool]:
    """Return kernels with four axes, and whether they had three."""
    shape = (constant.values if constant.codes is None else constant.codes).shape
    if len(shape) not in (3, 4):
        raise SkippedNodeError(f"expected a convolution of one or two axes, got kernels {shape}")
    if len(shape) == 4:
        return constant, False

    def lift(x: Array) -> Array:
        return x[:, :, np.newaxis] if x.ndim == 3 else x

    return constant.moved(
        lift(constant.values) if constant.codes is None else lift(constant.codes), lift
    ), True


def _convolution(
    node: Any,
    name: str,
    weight: QuantizedWeight | Array,
    quantizer: InputQuantizer | None,
    bias: Array | None,
    flat: bool,
) -> CapturedLayer:
    settings = attributes(node)
    axes = 1 if flat else 2
    stride, dilation = settings.get("strides", [1] * axes), settings.get("dilations", [1] * axes)
    sides = list(settings.get("pads", [0] * (2 * axes)))
    if len(stride) != axes or len(dilation) != axes or len(sides) != 2 * axes:
        raise ValueError(f"strides, dilations, pads: expected those of {axes} axes")
    if flat:
        stride, dilation = [1, *stride], [1, *dilation]
        sides = [0, sides[0], 0, sides[1]]
    automatic = settings.get("auto_pad", "NOTSET")
    pads: Pads = (sides[0], sides[1], sides[2], sides[3])
    if automatic == "VALID":
        pads = (0, 0, 0, 0)
    elif automatic in ("SAME_UPPER", "SAME_LOWER"):
        pads = automatic
    if isinstance(pads, tuple) and min(pads) < 0:
        raise SkippedNodeError(f"its padding is negative: {sides}")
    return CapturedLayer(
        name=name,
        kind="conv2d",
        weight=weight,
        input=quantizer,
        bias=bias,
        stride=(stride[0], stride[1]),
        dilation=(dilation[0], dilation[1]),
        pads=pads,
        groups=int(settings.get("group", 1)),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Operands:
    """Positions of the inputs of an operator whose operands are integers; -1 for none."""

    data: int = 0
    weight: int = 1
    data_zero: int = 2
    weight_zero: int = 3
    data_scale: int = -1
    weight_scale: int = -1
    bias: int = -1

    def swapped(self) -> _Operands:
        """Return the positions where the first operand is the weight."""
        return _Operands(
            data=self.weight,
            weight=self.data,
            data_zero=self.weight_zero,
            weight_zero=self.data_zero,
            data_scale=self.weight_scale,
            weight_scale=self.data_scale,
        )


def _integer(graph: Graph, node: Any, name: str, at: _Operands, convolution: bool) -> FoundNode:
    first, second = graph.constant(node.input[at.data]), graph.constant(node.input[at.weight])
    swap = not convolution and second is None and first is not None
    if swap:
        at = at.swapped()
    tensor, constant = _data_and_weight(graph, node, at.data, at.weight)
    flat = False
    if convolution:
        kernels, flat = _kernels(constant)
        codes = kernels.values
    else:
        codes = _matrix(constant).values
        codes = codes.T if swap else codes
    bounds = graph.integer_range("its weight", codes.dtype)
    shape = (-1, 1, 1, 1) if convolution else (1, -1)
    zero = _optional(graph, node, at.weight_zero, "zero point of the weight")
    scale = _optional(graph, node, at.weight_scale, "scale of the weight")
    zeros: Any = 0 if zero is None else zero.reshape(shape) if zero.size > 1 else int(zero.flat[0])
    factor: Any = None
    if scale is not None:
        factor = float(scale.flat[0]) if scale.size == 1 else scale.astype(np.float64).reshape(-1)
    weight = integer_weight(f"{name}: weight", codes, bounds, zeros, factor)
    quantizer, dynamic = _integer_input(graph, node, at, tensor)
    if not convolution:
        return FoundNode(
            layer=_linear(name, weight, quantizer), tensor=tensor, swap=swap, zero_point=dynamic
        )
    bias = _optional(graph, node, at.bias, "bias")
    layer = _convolution(node, name, weight, quantizer, bias, flat)
    return FoundNode(layer=layer, tensor=tensor, flat=flat, zero_point=dynamic)


def _integer_input(
    graph: Graph, node: Any, at: _Operands, tensor: str
) -> tuple[InputQuantizer, str]:
    """Return what takes the codes, and the zero point's tensor if it is computed from data."""
    name = _input(node, at.data_zero)
    zero = graph.array(name) if name else np.zeros((), np.int64)
    dtype = graph.dtype(tensor)
    if dtype is None and name:
        dtype = graph.dtype(name)
    if dtype is None:
        raise SkippedNodeError("the type of its input is not known")
    low, high = graph.integer_range("its input", dtype)
    if zero is None:
        span = high - low
        return InputQuantizer(lowest=-span, highest=span), name
    if zero.size != 1:
        raise SkippedNodeError("its input has a zero point for every row")
    scale = _optional(graph, node, at.data_scale, "scale of the input")
    if scale is not None and scale.size != 1:
        raise SkippedNodeError("its input has a scale for every row")
    factor = None if scale is None else float(scale.flat[0])
    quantizer = InputQuantizer(lowest=low, highest=high, scale=factor, zero_point=int(zero.flat[0]))
    return quantizer, ""


def _optional(graph: Graph, node: Any, index: int, what: str) -> Array | None:
    name = _input(node, index) if index >= 0 else ""
    if not name:
        return None
    array = graph.array(name)
    if array is None:
        raise SkippedNodeError(f"the {what} is computed from data")
    return array


_PLAIN = _Operands()
_SCALED = _Operands(data=0, data_scale=1, data_zero=2, weight=3, weight_scale=4, weight_zero=5)
_SCALED_WITH_BIAS = dataclasses.replace(_SCALED, bias=8)

_READERS: dict[str, Callable[[Graph, Any, str], FoundNode]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "MatMulInteger": lambda graph, node, name: _integer(graph, node, name, _PLAIN, False),
    "ConvInteger": lambda graph, node, name: _integer(graph, node, name, _PLAIN, True),
    "QLinearMatMul": lambda graph, node, name: _integer(graph, node, name, _SCALED, False),
    "QLinearConv": lambda graph, node, name: _integer(graph, node, name, _SCALED_WITH_BIAS, True),
}
