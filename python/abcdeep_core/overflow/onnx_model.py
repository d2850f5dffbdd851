"""ONNX files: their product layers and, by running them, the inputs of these (extra ``[onnx]``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._captured import CapturedSource, captured_source
from ._data_files import Data, count_samples, read_data
from ._onnx_extra import onnx
from ._onnx_graph import Graph, node_name
from ._onnx_layers import FoundNode, find_layers
from ._onnx_run import OnnxCapture, needed_nodes, unknown_node
from .quantization import Quantization
from .source import Skipped


def load_onnx(
    path: str, data: Data, quantization: Quantization | None, zero_point: str
) -> CapturedSource:
    """Return the source of an ONNX file; `load_model` calls it and describes the arguments.

    Parameters
    ----------
    path : str
        The file; external data lie beside it.
    data : path, ndarray, or mapping of str to ndarray
        By the names of the graph's inputs, samples first.
    quantization : Quantization, optional
        For layers whose operands are floats.
    zero_point : {"subtract", "fold"}
        See `load_model`.

    Returns
    -------
    CapturedSource
        A `Source`.

    Raises
    ------
    ValueError
        A file, node or data that are damaged, unsupported or do not fit.
    """
    graph = Graph(read_model(path))
    found, skipped = find_layers(graph)
    found, skipped = _runnable(graph, found, skipped)
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped)
        raise ValueError(
            "expected a product layer that can be analysed, got none"
            + (f" ({reasons})" if reasons else "")
        )
    if quantization is None and not any(node.layer.is_integer for node in found):
        raise ValueError(
            f"node {found[0].layer.name!r}: its operands are floats: expected quantise='int8' or"
            " the like"
        )
    label, arrays = read_data(data)
    inputs = connected(label, graph, found, arrays)
    capture = OnnxCapture(label, graph, found, inputs)
    layers = [node.layer for node in found]
    return captured_source(Path(path).name, capture, layers, skipped, quantization, zero_point)


def read_model(path: str) -> Any:
    """Return the checked model of a file, local functions inlined.

    Parameters
    ----------
    path : str
        The file.

    Raises
    ------
    ValueError
        A damaged file, missing external data, an invalid graph.
    """
    try:
        model = onnx.load(path)
    except FileNotFoundError as error:
        raise ValueError(f"external data: {error}") from None
    except Exception as error:
        raise ValueError(f"expected an ONNX model: {_one_line(error)}") from None
    if not model.graph.node:
        raise ValueError("expected an ONNX model with nodes, got none")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    check_nodes(model)
    return model


def check_nodes(model: Any) -> None:
    """Look at each node: that it is as its operator demands, its inputs from before it.

    Parameters
    ----------
    model : ModelProto
        The model; operators that are not ONNX's are left to others.

    Raises
    ------
    ValueError
        Naming the first node that is wrong.
    """
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {entry.domain: entry.version for entry in model.opset_import}
    known = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    known |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    for node in model.graph.node:
        where = f"node {node_name(node)!r} ({node.op_type})"
        for name in node.input:
            if name and name not in known:
                raise ValueError(f"{where}: expected its input {name!r} from a node before it")
        known.update(node.output)
        inner = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
        if inner or not onnx.defs.has(node.op_type, node.domain):
            continue
        try:
            onnx.checker.check_node(node, context)
        except Exception as error:
            raise ValueError(f"{where}: {_one_line(error)}") from None


def _runnable(
    graph: Graph, found: list[FoundNode], skipped: list[Skipped]
) -> tuple[list[FoundNode], list[Skipped]]:
    kept = []
    for node in found:
        tensors = [node.tensor] + ([node.zero_point] if node.zero_point else [])
        reason = unknown_node(graph, tensors)
        if reason is None:
            kept.append(node)
        else:
            skipped = [*skipped, (node.layer.name, reason)]
    return kept, skipped


def connected(
    label: str, graph: Graph, found: list[FoundNode], arrays: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the data of the graph's inputs that the layers need.

    Parameters
    ----------
    label : str
        Of the data, for messages.
    graph : Graph
        The graph.
    found : list of FoundNode
        Its layers.
    arrays : mapping of str to array
        The data by name, or one array under "".

    Raises
    ------
    ValueError
        Names, shapes or numbers of samples that do not fit.
    """
    tensors = [node.tensor for node in found] + [node.zero_point for node in found]
    used = {name for node in needed_nodes(graph, tensors) for name in node.input} | set(tensors)
    names = [name for name in graph.inputs if name in used]
    if set(arrays) == {""} and len(names) == 1:
        arrays = {names[0]: arrays[""]}
    elif set(arrays) == {""}:
        raise ValueError(f"{label}: expected an .npz file with the inputs {names}, got one array")
    if not set(arrays) <= set(graph.inputs):
        raise ValueError(f"{label}: expected the inputs {list(graph.inputs)}, got {sorted(arrays)}")
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(f"{label}: expected the inputs {names}, got none named {missing}")
    for name in names:
        _check_shape(label, name, arrays[name].shape, graph.inputs[name])
    inputs = {name: arrays[name] for name in names}
    count_samples(label, inputs)
    return inputs


def _check_shape(label: str, name: str, shape: tuple[int, ...], value: Any) -> None:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return
    sizes = [dim.dim_value or dim.dim_param or "?" for dim in kind.shape.dim]
    fits = len(sizes) == len(shape) and all(
        isinstance(size, str) or size == given
        for size, given in zip(sizes[1:], shape[1:], strict=False)
    )
    if not sizes or not fits:
        expected = ", ".join(map(str, ["samples", *sizes[1:]]))
        raise ValueError(f"{label}: input {name!r}: expected the shape ({expected}), got {shape}")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "..."
