"""N:M sparsity in training: what each product sees, and unbiased weight gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import nn
from test_nn import network, train
from test_nn_context import Recorder, gemm, normal, same_bits
from test_nn_luq import linear, lognormal, steps

FloatArray = np.ndarray[Any, np.dtype[Any]]


def magnitude(x: FloatArray, n: int, m: int, axis: int) -> FloatArray:
    """Masked values by a full sort of each group; a short last group keeps n too."""
    y = np.zeros_like(x)
    source, target = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
    for index in np.ndindex(source.shape[:-1]):
        for start in range(0, source.shape[-1], m):
            group = source[index][start : start + m]
            for kept in sorted(range(len(group)), key=lambda i: (-abs(group[i]), i))[:n]:
                target[(*index, start + kept)] = group[kept]
    return y


def transposable(weight: FloatArray, n: int, m: int, **options: Any) -> FloatArray:
    """Masked weight, the blocks on its first two axes, tap by tap."""
    masked = np.zeros_like(weight)
    for tap in np.ndindex(weight.shape[2:]):
        mask = ab.transposable_mask(weight[(..., *tap)], n, m, **options)
        masked[(..., *tap)] = weight[(..., *tap)] * mask
    return masked


def convolution(channels: int = 8, outputs: int = 12) -> nn.Conv2d:
    return nn.Conv2d(channels, outputs, 3, padding=1, seed=0)


def products(
    layer: nn.Conv2d, x: FloatArray, weight: FloatArray, g: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Output, input gradient and weight gradient of a float32 convolution of these operands."""
    plain = layer.with_arithmetic(nn.float32_arithmetic())
    assert isinstance(plain, nn.Conv2d)
    plain.weight.value = weight
    y = plain.forward(x, training=True)
    return y, plain.backward(g), plain.weight.gradient


# What each product sees.


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 2), (4, 8), (3, 5)])
def test_magnitude_weights_in_a_linear_layer(n: int, m: int) -> None:
    x, g = normal(6, 22), normal(6, 7, seed=1)  # 22 is no multiple of 4, 8 or 5
    layer = linear(nn.nm_arithmetic(n, m, weight="magnitude", gradient=None), 22, 7)
    weight = magnitude(layer.weight.value, n, m, 0)
    assert same_bits(layer.forward(x, training=True), x @ weight + 0)
    assert same_bits(layer.backward(g), g @ weight.T)
    assert same_bits(layer.weight.gradient, x.T @ g)  # dense: straight-through
    assert layer.bias is not None
    assert same_bits(layer.bias.gradient, g.sum(axis=0))


@pytest.mark.parametrize("method", ["exact", "heavy_first"])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 2), (4, 8)])
def test_transposable_weights_are_the_same_in_both_directions(n: int, m: int, method: str) -> None:
    x, g = normal(6, 16), normal(6, 24, seed=1)
    layer = linear(nn.nm_arithmetic(n, m, gradient=None, method=method), 16, 24)
    weight = transposable(layer.weight.value, n, m, method=method)
    assert same_bits(layer.forward(x, training=True), x @ weight + 0)
    assert same_bits(layer.backward(g), g @ weight.T)
    assert same_bits(layer.weight.gradient, x.T @ g)
    for groups in (weight.T.reshape(24, -1, m), weight.reshape(16, -1, m)):
        assert np.count_nonzero(groups, axis=-1).max() == n


def test_sparse_weights_of_a_convolution() -> None:
    x, layer = normal(3, 8, 5, 5), convolution()
    g = normal(3, 12, 5, 5, seed=1)
    for weight_kind, masked in (
        ("magnitude", magnitude(layer.weight.value, 2, 4, 1)),
        ("transposable", transposable(layer.weight.value, 2, 4)),
    ):
        layer.set_arithmetic(nn.nm_arithmetic(weight=weight_kind, gradient=None))
        y, grad_x, grad_weight = products(layer, x, masked, g)
        assert same_bits(layer.forward(x, training=True), y)
        assert same_bits(layer.backward(g), grad_x)
        assert same_bits(layer.weight.gradient, grad_weight)
        assert 0 < np.count_nonzero(masked) <= masked.size / 2


GRADIENTS: dict[str, Any] = {"unbiased": {}, "approx": {"method": "approx"}}


