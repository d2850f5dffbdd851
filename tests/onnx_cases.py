"""Small ONNX graphs for tests, what they compute, and the accumulators that a layer stands for."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.reference
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 21, 10
SAMPLES = ["samples"]
FLOAT, UINT8, INT8 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8


def node(operator, inputs, outputs, name="", **attributes):
    return helper.make_node(operator, inputs, outputs, name=name or operator.lower(), **attributes)


def model(nodes, inputs, output, initializers=(), *, domains=(), opset=OPSET):
    """Return a model; `inputs` maps names to (type, shape), `output` is (name, type)."""
    values = [helper.make_tensor_value_info(n, *kind) for n, kind in inputs.items()]
    result = helper.make_tensor_value_info(output[0], output[1], None)
    tensors = [
        x if isinstance(x, TensorProto) else numpy_helper.from_array(np.asarray(x), n)
        for n, x in dict(initializers).items()
    ]
    graph = helper.make_graph(nodes, "graph", values, [result], tensors)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def save(folder, *args, **settings):
    path = folder / "model.onnx"
    onnx.save(model(*args, **settings), path)
    return path


def run(path, feeds):
    """Return the output, by onnxruntime where it is installed."""
    try:
        import onnxruntime
    except ImportError:
        return onnx.reference.ReferenceEvaluator(str(path)).run(None, feeds)[0]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Its rewriting of DequantizeLinear before MatMul quantises the other operand once more.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def accumulators(layer, x):
    """Return the integer sums of a layer with its bias, in the shape of the operator's output."""
    x = layer.check_input(x)
    sums = [
        layer.rows(x, group).astype(object) @ layer.matrix(group).astype(object)
        for group in range(layer.groups)
    ]
    together = np.concatenate(sums, axis=-1).astype(np.int64)
    if layer.bias is not None:
        together = together + layer.bias
    shape = (len(x), *layer.position_shape(x.shape), layer.channels)
    together = together.reshape(shape)
    return np.moveaxis(together, -1, 1) if layer.kind == "conv2d" else together
