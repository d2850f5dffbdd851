"""An ONNX graph: who produces a tensor, what is constant, and on which integer grid floats lie."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .._arrays import Array
from .._operand_types import Range, operand_range
from ._onnx_extra import helper, numpy_helper, onnx
from ._qonnx import QONNX_DOMAINS, quant_codes, quant_range
from .quantization import InputQuantizer

STANDARD_DOMAINS = ("", "ai.onnx")
_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_SELECTIONS = ("MaxPool", "Relu", "Slice", "Gather", "Expand", "DepthToSpace", "SpaceToDepth")
# The output's values are among those of the first input, or zero.
_MOVES = ("Identity", "Dropout", "Transpose", *_RESHAPES, *_SELECTIONS)
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli")


class SkippedNodeError(Exception):
    """Why a node is not analysed."""


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """A constant tensor: plain, or integer codes on a grid, real = (codes - zero) * scale.

    `scale` and `zero` have one element, or as many axes as the codes.
    """

    plain: Array | None = None
    codes: Array | None = None
    scale: Array | None = None
    zero: Array | None = None
    bounds: Range = (0, 0)

    @property
    def values(self) -> Array:
        """What the tensor holds."""
        if self.plain is not None:
            return self.plain
        assert self.codes is not None
        assert self.zero is not None
        assert self.scale is not None
        shifted = self.codes.astype(np.int64) - self.zero.astype(np.int64)
        return (shifted.astype(self.scale.dtype) * self.scale).astype(self.scale.dtype)

    def moved(self, values: Array, codes: Any) -> Constant:
        """Return this constant after a rearrangement, `codes` rearranging one array."""
        if self.codes is None:
            return Constant(values)
        return dataclasses.replace(
            self, codes=codes(self.codes), scale=codes(self.scale), zero=codes(self.zero)
        )


def node_name(node: Any) -> str:
    """Return a node's name, made of operator and output where it has none."""
    output = next((name for name in node.output if name), "")
    return node.name or f"{node.op_type}({output})"


def attributes(node: Any) -> dict[str, Any]:
    """Return a node's attributes as Python values, texts decoded."""
    found = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        found[attribute.name] = value.decode() if isinstance(value, bytes) else value
    return found