def pruned(g: FloatArray, kind: str, n: int, m: int, call: int = 0) -> FloatArray:
    if kind == "magnitude":
        return magnitude(g, n, m, 0)
    words: dict[str, Any] = {"seed": 5, "stream": 9, "call": call}  # weight gradient, operand b
    kept = ab.nm_unbiased(g, n, m, 0, remainder="pad", **words, **GRADIENTS[kind])
    assert isinstance(kept, np.ndarray)
    return kept


@pytest.mark.parametrize("samples", [16, 14])  # 14 is no multiple of 4 or 8
@pytest.mark.parametrize(
    ("kind", "n", "m"),
    [
        ("unbiased", 1, 2),
        ("unbiased", 2, 4),
        ("unbiased", 4, 8),
        ("approx", 2, 4),
        ("magnitude", 2, 4),
        ("magnitude", 4, 8),
    ],
)
def test_sparse_gradients_are_for_the_weight_gradient_alone(
    kind: str, n: int, m: int, samples: int
) -> None:
    x, g = normal(samples, 6), lognormal(samples, 3)
    layer = linear(nn.nm_arithmetic(n, m, weight=None, gradient=kind, seed=5))
    for step in range(3):
        grad_x = steps(layer, x, g)
        delta = pruned(g, kind, n, m, step)
        assert delta.shape == g.shape
        for start in range(0, samples, m):
            assert np.count_nonzero(delta[start : start + m], axis=0).max() <= n
        assert same_bits(layer.weight.gradient, x.T @ delta)
        assert same_bits(grad_x, g @ layer.weight.value.T)
        assert layer.bias is not None
        assert same_bits(layer.bias.gradient, g.sum(axis=0))
    assert same_bits(layer.forward(x), x @ layer.weight.value + 0)


@pytest.mark.parametrize("kind", ["unbiased", "magnitude"])
def test_sparse_gradients_of_a_convolution_lie_along_samples(kind: str) -> None:
    x, g, layer = normal(6, 8, 5, 5), lognormal(6, 12, 5, 5), convolution()
    layer.set_arithmetic(nn.nm_arithmetic(weight=None, gradient=kind, seed=5))
    layer.forward(x, training=True)
    grad_x = layer.backward(g)
    weight = layer.weight.value
    assert same_bits(grad_x, products(layer, x, weight, g)[1])
    delta = pruned(g, kind, 2, 4)
    assert same_bits(layer.weight.gradient, products(layer, x, weight, delta)[2])
    assert np.count_nonzero(delta[:4], axis=0).max() == 2
    assert layer.bias is not None
    assert same_bits(layer.bias.gradient, g.sum(axis=(0, 2, 3)))


def test_luq_int4_and_a_narrow_accumulator_are_one_arithmetic() -> None:
    luq = nn.luq_arithmetic(seed=5)
    forward = dataclasses.replace(luq.forward, datapath=ab.get_accumulator("m7e4"))
    arithmetic = nn.nm_arithmetic(2, 4, base=dataclasses.replace(luq, forward=forward))
    assert arithmetic.name == "2:4 weights (transposable), 2:4 gradients (unbiased), luq"
    x, g = np.abs(normal(10, 8)), lognormal(10, 12)
    layer = linear(arithmetic, 8, 12)
    for step in range(2):
        value = layer.weight.value
        # The clip is that of the dense weight, and the mask that of the weight before rounding.
        weight = ab.quantize_uniform(value, 4) * ab.transposable_mask(value, 2, 4)
        rows = ab.quantize_uniform(x, 4, signed=False)
        y = layer.forward(x, training=True)
        assert same_bits(y, ab.matmul(rows, weight, ab.get_accumulator("m7e4")) + 0)
        grad_x = layer.backward(g)
        delta = ab.luq(g, seed=5, stream=12, call=step)
        assert same_bits(grad_x, delta @ weight.T)
        assert same_bits(layer.weight.gradient, rows.T @ pruned(delta, "unbiased", 2, 4, step))


