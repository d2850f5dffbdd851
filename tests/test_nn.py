"""Layers against finite differences, the optimiser against plain formulas, the training loop."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

from abcdeep_core import nn

FloatArray = np.ndarray[Any, np.dtype[Any]]
STEP = 1e-5
GRADIENT_BOUND = 1e-6  # of the largest entry; the central difference itself is good to about 1e-9


def numerical_gradient(function: Any, x: FloatArray) -> FloatArray:
    """Central differences of a scalar function, one entry of x at a time."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + STEP
        above = function()
        x[index] = kept - STEP
        gradient[index] = (above - function()) / (2 * STEP)
        x[index] = kept
    return gradient


def assert_close(found: FloatArray, expected: FloatArray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == np.float64
    assert np.max(np.abs(found - expected)) <= GRADIENT_BOUND * np.max(np.abs(expected))


def spread_out(shape: tuple[int, ...]) -> FloatArray:
    """Distinct numbers far (against STEP) from each other and from 0, for ReLU and MaxPool2d."""
    size = math.prod(shape)
    values = (np.random.default_rng(3).permutation(size) - size / 2 + 0.25) * 0.1
    return values.reshape(shape)


F64: dict[str, Any] = {"seed": 1, "dtype": np.float64}
LAYERS = {
    "linear": (nn.Linear(5, 3, **F64), (4, 5)),
    "linear, no bias, 3-D": (nn.Linear(5, 3, bias=False, **F64), (2, 3, 5)),
    "conv": (nn.Conv2d(2, 3, 3, padding=1, **F64), (2, 2, 5, 4)),
    "conv, stride": (nn.Conv2d(2, 3, 3, stride=2, **F64), (2, 2, 6, 5)),
    "conv, all": (
        nn.Conv2d(
            4,
            6,
            (3, 2),
            stride=(2, 1),
            padding=(1, 2),
            dilation=(1, 2),
            groups=2,
            bias=False,
            **F64,
        ),
        (2, 4, 6, 5),
    ),
    "conv, depthwise": (nn.Conv2d(3, 3, 2, groups=3, **F64), (2, 3, 4, 4)),
    "max pool": (nn.MaxPool2d(2), (2, 2, 5, 4)),
    "max pool, overlapping": (nn.MaxPool2d((3, 2), stride=1), (1, 2, 5, 4)),
    "average pool": (nn.AvgPool2d(2), (2, 2, 5, 4)),
    "average pool, overlapping": (nn.AvgPool2d(3, stride=(1, 2)), (1, 2, 5, 6)),
    "relu": (nn.ReLU(), (3, 4)),
    "flatten": (nn.Flatten(), (2, 3, 2, 2)),
    "batch norm, 1-D": (nn.BatchNorm(3, dtype=np.float64), (5, 3)),
    "batch norm, 2-D": (nn.BatchNorm(3, dtype=np.float64), (2, 3, 3, 2)),
    "layer norm": (nn.LayerNorm(5, dtype=np.float64), (3, 5)),
    "layer norm, two axes": (nn.LayerNorm((3, 4), dtype=np.float64), (2, 2, 3, 4)),
    "sequential": (
        nn.Sequential(
            nn.Conv2d(1, 2, 3, bias=False, dtype=np.float64),
            nn.BatchNorm(2, dtype=np.float64),
            nn.Sequential(nn.AvgPool2d(2), nn.Flatten()),
            nn.Linear(8, 3, dtype=np.float64),
            seed=0,
        ),
        (3, 1, 6, 6),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_finite_differences(name: str) -> None:
    template, shape = LAYERS[name]
    layer, x = copy.deepcopy(template), spread_out(shape)
    for parameter in layer.parameters():  # scales of 1 and shifts of 0 would hide mistakes
        parameter.value += 0.3 * np.random.default_rng(4).standard_normal(parameter.value.shape)
    y = layer.forward(x, training=True)
    weights = np.random.default_rng(5).standard_normal(y.shape)
    gradient = layer.backward(weights)
    found = [gradient, *(parameter.gradient for parameter in layer.parameters())]

    def loss() -> float:
        return float(np.sum(weights * layer.forward(x, training=True)))

    for array, analytic in zip(
        [x, *(parameter.value for parameter in layer.parameters())], found, strict=True
    ):
        assert_close(analytic, numerical_gradient(loss, array))


def test_loss_gradient_is_finite_difference() -> None:
    logits = np.random.default_rng(0).standard_normal((4, 5))
    labels = np.array([0, 4, 2, 2])
    gradient = nn.softmax_cross_entropy(logits, labels)[1]
    numeric = numerical_gradient(lambda: nn.softmax_cross_entropy(logits, labels)[0], logits)
    assert_close(gradient, numeric)


def test_loss_is_stable_for_large_logits() -> None:
    logits = np.array([[3e38, -3e38], [-3e38, 3e38]], np.float32)
    with np.errstate(over="ignore"):
        loss, gradient = nn.softmax_cross_entropy(logits[:1], np.array([0]))
    assert loss == 0
    assert np.array_equal(gradient, np.zeros((1, 2), np.float32))
    shifted = nn.softmax_cross_entropy(np.array([[1000.0, 1001.0]]), np.array([0]))[0]
    assert shifted == math.log1p(math.e)


def test_conv2d_is_the_sum_over_taps() -> None:
    rng = np.random.default_rng(0)
    layer = nn.Conv2d(
        2, 4, (2, 3), stride=(1, 2), padding=(1, 0), dilation=(2, 1), groups=2, seed=0
    )
    x = rng.integers(-4, 5, (2, 2, 4, 7)).astype(np.float32)
    layer.weight.value = rng.integers(-4, 5, layer.weight.value.shape).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    y = layer.forward(x)
    for n, o, i, j in np.ndindex(y.shape):
        taps = padded[n, o // 2, i : i + 3 : 2, 2 * j : 2 * j + 3]
        assert y[n, o, i, j] == np.sum(taps * layer.weight.value[o, 0])  # integers: exact


def test_pooling_leaves_out_the_rest() -> None:
    x = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    assert nn.MaxPool2d(2).forward(x).tolist() == [[[[6, 8], [16, 18]]]]
    assert nn.AvgPool2d((5, 1)).forward(x).tolist() == [[[[10, 11, 12, 13, 14]]]]
    pool = nn.MaxPool2d(2)
    pool.forward(np.zeros((1, 1, 2, 2), np.float32), training=True)
    assert pool.backward(np.ones((1, 1, 1, 1), np.float32)).tolist() == [[[[1, 0], [0, 0]]]]


def test_batch_norm_averages_statistics_for_evaluation() -> None:
    layer = nn.BatchNorm(1, momentum=0.25)
    x = np.array([[1.0], [3.0], [8.0]], np.float32)
    layer.forward(x, training=True)
    assert layer.running_mean.tolist() == [0.25 * 4]
    assert layer.running_variance.tolist() == [1 + 0.25 * (13 - 1)]  # unbiased: (9 + 1 + 16) / 2
    y = layer.forward(np.array([[1.0]], np.float32))
    assert y.tolist() == [[0.0]]


# The update against the formulas of the literature, transcribed one array at a time.


def gradients_of(value: FloatArray, step: int) -> FloatArray:
    rng = np.random.default_rng([7, step])
    return (value * 0.1 + rng.standard_normal(value.shape)).astype(np.float32)


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.9, 1e-2)])
def test_sgd_is_its_formula(momentum: float, decay: float) -> None:
    optimizer = nn.sgd(0.05, momentum=momentum, weight_decay=decay)
    start = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    parameter = nn.Parameter(start.copy())
    state = optimizer.initial_state([parameter])
    w, m = start.copy(), np.zeros_like(start)
    for step in range(20):
        parameter.gradient = gradients_of(parameter.value, step)
        optimizer.update([parameter], state, factor=0.5)
        m = np.float32(momentum) * m + (gradients_of(w, step) + np.float32(decay) * w)
        w = w - np.float32(0.025) * m
        assert np.array_equal(parameter.value, w)


def test_adamw_is_its_formula() -> None:
    optimizer = nn.adamw(0.01, betas=(0.9, 0.99), epsilon=1e-6, weight_decay=0.1)
    start = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    parameter = nn.Parameter(start.copy())
    state = optimizer.initial_state([parameter])
    w, m, v = start.astype(np.float64), np.zeros(50), np.zeros(50)
    for t in range(1, 31):
        g = gradients_of(parameter.value, t)
        parameter.gradient = g
        optimizer.update([parameter], state)
        m = 0.9 * m + 0.1 * g.astype(np.float64)
        v = 0.99 * v + 0.01 * g.astype(np.float64) ** 2
        w = w * (1 - 0.01 * 0.1)
        w = w - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-6)
    # Each of the 30 updates rounds w once (half an ulp); its own error, 1e-6 of 0.01, is far below.
    ulp = np.spacing(np.float32(np.max(np.abs(w))))
    assert np.max(np.abs(parameter.value - w)) <= 15 * ulp


