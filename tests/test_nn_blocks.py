"""Training with block formats: axes, split rounding, rotations that cancel in the product."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import nn
from test_nn import bits, blobs, network, train
from test_nn_context import gemm, normal, same_bits

FloatArray = np.ndarray[Any, np.dtype[Any]]

WORDS: dict[str, Any] = {"seed": 5, "call": 0}


def blocks(x: FloatArray, fmt: str, axis: int, *args: str, **options: Any) -> FloatArray:
    return ab.quantize_blocks(x, fmt, *args, axis=axis, **options).dequantize()


def rotated(x: FloatArray, axis: int = 0) -> FloatArray:
    filled = np.zeros((-(-x.shape[axis] // 16) * 16, *x.shape[1:]), np.float32)
    filled[: len(x)] = x
    return ab.random_hadamard(filled, block=16, signs="transformer_engine", axis=axis)


@pytest.mark.parametrize(
    ("build", "nearest", "stochastic"),
    [(nn.nvfp4_arithmetic, "nvfp4", "nvfp4_up"), (nn.mxfp4_arithmetic, "mxfp4", "mxfp4_ceil")],
)
def test_split_rounding_of_a_linear_layer(build: Any, nearest: str, stochastic: str) -> None:
    x, g = normal(20, 48), normal(20, 40, seed=1)
    layer = nn.Linear(48, 40, bias=False, arithmetic=build(seed=5), seed=0)
    weight = layer.weight.value
    y = layer.forward(x, training=True)
    assert same_bits(y, blocks(x, nearest, 1) @ blocks(weight, nearest, 0))
    grad_x = layer.backward(g)
    delta = blocks(g, stochastic, 1, "stochastic", stream=4, **WORDS)
    assert same_bits(grad_x, delta @ blocks(weight, nearest, 1).T)
    rows = blocks(rotated(x), stochastic, 0, "stochastic", stream=8, **WORDS)
    delta = blocks(rotated(g), stochastic, 0, "stochastic", stream=9, **WORDS)
    assert rows.shape == (32, 48)
    assert same_bits(layer.weight.gradient, rows.T @ delta)


def test_split_rounding_of_a_convolution() -> None:
    x, g = normal(3, 17, 4, 4), normal(3, 20, 4, 4, seed=1)
    layer = nn.Conv2d(17, 20, 3, padding=1, bias=False, seed=0)
    weight = layer.weight.value
    reference = nn.Conv2d(17, 20, 3, padding=1, bias=False, seed=0)

    def passes(x: FloatArray, weight: FloatArray, g: FloatArray) -> tuple[FloatArray, ...]:
        reference.weight.value = weight
        y = reference.forward(x, training=True)
        return y, reference.backward(g), reference.weight.gradient

    layer.set_arithmetic(nn.nvfp4_arithmetic(seed=5))
    y = layer.forward(x, training=True)
    grad_x = layer.backward(g)
    assert same_bits(y, passes(blocks(x, "nvfp4", 1), blocks(weight, "nvfp4", 1), g)[0])
    delta = blocks(g, "nvfp4_up", 1, "stochastic", stream=4, **WORDS)
    assert same_bits(grad_x, passes(x, blocks(weight, "nvfp4", 0), delta)[1])
    image = blocks(rotated(x), "nvfp4_up", 0, "stochastic", stream=8, **WORDS)
    delta = blocks(rotated(g), "nvfp4_up", 0, "stochastic", stream=9, **WORDS)
    assert same_bits(layer.weight.gradient, passes(image, weight, delta)[2])


def test_nearest_everywhere_needs_no_seed() -> None:
    x, g = normal(16, 48), normal(16, 40, seed=1)
    layer = nn.Linear(48, 40, bias=False, seed=0)
    layer.set_arithmetic(nn.nvfp4_arithmetic(rounding="nearest_even"))
    y = layer.forward(x, training=True)
    weight = layer.weight.value
    assert same_bits(y, blocks(x, "nvfp4", 1) @ blocks(weight, "nvfp4", 0))
    assert same_bits(layer.backward(g), blocks(g, "nvfp4", 1) @ blocks(weight, "nvfp4", 1).T)
    rows, delta = (blocks(rotated(tensor), "nvfp4", 0) for tensor in (x, g))
    assert same_bits(layer.weight.gradient, rows.T @ delta)


def test_square_blocks_are_the_same_weight_in_both_passes() -> None:
    seen: list[FloatArray] = []
    square = nn.nvfp4_arithmetic(weight="nvfp4_2d", rotation=None, seed=5)

    def watched(product: nn.GemmArithmetic) -> nn.GemmArithmetic:
        quantizer: Any = product.b_quantizer

        class Watch:
            needs = ("axis",)

            def __call__(self, x: FloatArray, **keywords: Any) -> FloatArray:
                seen.append(quantizer(x, **keywords))
                return seen[-1]

        return dataclasses.replace(product, b_quantizer=Watch())

    arithmetic = dataclasses.replace(
        square, forward=watched(square.forward), input_gradient=watched(square.input_gradient)
    )
    for layer, shape in (
        (nn.Linear(48, 40, seed=0), (8, 48)),
        (nn.Conv2d(20, 40, 3, padding=1, seed=0), (2, 20, 4, 4)),
    ):
        seen.clear()
        layer.set_arithmetic(arithmetic)
        layer.backward(normal(*layer.forward(normal(*shape), training=True).shape))
        assert same_bits(*seen)
        assert same_bits(seen[0], blocks(layer.weight.value, "nvfp4_2d", 1))


@pytest.mark.parametrize("signs", ["transformer_engine", "random"])
@pytest.mark.parametrize("samples", [16, 48, 5, 21])
def test_rotations_cancel_in_an_exact_product(samples: int, signs: str) -> None:
    # Operands -1, 0 and 1: 16 of them rotated are multiples of 1/4 up to 4, which MXINT8 holds.
    rng = np.random.default_rng(0)
    quantizer = nn.BlockQuantizer("mxint8", rotation=16, signs=signs)
    arithmetic = nn.Arithmetic(weight_gradient=gemm(quantizer, quantizer), seed=5)
    layers: list[tuple[nn.GemmLayer, tuple[int, ...]]] = [
        (nn.Linear(6, 3, bias=False, seed=0), (samples, 6)),
        (nn.Conv2d(2, 3, 3, padding=1, bias=False, seed=0), (samples, 2, 5, 4)),
    ]
    for layer, shape in layers:
        x = rng.integers(-1, 2, shape).astype(np.float32)
        y = layer.forward(x, training=True)
        g = rng.integers(-1, 2, y.shape).astype(np.float32)
        layer.backward(g)
        expected = layer.weight.gradient
        layer.set_arithmetic(arithmetic)
        for _ in range(2):
            layer.forward(x, training=True)
            layer.backward(g)
            assert np.array_equal(layer.weight.gradient, expected)


def test_random_signs_are_shared_by_the_operands_and_new_each_step() -> None:
    quantizer = nn.BlockQuantizer("mxint8", rotation=32)
    x = normal(32, 3)
    words: dict[str, Any] = {"seed": 1, "axis": 0}
    both = [quantizer(x, stream=stream, call=2, **words) for stream in (40, 41)]
    assert same_bits(*both)
    assert not same_bits(both[0], quantizer(x, stream=40, call=3, **words))
    assert not same_bits(both[0], quantizer(x, stream=44, call=2, **words))
    expected = ab.random_hadamard(x, block=32, axis=0, seed=1, stream=43, call=2)
    assert same_bits(both[0], blocks(expected, "mxint8", 0))


def test_split_gradients_are_unbiased_and_nearest_ones_are_not() -> None:
    # Mean of 300 draws against its own standard error: 5 of them for 160 entries is exceeded by
    # chance with a probability below 160 * 6e-7.
    x, g = np.abs(normal(16, 8)), np.abs(normal(16, 20, seed=1)) ** 3
    exact = x.T.astype(np.float64) @ g
    layer = nn.Linear(8, 20, bias=False, seed=0, arithmetic=nn.nvfp4_arithmetic(seed=5))
    found = []
    for _ in range(300):
        layer.forward(x, training=True)
        layer.backward(g)
        found.append(layer.weight.gradient.astype(np.float64))
    error = np.std(found, axis=0, ddof=1) / np.sqrt(300)
    assert np.all(np.abs(np.mean(found, axis=0) - exact) < 5 * error)
    layer.set_arithmetic(nn.nvfp4_arithmetic(rounding="nearest_even"))
    layer.forward(x, training=True)
    layer.backward(g)
    assert np.max(np.abs(layer.weight.gradient - exact) / error) > 20


def test_training_is_a_function_of_the_seed_and_evaluation_is_not_random() -> None:
    def trained(seed: int) -> list[bytes]:
        model = network()
        model.set_arithmetic(nn.nvfp4_arithmetic(seed=seed))
        train(model, epochs=1)
        assert len({nn.evaluate(model, blobs(100, 1)).loss for _ in range(2)}) == 1
        return bits(model)

    assert trained(1) == trained(1) != trained(2)


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "rounding": (lambda: nn.nvfp4_arithmetic(rounding="up"), ValueError, "split or nearest_even"),
    "format": (lambda: nn.BlockQuantizer("nvfp5"), ValueError, "nvfp5"),
    "elements": (lambda: nn.BlockQuantizer("nvfp4", "sideways"), ValueError, "sideways"),
    "signs": (
        lambda: nn.BlockQuantizer("nvfp4", rotation=16, signs="plus"),
        ValueError,
        "signs: expected random or transformer_engine",
    ),
    "published signs": (
        lambda: nn.BlockQuantizer("nvfp4", rotation=32, signs="transformer_engine"),
        ValueError,
        "16",
    ),
    "rotation": (lambda: nn.mxfp4_arithmetic(rotation=12), ValueError, "12"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name: str) -> None:
    call, error, text = BAD[name]
    with pytest.raises(error, match=text):
        call()
