"""4-bit training with LUQ and FP8 training: quantisers, arithmetics, reproducibility."""

from __future__ import annotations

import copy
import functools
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import nn
from test_nn import bits, blobs, network, train
from test_nn_context import normal, same_bits

FIXED: Any = ab.FixedFormat(bits=8, fraction_bits=4)
FloatArray = np.ndarray[Any, np.dtype[Any]]


def lognormal(*shape: int, seed: int = 0) -> FloatArray:
    """Gradients as trainings have them: many small ones, a few large."""
    rng = np.random.default_rng(seed)
    return (rng.choice([-1, 1], shape) * rng.lognormal(0, 2, shape)).astype(np.float32)


def linear(arithmetic: nn.Arithmetic, inputs: int = 6, outputs: int = 3) -> nn.Linear:
    return nn.Linear(inputs, outputs, arithmetic=arithmetic, seed=0)


def steps(layer: nn.Linear, x: FloatArray, g: FloatArray, count: int = 1) -> FloatArray:
    """Run training steps; the input gradient of the last one."""
    for _ in range(count):
        layer.forward(x, training=True)
        grad_x = layer.backward(g)
    return grad_x


# LUQ.


def test_one_quantised_gradient_serves_both_products() -> None:
    x, g = np.abs(normal(8, 6)), lognormal(8, 3)
    layer = linear(nn.luq_arithmetic(seed=5))
    for step in range(3):
        grad_x = steps(layer, x, g)
        delta = ab.luq(g, seed=5, stream=12, call=step)
        weight = ab.quantize_uniform(layer.weight.value, 4)
        rows = ab.quantize_uniform(x, 4, signed=False)
        assert same_bits(grad_x, delta @ weight.T)
        assert same_bits(layer.weight.gradient, rows.T @ delta)
    assert layer.bias is not None
    assert same_bits(layer.bias.gradient, g.sum(axis=0))


def test_the_forward_product_is_int4_and_not_random() -> None:
    x = normal(8, 6)
    layer = linear(nn.luq_arithmetic(seed=5))
    y = layer.forward(x)
    expected = ab.quantize_uniform(x, 4) @ ab.quantize_uniform(layer.weight.value, 4) + 0
    assert same_bits(y, expected)
    assert same_bits(layer.forward(x), y)
    plain = linear(nn.luq_arithmetic(forward=None, seed=5))
    assert same_bits(plain.forward(x), x @ layer.weight.value + 0)


def samples_of(g: FloatArray, samples: int, step: int) -> list[FloatArray]:
    return [ab.luq(g, seed=5, stream=12, call=samples * step + s) for s in range(samples)]


@pytest.mark.parametrize("samples", [2, 4])
def test_smp_by_product_and_by_operand(samples: int) -> None:
    # Integers, a maximum of 64 and 2 or 4 samples: every sum is exact in float32.
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (8, 6)).astype(np.float32)
    g = rng.integers(-40, 41, (8, 3)).astype(np.float32)
    g[0, 0] = 64
    for smp in ("gemm", "operand"):
        layer = linear(nn.luq_arithmetic(samples, smp=smp, forward=None, seed=5))
        layer.weight.value = rng.integers(-3, 4, (6, 3)).astype(np.float32)
        for step in range(2):
            grad_x = steps(layer, x, g)
            drawn = samples_of(g, samples, step)
            mean = sum(drawn) / np.float32(samples)
            products = [x.T @ delta for delta in drawn]
            assert np.array_equal(layer.weight.gradient, sum(products) / np.float32(samples))
            seen = drawn[0] if smp == "gemm" else mean
            assert np.array_equal(grad_x, seen @ layer.weight.value.T)
            assert not np.array_equal(drawn[0], mean)