def test_base_arithmetics_keep_their_own_quantisers() -> None:
    x, g = normal(8, 16), lognormal(8, 16)
    # A mask comes before the quantiser of the weight gradient, in a chain with streams of its own.
    base = nn.Arithmetic(weight_gradient=gemm(None, nn.LuqQuantizer()), seed=5)
    layer = linear(nn.nm_arithmetic(weight=None, base=base), 16, 16)
    steps(layer, x, g)
    delta = ab.luq(pruned(g, "unbiased", 2, 4), seed=5, stream=9 + 2**24)
    assert same_bits(layer.weight.gradient, x.T @ delta)
    # Products that start from original operands see the transposable mask both times.
    base = nn.Arithmetic(
        forward=gemm(None, "e4m3fn"),
        input_gradient=gemm(None, "e5m2"),
        gradient_operands="original",
    )
    layer = linear(nn.nm_arithmetic(gradient=None, every=3, base=base), 16, 16)
    first = ab.transposable_mask(layer.weight.value, 2, 4)
    for _ in range(3):
        grad_x = steps(layer, x, g)
        weight = ab.quantize(layer.weight.value, "e5m2") * first
        assert same_bits(grad_x, g @ weight.T)
        layer.weight.value = layer.weight.value + normal(16, 16, seed=7)
    scaled = nn.nm_arithmetic(base=nn.integer_arithmetic(16), gradient=None)
    exact = nn.SymmetricQuantizer("int8")(layer.weight.value)
    layer.set_arithmetic(scaled)
    integers = scaled.forward.b_quantizer
    assert isinstance(integers, nn.TransposableMask)
    masked = integers(layer.weight.value)
    assert isinstance(masked, nn.ScaledArray)
    assert masked.scale == exact.scale
    assert masked.values.dtype == np.int8
    mask = ab.transposable_mask(layer.weight.value, 2, 4)
    assert np.array_equal(masked.values, exact.values * mask)


def test_two_patterns() -> None:
    weights = nn.nm_arithmetic(2, 4, gradient=None)
    both = nn.nm_arithmetic(1, 2, weight=None, gradient="magnitude", base=weights, seed=5)
    x, g = normal(8, 8), normal(8, 4, seed=1)
    layer = linear(both, 8, 4)
    grad_x = steps(layer, x, g)
    assert same_bits(grad_x, g @ transposable(layer.weight.value, 2, 4).T)
    assert same_bits(layer.weight.gradient, x.T @ magnitude(g, 1, 2, 0))


# Unbiased gradients.


@pytest.mark.parametrize("name", ["exact", "approx", "LUQ, then mask", "mask, then LUQ"])
def test_weight_gradients_are_unbiased(name: str) -> None:
    # Mean of 400 draws against its own standard error; |z| < 5 for all of 24 entries fails by
    # chance with a probability below 24 * 6e-7.
    luq = nn.luq_arithmetic(forward=None)
    base = {
        "LUQ, then mask": luq,
        "mask, then LUQ": nn.Arithmetic(weight_gradient=gemm(None, nn.LuqQuantizer())),
    }.get(name)
    kind = "approx" if name == "approx" else "unbiased"
    layer = linear(nn.nm_arithmetic(weight=None, gradient=kind, base=base, seed=5), 6, 4)
    x, g = normal(10, 6), lognormal(10, 4)
    found = []
    for _ in range(400):
        steps(layer, x, g)
        found.append(layer.weight.gradient.astype(np.float64))
    error = np.std(found, axis=0, ddof=1) / 20
    exact = x.T.astype(np.float64) @ g
    assert np.all(error > 0)
    assert np.all(np.abs(np.mean(found, axis=0) - exact) < 5 * error)


def test_magnitude_gradients_are_biased() -> None:
    x, g = np.ones((8, 6), np.float32), np.abs(lognormal(8, 3))
    layer = linear(nn.nm_arithmetic(weight=None, gradient="magnitude"))
    steps(layer, x, g)
    assert np.all(layer.weight.gradient < g.sum(axis=0))


def test_no_two_masks_share_random_words() -> None:
    recorders = [Recorder(), Recorder(), Recorder()]
    chain = nn.QuantizerChain([recorders[0], nn.QuantizerChain(recorders[1:])])
    product = gemm(chain, chain)
    model = network()
    model.set_arithmetic(nn.Arithmetic(forward=product, weight_gradient=product, seed=9))
    train(model, epochs=1)
    seen = [(call["stream"], call["call"]) for r in recorders for call in r.calls]
    assert len(seen) == len(set(seen)) == 2 * 10 * 2 * 2 * 3
