"""ONNX files: float models, QONNX, batches, what is skipped, and what is wrong with a file."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

import abcdeep_core as ab

onnx = pytest.importorskip("onnx", reason="needs the extra [onnx]")

from onnx import TensorProto  # noqa: E402

from abcdeep_core.overflow import _onnx_run  # noqa: E402
from onnx_cases import FLOAT, INT8, SAMPLES, UINT8, accumulators, model, node, run, save  # noqa: E402

RNG = np.random.default_rng(6)
RUNTIME = importlib.util.find_spec("onnxruntime") is not None
load = ab.overflow.load_model


@pytest.fixture(params=["onnxruntime", "reference"])
def engine(request, monkeypatch):
    if request.param == "onnxruntime" and not RUNTIME:
        pytest.skip("needs onnxruntime of the extra [onnx]")
    monkeypatch.setattr(_onnx_run, "HAS_RUNTIME", request.param == "onnxruntime")
    return request.param


def float32(*shape):
    return np.float32(RNG.standard_normal(shape))


def quantized(x, scale, low, high):
    """Return the codes of floats by exact fractions."""
    codes = [
        min(max(round(Fraction(float(value)) / Fraction(float(scale))), low), high)
        for value in x.reshape(-1)
    ]
    return np.array(codes).reshape(x.shape)


def perceptron(tmp_path, **dense):
    w1, w2 = float32(8, 5), float32(3, 5)
    nodes = [
        node("MatMul", ["x", "w1"], ["a"], "first"),
        node("Relu", ["a"], ["b"]),
        node("Gemm", ["b", "w2", "c"], ["y"], "second", transB=1, **dense),
    ]
    constants = {"w1": w1, "w2": w2, "c": float32(3)}
    given = {"x": (FLOAT, [*SAMPLES, 8])}
    return save(tmp_path, nodes, given, ("y", FLOAT), constants), constants


def test_float_model(tmp_path, engine):
    path, constants = perceptron(tmp_path)
    x = float32(40, 8)
    source = load(path, x, quantise="int8", calibration_samples=10)
    assert [layer.name for layer in source.layers] == ["first", "second"]
    first, second = source.layers
    got = source.inputs(0, 40)
    assert first.input_scale == np.float32(np.abs(x[:10]).max().astype(float) / 127)
    assert np.array_equal(got["first"], quantized(x, first.input_scale, -127, 127))
    largest = np.abs(constants["w1"]).max(axis=0).astype(float)
    assert np.array_equal(first.weight_scale, np.float32(largest / 127))
    for layer, w in ((first, constants["w1"]), (second, constants["w2"].T)):
        for channel in range(layer.channels):
            codes = quantized(w[:, channel], layer.weight_scale[channel], -127, 127)
            assert np.array_equal(layer.weight[:, channel], codes)
    assert got["second"].min() == 0
    bias = [
        round(Fraction(float(c)) / (Fraction(second.input_scale) * Fraction(float(s))))
        for c, s in zip(constants["c"], second.weight_scale, strict=True)
    ]
    assert second.bias.tolist() == bias
    real = accumulators(second, got["second"]) * (second.input_scale * second.weight_scale)
    expected = run(path, {"x": x})
    assert np.abs(real[:10] - expected[:10]).max() < 0.05 * np.abs(expected).max()


def test_affine_inputs(tmp_path):
    path, _ = perceptron(tmp_path)
    x = float32(40, 8)
    settings = {"quantise": "w4a6", "affine": True, "per_channel": False}
    (one, two), (folded, _) = (
        load(path, x, zero_point=way, **settings).layers for way in ("subtract", "fold")
    )
    low, high = (Fraction(float(value)) for value in (x.min(), x.max()))
    assert one.input_scale == np.float32(float(high - low) / 63)
    zero = round(-low / Fraction(one.input_scale))
    assert one.input_range == (-zero, 63 - zero)
    assert one.weight_range == (-7, 7)
    assert isinstance(one.weight_scale, float)
    assert two.input_range == (0, 63)
    assert folded.input_range == (0, 63)
    assert folded.bias.tolist() == (-zero * one.weight.sum(axis=0, dtype=int)).tolist()


def test_alpha_scales_float_weights(tmp_path):
    path, constants = perceptron(tmp_path, alpha=-2.0, beta=0.5)
    second = load(path, float32(9, 8), quantise="int8").layers[1]
    largest = 2 * np.abs(constants["w2"]).max(axis=1).astype(float)
    assert np.array_equal(second.weight_scale, np.float32(largest / 127))
    for channel, scale in enumerate(second.weight_scale):
        codes = quantized(-2 * constants["w2"][channel], scale, -127, 127)
        assert np.array_equal(second.weight[:, channel], codes)
    unit = Fraction(second.input_scale) * Fraction(float(second.weight_scale[0]))
    assert second.bias[0] == round(Fraction(0.5 * float(constants["c"][0])) / unit)


def test_float_model_needs_quantise(tmp_path):
    path, _ = perceptron(tmp_path)
    with pytest.raises(ValueError, match=r"model\.onnx: node 'first'.*floats.*quantise='int8'"):
        load(path, float32(3, 8))
    with pytest.raises(ValueError, match="quantise: expected 'int8'"):
        load(path, float32(3, 8), quantise="float8")
    with pytest.raises(ValueError, match="zero_point: expected"):
        load(path, float32(3, 8), zero_point="ignore")


def test_inputs_do_not_depend_on_the_batches(tmp_path, engine):
    path, _ = perceptron(tmp_path)
    x = float32(37, 8)
    np.save(tmp_path / "x.npy", x)
    source = load(path, tmp_path / "x.npy", quantise="int8")
    whole = source.inputs(0, 37)
    other = pickle.loads(pickle.dumps(source))
    for size in (1, 5, 16, 30):
        pieces = [other.inputs(i, min(i + size, 37)) for i in range(0, 37, size)]
        for name, x in whole.items():
            assert np.array_equal(x, np.concatenate([piece[name] for piece in pieces]))
    assert source.inputs(36, 36)["second"].shape == (0, 5)
    assert source.inputs(37, 37)["second"].shape == (0, 5)
    with pytest.raises(ValueError, match="begin, end"):
        source.inputs(30, 38)


@pytest.mark.parametrize("batch", [1, 4])
def test_fixed_batch(tmp_path, batch, engine):
    nodes = [
        node("Reshape", ["x", "rows"], ["r"]),
        node("MatMul", ["r", "w"], ["y"]),
    ]
    constants = {"w": float32(8, 3), "rows": np.int64([6 * batch, 8])}
    path = save(tmp_path, nodes, {"x": (FLOAT, [batch, 6, 8])}, ("y", FLOAT), constants)
    x = float32(10, 6, 8)
    source = load(path, x, quantise="int8")
    (layer,) = source.layers
    operands = source.inputs(0, 10)[layer.name]
    assert np.array_equal(operands, quantized(x, layer.input_scale, -127, 127))
    assert np.array_equal(source.inputs(3, 7)[layer.name], operands[3:7])


def test_samples_along_another_axis(tmp_path):
    # (samples, 6, 8) is turned to (6, samples, 8): each sample is run by itself.
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node("MatMul", ["t", "w"], ["y"]),
    ]
    given = {"x": (FLOAT, [*SAMPLES, 6, 8])}
    path = save(tmp_path, nodes, given, ("y", FLOAT), {"w": float32(8, 3)})
    x = float32(5, 6, 8)
    source = load(path, x, quantise="int8")
    (layer,) = source.layers
    expected = quantized(x, layer.input_scale, -127, 127)
    assert np.array_equal(source.inputs(0, 5)[layer.name][:, :, 0], expected)


@pytest.mark.parametrize("domain", ["qonnx.custom_op.general", "onnx.brevitas"])
@pytest.mark.parametrize("rounding", ["ROUND", "FLOOR", "CEIL", "ROUND_TO_ZERO"])
def test_qonnx(tmp_path, domain, rounding, engine):
    activation = {"signed": 0, "narrow": 0, "rounding_mode": rounding}
    nodes = [
        node("Quant", ["x", "s", "z", "b"], ["q"], domain=domain, **activation),
        node("Quant", ["w", "ws", "wz", "wb"], ["v"], "qw", domain=domain, signed=1, narrow=1),
        node("Conv", ["q", "v"], ["c"], "conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("Quant", ["r", "s2", "z", "b"], ["t"], "q2", domain=domain, **activation),
        node("Flatten", ["t"], ["f"]),
        node("BipolarQuant", ["u", "us"], ["p"], domain=domain),
        node("MatMul", ["f", "p"], ["y"], "dense"),
    ]
    w, u = float32(4, 3, 3, 3), float32(64, 5)
    scales = np.float32([0.25, 0.5, 0.125, 0.0625]).reshape(4, 1, 1, 1)
    constants = {"s": np.float32(0.25), "z": np.float32(0), "b": np.float32(5), "w": w}
    constants |= {"ws": scales, "wz": np.float32(0), "wb": np.float32(4), "u": u}
    constants |= {"us": np.float32(0.5), "s2": np.float32(1)}
    given = {"x": (FLOAT, [*SAMPLES, 3, 4, 4])}
    path = save(tmp_path, nodes, given, ("y", FLOAT), constants, domains=[domain])
    x = np.float32(RNG.integers(-20, 200, (4, 3, 4, 4)) / 16)
    source = load(path, x)
    conv, dense = source.layers
    assert source.skipped == ()
    assert (conv.input_range, conv.weight_range) == ((0, 31), (-7, 7))
    assert (dense.input_range, dense.weight_range) == ((0, 31), (-1, 1))
    got = source.inputs(0, 4)
    round_codes = {"ROUND": np.rint, "FLOOR": np.floor, "CEIL": np.ceil, "ROUND_TO_ZERO": np.trunc}
    codes = round_codes[rounding](np.clip(x / 0.25, 0, 31))
    assert np.array_equal(got["conv"], codes)
    assert np.array_equal(conv.weight, np.rint(np.clip(w / scales, -7, 7)))
    assert np.array_equal(dense.weight, np.where(u >= 0, 1, -1))
    sums = accumulators(conv, codes.astype(np.uint8)) * (0.25 * scales.reshape(4, 1, 1))
    after = round_codes[rounding](np.clip(np.maximum(sums, 0), 0, 31))
    assert np.array_equal(got["dense"], after.reshape(4, -1))


def test_quant_node_that_is_not_supported(tmp_path):
    names = ["x", "s", "z", "b"]
    domain = "onnx.brevitas"
    nodes = [
        node("Quant", names, ["q"], "odd", domain=domain, rounding_mode="HALF_UP"),
        node("MatMul", ["q", "w"], ["y"]),
    ]
    constants = {"s": np.float32(1), "z": np.float32(0), "b": np.float32(4), "w": float32(8, 2)}
    given = {"x": (FLOAT, [*SAMPLES, 8])}
    path = save(tmp_path, nodes, given, ("y", FLOAT), constants, domains=[domain])
    with pytest.raises(ValueError, match=r"model\.onnx: node 'odd': rounding_mode.*HALF_UP"):
        load(path, float32(3, 8), quantise="int8")


def test_what_is_not_analysed_is_listed(tmp_path):
    nodes = [
        node("MatMul", ["x", "w"], ["a"], "good"),
        node("Transpose", ["a"], ["t"], perm=[1, 0]),
        node("MatMul", ["a", "t"], ["b"], "attention"),
        node("Einsum", ["a", "t"], ["e"], "sum", equation="ij,jk->ik"),
        node("MatMul", ["x", "batch"], ["f"], "batched"),
        node("Mystery", ["a"], ["m"], "odd", domain="some.where"),
        node("MatMul", ["m", "w2"], ["n"], "behind"),
        node("DequantizeLinear", ["i", "rows"], ["i.f"], "d", axis=0),
        node("MatMul", ["x", "i.f"], ["g"], "by row"),
        node("Identity", ["b"], ["y"]),
    ]
    constants = {"w": float32(4, 4), "w2": float32(4, 2), "batch": float32(2, 4, 3)}
    constants |= {"i": np.ones((4, 2), np.int8), "rows": np.float32([1, 2, 3, 4])}
    given = {"x": (FLOAT, [*SAMPLES, 4])}
    path = save(tmp_path, nodes, given, ("y", FLOAT), constants, domains=["some.where"])
    source = load(path, float32(3, 4), quantise="int8")
    assert [layer.name for layer in source.layers] == ["good"]
    assert dict(source.skipped) == {
        "attention": "both operands are computed from data",
        "sum": "the operator Einsum is not analysed",
        "batched": "its weight is a batch of matrices, (2, 4, 3)",
        "odd": "the operator some.where.Mystery is not known",
        "behind": "its input needs node 'odd', whose operator some.where.Mystery is unknown",
        "by row": "its weight's scale changes along the reduction",
    }


def test_float_layers_beside_integer_ones_are_listed(tmp_path):
    nodes = [
        node("MatMul", ["x", "w"], ["a"], "real"),
        node("QuantizeLinear", ["a", "s", "z"], ["q"]),
        node("MatMulInteger", ["q", "v"], ["y"], "whole"),
    ]
    constants = {"w": float32(4, 4), "s": np.float32(0.5), "z": np.int8(0)}
    constants["v"] = np.ones((4, 2), np.int8)
    given = {"x": (FLOAT, [*SAMPLES, 4])}
    path = save(tmp_path, nodes, given, ("y", TensorProto.INT32), constants)
    source = load(path, float32(3, 4))
    assert [layer.name for layer in source.layers] == ["whole"]
    ((name, reason),) = source.skipped
    assert name == "real"
    assert "quantise" in reason
    assert len(load(path, float32(3, 4), quantise="int8").layers) == 2


def test_nodes_without_names(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "w"], ["y"])]
    nodes[0].name = nodes[1].name = ""
    given = {"x": (FLOAT, [*SAMPLES, 4])}
    path = save(tmp_path, nodes, given, ("y", FLOAT), {"w": float32(4, 4)})
    names = [layer.name for layer in load(path, float32(3, 4), quantise="int8").layers]
    assert names == ["MatMul(a)", "MatMul(y)"]


def test_two_inputs_by_name(tmp_path):
    nodes = [node("Add", ["p", "q"], ["a"]), node("MatMul", ["a", "w"], ["y"])]
    given = {"p": (FLOAT, [*SAMPLES, 4]), "q": (FLOAT, [*SAMPLES, 4])}
    path = save(tmp_path, nodes, given, ("y", FLOAT), {"w": float32(4, 4)})
    p, q = float32(6, 4), float32(6, 4)
    np.savez(tmp_path / "data.npz", p=p, q=q)
    source = load(path, tmp_path / "data.npz", quantise="int8")
    (layer,) = source.layers
    expected = quantized(p + q, layer.input_scale, -127, 127)
    assert np.array_equal(source.inputs(0, 6)[layer.name], expected)
    with pytest.raises(ValueError, match=r"expected an \.npz file with the inputs \['p', 'q'\]"):
        load(path, p, quantise="int8")
    with pytest.raises(ValueError, match=r"got none named \['q'\]"):
        load(path, {"p": p}, quantise="int8")
    with pytest.raises(
        ValueError, match=r"expected the inputs \['p', 'q'\], got \['p', 'q', 'r'\]"
    ):
        load(path, {"p": p, "q": q, "r": q}, quantise="int8")
    with pytest.raises(ValueError, match="same number of samples"):
        load(path, {"p": p, "q": q[:3]}, quantise="int8")


def test_data_that_do_not_fit(tmp_path):
    path, _ = perceptron(tmp_path)
    with pytest.raises(ValueError, match=r"input 'x': expected the shape \(samples, 8\), got"):
        load(path, float32(3, 9), quantise="int8")
    with pytest.raises(ValueError, match="input 'x': expected numbers of float32, got int64"):
        load(path, np.ones((3, 8), np.int64), quantise="int8")
    with pytest.raises(ValueError, match="expected at least one sample"):
        load(path, float32(0, 8), quantise="int8")
    x = float32(20, 8)
    x[18, 2] = np.nan
    source = load(path, x, quantise="int8", calibration_samples=4)
    with pytest.raises(ValueError, match="expected finite values, got others in sample 18"):
        source.inputs(0, 20)
    with pytest.raises(ValueError, match="finite"):
        load(path, x, quantise="int8")


def test_damaged_files(tmp_path):
    path, _ = perceptron(tmp_path)
    whole = path.read_bytes()
    data = float32(3, 8)
    for size in (0, 10, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"model\.onnx: "):
            load(path, data, quantise="int8")
    path.write_text("not a model at all")
    with pytest.raises(ValueError, match=r"model\.onnx: expected an ONNX model"):
        load(path, data, quantise="int8")
    with pytest.raises(FileNotFoundError, match="absent"):
        load(tmp_path / "absent.onnx", data)
    with pytest.raises(ValueError, match=r"expected a model in a \.npz or \.onnx file"):
        load(tmp_path / "model.pt", data)


def test_external_data(tmp_path):
    w = float32(8, 3)
    given = {"x": (FLOAT, [*SAMPLES, 8])}
    proto = model([node("MatMul", ["x", "w"], ["y"])], given, ("y", FLOAT), {"w": w})
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = float32(4, 8)
    (layer,) = load(path, x, quantise="int8").layers
    assert np.array_equal(layer.weight_scale, np.float32(np.abs(w).max(axis=0).astype(float) / 127))
    stored = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(stored[:20])
    with pytest.raises(ValueError, match=r"model\.onnx: .*'?w'?"):
        load(path, x, quantise="int8")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ValueError, match=r"model\.onnx: .*weights\.bin"):
        load(path, x, quantise="int8")


BROKEN = {
    "missing tensor": (
        [node("MatMul", ["x", "absent"], ["y"], "product")],
        r"node 'product' \(MatMul\): expected its input 'absent'",
    ),
    "too few inputs": ([node("MatMul", ["x"], ["y"], "product")], "node 'product'"),
    "unknown attribute": (
        [node("MatMul", ["x", "w"], ["y"], "product", speed=3)],
        "node 'product'.*speed",
    ),
    "pads": (
        [node("Conv", ["x", "k"], ["y"], "product", pads=[1, 1])],
        r"node 'product' \(Conv\): strides, dilations, pads",
    ),
    "nothing to analyse": (
        [node("Relu", ["x"], ["y"], "only")],
        "expected a product layer that can be analysed, got none",
    ),
    "shapes": (
        [
            node("Add", ["x", "a"], ["b"], "sum"),
            node("MatMul", ["b", "w"], ["y"], "product"),
        ],
        "running the graph: .*sum",
    ),
    "unknown operator": (
        [node("Florble", ["x"], ["b"], "odd"), node("MatMul", ["b", "w"], ["y"], "product")],
        "node 'odd', whose operator Florble is unknown",
    ),
}


@pytest.mark.skipif(not RUNTIME, reason="needs onnxruntime of the extra [onnx]")
@pytest.mark.parametrize("name", BROKEN)
def test_broken_graphs(tmp_path, name):
    nodes, message = BROKEN[name]
    constants = {"w": float32(8, 2), "k": float32(2, 3, 3, 3), "a": float32(5, 5)}
    path = save(tmp_path, nodes, {"x": (FLOAT, [*SAMPLES, 8])}, ("y", FLOAT), constants)
    with pytest.raises(ValueError, match=rf"model\.onnx: .*{message}"):
        load(path, float32(3, 8), quantise="int8")


def test_a_zero_point_of_16_bits_has_to_be_folded(tmp_path):
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["f"]),
        node("MatMul", ["f", "w"], ["y"], "product"),
    ]
    constants = {"s": np.float32(0.5), "z": np.uint16(40000), "w": float32(8, 2)}
    path = save(tmp_path, nodes, {"x": (FLOAT, [*SAMPLES, 8])}, ("y", FLOAT), constants)
    with pytest.raises(ValueError, match=r"product: .*zero_point='fold'"):
        load(path, float32(3, 8), quantise="int8")
    (layer,) = load(path, float32(3, 8), quantise="int8", zero_point="fold").layers
    assert layer.input_range == (0, 65535)
    assert layer.bias.tolist() == (-40000 * layer.weight.sum(axis=0, dtype=int)).tolist()


def test_integer_inputs_of_a_graph(tmp_path):
    nodes = [node("MatMulInteger", ["x", "w"], ["y"])]
    constants = {"w": np.ones((4, 2), np.int8)}
    path = save(tmp_path, nodes, {"x": (INT8, [*SAMPLES, 4])}, ("y", TensorProto.INT32), constants)
    source = load(path, np.int64([[1, -2, 3, 127]]))
    assert source.inputs(0, 1)["matmulinteger"].tolist() == [[1, -2, 3, 127]]
    with pytest.raises(ValueError, match="input 'x': expected numbers of int8, got int64"):
        load(path, np.int64([[1, -2, 3, 128]]))
    path = save(tmp_path, nodes, {"x": (UINT8, [*SAMPLES, 4])}, ("y", TensorProto.INT32), constants)
    assert load(path, np.uint8([[1, 2, 3, 255]])).layers[0].input_type == "u8"


def test_without_the_extra(tmp_path):
    path, _ = perceptron(tmp_path)
    program = (
        "import sys; sys.modules['onnx'] = None\n"
        "import abcdeep_core as ab\n"
        f"ab.overflow.load_model({str(path)!r}, [[1.0]])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode
    assert "ImportError: expected the extra [onnx]: pip install" in done.stderr
