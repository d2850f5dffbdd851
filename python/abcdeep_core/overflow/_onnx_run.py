"""Running an ONNX graph up to the inputs of its product layers, in blocks of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import Array
from ._captured import is_integer
from ._onnx_extra import HAS_RUNTIME, helper, onnx
from ._onnx_graph import STANDARD_DOMAINS, Graph, attributes, element_dtype, node_name
from ._onnx_layers import FoundNode
from ._qonnx import QONNX_DOMAINS, QONNX_OPERATORS, standard_nodes

_BLOCK = 16  # samples run together, fewer where their tensors would take more than
_BLOCK_BYTES = 1 << 26
_MIXES_SAMPLES = frozenset(["DynamicQuantizeLinear"])


def unknown_node(graph: Graph, tensors: Sequence[str]) -> str | None:
    """Return why tensors cannot be computed, naming the node, or None if they can."""
    for node in needed_nodes(graph, tensors):
        domain = "" if node.domain in STANDARD_DOMAINS else node.domain
        if domain in QONNX_DOMAINS and node.op_type in QONNX_OPERATORS:
            continue
        if domain == "com.microsoft" and HAS_RUNTIME:
            continue
        if not onnx.defs.has(node.op_type, domain):
            operator = f"{domain}.{node.op_type}" if domain else node.op_type
            return f"its input needs node {node_name(node)!r}, whose operator {operator} is unknown"
    return None


def needed_nodes(graph: Graph, tensors: Sequence[str]) -> list[Any]:
    """Return the nodes that some tensors depend on, in the graph's order."""
    wanted, pending = set(), list(tensors)
    while pending:
        node = graph.producers.get(pending.pop())
        if node is None or id(node) in wanted:
            continue
        wanted.add(id(node))
        pending += [name for name in node.input if name] + outer_names(node)
    return [node for node in graph.nodes if id(node) in wanted]


def outer_names(node: Any) -> list[str]:
    """Return what the graphs inside a node mention; some of it lies outside."""
    names = []
    for attribute in node.attribute:
        for inner in (*attribute.graphs, attribute.g):
            for child in inner.node:
                names += [name for name in child.input if name] + outer_names(child)
            names += [value.name for value in inner.output]
    return names


def pruned_model(graph: Graph, tensors: Sequence[str]) -> Any:
    """Return a model that computes the tensors and nothing else, in operators of ONNX.

    Raises
    ------
    ValueError
        A QONNX node that is not supported.
    """
    nodes, constants, used = [], [], set(tensors)
    for node in needed_nodes(graph, tensors):
        used.update(node.input)
        used.update(outer_names(node))
        if node.domain not in QONNX_DOMAINS:
            nodes.append(node)
            continue
        bits = graph.array(node.input[3]) if len(node.input) > 3 else None
        rewritten = standard_nodes(node, node_name(node), attributes(node), bits)
        nodes += rewritten[0]
        constants += rewritten[1]
    initializers = [t for name, t in graph.initializers.items() if name in used]
    inputs = [value for name, value in graph.inputs.items() if name in used]
    outputs = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors)]
    known = {value.name: value for value in graph.model.graph.value_info}
    known |= {value.name: value for value in graph.model.graph.output}
    outputs = [known.get(value.name, value) for value in outputs]
    inner = helper.make_graph(nodes, "captured", inputs, outputs, [*initializers, *constants])
    domains = [entry for entry in graph.model.opset_import if entry.domain not in QONNX_DOMAINS]
    return helper.make_model(inner, opset_imports=domains, ir_version=graph.model.ir_version)


