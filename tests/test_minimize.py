"""`minimize_accumulators`: the narrowest widths under bounds, rates and metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core.overflow import ArraySource, layer_bounds
from oracle_widths import narrowest

RNG = np.random.default_rng(0)
W = RNG.integers(-8, 8, (96, 5)).astype(np.int8)
V = RNG.integers(-128, 128, (32, 3)).astype(np.int8)
X = RNG.integers(0, 256, (40, 96)).astype(np.uint8)
Y = RNG.integers(-128, 128, (40, 32)).astype(np.int8)
LAYERS = [
    ab.OverflowLayer(name="first", weight=W, input_range="u8", weight_range="s4"),
    ab.OverflowLayer(name="second", weight=V, input_range="s8", bias=np.array([0, 5000, -70000])),
]
INPUTS = {"first": X, "second": Y}
EMPTY: dict[str, Any] = {"settings": {}, "layers": []}


@pytest.mark.parametrize("method", ["data_type", "l1", "sign_split"])
def test_bounds(method):
    choice = ab.minimize_accumulators(LAYERS, method=method)
    first = ab.accumulator_bounds(W, "u8", w_range="s4")
    second = ab.accumulator_bounds(V, "s8", bias=[0, 5000, -70000])
    assert choice.bits == {"first": first.width(method), "second": second.width(method)}
    assert choice.criterion == method
    assert choice.datapaths["first"] == ab.integer_accumulator(first.width(method))
    default = ab.minimize_accumulators(LAYERS)
    assert default.bits == ab.minimize_accumulators(LAYERS, method="sign_split").bits


def test_ranges_of_the_inputs():
    small = {"first": X // 4, "second": Y}
    choice = ab.minimize_accumulators(LAYERS, small, method="input_ranges")
    lowest, highest = small["first"].min(axis=0).tolist(), small["first"].max(axis=0).tolist()
    sums = []
    for column in W.T.tolist():
        ends = [(min(0, lo * w, hi * w), max(0, lo * w, hi * w))
                for lo, hi, w in zip(lowest, highest, column, strict=True)]  # fmt: skip
        sums += [sum(lo for lo, _ in ends), sum(hi for _, hi in ends)]
    assert choice.bits["first"] == narrowest(sums)
    assert choice.bits["first"] < ab.minimize_accumulators(LAYERS).bits["first"]


def test_convolution_groups_and_padding():
    kernels = RNG.integers(-8, 8, (6, 2, 3, 3)).astype(np.int8)
    bias = np.arange(6) * 1000
    layer = ab.OverflowLayer(
        name="conv", kind="conv2d", weight=kernels, input_range=(-3, 252), groups=2, bias=bias,
        padding=(1, 1), padding_value=100,
    )  # fmt: skip
    bounds = layer_bounds(layer)
    whole = ab.accumulator_bounds(kernels.reshape(6, 18).T, (-3, 252), bias=bias)
    assert bounds.to_dict() == whole.to_dict()
    x = RNG.integers(0, 20, (2, 4, 5, 5)).astype(np.uint8)
    choice = ab.minimize_accumulators([layer], {"conv": x}, method="input_ranges")
    sums = []
    for n in range(6):
        rows = layer.rows(x, n // 3).astype(int)
        assert rows.max() == 100
        products = np.stack([rows.min(axis=0), rows.max(axis=0)]) * kernels[n].reshape(-1)
        sums += [int(bias[n] + np.minimum(products.min(axis=0), 0).sum())]
        sums += [int(bias[n] + np.maximum(products.max(axis=0), 0).sum())]
    assert choice.bits["conv"] == narrowest(sums)


def test_limits_of_the_widths():
    choice = ab.minimize_accumulators(LAYERS, widths=(24, 32), overflow="saturate")
    assert choice.bits == {"first": 24, "second": 24}
    assert choice.datapaths["first"] == ab.integer_accumulator(24, "saturate")
    assert "int24:saturate" in choice.table()
    with pytest.raises(ValueError, match="first: needs 17 bits, got widths up to 12"):
        ab.minimize_accumulators(LAYERS, widths=(2, 12))


# Rates: a report made here by brute force


def brute_report(lo: int = 8, hi: int = 32) -> dict[str, Any]:
    layers = []
    for layer, x in zip(LAYERS, (X, Y), strict=True):
        start = np.zeros(layer.channels, int) if layer.bias is None else layer.bias
        products = x[:, :, None].astype(int) * layer.weight[None].astype(int)
        sums = np.concatenate(
            [np.broadcast_to(start, (len(x), 1, layer.channels)),
             start + np.cumsum(products, axis=1)], axis=1,
        )  # fmt: skip
        pairs = [(lo, hi) for lo, hi in zip(sums.min(1).flat, sums.max(1).flat, strict=True)]
        given = np.array([narrowest([int(lo), int(hi)]) for lo, hi in pairs])
        final = np.array([narrowest([int(s)]) for s in sums[:, -1].flat])
        widths = list(range(lo, hi + 1))
        layers.append(
            {
                "name": layer.name,
                "outputs": len(given),
                "data_widths": {"given": int(given.max()), "final": int(final.max())},
                "curve": {
                    "widths": widths,
                    "overflowed": [int((given > p).sum()) for p in widths],
                    "persistent": [int((final > p).sum()) for p in widths],
                },
            }
        )
    return {"settings": {}, "layers": layers}


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("max_rate", [0.0, 0.01, 0.2, 0.5, 1.0])
def test_rates_are_the_narrowest_that_are_low_enough(overflow, max_rate):
    report = brute_report(2, 40)
    choice = ab.minimize_accumulators(LAYERS, report=report, max_rate=max_rate, overflow=overflow)
    kind = "persistent" if overflow == "wrap" else "overflowed"
    for layer, row in zip(choice.layers, report["layers"], strict=True):
        rates = [count / row["outputs"] for count in row["curve"][kind]]
        place = next(k for k, rate in enumerate(rates) if rate <= max_rate)
        assert layer.bits == row["curve"]["widths"][place]
        assert layer.rate == rates[place]
    assert choice.limit == max_rate


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("max_rate", [0.0, 0.2])
def test_rates_are_those_of_the_engine(overflow, max_rate):
    choice = ab.minimize_accumulators(
        LAYERS[:1], report=brute_report(), max_rate=max_rate, overflow=overflow
    )
    exact = X.astype(int) @ W.astype(int)

    def rate(bits: int) -> float:
        datapath = ab.integer_accumulator(bits, overflow)
        result, events = ab.matmul(X, W, datapath, events="overflow", per_output=True)
        wrong = result != exact if overflow == "wrap" else events.overflowed_outputs > 0
        return float(np.mean(wrong))

    (chosen,) = choice.layers
    assert rate(chosen.bits) == chosen.rate <= max_rate
    assert rate(chosen.bits - 1) > max_rate


def test_a_curve_that_starts_or_ends_too_early():
    full = ab.minimize_accumulators(LAYERS, report=brute_report(2))
    narrow = ab.minimize_accumulators(LAYERS, report=brute_report(8, 10))
    assert narrow.bits == full.bits
    late = ab.minimize_accumulators(LAYERS, report=brute_report(30, 32))
    assert late.bits == full.bits

    class Report:
        def to_dict(self):
            return brute_report()

    assert ab.minimize_accumulators(LAYERS, report=Report()).bits == full.bits
    floor = ab.minimize_accumulators(LAYERS, report=brute_report(), widths=(20, 32))
    assert floor.bits == {"first": 20, "second": 20}


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("max_rate", [None, 0.03])
def test_inputs_a_source_and_a_report_are_the_same(overflow, max_rate):
    rate = {} if max_rate is None else {"max_rate": max_rate}
    by_hand = ab.minimize_accumulators(
        LAYERS, report=brute_report(2), overflow=overflow, max_rate=max_rate
    )
    by_inputs = ab.minimize_accumulators(LAYERS, INPUTS, overflow=overflow, **rate)
    assert by_inputs == by_hand
    report = ab.overflow_report(LAYERS, INPUTS, accumulators=())
    by_report = ab.minimize_accumulators(LAYERS, report=report, overflow=overflow, **rate)
    assert by_report == by_hand
    source = ArraySource(LAYERS, INPUTS)
    by_source = ab.minimize_accumulators(source, max_rate=max_rate or 0.0, overflow=overflow)
    assert by_source == by_hand
    assert ab.minimize_accumulators(source) == ab.minimize_accumulators(LAYERS)


@pytest.mark.parametrize(
    ("steps", "datapath"),
    [
        ({"group": 4}, {"group": 4}),
        ({"tile": 16}, {"chunk": 16}),
        ({"tile": 16, "tile_merge": "exact"}, {"chunk": 16, "merge": "exact"}),
        ({"order": "reverse"}, {"order": "reverse"}),
    ],
)
@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
def test_accumulators_have_the_steps_of_the_report(steps, datapath, overflow):
    report = ab.overflow_report(LAYERS, INPUTS, accumulators=(), **steps)
    choice = ab.minimize_accumulators(LAYERS, report=report, overflow=overflow)
    chosen = choice.datapaths["first"]
    for field, value in datapath.items():
        assert getattr(chosen, field) == value
    exact = X.astype(int) @ W.astype(int)
    np.testing.assert_array_equal(ab.matmul(X, W, chosen), exact)
    format_ = chosen.accumulator.format.replace(bits=choice.bits["first"] - 1)
    narrower = chosen.replace(accumulator=chosen.accumulator.__class__(format=format_))
    assert (ab.matmul(X, W, narrower) != exact).any()


# Metrics


def test_metric_by_bisection_finds_the_same_as_trying_all():
    exact = X.astype(int) @ W.astype(int)

    def right(choice: Mapping[str, ab.Datapath]) -> float:
        return float((ab.matmul(X, W, choice["first"]) == exact).mean())

    for minimum in (0.5, 0.9, 1.0):
        choice = ab.minimize_accumulators(LAYERS[:1], metric=right, minimum=minimum)
        tried = next(
            bits
            for bits in range(2, 64)
            if right({"first": ab.integer_accumulator(bits)}) >= minimum
        )
        assert choice.bits == {"first": tried}
        assert choice.metric == right(choice.datapaths) >= minimum
        assert choice.limit == minimum
        assert choice.evaluations <= 6


def test_layers_that_suffice_alone_are_widened_together():
    # each bit below 10 costs 1, and 2 are allowed: alone each layer gets 8, together more
    def metric(choice: Mapping[str, ab.Datapath]) -> float:
        bits = [datapath.accumulator.format.bits for datapath in choice.values()]
        return -sum(weight * max(10 - b, 0) for weight, b in zip((2, 1), bits, strict=True))

    choice = ab.minimize_accumulators(LAYERS, metric=metric, minimum=-2)
    assert choice.metric is not None
    assert choice.metric >= -2
    assert choice.bits == {"first": 10, "second": 8}
    reasons = {layer.name: layer.reason for layer in choice.layers}
    assert reasons["second"] == "7 bits: metric -3 alone"
    assert reasons["first"] == "together with the other layers no narrower one is enough"


def test_candidates_from_the_widest():
    tried = []

    def metric(choice: Mapping[str, ab.Datapath]) -> float:
        names = tuple(datapath.name for datapath in choice.values())
        tried.append(names)
        return {"m10e5": 1.0, "m7e4": 0.9, "m5e4": 0.5, "m4e3": 0.95}[names[0]]

    names = ["m4e3", "m5e4", "m7e4", "m10e5"]
    choice = ab.minimize_accumulators(LAYERS[:1], metric=metric, minimum=0.8, candidates=names)
    # m4e3 would do, but the search stops at the first that fails
    assert [row[0] for row in tried] == ["m10e5", "m7e4", "m5e4"]
    assert choice.datapaths == {"first": ab.get_accumulator("m7e4")}
    assert choice.bits == {"first": 12}
    assert choice.table().splitlines()[1].split() == [
        "first", "m7e4", "12", "m5e4:", "metric", "0.5", "alone",
    ]  # fmt: skip


def test_a_metric_that_is_not_monotone_still_ends_well():
    def metric(choice: Mapping[str, ab.Datapath]) -> float:
        bits = [datapath.accumulator.format.bits for datapath in choice.values()]
        if sum(bits) % 3 == 0:
            return math.nan
        return float(sum(bits))

    choice = ab.minimize_accumulators(LAYERS, metric=metric, minimum=31, widths=(2, 17))
    assert metric(choice.datapaths) == choice.metric
    assert choice.metric >= 31


def test_result_as_json_and_table():
    choice = ab.minimize_accumulators(
        LAYERS, metric=lambda choice: 1.0, minimum=0.5, candidates=["m4e3", "m7e4"]
    )
    data = json.loads(choice.to_json())
    assert data == choice.to_dict()
    assert [row["accumulator"] for row in data["layers"]] == ["m4e3", "m4e3"]
    assert ab.Datapath.from_dict(data["layers"][0]["datapath"]) == choice.datapaths["first"]
    assert choice.layers[0].reason == "the narrowest that was allowed"
    assert choice.table().splitlines()[-1] == "metric of all together: 1, at least 0.5"
    assert ab.minimize_accumulators([]).table() == "layer  accumulator  bits  why"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "l2"}, ValueError, "method must be one of data_type"),
        ({"method": "l1", "report": {}}, ValueError, "one of method, report and metric"),
        ({"max_rate": 0.1}, ValueError, "max_rate needs a report, inputs or a Source"),
        ({"max_rate": 0.1, "method": "l1"}, ValueError, "max_rate needs a report"),
        ({"inputs": {"first": X}}, ValueError, "inputs must be those of the layers"),
        ({"minimum": 0.1}, ValueError, "minimum needs a metric"),
        ({"candidates": ["m7e4"]}, ValueError, "candidates needs a metric"),
        ({"metric": len}, ValueError, "metric needs a minimum"),
        ({"metric": 3, "minimum": 1}, TypeError, "metric must be callable, got int"),
        ({"inputs": INPUTS, "method": "l1"}, ValueError, "inputs must be None with method='l1'"),
        ({"inputs": INPUTS, "report": {}}, ValueError, "inputs must be None with a report"),
        (
            {"inputs": {"first": X}, "method": "input_ranges"},
            ValueError,
            "inputs must hold the input of second",
        ),
        (
            {"inputs": {"first": X[:0], "second": Y}, "method": "input_ranges"},
            ValueError,
            "first: input must hold at least one sample",
        ),
        ({"widths": (5, 4)}, ValueError, "widths must be"),
        ({"widths": 5}, TypeError, "widths must be a pair"),
        ({"widths": (1, 70)}, ValueError, "widths must be in 2..63"),
        ({"overflow": "trap"}, ValueError, "overflow must be 'wrap' or 'saturate'"),
        ({"report": EMPTY}, ValueError, "report must hold the layer first"),
        ({"report": EMPTY, "max_rate": 2}, ValueError, "max_rate must be in 0..1"),
        (
            {"metric": lambda c: 0.1, "minimum": 1},
            ValueError,
            "at least 1.0 with the widest accumulators, got 0.1",
        ),
        ({"metric": lambda c: "good", "minimum": 1}, TypeError, "metric must return a number"),
        (
            {"metric": len, "minimum": 1, "candidates": ["exact"]},
            ValueError,
            "candidates must have an accumulator format",
        ),
        ({"metric": len, "minimum": 1, "candidates": []}, ValueError, "at least one accumulator"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        ab.minimize_accumulators(LAYERS, **arguments)
    with pytest.raises(ValueError, match="names of their own"):
        ab.minimize_accumulators([LAYERS[0], LAYERS[0]])
