"""Layers with an arithmetic: quantised operands, emulated products, straight-through estimators."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import nn
from test_nn import bits, blobs, network, train

FloatArray = np.ndarray[Any, np.dtype[Any]]


def gemm(datapath: Any = None, **quantizers: Any) -> nn.GemmArithmetic:
    return nn.GemmArithmetic(datapath=datapath, **quantizers)


def whole(rng: np.random.Generator, *shape: int) -> FloatArray:
    """Small integers but 0: sums of products are exact in float32, and every term changes them."""
    return rng.choice(np.array([-3, -2, -1, 1, 2, 3], np.float32), shape)


LAYERS: dict[str, tuple[nn.GemmLayer, tuple[int, ...]]] = {
    "linear": (nn.Linear(6, 3, seed=0), (5, 6)),
    "linear, 3-D": (nn.Linear(6, 3, bias=False, seed=0), (2, 3, 6)),
    "conv": (nn.Conv2d(2, 3, 3, padding=1, seed=0), (2, 2, 5, 4)),
    "conv, stride": (nn.Conv2d(2, 3, 2, stride=(2, 3), seed=0), (2, 2, 5, 6)),
    "conv, all": (
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, seed=0),
        (2, 4, 6, 5),
    ),
}


def passes(
    layer: nn.GemmLayer, shape: tuple[int, ...], arithmetic: nn.Arithmetic
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Output, input gradient and weight gradient of integer data."""
    rng = np.random.default_rng(0)
    layer = layer.with_arithmetic(arithmetic)
    layer.weight.value = whole(rng, *layer.weight.value.shape)
    y = layer.forward(whole(rng, *shape), training=True)
    grad_x = layer.backward(whole(rng, *y.shape))
    return y, grad_x, layer.weight.gradient


def assert_same(found: tuple[FloatArray, ...], expected: tuple[FloatArray, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype == np.float32
        assert np.array_equal(one, other)


# Quantisers.


def test_format_quantizer_saturates() -> None:
    x = np.array([1e9, -1e9, 0.3], np.float32)
    assert nn.FormatQuantizer("e4m3fn")(x).tolist() == [448, -448, 0.3125]
    assert nn.FormatQuantizer("e4m3fn", "toward_zero")(x)[2] == np.float32(0.28125)
    assert np.isnan(nn.FormatQuantizer("e4m3fn", overflow="ieee")(x)[0])


def test_flex_bias_is_its_formula() -> None:
    fmt = ab.lba_format(4, 3, 3)  # M4E3 with the standard bias
    quantizer = nn.FormatQuantizer(fmt, flex_bias=True)
    rng = np.random.default_rng(0)
    for scale in (1e-4, 0.7, 1.0, 3e5):
        x = (scale * rng.standard_normal(100)).astype(np.float32)
        factor = np.float32(2.0 ** math.ceil(2 ** (3 - 1) - math.log2(np.max(np.abs(x)))))
        assert np.array_equal(quantizer(x), ab.quantize(x * factor, fmt) / factor)
        assert np.array_equal(quantizer(x * np.float32(2**-9)), quantizer(x) * np.float32(2**-9))
    assert quantizer(np.zeros(3, np.float32)).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="flex_bias"):
        nn.FormatQuantizer(ab.FixedFormat(bits=8, fraction_bits=4), flex_bias=True)


@pytest.mark.parametrize(("dtype", "limit"), [("int4", 7), ("int8", 127), ("int16", 32767)])
def test_symmetric_quantizer(dtype: str, limit: int) -> None:
    x = np.array([-2.0, 0.0, 0.9, 0.5 / limit], np.float32)
    quantized = nn.SymmetricQuantizer(dtype)(x)
    assert quantized.values.dtype.name == dtype
    assert quantized.scale == np.float32(2 / limit)
    assert quantized.values.astype(int).tolist() == [-limit, 0, round(0.45 * limit), 0]
    assert quantized.dequantize().dtype == np.float32
    assert np.all(np.abs(quantized.dequantize() - x) <= quantized.scale / 2 * 1.000001)
    zero = nn.SymmetricQuantizer(dtype)(np.zeros(2, np.float32))
    assert zero.dequantize().tolist() == [0, 0]
    with pytest.raises(ValueError, match="finite"):
        nn.SymmetricQuantizer(dtype)(np.array([np.inf], np.float32))


def test_quantizers_are_named_in_four_ways() -> None:
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    layer, results = nn.Linear(6, 3, seed=0), []
    for quantizer in (
        "e4m3fn",
        ab.get_format("e4m3fn"),
        ("e4m3fn", "nearest_even"),
        functools.partial(ab.quantize, fmt="e4m3fn"),
    ):
        layer.set_arithmetic(nn.Arithmetic(forward=gemm(a_quantizer=quantizer)))
        results.append(layer.forward(x))
    expected = ab.quantize(x, "e4m3fn") @ layer.weight.value + 0
    assert all(np.array_equal(result, expected) for result in results)


def test_gradients_use_the_operands_of_the_forward_product() -> None:
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 6), (4, 3)))
    layer = nn.Linear(6, 3, seed=0)
    layer.set_arithmetic(
        nn.Arithmetic(
            forward=gemm(a_quantizer="e2m1fn", b_quantizer="e4m3fn"),
            input_gradient=gemm(a_quantizer="e5m2"),
        )
    )
    layer.forward(x, training=True)
    grad_x = layer.backward(g)
    weight = ab.quantize(layer.weight.value, "e4m3fn")
    assert np.array_equal(grad_x, ab.quantize(g, "e5m2") @ weight.T)
    assert np.array_equal(layer.weight.gradient, ab.quantize(x, "e2m1fn").T @ g)