class OnnxCapture:
    """The inputs of the layers of an ONNX graph: a `Capture`.

    Where samples cannot be told apart along axis 0 of a layer's input, or influence each other,
    each sample is run by itself.
    """

    def __init__(
        self, label: str, graph: Graph, found: Sequence[FoundNode], data: Mapping[str, Any]
    ) -> None:
        self.label, self.data = label, dict(data)
        tensors = [node.tensor for node in found]
        tensors += [node.zero_point for node in found if node.zero_point]
        self.tensors = list(dict.fromkeys(tensors))
        self.nodes = {node.layer.name: _Input(node) for node in found}
        model = pruned_model(graph, self.tensors)
        self.dtypes = {
            value.name: element_dtype(value.type.tensor_type.elem_type)
            for value in model.graph.input
        }
        try:
            self.model = model.SerializeToString()
        except Exception as error:
            raise ValueError(f"expected a graph of at most 2 GiB: {error}") from None
        self.samples = int(next(iter(self.data.values())).shape[0])
        self._session: Any = None
        self._refusal = ""
        self.block, self.padded = 1, False
        fixed = {
            value.type.tensor_type.shape.dim[0].dim_value
            for value in model.graph.input
            if value.type.tensor_type.shape.dim
        } - {0}
        mixes = any(n.op_type in _MIXES_SAMPLES for n in needed_nodes(graph, self.tensors))
        if len(fixed) > 1:
            raise ValueError(f"expected inputs of one batch size, got {sorted(fixed)}")
        if fixed:
            self.block, self.padded = fixed.pop(), True
        elif not mixes and (size := self._bytes_of_a_sample()):
            while self.block < _BLOCK and 2 * self.block * size <= _BLOCK_BYTES:
                self.block *= 2

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}

    def run(self, begin: int, end: int) -> Mapping[str, Array]:
        """Return the integer codes or floats that the layers take, by layer name."""
        feeds = {name: self._batch(name, x, begin, end) for name, x in self.data.items()}
        tensors = self._compute(feeds)
        count = self.block if self.padded else end - begin
        return {
            name: node.samples(name, tensors, count)[: end - begin]
            for name, node in self.nodes.items()
        }

    def _batch(self, name: str, x: Any, begin: int, end: int) -> Array:
        batch, where = np.asarray(x[begin:end]), f"{self.label}: input {name!r}"
        if batch.dtype.kind == "f" and not np.isfinite(batch).all():
            finite = np.isfinite(batch).reshape(len(batch), -1).all(axis=1)
            sample = begin + int(np.argmin(finite))
            raise ValueError(f"{where}: expected finite values, got others in sample {sample}")
        batch = converted(where, batch, self.dtypes[name])
        if self.padded and len(batch) < self.block:
            batch = np.concatenate([batch, np.repeat(batch[-1:], self.block - len(batch), axis=0)])
        return batch

    def _bytes_of_a_sample(self) -> int:
        """Return the size of a sample's tensors, 0 unless twice the samples have twice the rows."""
        feeds = {name: self._batch(name, x, 0, 1) for name, x in self.data.items()}
        try:
            one = self._compute(feeds)
            two = self._compute({name: np.concatenate([x, x]) for name, x in feeds.items()})
        except ValueError:
            return 0
        for node in self.nodes.values():
            first, second = node.arranged(one).shape, node.arranged(two).shape
            if not first or second != (2 * first[0], *first[1:]):
                return 0
        return sum(tensor.nbytes for tensor in one.values())

    def _compute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._session is None:
            self._session, self._refusal = _session(self.model)
        try:
            arrays = self._session.run(self.tensors, dict(feeds))
        except Exception as error:
            reason = self._refusal or str(error).strip().splitlines()[0]
            raise ValueError(f"running the graph: {reason}") from None
        return dict(zip(self.tensors, map(np.asarray, arrays), strict=True))


class _Input:
    """How a layer's input is read from the tensors of a run."""

    def __init__(self, node: FoundNode) -> None:
        self.tensor, self.zero_point = node.tensor, node.zero_point
        self.swap, self.flat = node.swap, node.flat
        self.images = node.layer.kind == "conv2d"

    def arranged(self, tensors: Mapping[str, Array]) -> Array:
        """Return the input with the axes that the layer expects."""
        x = tensors[self.tensor]
        if self.swap and x.ndim > 1:
            x = x.swapaxes(-1, -2)
        return x[:, :, np.newaxis] if self.flat and x.ndim == 3 else x

    def samples(self, name: str, tensors: Mapping[str, Array], count: int) -> Array:
        """Return the input of some samples, the samples first."""
        x = self.arranged(tensors)
        if self.zero_point:
            zero = tensors[self.zero_point]
            if zero.size != 1:
                raise ValueError(f"{name}: expected one zero point, got the shape {zero.shape}")
            x = (x.astype(np.int32) - int(zero.reshape(-1)[0])).astype(np.int16)
        rows = x.shape[0] if x.ndim else 0
        if count == 1 and rows != 1:
            x = x[np.newaxis]
        elif not rows or rows % count:
            raise ValueError(f"{name}: expected inputs of {count} samples, got shape {x.shape}")
        elif rows != count:
            x = x.reshape(count, rows // count, *x.shape[1:])
        if self.images and x.ndim != 4:
            raise ValueError(f"{name}: expected one image a sample, got the shape {x.shape}")
        return x


def converted(name: str, x: Array, dtype: np.dtype[Any]) -> Array:
    """Return data as a graph's input type: floats as floats, integers as integers that fit.

    Raises
    ------
    ValueError
        Another kind, or integers that do not fit.
    """
    if x.dtype == dtype:
        return x
    if x.dtype.kind == "f" and (dtype.kind == "f" or dtype.name == "bfloat16"):
        with np.errstate(over="ignore"):
            narrowed = x.astype(dtype)
        if np.isfinite(narrowed.astype(np.float64)).all():
            return narrowed
    elif is_integer(x) and is_integer(np.empty(0, dtype)):
        narrowed = x.astype(dtype)
        if (narrowed.astype(object) == x.astype(object)).all():
            return narrowed
    raise ValueError(f"{name}: expected numbers of {dtype}, got {x.dtype}")


def _session(model: bytes) -> tuple[Any, str]:
    """Return what runs a model, and why that is not onnxruntime, where it is installed."""
    reason = ""
    if HAS_RUNTIME:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            providers = ["CPUExecutionProvider"]
            return onnxruntime.InferenceSession(model, options, providers=providers), ""
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
    try:
        return onnx.reference.ReferenceEvaluator(onnx.load_model_from_string(model)), reason
    except Exception as error:
        reason = reason or str(error).strip().splitlines()[0]
        raise ValueError(f"the graph cannot be run: {reason}") from None