def test_biases_and_norms_do_not_decay() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), seed=0)
    assert [parameter.decay for parameter in model.parameters()] == [True, False, False, False]
    kept = nn.Parameter(np.ones(2, np.float32), decay=False)
    for optimizer in (nn.sgd(0.1, weight_decay=0.5), nn.adamw(0.1, weight_decay=0.5)):
        optimizer.update([kept], optimizer.initial_state([kept]))
        assert kept.value.tolist() == [1, 1]


def test_cosine_schedule_values() -> None:
    factors = [nn.cosine_schedule(step, 12, warmup=4, final=0.2) for step in range(13)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[8] == pytest.approx(0.6, abs=1e-15)
    assert factors[12] == pytest.approx(0.2, abs=1e-15)
    assert factors[4:] == sorted(factors[4:], reverse=True)


# Training.


def blobs(count: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Three classes of 4x4 images: a bright bar at one of three places, in noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    images = 0.3 * rng.standard_normal((count, 1, 4, 4))
    images[np.arange(count), 0, :, labels] += 1
    return images.astype(np.float32), labels


def network(seed: int = 0) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
        seed=seed,
    )


def train(model: nn.Layer, **changes: Any) -> nn.History:
    options: dict[str, Any] = {
        "optimizer": nn.sgd(0.05),
        "epochs": 4,
        "batch_size": 32,
        "seed": 0,
        "schedule": nn.cosine_schedule,
    }
    return nn.train(model, blobs(300, 0), **(options | changes))


def bits(model: nn.Layer) -> list[bytes]:
    return [parameter.value.tobytes() for parameter in model.parameters()]


@pytest.mark.parametrize("optimizer", [nn.sgd(0.05), nn.adamw(0.03)])
def test_a_small_problem_is_learned(optimizer: nn.Optimizer) -> None:
    model = network()
    history = train(model, optimizer=optimizer, validation=blobs(200, 1))
    assert all(parameter.value.dtype == np.float32 for parameter in model.parameters())
    assert history.loss[-1] < history.loss[0]
    assert history.validation_accuracy[-1] > 0.95
    assert set(history.to_dict()) == {
        "loss",
        "accuracy",
        "validation_loss",
        "validation_accuracy",
    }
    assert all(len(column) == 4 for column in history.to_dict().values())
    evaluation = nn.evaluate(model, blobs(200, 1), batch_size=32)
    assert evaluation == nn.Evaluation(
        history.validation_loss[-1], history.validation_accuracy[-1], None
    )


def test_training_is_a_function_of_its_seeds() -> None:
    first, again, reordered, redrawn = network(), network(), network(), network(seed=1)
    history = train(first)
    assert train(again) == history
    assert bits(again) == bits(first)
    train(reordered, seed=1)
    train(redrawn)
    assert len({bits(model)[0] for model in (first, reordered, redrawn)}) == 3


def test_validation_does_not_change_training() -> None:
    plain, watched = network(), network()
    train(plain)
    train(watched, validation=blobs(50, 1))
    assert bits(plain) == bits(watched)


def test_weights_are_drawn_once() -> None:
    inner = nn.Linear(3, 3, seed=5)
    kept = inner.weight.value.copy()
    model = nn.Sequential(nn.Linear(3, 3), inner, nn.Linear(3, 3), seed=0)
    first, second, third = (parameter.value for parameter in model.parameters()[::2])
    assert np.array_equal(second, kept)
    assert not np.array_equal(first, third)
    with pytest.raises(RuntimeError, match="weights have not been drawn"):
        nn.Sequential(nn.Linear(2, 2)).forward(np.ones((1, 2), np.float32))


def test_progress_bar_is_shown_if_asked(capsys: pytest.CaptureFixture[str]) -> None:
    train(network(), epochs=1, progress=True)
    shown = capsys.readouterr().err
    assert "training [########################] 10/10 loss" in shown
    assert shown.endswith("\n")
    train(network(), epochs=1)  # stderr is no terminal here
    assert capsys.readouterr().err == ""


# Bad input.

X = np.ones((2, 3), np.float32)
BAD_INPUT: dict[str, tuple[Any, type[Exception], str]] = {
    "dtype": (lambda: nn.Linear(3, 2, seed=0).forward(X.astype(np.float64)), TypeError, "float32"),
    "float16": (lambda: nn.ReLU().forward(X.astype(np.float16)), TypeError, "float16"),
    "list": (lambda: nn.ReLU().forward([1.0]), TypeError, "list"),  # type: ignore[arg-type]
    "features": (lambda: nn.Linear(4, 2, seed=0).forward(X), ValueError, r"\(\.\.\., 4\)"),
    "axes": (lambda: nn.MaxPool2d(2).forward(X), ValueError, r"\(N, C, H, W\)"),
    "channels": (lambda: nn.BatchNorm(2).forward(X), ValueError, r"\(N, 2\)"),
    "window": (
        lambda: nn.MaxPool2d(3).forward(np.ones((1, 1, 2, 3), np.float32)),
        ValueError,
        "x:",
    ),
    "one value": (lambda: nn.BatchNorm(3).forward(X[:1], True), ValueError, "2 values per channel"),
    "int weights": (lambda: nn.Linear(2, 2, dtype=np.int32), TypeError, "dtype: .* int32"),
    "no features": (lambda: nn.Linear(0, 2), ValueError, "weight"),
    "stride": (lambda: nn.Conv2d(1, 1, 3, stride=0), ValueError, "stride"),
    "padding": (lambda: nn.Conv2d(1, 1, 3, padding=(1, -1)), ValueError, "padding"),
    "groups": (lambda: nn.Conv2d(3, 2, 3, groups=2), ValueError, "groups"),
    "backward first": (lambda: nn.ReLU().backward(X), RuntimeError, "training=True"),
    "not a layer": (lambda: nn.Sequential(np.tanh), TypeError, "layers"),  # type: ignore[arg-type]
    "labels": (lambda: nn.softmax_cross_entropy(X, np.array([0, 3])), ValueError, "0 to 2"),
    "real labels": (lambda: nn.softmax_cross_entropy(X, np.zeros(2)), TypeError, "labels"),
    "label shape": (lambda: nn.softmax_cross_entropy(X, np.array([0])), ValueError, "labels"),
    "empty batch": (lambda: nn.softmax_cross_entropy(X[:0], np.zeros(0, int)), ValueError, "empty"),
    "rate": (lambda: nn.sgd(-1), ValueError, "learning_rate"),
    "momentum": (lambda: nn.sgd(1, momentum=1), ValueError, "momentum"),
    "epsilon": (lambda: nn.adamw(1, epsilon=0), ValueError, "epsilon"),
    "warmup": (lambda: nn.cosine_schedule(0, 3, warmup=3), ValueError, "warmup"),
    "data": (lambda: nn.evaluate(network(), X), TypeError, "data"),  # type: ignore[arg-type]
    "no data": (lambda: nn.evaluate(network(), blobs(0, 0)), ValueError, "not empty"),
    "epochs": (lambda: train(network(), epochs=0), ValueError, "epochs"),
    "events": (lambda: nn.evaluate(network(), blobs(2, 0), events="all"), ValueError, "events"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_named(name: str) -> None:
    call, error, text = BAD_INPUT[name]
    with pytest.raises(error, match=text):
        call()


def test_gradients_are_checked_and_used_once() -> None:
    layer = nn.Linear(3, 2, seed=0)
    for g, error in ((np.ones((2, 2)), TypeError), (np.ones((2, 3), np.float32), ValueError)):
        layer.forward(X, training=True)
        with pytest.raises(error, match="g:"):
            layer.backward(g)
    layer.forward(X)  # an evaluation keeps nothing
    with pytest.raises(RuntimeError):
        layer.backward(np.ones((2, 2), np.float32))


def test_state_of_another_model_is_refused() -> None:
    optimizer = nn.sgd(0.1)
    with pytest.raises(ValueError, match="state"):
        optimizer.update(network().parameters(), optimizer.initial_state([]))


@pytest.mark.parametrize(
    ("rate", "text"),
    [(1e30, r"loss: .* got (nan|inf) at step 1 of 40"), (1e39, "parameters: .* at step 0 of 40")],
)
def test_numbers_that_are_not_finite_name_the_step(rate: float, text: str) -> None:
    with pytest.raises(FloatingPointError, match=text + r" \(epoch 0, batch \d\)"):
        train(network(), optimizer=nn.sgd(rate), schedule=None)
