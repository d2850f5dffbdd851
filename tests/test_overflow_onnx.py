"""ONNX operators with integer operands: the layers' sums against what the operators compute."""

from __future__ import annotations

import numpy as np
import pytest

import abcdeep_core as ab

pytest.importorskip("onnx", reason="needs the extra [onnx]")

from onnx import TensorProto, helper, numpy_helper

from onnx_cases import FLOAT, INT8, SAMPLES, UINT8, accumulators, node, run, save

RNG = np.random.default_rng(5)
TYPES = {"u8": (UINT8, np.uint8), "s8": (INT8, np.int8)}
WAYS = ("subtract", "fold")


def integers(dtype, shape):
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max + 1, shape, dtype)


def load(path, data, **settings):
    source = ab.overflow.load_model(path, data, **settings)
    (layer,) = source.layers
    assert source.skipped == ()
    assert source.samples == len(data)
    return layer, source.inputs(0, len(data))[layer.name]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("weights", TYPES)
@pytest.mark.parametrize("inputs", TYPES)
@pytest.mark.parametrize("zeros", ["none", "tensor", "channel"])
def test_matmul_integer(tmp_path, inputs, weights, zeros, way):
    kind, dtype = TYPES[inputs]
    x, w = integers(dtype, (5, 3, 7)), integers(TYPES[weights][1], (7, 4))
    constants = {"w": w}
    names = ["x", "w"]
    if zeros != "none":
        constants["xz"] = np.array(dtype(17))
        constants["wz"] = integers(w.dtype, 4) if zeros == "channel" else np.array(w.dtype.type(9))
        names += ["xz", "wz"]
    nodes = [node("MatMulInteger", names, ["y"], "product")]
    given = {"x": (kind, [*SAMPLES, 3, 7])}
    path = save(tmp_path, nodes, given, ("y", TensorProto.INT32), constants)
    layer, operands = load(path, x, zero_point=way)
    assert layer.name == "product"
    assert np.array_equal(accumulators(layer, operands), run(path, {"x": x}))
    shift = 0 if zeros == "none" or way == "fold" else 17
    info = np.iinfo(dtype)
    assert layer.input_range == (info.min - shift, info.max - shift)
    assert (layer.bias is not None) == (zeros != "none" and way == "fold")
    assert np.array_equal(operands.astype(int), x.astype(int) - shift)


def test_matmul_integer_with_the_weight_first(tmp_path):
    x, w = integers(np.uint8, (4, 7, 3)), integers(np.int8, (5, 7))
    constants = {"w": w, "wz": np.array(np.int8(3)), "xz": np.array(np.uint8(100))}
    nodes = [node("MatMulInteger", ["w", "x", "wz", "xz"], ["y"])]
    given = {"x": (UINT8, [*SAMPLES, 7, 3])}
    path = save(tmp_path, nodes, given, ("y", TensorProto.INT32), constants)
    layer, operands = load(path, x)
    assert layer.weight.shape == (7, 5)
    expected = run(path, {"x": x})
    assert np.array_equal(accumulators(layer, operands).swapaxes(1, 2), expected)


