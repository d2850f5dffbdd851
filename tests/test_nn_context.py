"""What layers tell quantisers: one output gradient for two products, axes, private states."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import nn
from test_nn import bits, blobs, network, train

FloatArray = np.ndarray[Any, np.dtype[Any]]


def gemm(a: Any = None, b: Any = None, datapath: Any = None) -> nn.GemmArithmetic:
    return nn.GemmArithmetic(datapath=datapath, a_quantizer=a, b_quantizer=b)


def normal(*shape: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@dataclass
class Recorder:
    """Remembers its keyword arguments and results; rounds to 3 bits, stochastically."""

    needs: tuple[str, ...] = ()
    calls: list[dict[str, Any]] = field(default_factory=list)
    results: list[FloatArray] = field(default_factory=list)

    def __call__(self, x: FloatArray, **keywords: Any) -> FloatArray:
        words = {name: keywords[name] for name in ("seed", "stream", "call")}
        self.calls.append({"shape": x.shape, **keywords})
        self.results.append(ab.quantize(x, "e3m0", "stochastic", **words))
        return self.results[-1]


LAYERS: dict[str, tuple[Callable[[], nn.GemmLayer], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 3, seed=0), (5, 6)),
    "linear, 3-D": (lambda: nn.Linear(6, 3, bias=False, seed=0), (2, 3, 6)),
    "conv": (lambda: nn.Conv2d(2, 3, 3, padding=1, seed=0), (2, 2, 5, 4)),
    "conv, stride": (lambda: nn.Conv2d(2, 4, 2, stride=2, groups=2, seed=0), (2, 2, 6, 6)),
}


def backward(
    layer: nn.GemmLayer, shape: tuple[int, ...], arithmetic: nn.Arithmetic, g: FloatArray | None
) -> tuple[FloatArray, ...]:
    """Gradients of input, weight and bias, for a g of normal numbers if none is given."""
    layer.set_arithmetic(arithmetic)
    y = layer.forward(normal(*shape), training=True)
    g = normal(*y.shape, seed=1) if g is None else g.reshape(y.shape)
    grad_x = layer.backward(g)
    return grad_x, layer.weight.gradient, *(p.gradient for p in layer.parameters()[1:])


def same_bits(one: FloatArray, other: FloatArray) -> bool:
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )


# One output gradient for two products.


@pytest.mark.parametrize("name", LAYERS)
def test_both_products_see_the_same_output_gradient(name: str) -> None:
    build, shape = LAYERS[name]
    recorder = Recorder()
    found = backward(build(), shape, nn.Arithmetic(output_gradient=recorder, seed=3), None)
    assert len(recorder.results) == 1
    # The same bits as a float32 layer that is handed the quantised gradient.
    expected = backward(build(), shape, nn.float32_arithmetic(), recorder.results[0])
    assert same_bits(found[0], expected[0])
    assert same_bits(found[1], expected[1])
    plain = backward(build(), shape, nn.float32_arithmetic(), None)
    assert not same_bits(found[0], plain[0])
    for one, other in zip(found[2:], plain[2:], strict=True):  # the bias sees what arrived
        assert same_bits(one, other)


@pytest.mark.parametrize("name", LAYERS)
def test_emulated_products_see_it_too(name: str) -> None:
    build, shape = LAYERS[name]
    scaled = nn.DelayedScaleQuantizer("e5m2")  # what the products see is values * 2^k
    found, expected = (
        backward(
            build(),
            shape,
            nn.Arithmetic(
                input_gradient=gemm(datapath=ab.exact_accumulator()),
                weight_gradient=gemm(datapath=ab.exact_accumulator()),
                output_gradient=quantizer,
            ),
            None,
        )
        for quantizer in (scaled, lambda x, **_: scaled(x).dequantize())
    )
    assert same_bits(found[0], expected[0])
    assert same_bits(found[1], expected[1])


def test_own_quantisers_come_after_the_common_one() -> None:
    x, g = normal(5, 6), normal(5, 3, seed=1)
    layer = nn.Linear(6, 3, seed=0)
    arithmetic = nn.Arithmetic(
        output_gradient="e5m2", input_gradient=gemm("e3m0"), weight_gradient=gemm(None, "e2m1fn")
    )
    layer.set_arithmetic(arithmetic)
    layer.forward(x, training=True)
    common = ab.quantize(g, "e5m2")
    grad_x = layer.backward(g)
    saturate: dict[str, Any] = {"overflow": "sat_finite"}
    expected = ab.quantize(common, "e3m0", **saturate) @ layer.weight.value.T
    assert same_bits(grad_x, expected)
    assert same_bits(layer.weight.gradient, x.T @ ab.quantize(common, "e2m1fn", **saturate))


@pytest.mark.parametrize("name", LAYERS)
def test_a_pair_is_one_for_each_product(name: str) -> None:
    build, shape = LAYERS[name]
    arithmetic = nn.Arithmetic(output_gradient=lambda x, **_: (2 * x, 3 * x))
    grad_x, grad_weight, *_ = backward(build(), shape, arithmetic, None)
    plain = backward(build(), shape, nn.float32_arithmetic(), None)
    layer = build()
    y = layer.forward(normal(*shape), training=True)
    third = backward(build(), shape, nn.float32_arithmetic(), 3 * normal(*y.shape, seed=1))
    assert same_bits(grad_x, 2 * plain[0])
    assert same_bits(grad_weight, third[1])


@pytest.mark.parametrize("name", LAYERS)
def test_gradient_products_may_start_from_the_original_operands(name: str) -> None:
    build, shape = LAYERS[name]
    plain = backward(build(), shape, nn.float32_arithmetic(), None)
    product = gemm("e3m0", "e3m0")
    original = nn.Arithmetic(forward=product, gradient_operands="original")
    for one, other in zip(backward(build(), shape, original, None), plain, strict=True):
        assert same_bits(one, other)
    forward = backward(build(), shape, nn.Arithmetic(forward=product), None)
    assert not same_bits(forward[0], plain[0])
    assert not same_bits(forward[1], plain[1])


def test_output_gradient_has_words_of_its_own() -> None:
    recorder = Recorder()
    product = gemm(recorder, recorder)
    arithmetic = nn.Arithmetic(
        forward=product,
        input_gradient=product,
        weight_gradient=product,
        output_gradient=recorder,
        seed=9,
    )
    model = network()
    model.set_arithmetic(arithmetic)
    train(model, epochs=2)
    seen = [(call["stream"], call["call"]) for call in recorder.calls]
    # 2 layers, 20 steps, 3 products of 2 operands and the output gradient.
    assert len(seen) == len(set(seen)) == 2 * 20 * 7
    # The fourth stream of each product, for what its operands share, is free as well.
    assert all(stream % 16 == 12 or stream % 4 < 2 for stream, _ in seen)


# Axes and training.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", [(5, 6), 1, (6, 3), 0, (5, 3), 1, (5, 3), 1, (6, 3), 1, (5, 6), 0, (5, 3), 0]),
        (
            "conv",
            [
                *((2, 2, 5, 4), 1, (3, 2, 3, 3), 1, (2, 3, 5, 4), 1),
                *((2, 3, 5, 4), 1, (3, 2, 3, 3), 0, (2, 2, 5, 4), 0, (2, 3, 5, 4), 0),
            ],
        ),
    ],
)
def test_quantisers_are_told_the_reduction_axis(name: str, expected: list[Any]) -> None:
    build, shape = LAYERS[name]
    recorders = [Recorder(("axis", "training")) for _ in range(7)]
    arithmetic = nn.Arithmetic(
        forward=gemm(*recorders[:2]),
        output_gradient=recorders[2],
        input_gradient=gemm(*recorders[3:5]),
        weight_gradient=gemm(*recorders[5:]),
        seed=0,
    )
    layer = build()
    backward(layer, shape, arithmetic, None)
    found: list[Any] = []
    for recorder in recorders:
        (call,) = recorder.calls
        assert call["training"] is True
        found += [call["shape"], call["axis"] % len(call["shape"])]
    assert found == expected
    layer.forward(normal(*shape))
    assert [recorder.calls[-1]["training"] for recorder in recorders] == [False] * 2 + [True] * 5


# States.


class Counter:
    """Counts its calls in its state, and lets x grow a little with the count."""

    needs = ("state",)

    def __call__(self, x: FloatArray, *, state: dict[str, Any], **_: Any) -> FloatArray:
        state["calls"] = state.get("calls", 0) + 1
        return x * np.float32(1 + 2**-12 * state["calls"])


def counting_model() -> nn.Sequential:
    product = gemm(Counter(), Counter())
    model = network()
    model.set_arithmetic(
        nn.Arithmetic(
            forward=product,
            input_gradient=product,
            weight_gradient=product,
            output_gradient=Counter(),
        )
    )
    return model


def counts(model: nn.Sequential) -> list[dict[Any, Any]]:
    layers = [layer for layer in model.leaves() if isinstance(layer, nn.GemmLayer)]
    return [
        {key: state.get("calls", 0) for key, state in layer.quantizer_states.items()}
        for layer in layers
    ]


def test_states_are_per_layer_and_tensor() -> None:
    model = counting_model()
    train(model, epochs=1)
    keys = {(product, role) for product in range(3) for role in range(2)} | {(3, 0)}
    assert counts(model) == [dict.fromkeys(keys, 10)] * 2


def test_states_are_not_shared_by_models_with_one_arithmetic() -> None:
    model = counting_model()
    other = network()
    layer = model.layers[0]
    assert isinstance(layer, nn.GemmLayer)
    other.set_arithmetic(layer.arithmetic)
    train(model, epochs=1)
    assert counts(other) == [{}, {}]


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_states_survive_a_copy(way: str) -> None:
    model = counting_model()
    train(model, epochs=1)
    copied = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
    train(copied, epochs=1)
    once, twice = counts(model), counts(copied)
    assert once[0][0, 0] == 10
    assert twice == [dict.fromkeys(layer, 20) for layer in once]


def test_evaluation_sees_the_states_and_does_not_move_them() -> None:
    model = counting_model()
    x = blobs(50, 1)[0]
    fresh = model.forward(x)
    train(model, epochs=1)
    before = counts(model)
    kept = model.forward(x)
    assert same_bits(model.forward(x), kept)
    assert counts(model) == before
    assert not np.array_equal(fresh, kept)


def test_a_new_arithmetic_begins_without_states() -> None:
    model = counting_model()
    train(model, epochs=1)
    layer = model.layers[0]
    assert isinstance(layer, nn.GemmLayer)
    assert counts(model.with_arithmetic(layer.arithmetic)) == [{}, {}]
    assert counts(model)[0][0, 0] == 10


# What is refused.


def test_diverged_tensors_end_a_training_with_the_error_of_the_loop() -> None:
    layer = nn.Linear(
        2, 2, arithmetic=nn.Arithmetic(output_gradient=nn.SymmetricQuantizer()), seed=0
    )
    layer.forward(normal(3, 2), training=True)
    with pytest.raises(FloatingPointError, match=r"output_gradient: .*finite"):
        layer.backward(np.full((3, 2), np.inf, np.float32))

    huge = network()
    huge.set_arithmetic(nn.Arithmetic(output_gradient=lambda x, **_: x * np.float32(1e30)))
    first = huge.layers[0]
    assert isinstance(first, nn.GemmLayer)
    first.set_arithmetic(nn.Arithmetic(output_gradient=nn.DelayedScaleQuantizer("e5m2")))
    with pytest.raises(FloatingPointError, match=r"at step \d+ of 10 \(epoch 0"):
        train(huge, epochs=1)

    def refuse(x: FloatArray, **_: Any) -> FloatArray:
        raise ValueError("never")

    layer.set_arithmetic(nn.Arithmetic(output_gradient=refuse))
    layer.forward(normal(3, 2), training=True)
    with pytest.raises(ValueError, match="never"):
        layer.backward(normal(3, 2))


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ValueError, match="a_quantizer: expected needs from axis, training, state"):
        gemm(Recorder(("axes",)))
    with pytest.raises(ValueError, match="output_gradient: expected needs from"):
        nn.Arithmetic(output_gradient=Recorder(("axes",)))
    with pytest.raises(ValueError, match="gradient_operands: expected one of forward, original"):
        nn.Arithmetic(gradient_operands="both")
    bad: list[dict[str, Any]] = [{"output_gradient": "e5m2"}, {"gradient_operands": "original"}]
    for options in bad:
        with pytest.raises(ValueError, match=next(iter(options))):
            nn.Arithmetic(
                forward=gemm(datapath=ab.exact_accumulator()), ste="immediate_of", **options
            )
    pair = nn.Arithmetic(forward=gemm(lambda x, **_: (x, x)))
    with pytest.raises(TypeError, match="a_quantizer: expected an array or a ScaledArray"):
        nn.Linear(2, 2, arithmetic=pair, seed=0).forward(normal(3, 2))


def test_plain_callables_get_no_context() -> None:
    recorder = Recorder()
    model = network()
    model.set_arithmetic(nn.Arithmetic(forward=gemm(recorder), seed=0))
    model.forward(blobs(4, 0)[0])
    assert set(recorder.calls[0]) == {"shape", "seed", "stream", "call"}


def test_an_arithmetic_without_output_gradient_trains_as_before() -> None:
    one, other = network(), network()
    other.set_arithmetic(nn.Arithmetic(output_gradient=lambda x, **_: x))
    train(one, epochs=1)
    train(other, epochs=1)
    assert bits(one) == bits(other)
