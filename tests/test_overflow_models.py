"""Sources from .npz files, ab.nn models and functions."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import nn

RNG = np.random.default_rng(7)
load = ab.overflow.load_model


def float32(*shape):
    return np.float32(RNG.standard_normal(shape))


def nearest(x, scale):
    return np.array([round(Fraction(float(v)) / Fraction(float(scale))) for v in x.reshape(-1)])


def accumulators(layer, x):
    x = layer.check_input(x)
    sums = [
        layer.rows(x, group).astype(object) @ layer.matrix(group).astype(object)
        for group in range(layer.groups)
    ]
    together = np.concatenate(sums, axis=-1)
    together = together if layer.bias is None else together + layer.bias
    return together.reshape(len(x), *layer.position_shape(x.shape), layer.channels)


# --- .npz files -----------------------------------------------------------------------------------


def write(folder, arrays, layers=None, beside=False):
    path = folder / "model.npz"
    if layers is not None and not beside:
        arrays = {**arrays, "manifest": json.dumps({"layers": layers})}
    np.savez(path, **arrays)
    if beside:
        (folder / "model.json").write_text(json.dumps({"layers": layers}))
    return path


def test_weights_without_a_manifest(tmp_path):
    arrays = {"fc": float32(8, 3), "conv": float32(4, 2, 3, 3), "scale": float32(4)}
    path = write(tmp_path, arrays)
    data = {"fc": float32(5, 8), "conv": float32(5, 2, 6, 6)}
    np.savez(tmp_path / "data.npz", **data)
    source = load(path, tmp_path / "data.npz", quantise="int8")
    assert [(layer.name, layer.kind) for layer in source.layers] == [
        ("fc", "linear"),
        ("conv", "conv2d"),
    ]
    assert source.skipped == (
        ("scale", "an array of 1 dimensions: expected 2 or 4, or a manifest"),
    )
    got = source.inputs(1, 4)
    for layer in source.layers:
        codes = nearest(data[layer.name][1:4], layer.input_scale).reshape(got[layer.name].shape)
        assert np.array_equal(got[layer.name], codes)
    with pytest.raises(ValueError, match=r"model\.npz: fc: its operands are floats"):
        load(path, data)
    with pytest.raises(ValueError, match=r"expected the inputs \['conv', 'fc'\]"):
        load(path, {"fc": data["fc"]}, quantise="int8")
    with pytest.raises(ValueError, match=r"expected an \.npz file with the inputs"):
        load(path, data["fc"], quantise="int8")


INTEGER = {
    "name": "fc",
    "weight": "w",
    "transpose": True,
    "bias": "b",
    "input": "x",
    "input_type": "u8",
    "input_scale": 0.5,
    "zero_point": 3,
    "weight_type": "s4",
    "weight_scale": "ws",
}


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("way", ["subtract", "fold"])
def test_integer_layer_of_a_manifest(tmp_path, beside, way):
    w, b = RNG.integers(-8, 8, (3, 6), np.int8), RNG.integers(-999, 999, 3)
    path = write(tmp_path, {"w": w, "b": b, "ws": np.float32([1, 2, 3])}, [INTEGER], beside)
    x = RNG.integers(0, 256, (5, 6), np.uint8)
    np.save(tmp_path / "x.npy", x)
    source = load(path, tmp_path / "x.npy", zero_point=way)
    (layer,) = source.layers
    assert layer.weight_range == (-8, 7)
    assert layer.weight_scale.tolist() == [1, 2, 3]
    assert layer.input_range == ((0, 255) if way == "fold" else (-3, 252))
    sums = accumulators(layer, source.inputs(0, 5)["fc"])
    assert np.array_equal(sums, (x.astype(int) - 3) @ w.T.astype(int) + b)
    again = pickle.loads(pickle.dumps(source))
    assert np.array_equal(again.inputs(2, 4)["fc"], source.inputs(0, 5)["fc"][2:4])
    assert len(pickle.dumps(source)) < 20_000


def test_floats_with_a_given_scale(tmp_path):
    path = write(
        tmp_path,
        {"w": np.ones((4, 2), np.int8)},
        [{"name": "w", "input_type": "s6", "input_scale": 0.25}],
    )
    x = np.float32([[0.25, 0.375, -0.625, 100]])
    source = load(path, x)
    assert source.inputs(0, 1)["w"].tolist() == [[1, 2, -2, 31]]
    assert source.layers[0].input_range == (-32, 31)


@pytest.mark.parametrize("way", ["subtract", "fold"])
def test_convolution_of_a_manifest(tmp_path, way):
    w = RNG.integers(-128, 128, (4, 1, 3, 2), np.int8)
    entry = {"name": "conv", "weight": "w", "stride": [2, 1], "padding": [1, 0, 2, 1], "groups": 2}
    entry |= {"dilation": [1, 2], "zero_point": 9, "input": "x"}
    path = write(tmp_path, {"w": w}, [entry])
    x = RNG.integers(0, 256, (3, 2, 7, 8), np.uint8)
    source = load(path, x, zero_point=way)
    (layer,) = source.layers
    padded = np.pad(x.astype(np.int16) - 9, [(0, 0), (0, 0), (1, 2), (0, 1)])
    expected = ab.conv2d(
        padded, w, ab.integer_accumulator(40), stride=(2, 1), dilation=(1, 2), groups=2
    )
    sums = accumulators(layer, source.inputs(0, 3)["conv"])
    assert np.array_equal(np.moveaxis(sums, -1, 1), expected)


def test_chain_of_integer_layers(tmp_path):
    # conv, ReLU, requantisation to u4, flatten, linear: by exact fractions.
    w1, w2 = RNG.integers(-8, 8, (2, 1, 2, 2), np.int8), RNG.integers(-8, 8, (18, 3), np.int8)
    b1 = np.float32([0.3, -1.7])
    layers = [
        {"name": "conv", "weight": "w1", "bias": "b1", "input": "x", "activation": "relu"},
        {"name": "fc", "weight": "w2", "after": "conv", "flatten": True, "zero_point": 2},
    ]
    layers[0] |= {"input_scale": 0.1, "weight_scale": [0.3, 0.7]}
    layers[1] |= {"input_type": "u4", "input_scale": 11.0}
    path = write(tmp_path, {"w1": w1, "w2": w2, "b1": b1}, layers)
    x = RNG.integers(0, 256, (6, 1, 4, 4), np.uint8)
    source = load(path, x)
    conv, fc = source.layers
    got = source.inputs(0, 6)
    assert np.array_equal(got["conv"], x)
    assert fc.input_range == (-2, 13)
    sums = ab.conv2d(x, w1, ab.integer_accumulator(40)).astype(object)
    for index in np.ndindex(sums.shape):
        unit = 0.1 * (0.3, 0.7)[index[1]]
        real = max(sums[index] * Fraction(unit) + Fraction(float(b1[index[1]])), 0)
        sums[index] = min(max(round(real / 11) + 2, 0), 15) - 2
    assert np.array_equal(got["fc"], sums.reshape(6, -1).astype(int))
    assert conv.bias.tolist() == [
        round(Fraction(float(b)) / (Fraction(0.1) * Fraction(s)))
        for b, s in zip(b1, (0.3, 0.7), strict=True)
    ]


def test_chain_of_float_layers(tmp_path):
    w1, w2 = float32(8, 5), float32(5, 3)
    layers = [{"name": "a", "weight": "w1", "input": "x", "activation": "relu"}]
    layers += [{"name": "b", "weight": "w2", "after": "a"}]
    path = write(tmp_path, {"w1": w1, "w2": w2}, layers)
    x = float32(20, 8)
    source = load(path, x, quantise="int8")
    real = np.maximum(x.astype(float) @ w1.astype(float), 0)
    got = source.inputs(0, 20)["b"]
    assert np.abs(got - real / source.layers[1].input_scale).max() < 0.5001
    assert np.array_equal(source.inputs(3, 18)["b"], got[3:18])


BAD = {
    "no name": ([{"kind": "linear"}], "manifest: layer 0: expected a name"),
    "unknown key": ([{"name": "w", "speed": 3}], r"manifest: w: expected the keys .*\['speed'\]"),
    "no such weight": ([{"name": "v"}], r"manifest: v: weight: expected an array .*\(b, c, w\)"),
    "kind": ([{"name": "w", "kind": "conv2d"}], "manifest: w: expected the kind 'linear'"),
    "unknown kind": ([{"name": "w", "kind": "lstm"}], "manifest: w: expected the kind 'linear'"),
    "type": ([{"name": "w", "input_type": "float8"}], "w: input_type must be a type"),
    "bits": ([{"name": "w", "weight_type": "s1"}], r"w: weight: expected integers in \[-1, 0\]"),
    "scale": ([{"name": "w", "input_scale": -1}], "manifest: w: input_scale: expected positive"),
    "scales": ([{"name": "w", "input_scale": [1, 2]}], "w: input_scale: expected one number"),
    "zero point": ([{"name": "w", "zero_point": 0.5}], "w: zero_point: expected an integer"),
    "far zero point": ([{"name": "w", "zero_point": 300}], r"zero_point: expected a number in"),
    "activation": ([{"name": "w", "activation": "gelu"}], "w: activation: expected 'relu'"),
    "after": ([{"name": "w", "after": "z"}], "manifest: w: after: expected a layer before it"),
    "twice": ([{"name": "w"}, {"name": "w"}], "manifest: w: expected a name of its own"),
    "bias": ([{"name": "w", "bias": "nothing"}], "manifest: w: bias: expected an array of"),
    "bias size": ([{"name": "w", "bias": "b"}], r"w: bias: expected the shape \(4,\)"),
    "stride": ([{"name": "c", "stride": 0}], "c: stride: expected 1 or 2 integers from 1"),
    "padding": ([{"name": "c", "padding": [1, 2, 3]}], "c: padding: expected 1 or 2 or 4 integers"),
    "groups": ([{"name": "c", "groups": 3}], "c: .*groups"),
    "empty": ([], "expected at least one layer"),
    "not a list": ("w", "manifest: expected a list of objects"),
    "not objects": (["w"], "manifest: expected a list of objects"),
    "chain without scales": ([{"name": "w"}, {"name": "n", "weight": "w", "after": "w",
                              "input_type": "s8", "input_scale": 1}], "w: expected input_scale"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_manifests(tmp_path, name):
    layers, message = BAD[name]
    arrays = {"w": np.full((4, 4), 3, np.int8), "c": np.ones((4, 2, 3, 3), np.int8)}
    path = write(tmp_path, {**arrays, "b": np.int64([1, 2, 3])}, layers)
    used = {str(entry.get("name", "w")) for entry in layers if isinstance(entry, dict)} - {"n"}
    x = np.ones((2, 2, 5, 5), np.int8) if used == {"c"} else np.ones((2, 4), np.int8)
    with pytest.raises(ValueError, match=rf"model\.npz: .*{message}"):
        load(path, x)


def test_damaged_npz_files(tmp_path):
    path = write(tmp_path, {"w": float32(40, 40)})
    x = float32(2, 40)
    whole = path.read_bytes()
    for size in (0, 5, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"model\.npz: "):
            load(path, x, quantise="int8")
    flipped = bytearray(whole)
    flipped[300] ^= 0xFF
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match=r"model\.npz: array 'w': "):
        load(path, x, quantise="int8")
    np.savez(path, w=float32(40, 40), manifest="{")
    with pytest.raises(ValueError, match=r"model\.npz: manifest: expected JSON"):
        load(path, x, quantise="int8")
    np.savez(path, w=np.array([{}]))
    with pytest.raises(ValueError, match=r"model\.npz: array 'w': "):
        load(path, x, quantise="int8")
    np.savez(path, w=float32(40, 40))
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY not")
    with pytest.raises(ValueError, match=r"^\S*x\.npy: expected an array of numbers"):
        load(path, tmp_path / "x.npy", quantise="int8")
    with pytest.raises(FileNotFoundError):
        load(path, tmp_path / "absent.npy", quantise="int8")


def test_data_of_an_npz_model(tmp_path):
    path = write(tmp_path, {"w": float32(4, 3)})
    with pytest.raises(ValueError, match=r"w: input .*4"):
        load(path, float32(2, 5), quantise="int8")
    with pytest.raises(ValueError, match="w: input: expected finite values, got nan"):
        load(path, np.float32([[1, np.nan, 0, 0]]), quantise="int8")
    with pytest.raises(ValueError, match="w: input: expected floats"):
        load(path, np.array([["a"]]), quantise="int8")
    mapped = tmp_path / "x.npy"
    np.save(mapped, float32(300, 4))
    source = load(path, mapped, quantise="int8")
    assert isinstance(source._capture.data["w"].array, np.memmap)


# --- ab.nn and functions --------------------------------------------------------------------------


def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, stride=2, seed=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Sequential(nn.Linear(64, 8, seed=2), nn.ReLU()),
        nn.Linear(8, 3, bias=False, seed=3),
    )


def test_network(tmp_path):
    model, x = network(), float32(40, 1, 8, 8)
    model.layers[0].bias.value[...] = float32(4)
    source = ab.overflow.network_source(model, x)
    assert [layer.name for layer in source.layers] == ["0 Conv2d", "3 Linear", "5 Linear"]
    assert source.title == "Sequential"
    conv, _, last = source.layers
    assert (conv.stride, conv.padding, last.bias) == ((2, 2), (1, 1), None)
    got = source.inputs(0, 40)
    for size in (1, 7, 16):
        pieces = [source.inputs(i, min(i + size, 40)) for i in range(0, 40, size)]
        for name, operands in got.items():
            assert np.array_equal(operands, np.concatenate([p[name] for p in pieces]))
    sums = accumulators(conv, got["0 Conv2d"])
    real = np.moveaxis((sums * (conv.input_scale * conv.weight_scale)).astype(float), -1, 1)
    expected = model.layers[0].forward(x)
    assert np.abs(real - expected).max() < 0.05 * np.abs(expected).max()
    x0 = model.layers[3].forward(np.maximum(expected, 0)[:16].reshape(16, -1))
    assert np.abs(got["5 Linear"][:16] - x0 / last.input_scale).max() <= 0.51
    np.save(tmp_path / "x.npy", x)
    other = ab.overflow.network_source(model, tmp_path / "x.npy")
    model.layers[0].weight.value[...] = 0
    assert np.array_equal(other.inputs(0, 40)["5 Linear"], got["5 Linear"])


def test_network_with_stochastic_arithmetic():
    arithmetic = nn.luq_arithmetic(seed=3)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3), seed=0).with_arithmetic(arithmetic)
    source = ab.overflow.network_source(model, float32(40, 8))
    whole = source.inputs(0, 40)["1 Linear"]
    assert np.array_equal(source.inputs(20, 30)["1 Linear"], whole[20:30])


def test_threads_share_a_source():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3), seed=0)
    model.set_arithmetic(nn.luq_arithmetic(seed=3))
    source = ab.overflow.network_source(model, float32(160, 8))
    whole = source.inputs(0, 160)["1 Linear"]
    begins = list(range(0, 160, 20)) * 4
    with ThreadPoolExecutor(4) as pool:
        pieces = pool.map(lambda i: source.inputs(i, i + 20)["1 Linear"], begins)
        for begin, piece in zip(begins, pieces, strict=True):
            assert np.array_equal(piece, whole[begin : begin + 20])


def test_network_errors():
    with pytest.raises(TypeError, match=r"model: expected an ab\.nn layer, got int"):
        ab.overflow.network_source(3, float32(2, 8))
    with pytest.raises(ValueError, match="model: expected a Linear or Conv2d layer"):
        ab.overflow.network_source(nn.ReLU(), float32(2, 8))
    with pytest.raises(ValueError, match="data: expected one array"):
        ab.overflow.network_source(network(), {"x": float32(2, 1, 8, 8)})
    with pytest.raises(ValueError, match="expected the shape"):
        ab.overflow.network_source(network(), float32(2, 1, 4, 4))


W1, W2 = float32(6, 4), RNG.integers(-8, 8, (4, 3), np.int8)


def report_operands(batch):
    hidden = batch["x"] @ W1 + batch["shift"]
    codes = np.clip(np.rint(hidden * 4), 0, 255).astype(np.uint8)
    return {"first": (batch["x"], W1, np.float32([1, 2, 3, 4])), "second": (codes, W2)}


def test_callable():
    data = {"x": float32(21, 6), "shift": float32(21, 1)}
    source = ab.overflow.callable_source(report_operands, data, quantise="int8")
    first, second = source.layers
    assert (first.weight_range, second.weight_range) == ((-127, 127), (-128, 127))
    assert second.input_range == (0, 255)
    assert first.bias is not None
    got = source.inputs(0, 21)
    again = pickle.loads(pickle.dumps(source)).inputs(5, 9)
    assert all(np.array_equal(again[name], x[5:9]) for name, x in got.items())
    alone = ab.overflow.callable_source(report_operands, data)
    assert [layer.name for layer in alone.layers] == ["second"]
    assert alone.skipped[0][0] == "first"


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        ([], TypeError, "function: expected a mapping"),
        ({}, ValueError, "function: expected at least one layer"),
        ({"a": (1,)}, TypeError, r"function: a: expected \(input, weight\)"),
        ({"a": (np.ones((3, 4), np.int8), W2)}, ValueError, "a: input: expected 2 samples"),
        ({"a": (np.ones((2, 4), np.int8), W2[0])}, ValueError, "a: weight: expected 2 or 4"),
        ({"a": (np.ones((2, 4), np.int64), W2)}, TypeError, "a: input: expected integers of at"),
        ({"a": (np.ones((2, 5), np.int8), W2)}, ValueError, "a: input must have shape"),
        ({"a": (np.ones((2, 4), np.int8), W2, float32(3))}, ValueError, "a: expected scales"),
    ],
)
def test_callable_errors(result, error, message):
    with pytest.raises(error, match=message):
        ab.overflow.callable_source(lambda batch: result, float32(2, 3))
    with pytest.raises(TypeError, match="function: expected a callable"):
        ab.overflow.callable_source(3, float32(2, 3))