GEOMETRIES = {
    "plain": {},
    "padded": {"pads": [1, 2, 1, 2], "strides": [2, 1]},
    "one side": {"pads": [0, 1, 2, 0], "dilations": [1, 2]},
    "same upper": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "same lower": {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    "valid": {"auto_pad": "VALID", "strides": [2, 1]},
    "groups": {"group": 2, "pads": [1, 1, 1, 1]},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_conv_integer(tmp_path, name, way):
    geometry = GEOMETRIES[name]
    x = integers(np.uint8, (3, 4, 8, 7))
    w = integers(np.uint8, (6, 4 // geometry.get("group", 1), 3, 2))
    constants = {"w": w, "xz": np.array(np.uint8(131)), "wz": np.array(np.uint8(128))}
    nodes = [node("ConvInteger", ["x", "w", "xz", "wz"], ["y"], **geometry)]
    given = {"x": (UINT8, [*SAMPLES, 4, 8, 7])}
    path = save(tmp_path, nodes, given, ("y", TensorProto.INT32), constants)
    layer, operands = load(path, x, zero_point=way)
    assert np.array_equal(accumulators(layer, operands), run(path, {"x": x}))
    assert layer.weight_range == (-128, 127)
    assert layer.input_range == ((0, 255) if way == "fold" else (-131, 124))
    assert layer.padding_value == (131 if way == "fold" else 0)


def requantized(sums, unit, zero, low, high):
    """Round exact integers times a power of two to nearest even."""
    return np.clip(np.rint(sums * unit) + zero, low, high)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("channels", [False, True])
def test_qlinear_matmul(tmp_path, channels, way):
    x, w = integers(np.uint8, (6, 12)), integers(np.int8, (12, 5))
    scale = np.float32([0.5, 0.25, 1, 0.5, 2]) if channels else np.float32(0.5)
    constants = {"xs": np.float32(0.25), "xz": np.uint8(120), "w": w, "ws": scale}
    constants |= {"wz": np.zeros(scale.shape, np.int8), "ys": np.float32(32), "yz": np.uint8(100)}
    nodes = [node("QLinearMatMul", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])]
    path = save(tmp_path, nodes, {"x": (UINT8, [*SAMPLES, 12])}, ("y", UINT8), constants)
    layer, operands = load(path, x, zero_point=way)
    unit = layer.input_scale * np.asarray(layer.weight_scale) / 32
    sums = accumulators(layer, operands)
    assert np.array_equal(requantized(sums, unit, 100, 0, 255), run(path, {"x": x}))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_qlinear_conv(tmp_path, name, way):
    geometry = GEOMETRIES[name]
    x = integers(np.uint8, (2, 4, 8, 7))
    w = integers(np.int8, (6, 4 // geometry.get("group", 1), 3, 2))
    constants = {"xs": np.float32(0.25), "xz": np.uint8(3), "w": w, "wz": np.zeros(6, np.int8)}
    constants |= {"ws": np.float32([0.5, 0.25, 1, 0.5, 2, 1]), "ys": np.float32(64)}
    constants |= {"yz": np.uint8(128), "bias": RNG.integers(-9999, 9999, 6, np.int32)}
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "bias"]
    nodes = [node("QLinearConv", names, ["y"], **geometry)]
    path = save(tmp_path, nodes, {"x": (UINT8, [*SAMPLES, 4, 8, 7])}, ("y", UINT8), constants)
    layer, operands = load(path, x, zero_point=way)
    unit = (layer.input_scale * layer.weight_scale / 64).reshape(-1, 1, 1)
    sums = accumulators(layer, operands)
    assert np.array_equal(requantized(sums, unit, 128, 0, 255), run(path, {"x": x}))
    if way == "subtract":
        assert np.array_equal(layer.bias, constants["bias"])


def test_zero_point_computed_from_data(tmp_path):
    # Each sample has a scale and zero point of its own, whoever comes with it.
    x, w = np.float32(RNG.standard_normal((5, 3, 8))), integers(np.int8, (8, 4))
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z"], ["y"]),
    ]
    given = {"x": (FLOAT, [*SAMPLES, 3, 8])}
    path = save(tmp_path, nodes, given, ("y", TensorProto.INT32), {"w": w})
    layer, operands = load(path, x)
    assert layer.input_range == (-255, 255)
    for i in range(5):
        alone = run(path, {"x": x[i : i + 1]})
        assert np.array_equal(accumulators(layer, operands[i : i + 1]), alone)


def dequantized(name, zero="z"):
    return node(
        "DequantizeLinear", [name, f"{name}.s", f"{name}.{zero}"], [f"{name}.f"], f"d{name}"
    )


CODES = {
    "int8": (np.int8, TensorProto.INT8, 8),
    "uint8": (np.uint8, TensorProto.UINT8, 8),
    "int16": (np.int16, TensorProto.INT16, 16),
    "uint16": (np.uint16, TensorProto.UINT16, 16),
}


def input_nodes(zero):
    return [
        node("QuantizeLinear", ["x", "q.s", "q.z"], ["q"], "quantize"),
        dequantized("q"),
    ], {"q.s": np.float32(0.125), "q.z": np.array(zero)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", CODES)
def test_qdq_matmul_by_input_type(tmp_path, dtype, way):
    number = CODES[dtype][0]
    if dtype in ("int16", "uint16"):
        zero = number(0) if dtype == "int16" else number(40000 if way == "fold" else 2**15)
    else:
        zero = number(5)
    nodes, constants = input_nodes(zero)
    nodes += [dequantized("w"), node("MatMul", ["q.f", "w.f"], ["y"], "product")]
    w = RNG.integers(-3, 4, (6, 4), np.int8)
    constants |= {"w": w, "w.s": np.float32(0.5), "w.z": np.int8(0)}
    x = np.float32(RNG.integers(-40, 40, (5, 6))) / 8
    path = save(tmp_path, nodes, {"x": (FLOAT, [*SAMPLES, 6])}, ("y", FLOAT), constants)
    layer, operands = load(path, x, zero_point=way)
    sums = accumulators(layer, operands)
    assert np.array_equal(sums * (layer.input_scale * layer.weight_scale), run(path, {"x": x}))
    info = np.iinfo(number)
    shift = 0 if way == "fold" else int(zero)
    assert layer.input_range == (int(info.min) - shift, int(info.max) - shift)
    assert layer.weight_range == (-128, 127)


@pytest.mark.parametrize("kind", ["int4", "uint4"])
@pytest.mark.parametrize("transposed", [False, True])
def test_qdq_matmul_with_weights_of_4_bits_by_channel(tmp_path, kind, transposed):
    low, high = (-8, 8) if kind == "int4" else (0, 16)
    w = RNG.integers(low, high, (6, 4))
    zeros = RNG.integers(low, high, 4)
    scales = np.float32([0.5, 0.25, 1, 2])
    stored = w.T if transposed else w
    number = TensorProto.INT4 if kind == "int4" else TensorProto.UINT4
    nodes, constants = input_nodes(np.int8(0))
    axis = 0 if transposed else 1
    names = ["w", "w.s", "w.z"]
    nodes.append(node("DequantizeLinear", names, ["w.f"], "dw", axis=axis))
    if transposed:
        nodes.append(node("Transpose", ["w.f"], ["w.t"], perm=[1, 0]))
    nodes.append(node("MatMul", ["q.f", "w.t" if transposed else "w.f"], ["y"]))
    constants |= {"w.s": scales}
    constants["w"] = helper.make_tensor("w", number, stored.shape, stored.ravel().tolist())
    constants["w.z"] = helper.make_tensor("w.z", number, (4,), zeros.tolist())
    x = np.float32(RNG.integers(-40, 40, (5, 6))) / 8
    path = save(tmp_path, nodes, {"x": (FLOAT, [*SAMPLES, 6])}, ("y", FLOAT), constants)
    layer, operands = load(path, x)
    assert np.array_equal(layer.weight, w - zeros)
    assert layer.weight_range == (low - zeros.max(), high - 1 - zeros.min())
    assert np.array_equal(layer.weight_scale, scales)
    sums = accumulators(layer, operands)
    assert np.array_equal(sums * (layer.input_scale * layer.weight_scale), run(path, {"x": x}))


@pytest.mark.parametrize("way", WAYS)
def test_qdq_gemm(tmp_path, way):
    # 2 (x w^T) + 3 c: the accumulator of x w^T starts from 1.5 c.
    nodes, constants = input_nodes(np.uint8(7))
    names = ["q.f", "w.f", "c.f"]
    nodes += [
        dequantized("w"),
        node("DequantizeLinear", ["c", "c.s"], ["c.f"], "dc"),
        node("Gemm", names, ["y"], alpha=2.0, beta=3.0, transB=1),
    ]
    w, c = integers(np.int8, (4, 6)), RNG.integers(-500, 500, 4, np.int32) * 2
    constants |= {"w": w, "w.s": np.float32(0.5), "w.z": np.int8(0), "c": c}
    constants["c.s"] = np.float32(1 / 16)
    x = np.float32(RNG.integers(-40, 40, (5, 6))) / 8
    path = save(tmp_path, nodes, {"x": (FLOAT, [*SAMPLES, 6])}, ("y", FLOAT), constants)
    layer, operands = load(path, x, zero_point=way)
    assert layer.weight_scale == 1.0
    if way == "subtract":
        assert np.array_equal(layer.bias, 3 * c // 2)
    sums = accumulators(layer, operands)
    assert np.array_equal(sums * (layer.input_scale * layer.weight_scale), run(path, {"x": x}))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_qdq_conv(tmp_path, name, way):
    geometry = GEOMETRIES[name]
    w = integers(np.int8, (6, 4 // geometry.get("group", 1), 3, 2))
    scales = np.float32([0.5, 0.25, 1, 0.5, 2, 1])
    nodes, constants = input_nodes(np.uint8(100))
    nodes += [
        node("DequantizeLinear", ["w", "w.s"], ["w.f"], "dw", axis=0),
        node("DequantizeLinear", ["b", "b.s"], ["b.f"], "db", axis=0),
        node("Conv", ["q.f", "w.f", "b.f"], ["y"], **geometry),
    ]
    bias = RNG.integers(-999, 999, 6, np.int32)
    constants |= {"w": w, "w.s": scales, "b": bias, "b.s": scales * np.float32(0.125)}
    x = np.float32(RNG.integers(-200, 200, (3, 4, 8, 7))) / 8
    path = save(tmp_path, nodes, {"x": (FLOAT, [*SAMPLES, 4, 8, 7])}, ("y", FLOAT), constants)
    layer, operands = load(path, x, zero_point=way)
    sums = accumulators(layer, operands)
    unit = (layer.input_scale * layer.weight_scale).reshape(-1, 1, 1)
    assert np.array_equal(sums * unit, run(path, {"x": x}))
    if way == "subtract":
        assert np.array_equal(layer.bias, bias)


def test_bias_of_32_bits_is_not_rounded(tmp_path):
    nodes, constants = input_nodes(np.int8(0))
    nodes += [
        dequantized("w"),
        node("DequantizeLinear", ["c", "c.s"], ["c.f"], "dc"),
        node("Gemm", ["q.f", "w.f", "c.f"], ["y"]),
    ]
    c = np.int32([2**31 - 1, 2**24 + 1])
    constants |= {"w": integers(np.int8, (6, 2)), "w.s": np.float32(0.3), "w.z": np.int8(0)}
    constants |= {"c": c, "c.s": np.float32(0.125) * np.float32(0.3)}
    path = save(tmp_path, nodes, {"x": (FLOAT, [*SAMPLES, 6])}, ("y", FLOAT), constants)
    layer, _ = load(path, np.zeros((2, 6), np.float32))
    assert np.array_equal(layer.bias, c)


def test_values_pass_through_rearrangements(tmp_path):
    nodes, constants = input_nodes(np.uint8(100))
    nodes += [
        node("Relu", ["q.f"], ["a"]),
        node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Transpose", ["b"], ["c"], perm=[0, 2, 3, 1]),
        node("Flatten", ["c"], ["d"]),
        dequantized("w"),
        node("MatMul", ["d", "w.f"], ["y"]),
    ]
    w = integers(np.int8, (12, 4))
    constants |= {"w": w, "w.s": np.float32(0.5), "w.z": np.int8(0)}
    x = np.float32(RNG.integers(-200, 200, (3, 3, 4, 5))) / 8
    path = save(tmp_path, nodes, {"x": (FLOAT, [*SAMPLES, 3, 4, 5])}, ("y", FLOAT), constants)
    layer, operands = load(path, x)
    sums = accumulators(layer, operands)
    assert np.array_equal(sums * (layer.input_scale * layer.weight_scale), run(path, {"x": x}))


def test_convolution_of_one_axis(tmp_path):
    nodes, constants = input_nodes(np.uint8(9))
    geometry = {"pads": [2, 0], "strides": [2], "dilations": [2]}
    nodes += [dequantized("w"), node("Conv", ["q.f", "w.f"], ["y"], **geometry)]
    w = integers(np.int8, (5, 3, 4))
    constants |= {"w": w, "w.s": np.float32(0.5), "w.z": np.int8(0)}
    x = np.float32(RNG.integers(-200, 200, (4, 3, 17))) / 8
    path = save(tmp_path, nodes, {"x": (FLOAT, [*SAMPLES, 3, 17])}, ("y", FLOAT), constants)
    layer, operands = load(path, x)
    assert layer.weight.shape == (5, 3, 1, 4)
    sums = accumulators(layer, operands)[:, :, 0]
    assert np.array_equal(sums * (layer.input_scale * layer.weight_scale), run(path, {"x": x}))


def test_weights_may_be_constant_nodes(tmp_path):
    nodes, constants = input_nodes(np.int8(0))
    w = integers(np.int8, (1, 4, 6))
    nodes += [
        node("Constant", [], ["w"], value=numpy_helper.from_array(w)),
        node("Identity", ["w"], ["v"]),
        node("DequantizeLinear", ["v", "w.s"], ["w.f"], "dw"),
        node("Reshape", ["w.f", "shape"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[1, 0]),
        node("MatMul", ["q.f", "t"], ["y"]),
    ]
    constants |= {"w.s": np.float32(0.5), "shape": np.int64([4, 6])}
    x = np.float32(RNG.integers(-40, 40, (5, 6))) / 8
    path = save(tmp_path, nodes, {"x": (FLOAT, [*SAMPLES, 6])}, ("y", FLOAT), constants)
    layer, operands = load(path, x)
    assert np.array_equal(layer.weight, w[0].T)
    sums = accumulators(layer, operands)
    assert np.array_equal(sums * (layer.input_scale * layer.weight_scale), run(path, {"x": x}))