def test_smp_of_any_numbers_is_the_mean_of_the_products() -> None:
    x, g = normal(32, 6), lognormal(32, 3)
    layer = linear(nn.luq_arithmetic(3, forward=None, seed=5))
    steps(layer, x, g)
    drawn = samples_of(g, 3, 0)
    mean = sum(x.T.astype(np.float64) @ delta for delta in drawn) / 3
    size = np.abs(x.T).astype(np.float64) @ sum(np.abs(delta) for delta in drawn) / 3
    # A float32 sum of 32 products errs by at most 33 roundings of its terms' magnitudes.
    assert np.all(np.abs(layer.weight.gradient - mean) <= 33 * 2.0**-24 * size)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_no_two_draws_share_random_words(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[set[tuple[int, int]]] = []
    original = ab.luq

    def recorded(x: FloatArray, **options: Any) -> FloatArray:
        if options["samples"] == samples:
            calls = range(options["call"], options["call"] + samples)
            drawn.append({(options["stream"], call) for call in calls})
        return original(x, **options)

    model = network()
    model.set_arithmetic(nn.luq_arithmetic(samples, seed=1))
    monkeypatch.setattr(ab, "luq", recorded)
    train(model, epochs=1)
    assert len(drawn) == 2 * 10  # layers, steps
    assert len(set().union(*drawn)) == len(drawn) * samples


def test_twins_are_those_of_the_quantiser() -> None:
    g = lognormal(8, 3)
    for options in (
        {"log_rounding": "nearest", "underflow": "nearest"},
        {"underflow": "zero"},
        {"underflow": "nearest"},
        {"levels": 8},
        {"levels": 5, "alpha_rounding": "power_of_two"},
    ):
        layer = linear(nn.luq_arithmetic(forward=None, seed=5, **options))
        steps(layer, normal(8, 6), g)
        delta = ab.luq(g, seed=5, stream=12, **options)
        assert same_bits(layer.weight.gradient, normal(8, 6).T @ delta)
    layer = linear(nn.luq_arithmetic(gradient="int4", forward=None, seed=5))
    steps(layer, normal(8, 6), g)
    words: dict[str, Any] = {"seed": 5, "stream": 12, "call": 0}
    delta = ab.quantize_uniform(g, 4, clip="max_abs", rounding="stochastic", **words)
    assert same_bits(layer.weight.gradient, normal(8, 6).T @ delta)
    assert len(np.unique(np.abs(delta))) <= 8


def test_hindsight_is_per_layer_and_moves_in_training_only() -> None:
    arithmetic = nn.luq_arithmetic(eta=0.5, forward=None, seed=5)
    layers = [linear(arithmetic), linear(arithmetic)]
    x, g = normal(8, 6), lognormal(8, 3)
    for layer, scale in zip(layers, (1, 3), strict=True):
        tracker = ab.HindsightMax(0.5)
        for step in range(3):
            gradient = g * np.float32(scale * 2**step)
            steps(layer, x, gradient)
            delta = ab.luq(gradient, seed=5, stream=12, call=step, max_abs=tracker.update(gradient))
            assert same_bits(layer.weight.gradient, x.T @ delta)
            layer.forward(x)
    assert len(layers[0].quantizer_states[3, 0]) == 1
    copied = pickle.loads(pickle.dumps(copy.deepcopy(layers[0])))
    assert same_bits(steps(copied, x, g), steps(layers[0], x, g))


def test_gradients_are_unbiased() -> None:
    # Mean of 400 draws against its own standard error; |z| < 5 for all of 24 entries fails by
    # chance with a probability below 24 * 6e-7.
    x, g = normal(8, 6), lognormal(8, 3)
    layer = linear(nn.luq_arithmetic(forward=None, seed=5))
    found = []
    for _ in range(400):
        steps(layer, x, g)
        found.append(layer.weight.gradient.astype(np.float64))
    error = np.std(found, axis=0, ddof=1) / 20
    exact = x.T.astype(np.float64) @ g
    assert np.all(np.abs(np.mean(found, axis=0) - exact) < 5 * error)


def test_training_is_a_function_of_the_seed_and_evaluation_is_not_random() -> None:
    def trained(seed: int, samples: int) -> list[bytes]:
        model = network()
        model.set_arithmetic(nn.luq_arithmetic(samples, seed=seed))
        train(model, epochs=1)
        losses = {nn.evaluate(model, blobs(100, 1)).loss for _ in range(2)}
        assert len(losses) == 1
        return bits(model)

    assert trained(1, 1) == trained(1, 1) != trained(2, 1)
    assert trained(1, 2) != trained(1, 1)


def test_luq_trains() -> None:
    accuracies = []
    for arithmetic in (nn.float32_arithmetic(), nn.luq_arithmetic(seed=0)):
        model = network()
        model.set_arithmetic(arithmetic)
        train(model, epochs=6)
        accuracies.append(nn.evaluate(model, blobs(400, 1)).accuracy)
    assert accuracies[0] > 0.8
    assert accuracies[1] > accuracies[0] - 0.05


def test_fnt_has_int4_weights_only() -> None:
    x, g = normal(8, 6), normal(8, 3, seed=1)
    layer = linear(nn.fnt_arithmetic())
    y = layer.forward(x, training=True)
    weight = ab.quantize_uniform(layer.weight.value, 4)
    assert same_bits(y, x @ weight + 0)
    assert same_bits(layer.backward(g), g @ weight.T)
    assert same_bits(layer.weight.gradient, x.T @ g)


def test_triangle_schedule() -> None:
    schedule = functools.partial(nn.triangle_schedule, start=0.25)
    factors = [schedule(step, 8) for step in range(9)]
    assert factors == [0.25, 0.4375, 0.625, 0.8125, 1, 0.8125, 0.625, 0.4375, 0.25]
    assert [nn.triangle_schedule(step, 5) for step in range(5)] == [
        0,
        0.4,
        0.8,
        0.8,
        0.3999999999999999,
    ]
    for arguments, text in (((-1, 4), "step"), ((5, 4), "step"), ((0, 0), "steps")):
        with pytest.raises(ValueError, match=text):
            nn.triangle_schedule(*arguments)
    with pytest.raises(ValueError, match="start"):
        nn.triangle_schedule(0, 4, start=1.5)


def test_signed_range_follows_the_tensor() -> None:
    x = np.abs(normal(40))
    quantizer = nn.UniformQuantizer()
    assert same_bits(quantizer(x), ab.quantize_uniform(x, 4, signed=False))
    assert same_bits(quantizer(-x), ab.quantize_uniform(-x, 4, signed=True))
    assert same_bits(nn.UniformQuantizer(signed=True)(x), ab.quantize_uniform(x, 4))
    assert nn.UniformQuantizer()(np.zeros((0, 3), np.float32)).shape == (0, 3)


# FP8 with delayed scales.


@pytest.mark.parametrize("fmt", ["e4m3", "e4m3fn", "e5m2", "e2m1fn"])
def test_scale_is_the_floor_of_the_logarithm(fmt: str) -> None:
    largest = Fraction(float(ab.get_format(fmt).max))
    quantizer = nn.DelayedScaleQuantizer(fmt)
    maxima = [2.0**k * f for k in (-100, -3, 0, 1, 90) for f in (1, 1.5, 1.75, 2 - 2**-23)]
    for amax in [*maxima, float(largest), float(largest) / 4]:
        x = np.array([amax, -amax / 3], np.float32)
        scale = 1 / Fraction(float(quantizer(x).scale))
        ratio = largest / Fraction(amax)
        assert scale <= ratio < 2 * scale
        values = ab.quantize(x * np.float32(scale), fmt)
        assert same_bits(quantizer(x).values, values)


def test_scales_outside_float32_are_limited() -> None:
    tiny = np.array([2.0**-140], np.float32)
    assert nn.DelayedScaleQuantizer("e5m2")(tiny).scale == 2.0**-126
    assert nn.DelayedScaleQuantizer("e5m2")(tiny).dequantize()[0] == tiny[0]
    assert nn.DelayedScaleQuantizer("e5m2")(np.zeros(2, np.float32)).scale == 1
    assert nn.DelayedScaleQuantizer("e5m2")(np.zeros(0, np.float32)).dequantize().shape == (0,)
    huge = np.array([2.4e38], np.float32)
    assert nn.DelayedScaleQuantizer("e2m1fn")(huge).dequantize()[0] == np.float32(2.0**128 * 0.75)


def test_history_is_of_the_steps_before() -> None:
    quantizer = nn.DelayedScaleQuantizer("e4m3", history=2)
    state: dict[str, Any] = {}
    scales = [
        1 / float(quantizer(np.array([amax], np.float32), state=state).scale)
        for amax in (1, 4, 1, 1, 1, 60, 0, 0, 0)
    ]
    # 240 by the largest of the two before, or of the tensor itself in the first step.
    assert scales == [128, 128, 32, 32, 128, 128, 4, 4, 1]
    late = quantizer(np.array([1000], np.float32), state={"maxima": [1.0]})
    assert late.values[0] == 240


def test_fp8_states_are_per_tensor_and_rest_in_evaluation() -> None:
    layer = linear(nn.fp8_arithmetic(seed=3))
    x, g = normal(8, 6), lognormal(8, 3)
    fresh = layer.forward(x)
    steps(layer, x, g, 2)
    kept = {key: state["maxima"] for key, state in layer.quantizer_states.items() if state}
    assert kept == {
        (0, 0): [float(np.abs(x).max())] * 2,
        (0, 1): [float(np.abs(layer.weight.value).max())] * 2,
        (3, 0): [float(np.abs(g).max())] * 2,
    }
    kept = copy.deepcopy(layer.quantizer_states)
    assert same_bits(layer.forward(x), fresh)
    layer.forward(100 * x)
    assert layer.quantizer_states == kept
    saturated = layer.forward(100 * x)
    assert np.abs(saturated).max() < 20 * np.abs(fresh).max()  # the scale is that of x


def test_fp8_rounds_gradients_stochastically_once() -> None:
    x, g = normal(8, 6), lognormal(8, 3)
    layer = linear(nn.fp8_arithmetic(seed=3))
    for step in range(2):
        grad_x = steps(layer, x, g)
        weight = nn.DelayedScaleQuantizer("e4m3fn")(layer.weight.value).dequantize()
        delta = nn.DelayedScaleQuantizer("e5m2", "stochastic")(g, seed=3, stream=12, call=step)
        rows = nn.DelayedScaleQuantizer("e4m3fn")(x).dequantize()
        assert same_bits(grad_x, delta.dequantize() @ weight.T)
        assert same_bits(layer.weight.gradient, rows.T @ delta.dequantize())


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "smp": (lambda: nn.luq_arithmetic(2, smp="both"), ValueError, "smp: expected gemm or operand"),
    "samples": (lambda: nn.luq_arithmetic(0), ValueError, "samples"),
    "levels": (lambda: nn.LuqQuantizer(levels=6), ValueError, "levels"),
    "underflow": (lambda: nn.luq_arithmetic(underflow="none"), ValueError, "underflow"),
    "eta": (lambda: nn.LuqQuantizer(eta=1.5), ValueError, "eta"),
    "gradient": (lambda: nn.luq_arithmetic(gradient="fp4"), ValueError, "gradient: .*luq or int4"),
    "int4": (lambda: nn.luq_arithmetic(2, gradient="int4"), ValueError, "gradient"),
    "bits": (lambda: nn.UniformQuantizer(9), ValueError, "bits"),
    "clip": (lambda: nn.UniformQuantizer(clip="minimum"), ValueError, "clip"),
    "format": (lambda: nn.DelayedScaleQuantizer("e9m9"), ValueError, "e9m9"),
    "fixed": (
        lambda: nn.fp8_arithmetic(forward=FIXED),
        TypeError,
        "FloatFormat",
    ),
    "history": (lambda: nn.fp8_arithmetic(history=0), ValueError, "history: expected at least 1"),
    "infinite": (
        lambda: nn.DelayedScaleQuantizer("e5m2")(np.array([np.nan], np.float32)),
        ValueError,
        "finite",
    ),
    "seed": (
        lambda: steps(linear(nn.luq_arithmetic()), normal(2, 6), normal(2, 3)),
        ValueError,
        "seed",
    ),
    "diverged": (
        lambda: steps(linear(nn.luq_arithmetic(seed=0)), normal(2, 6), normal(2, 3) / 0),
        FloatingPointError,
        "output_gradient",
    ),
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name: str) -> None:
    call, error, text = BAD[name]
    with pytest.raises(error, match=text):
        call()
