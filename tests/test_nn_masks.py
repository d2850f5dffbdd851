"""Masks as quantisers: states, refreshing, weights that stay dense, what is refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import nn
from test_nn import bits, blobs, network, train
from test_nn_context import gemm, normal, same_bits
from test_nn_luq import linear, steps

FloatArray = np.ndarray[Any, np.dtype[Any]]


# States.


def test_a_mask_is_kept_for_some_steps() -> None:
    layer = linear(nn.nm_arithmetic(gradient=None, every=3), 8, 4)
    x = normal(8, 8)
    chosen = np.zeros((8, 4), np.bool_)
    for step in range(7):
        layer.weight.value = normal(8, 4, seed=step)
        if step % 3 == 0:
            chosen = ab.transposable_mask(layer.weight.value, 2, 4)
        # An evaluation computes with the mask of the next training step and does not move it.
        before = copy.deepcopy(layer.quantizer_states.get((0, 1), {}))
        for _ in range(4):
            assert same_bits(layer.forward(x), x @ (layer.weight.value * chosen) + 0)
        state = layer.quantizer_states[0, 1]
        assert state.get("steps", 0) == before.get("steps", 0) == step
        y = layer.forward(x, training=True)
        assert same_bits(y, x @ (layer.weight.value * chosen) + 0)
        (mask,) = nn.weight_masks(layer)
        assert mask is not None
        assert np.array_equal(mask, chosen)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_states_survive_a_copy(way: str) -> None:
    model = network()
    chain = nn.QuantizerChain([nn.MagnitudeMask(2, 4, 7), nn.DelayedScaleQuantizer("e4m3fn")])
    model.set_arithmetic(
        nn.nm_arithmetic(2, 4, weight=None, base=nn.Arithmetic(forward=gemm(None, chain)), seed=1)
    )
    train(model, epochs=1)  # 10 steps: the masks are in use for 4 more
    copied = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
    fresh = model.with_arithmetic(model.layers[0].arithmetic)  # type: ignore[attr-defined]
    for other in (model, copied, fresh):
        train(other, epochs=1)
    assert bits(copied) == bits(model) != bits(fresh)


def test_training_is_a_function_of_the_seed_and_evaluation_is_not_random() -> None:
    def trained(seed: int) -> list[bytes]:
        model = network()
        model.set_arithmetic(nn.nm_arithmetic(2, 4, seed=seed))
        train(model, epochs=1)
        losses = {nn.evaluate(model, blobs(100, 1)).loss for _ in range(2)}
        assert len(losses) == 1
        return bits(model)

    assert trained(1) == trained(1) != trained(2)


def test_sparse_training_reaches_the_dense_accuracy() -> None:
    accuracies = []
    for arithmetic in (nn.float32_arithmetic(), nn.nm_arithmetic(2, 4, seed=0)):
        model = network()
        model.set_arithmetic(arithmetic)
        train(model, epochs=6)
        accuracies.append(nn.evaluate(model, blobs(400, 1)).accuracy)
    assert accuracies[0] > 0.8
    assert accuracies[1] > accuracies[0] - 0.05


# Which weights stay dense.


def test_weights_that_do_not_fit_stay_dense() -> None:
    model = network()  # 4 x 1 x 3 x 3, and 16 x 3
    model.set_arithmetic(nn.nm_arithmetic(2, 4, gradient=None))
    assert nn.weight_masks(model) == [None, None]
    x = blobs(8, 0)[0]
    plain = model.with_arithmetic(nn.float32_arithmetic())
    assert same_bits(model.forward(x, training=True), plain.forward(x, training=True))
    assert nn.weight_masks(model) == [None, None]
    magnitudes = model.with_arithmetic(nn.nm_arithmetic(2, 4, weight="magnitude", gradient=None))
    magnitudes.forward(x, training=True)
    first, last = nn.weight_masks(magnitudes)
    assert first is not None
    assert last is not None
    assert first.all()  # one input channel: groups of one
    assert np.array_equal(last.reshape(4, 4, 3).sum(axis=1), np.full((4, 3), 2))
    mask = nn.TransposableMask(2, 4)
    shapes = [(16, 8), (16, 10), (10, 16), (16, 8, 3, 3), (8, 1, 3, 3), (16,), ()]
    assert [mask.fits(shape) for shape in shapes] == [True, False, False, True, False, False, False]
    assert all(nn.MagnitudeMask().fits(shape) for shape in shapes[:-1])
    plain = nn.Sequential(nn.Linear(8, 8), seed=0)
    chain = nn.QuantizerChain(["e4m3fn", mask])
    plain.set_arithmetic(nn.Arithmetic(forward=gemm(None, chain)))
    plain.forward(normal(2, 8), training=True)
    (inner,) = nn.weight_masks(plain)
    assert inner is not None
    assert inner.sum() == 32


def test_a_dense_weight_is_still_quantised() -> None:
    layer = linear(nn.nm_arithmetic(base=nn.luq_arithmetic(seed=0)), 8, 3)
    x = normal(4, 8)
    expected = ab.quantize_uniform(x, 4) @ ab.quantize_uniform(layer.weight.value, 4) + 0
    assert same_bits(layer.forward(x), expected)
    codes = nn.TransposableMask(quantizer=nn.SymmetricQuantizer())(layer.weight.value)
    assert isinstance(codes, nn.ScaledArray)
    assert codes.values.dtype == np.int8


def test_float64_models() -> None:
    model = nn.Linear(8, 4, arithmetic=nn.nm_arithmetic(2, 4, seed=3), seed=0, dtype=np.float64)
    x, g = normal(8, 8).astype(np.float64), normal(8, 4, seed=1).astype(np.float64)
    model.forward(x, training=True)
    assert model.backward(g).dtype == np.float64
    delta = ab.nm_unbiased(g, 2, 4, 0, seed=3, stream=9)
    assert same_bits(model.weight.gradient, x.T @ delta)


def nested(x: FloatArray, **_: Any) -> FloatArray:
    return np.concatenate([x, x])


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "n": (lambda: nn.MagnitudeMask(5, 4), ValueError, "n"),
    "n, transposable": (lambda: nn.TransposableMask(5, 4), ValueError, "n"),
    "n, unbiased": (lambda: nn.UnbiasedMask(0, 4), ValueError, "n"),
    "m": (lambda: nn.nm_arithmetic(2, 33), ValueError, "m must be in 1..32"),
    "kind of m": (lambda: nn.nm_arithmetic(2, 4.0), TypeError, "m must be an integer"),  # type: ignore[arg-type]
    "every": (lambda: nn.nm_arithmetic(every=0), ValueError, "every must be"),
    "weight": (
        lambda: nn.nm_arithmetic(weight="random"),
        ValueError,
        "weight: expected transposable, magnitude or None",
    ),
    "gradient": (
        lambda: nn.nm_arithmetic(gradient="random"),
        ValueError,
        "gradient: expected unbiased, approx, magnitude or None",
    ),
    "method": (lambda: nn.nm_arithmetic(method="optimal"), ValueError, "method"),
    "approx": (lambda: nn.nm_arithmetic(4, 8, gradient="approx"), ValueError, "method"),
    "probability_bits": (
        lambda: nn.UnbiasedMask(probability_bits=8),
        ValueError,
        "probability_bits",
    ),
    "rotation": (
        lambda: nn.nm_arithmetic(base=nn.nvfp4_arithmetic(seed=0)),
        ValueError,
        "base.weight_gradient.b_quantizer: expected no rotation",
    ),
    "original": (
        lambda: nn.nm_arithmetic(weight="magnitude", base=nn.nvfp4_arithmetic(rotation=None)),
        ValueError,
        "weight: expected transposable or None",
    ),
    "estimator": (
        lambda: nn.nm_arithmetic(base=nn.lba_arithmetic(ste="immediate_of")),
        ValueError,
        "weight_gradient: expected the default",
    ),
    "quantizer": (lambda: nn.MagnitudeMask(quantizer="e9m9"), ValueError, "e9m9"),
    "shape": (
        lambda: nn.MagnitudeMask(quantizer=nested)(normal(4)),
        ValueError,
        r"quantizer: expected the shape \(4,\) as the result, got \(8,\)",
    ),
    "members": (
        lambda: nn.QuantizerChain(["e5m2"] * 257),
        ValueError,
        "quantizers: their number",
    ),
    "member": (lambda: nn.QuantizerChain(["e5m2", "e9m9"]), ValueError, "e9m9"),
    "pair": (
        lambda: nn.QuantizerChain([lambda x, **_: (x, x), "e5m2"])(normal(4)),
        TypeError,
        r"quantizers\[0\]: expected an array",
    ),
    "seed": (
        lambda: steps(linear(nn.nm_arithmetic()), normal(4, 6), normal(4, 3)),
        ValueError,
        "seed",
    ),
    "diverged": (
        lambda: steps(linear(nn.nm_arithmetic(seed=0)), normal(4, 6), abs(normal(4, 3)) / 0),
        FloatingPointError,
        "b_quantizer",
    ),
}


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name: str) -> None:
    call, error, text = BAD[name]
    with pytest.raises(error, match=text):
        call()


def test_a_kept_mask_needs_its_shape() -> None:
    layer = linear(nn.Arithmetic(weight_gradient=gemm(None, nn.MagnitudeMask(every=2))))
    steps(layer, normal(8, 6), normal(8, 3))
    with pytest.raises(ValueError, match=r"every: expected 1 for a tensor whose shape changes"):
        steps(layer, normal(4, 6), normal(4, 3))


def test_what_a_sparse_recipe_refuses():
    rotated = nn.BlockQuantizer("nvfp4", "stochastic", 16)
    hidden = nn.GemmArithmetic(b_quantizer=nn.QuantizerChain([rotated]))
    with pytest.raises(ValueError, match="expected no rotation"):
        nn.nm_arithmetic(weight=None, base=nn.Arithmetic(weight_gradient=hidden))
    inside = nn.GemmArithmetic(b_quantizer=nn.MagnitudeMask(quantizer=rotated))
    with pytest.raises(ValueError, match="expected no rotation"):
        nn.nm_arithmetic(weight=None, base=nn.Arithmetic(weight_gradient=inside))
    with pytest.raises(ValueError, match="expected a rotation as the first one only"):
        nn.QuantizerChain(["e4m3fn", rotated])
    with pytest.raises(ValueError, match="expected no mask beside"):
        nn.nm_arithmetic(base=nn.nm_arithmetic(1, 4))


def test_a_gradient_that_overflows_when_scaled_is_a_divergence():
    huge = np.full((4, 8), 2e38, np.float32)
    with pytest.raises(FloatingPointError, match="expected results within float32"):
        nn.UnbiasedMask(1, 4)(huge, seed=0)


def test_masked_decay_is_a_term_of_the_gradient_of_what_is_not_kept():
    arithmetic = nn.nm_arithmetic(2, 4, gradient=None, seed=0)
    dense = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3), seed=3)
    models = [dense.with_arithmetic(arithmetic) for _ in range(2)]
    data = blobs(32, 0)
    options = {"optimizer": nn.sgd(0.1, momentum=0.0), "epochs": 1, "batch_size": 32, "seed": 0}
    layers = [[layer for layer in m.leaves() if isinstance(layer, nn.GemmLayer)] for m in models]
    before = [layer.weight.value.copy() for layer in layers[0]]
    nn.train(models[0], data, **options)
    nn.train(models[1], data, before_update=nn.MaskedDecay(0.25), **options)
    masks = nn.weight_masks(models[0])
    assert any(mask is not None for mask in masks)
    for mask, old, plain, decayed in zip(masks, before, *layers, strict=True):
        gradient = plain.weight.gradient
        if mask is not None:
            gradient = gradient + np.float32(0.25) * np.where(mask, np.float32(0), old)
            assert (gradient != plain.weight.gradient).any()
        assert same_bits(decayed.weight.gradient, gradient)
    for rate in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="rate: expected a finite number"):
            nn.MaskedDecay(rate)