def test_no_two_tensors_share_random_words() -> None:
    seen: list[tuple[int, int]] = []

    def quantizer(x: FloatArray, *, seed: int, stream: int, call: int) -> FloatArray:
        assert seed == 9
        seen.append((stream, call))
        return x

    product = gemm(a_quantizer=quantizer, b_quantizer=quantizer)
    arithmetic = nn.Arithmetic(
        forward=product, input_gradient=product, weight_gradient=product, seed=9
    )
    model = network()
    model.set_arithmetic(arithmetic)
    train(model, epochs=2, validation=blobs(50, 1))
    # 2 layers with 2 operands: 3 products of 2 * 10 steps, 1 product of the same 2 batches twice.
    assert len(seen) == 2 * 2 * (3 * 20 + 2 * 2)
    assert len(set(seen)) == 2 * 2 * (3 * 20 + 2)
    assert max(3 * call + 2 for _, call in seen) < 2**32


def test_stochastic_operands_are_a_function_of_the_seed() -> None:
    def trained(seed: int) -> list[bytes]:
        gradient = gemm(a_quantizer=("e5m2", "stochastic"))
        model = network()
        model.set_arithmetic(nn.Arithmetic(input_gradient=gradient, seed=seed))
        train(model, epochs=1)
        return bits(model)

    assert trained(1) == trained(1) != trained(2)


# Emulated products.


@pytest.mark.parametrize("name", LAYERS)
def test_exact_products_of_integers_equal_float32(name: str) -> None:
    exact = gemm(ab.exact_accumulator())
    emulated = nn.Arithmetic(forward=exact, input_gradient=exact, weight_gradient=exact)
    reference = passes(*LAYERS[name], nn.float32_arithmetic())
    assert_same(passes(*LAYERS[name], emulated), reference)


@pytest.mark.parametrize("ste", ["recursive_of", "immediate_of", "immediate_diff"])
@pytest.mark.parametrize("name", LAYERS)
def test_estimators_without_events_are_the_gradient(name: str, ste: str) -> None:
    found = passes(*LAYERS[name], nn.lba_arithmetic(15, 5, ste=ste))
    assert_same(found, passes(*LAYERS[name], nn.float32_arithmetic()))


def test_estimator_is_that_of_the_core() -> None:
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 40), (4, 3)))
    layer = nn.Linear(40, 3, seed=0)
    arithmetic = nn.lba_arithmetic(4, 3, ste="immediate_diff")
    layer.set_arithmetic(arithmetic)
    layer.forward(x, training=True)
    grad_x = layer.backward(g)
    expected = ab.matmul_backward(
        g, x, layer.weight.value, ab.lba_accumulator(4, 3, 4, 6), ste="immediate_diff"
    )
    assert_same((grad_x, layer.weight.gradient), expected)
    assert not np.array_equal(grad_x, g @ layer.weight.value.T)


def test_bias_is_added_after_the_accumulation() -> None:
    layer = nn.Linear(1, 1, arithmetic=nn.lba_arithmetic(4, 3), seed=0)
    assert layer.bias is not None
    layer.weight.value[...], layer.bias.value[...] = 1, 1000.125
    assert layer.forward(np.ones((1, 1), np.float32)).tolist() == [[1001.125]]


@pytest.fixture(scope="module")
def trained() -> nn.Sequential:
    model = network()
    train(model, epochs=6)
    return model


def test_ten_mantissa_bits_are_nearly_float32(trained: nn.Sequential) -> None:
    x, labels = blobs(400, 1)
    emulated = trained.with_arithmetic(nn.lba_arithmetic(10, 5))
    reference = trained.forward(x)
    error = emulated.forward(x) - reference
    assert 0 < np.linalg.norm(error) < 0.01 * np.linalg.norm(reference)
    found = nn.evaluate(emulated, (x, labels))
    assert abs(found.accuracy - nn.evaluate(trained, (x, labels)).accuracy) <= 0.01


@pytest.mark.parametrize("text", ["m10e5", "m7e4", "m5e4", "m4e3"])
def test_default_biases_are_those_of_the_text_form(text: str) -> None:
    mantissa_bits, exponent_bits = (int(number) for number in text[1:].split("e"))
    arithmetic = nn.lba_arithmetic(mantissa_bits, exponent_bits)
    assert arithmetic.forward.datapath == ab.get_accumulator(text)
    assert arithmetic.name == text