class Graph:
    """The nodes of a graph with what is known about their tensors."""

    def __init__(self, model: Any) -> None:
        self.model, self.nodes = model, list(model.graph.node)
        self.producers = {name: node for node in self.nodes for name in node.output if name}
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = {
            value.name: value for value in model.graph.input if value.name not in self.initializers
        }
        self.types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
        }
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}
        self._constants: dict[str, Constant | None] = {}

    def constant(self, name: str) -> Constant | None:
        """Return a tensor that does not depend on data, None for others.

        Raises
        ------
        ValueError
            A constant that cannot be computed.
        """
        if name not in self._constants:
            pending = [name]
            while pending:  # not by recursion: chains may be long
                top = pending[-1]
                node = self.producers.get(top)
                inputs = [] if node is None else [i for i in node.input if i]
                waiting = [i for i in inputs if i not in self._constants and i not in pending]
                if top in self._constants or not waiting:
                    self._constants.setdefault(top, self._compute(top, node))
                    pending.pop()
                else:
                    pending += waiting
        return self._constants[name]

    def array(self, name: str) -> Array | None:
        """Return the values of a constant tensor, None for others."""
        constant = self.constant(name)
        return None if constant is None else constant.values

    def _compute(self, name: str, node: Any) -> Constant | None:
        if name in self.initializers:
            try:
                return Constant(numpy_helper.to_array(self.initializers[name]))
            except (ValueError, TypeError) as error:
                raise ValueError(f"initializer {name!r}: {error}") from None
        if node is None or node.op_type in _RANDOM:
            return None
        names = [i for i in node.input if i]
        inputs = [c for c in map(self._constants.get, names) if c is not None]
        if len(inputs) < len(names):
            return None
        if any(
            a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
            for a in node.attribute
        ):
            return None
        if node.op_type == "DequantizeLinear":
            return self._dequantized(node, inputs)
        if node.domain in QONNX_DOMAINS:
            return self._quant(node)
        if node.domain not in STANDARD_DOMAINS:
            return None
        return self._evaluated(name, node, inputs)

    def _evaluated(self, name: str, node: Any, inputs: list[Constant]) -> Constant:
        first = inputs[0] if inputs else None
        if node.op_type in ("Identity", "Dropout") and first is not None:
            return Constant(**vars(first))
        if first is not None and first.codes is not None:
            assert first.scale is not None
            assert first.zero is not None
            codes = first.codes
            if node.op_type == "Transpose":
                perm = attributes(node).get("perm")
                size = codes.ndim

                def turn(x: Array) -> Array:
                    return x.transpose(perm) if x.ndim == size else x

                return first.moved(codes, turn)
            if node.op_type in _RESHAPES and first.scale.size == first.zero.size == 1:
                shape = self._run(name, node, [Constant(codes.astype(np.int64)), *inputs[1:]])

                def reshape(x: Array) -> Array:
                    return x.reshape(shape.shape) if x.size == codes.size > 1 else x

                return first.moved(codes, reshape)
        return Constant(self._run(name, node, inputs))

    def _run(self, name: str, node: Any, inputs: list[Constant]) -> Array:
        feeds = dict(zip([i for i in node.input if i], (c.values for c in inputs), strict=True))
        try:
            evaluator = onnx.reference.ReferenceEvaluator(node, opsets=self.opsets)
            outputs: Any = evaluator.run(None, feeds)
        except Exception as error:
            raise ValueError(f"node {node_name(node)!r} ({node.op_type}): {error}") from None
        return np.asarray(outputs[list(node.output).index(name)])

    def _dequantized(self, node: Any, inputs: list[Constant]) -> Constant | None:
        codes, scale = self.array(node.input[0]), self.array(node.input[1])
        assert codes is not None
        assert scale is not None
        settings = attributes(node)
        if settings.get("block_size", 0) or codes.dtype.name.startswith("float"):
            return self._evaluated(node.output[0], node, inputs)
        zero = self.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        zero = np.zeros_like(scale, dtype=codes.dtype) if zero is None else zero
        bounds = (-(2**31), 2**31 - 1)
        if codes.dtype != np.int32:
            bounds = operand_range(node_name(node), codes.dtype)
        axis = settings.get("axis", 1)
        return Constant(
            codes=codes,
            scale=_along(scale, codes.ndim, axis),
            zero=_along(zero, codes.ndim, axis),
            bounds=bounds,
        )

    def _quant(self, node: Any) -> Constant | None:
        values = self.array(node.input[0])
        assert values is not None
        arrays = [self.array(name) for name in node.input[1:]]
        codes, bounds = quant_codes(node_name(node), node.op_type, values, arrays, attributes(node))
        zero = np.zeros(1) if node.op_type == "BipolarQuant" else arrays[1]
        assert arrays[0] is not None
        assert zero is not None
        return Constant(codes=codes, scale=arrays[0], zero=zero.astype(np.int64), bounds=bounds)

    def grid(self, name: str) -> InputQuantizer | None:
        """Return the integer grid on which a float tensor lies, None if none is known.

        Raises
        ------
        SkippedNodeError
            A grid that is not that of one scale known beforehand.
        """
        node = self.producers.get(name)
        while node is not None and node.op_type in _MOVES and node.domain in STANDARD_DOMAINS:
            node = self.producers.get(node.input[0])
        if node is None:
            return None
        where = node_name(node)
        if node.op_type == "DequantizeLinear":
            bounds = self._code_range(where, node)
            scale = self._scalar(where, "scale", node.input[1])
            zero = self._scalar(where, "zero point", node.input[2]) if len(node.input) > 2 else 0.0
        elif node.domain in QONNX_DOMAINS and node.op_type in ("Quant", "BipolarQuant"):
            scale = self._scalar(where, "scale", node.input[1])
            bipolar = node.op_type == "BipolarQuant"
            zero = 0.0 if bipolar else self._scalar(where, "zero point", node.input[2])
            bounds = (-1, 1)
            if not bipolar:
                bits = self._scalar(where, "bit width", node.input[3])
                bounds = quant_range(where, bits, attributes(node))
        else:
            return None
        if zero != round(zero):
            raise SkippedNodeError(f"its input's zero point, of {where!r}, is not an integer")
        if bounds[1] - bounds[0] >= 1 << 16:
            raise SkippedNodeError(f"its input, of {where!r}, has more than 16 bits")
        try:
            return InputQuantizer(
                lowest=bounds[0], highest=bounds[1], scale=scale, zero_point=int(zero)
            )
        except ValueError as error:
            raise SkippedNodeError(f"its input, of {where!r}: {error}") from None

    def _scalar(self, where: str, what: str, name: str) -> float:
        if not name:
            return 0.0
        array = self.array(name)
        if array is None:
            raise SkippedNodeError(f"its input's {what}, of {where!r}, is computed from data")
        if array.size != 1:
            raise SkippedNodeError(
                f"its input's {what}, of {where!r}, is not one number: got the shape {array.shape}"
            )
        return float(array.reshape(-1)[0])

    def _code_range(self, where: str, node: Any) -> Range:
        """Return the range of the integers that a DequantizeLinear takes."""
        dtype: np.dtype[Any] | None = None
        if len(node.input) > 2 and node.input[2]:
            zero = self.array(node.input[2])
            dtype = None if zero is None else zero.dtype
        if dtype is None:
            dtype = self.dtype(node.input[0])
        if dtype is None:
            raise SkippedNodeError(f"the type of its input, of {where!r}, is not known")
        return self.integer_range(where, dtype)

    def integer_range(self, where: str, dtype: np.dtype[Any]) -> Range:
        """Return the range of an integer type.

        Raises
        ------
        SkippedNodeError
            Another type, or one of more than 16 bits.
        """
        try:
            bounds = operand_range(where, dtype)
        except (TypeError, ValueError):
            raise SkippedNodeError(f"{where!r} has codes of {dtype}, not integers") from None
        if bounds[1] - bounds[0] >= 1 << 16:
            raise SkippedNodeError(f"{where!r} has codes of {dtype}: expected at most 16 bits")
        return bounds

    def dtype(self, name: str) -> np.dtype[Any] | None:
        """Return the dtype of a tensor, as far as the graph says."""
        constant = self.constant(name)
        if constant is not None:
            return constant.values.dtype
        node = self.producers.get(name)
        if node is not None and node.op_type in ("DynamicQuantizeLinear", "QuantizeLinear"):
            if len(node.input) > 2 and node.input[2]:
                return self.dtype(node.input[2])
            kind = attributes(node).get("output_dtype", 0)
            return helper.tensor_dtype_to_np_dtype(kind) if kind else np.dtype(np.uint8)
        if node is not None and node.op_type in _MOVES:
            return self.dtype(node.input[0])
        kind = self.types.get(name, 0)
        return helper.tensor_dtype_to_np_dtype(kind) if kind else None


def _along(x: Array, dimensions: int, axis: int) -> Array:
    """Return a vector along one of some axes; a single element as it is."""
    if x.size == 1:
        return x.reshape(())
    shape = [1] * dimensions
    shape[axis] = x.size
    return x.reshape(shape)