def test_fine_tuning_recovers_what_a_narrow_accumulator_lost(trained: nn.Sequential) -> None:
    arithmetic = nn.lba_arithmetic(3, 3, 4, 6, ste="immediate_of")
    narrow = trained.with_arithmetic(arithmetic)
    before = nn.evaluate(narrow, blobs(400, 1))
    train(narrow, optimizer=nn.sgd(0.02), epochs=3)
    assert nn.evaluate(narrow, blobs(400, 1)).loss < before.loss


def test_with_arithmetic_is_an_independent_copy(trained: nn.Sequential) -> None:
    kept = bits(trained)
    copied = trained.with_arithmetic(nn.lba_arithmetic())
    train(copied, epochs=1)
    assert bits(trained) == kept != bits(copied)
    assert isinstance(trained.layers[0], nn.GemmLayer)
    assert trained.layers[0].arithmetic == nn.float32_arithmetic()


def test_wide_integers_are_the_rounded_product() -> None:
    x = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    layer = nn.Linear(64, 3, bias=False, arithmetic=nn.integer_arithmetic(32), seed=0)
    a, b = (nn.SymmetricQuantizer()(tensor) for tensor in (x, layer.weight.value))
    sums = a.values.astype(np.int64) @ b.values.astype(np.int64)
    expected = (sums * np.float64(a.scale * b.scale)).astype(np.float32)
    assert_same((layer.forward(x),), (expected,))


@pytest.mark.parametrize(("operand", "narrow_bits"), [("int4", 5), ("int8", 12)])
@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
def test_integer_evaluation(
    trained: nn.Sequential, overflow: str, operand: str, narrow_bits: int
) -> None:
    data = blobs(400, 1)
    reference = nn.evaluate(trained, data).accuracy
    wide, narrow = (
        nn.evaluate(
            trained.with_arithmetic(nn.integer_arithmetic(bits_, overflow, operand=operand)),
            data,
            events=True,
        )
        for bits_ in (24, narrow_bits)
    )
    assert abs(wide.accuracy - reference) <= 0.03
    assert narrow.loss > wide.loss
    assert wide.events is not None
    assert narrow.events is not None
    assert wide.events.accumulator_overflow == 0 < narrow.events.accumulator_overflow


def test_events_are_summed_over_layers_and_batches(trained: nn.Sequential) -> None:
    model = trained.with_arithmetic(nn.lba_arithmetic())
    found = nn.evaluate(model, blobs(100, 1), batch_size=32, events=True)
    assert found.events is not None
    assert found.events.terms == 100 * (16 * 4 * 9 + 3 * 16)  # Conv2d, Linear: outputs * inputs
    first, second = (layer.events for layer in model.leaves() if isinstance(layer, nn.GemmLayer))
    assert first is not None
    assert second is not None
    assert found.events == first + second
    assert nn.evaluate(model, blobs(100, 1), batch_size=100, events=True).events == found.events
    assert nn.evaluate(model, blobs(100, 1)).events is None
    assert nn.evaluate(trained, blobs(100, 1), events=True).events is None  # BLAS does not count


def test_stochastic_accumulation_is_reproducible(trained: nn.Sequential) -> None:
    def evaluated(seed: int) -> float:
        arithmetic = nn.lba_arithmetic(3, 4, rounding="stochastic", seed=seed)
        model = trained.with_arithmetic(arithmetic)
        losses = [nn.evaluate(model, blobs(100, 1), batch_size=25).loss for _ in range(2)]
        assert losses[0] == losses[1]
        return losses[0]

    assert evaluated(1) == evaluated(1) != evaluated(2)


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "ste": (lambda: nn.Arithmetic(ste="straight"), ValueError, "ste: expected one of identity"),
    "no datapath": (lambda: nn.Arithmetic(ste="immediate_of"), ValueError, "forward"),
    "gradient": (
        lambda: nn.Arithmetic(
            forward=gemm(ab.exact_accumulator()),
            weight_gradient=gemm(a_quantizer="e5m2"),
            ste="immediate_of",
        ),
        ValueError,
        "weight_gradient",
    ),
    "datapath": (lambda: gemm("m7e4"), TypeError, "datapath"),
    "format": (lambda: gemm(a_quantizer="e4m3fm"), ValueError, "e4m3fn"),
    "pair": (lambda: gemm(a_quantizer=("e5m2",)), ValueError, r"\(format, rounding\)"),
    "operand": (lambda: nn.integer_arithmetic(16, operand="int7"), ValueError, "int8"),
    "float64": (
        lambda: nn.Linear(2, 2, arithmetic=nn.lba_arithmetic(), seed=0, dtype=np.float64).forward(
            np.ones((1, 2))
        ),
        TypeError,
        "float64",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arithmetic_is_named(name: str) -> None:
    call, error, text = BAD[name]
    with pytest.raises(error, match=text):
        call()
