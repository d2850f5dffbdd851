"""Dictionaries of overflow reports, made by hand: numbers that fit together, not a real model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

WIDTHS = list(range(8, 33))
ACCUMULATORS = ("int16:wrap", "int16:saturate", "m7e4")


def _curve(generator: random.Random, given: int, final: int, outputs: int) -> dict[str, Any]:
    """Return counts that fall with the width and are zero from the widths needed on."""
    persistent, transient = [], []
    for width in WIDTHS:
        over = outputs * 2.0 ** (-0.9 * (width - 6)) if width < given else 0
        count = min(outputs, max(int(over), int(width < given)))
        lasting = min(count, int(count * generator.uniform(0.4, 0.9))) if width < final else 0
        lasting = max(lasting, int(width < final and count > 0))
        persistent.append(lasting)
        transient.append(count - lasting)
    overflowed = [a + b for a, b in zip(persistent, transient, strict=True)]
    return {
        "widths": WIDTHS,
        "persistent": persistent,
        "transient": transient,
        "overflowed": overflowed,
    }


def _float_accumulator(generator: random.Random, name: str, terms: int, outputs: int) -> Any:
    steps = terms * outputs
    events = {
        "terms": steps,
        "steps": steps,
        "outputs": outputs,
        "accumulator_overflow": 0,
        "product_overflow": 0,
        "overflowed_outputs": 0,
        "transient": 0,
        "persistent": 0,
        "product_underflow": steps // 19,
        "accumulator_underflow": 3,
        "swamped": steps // 7,
        "rounded": steps // 2,
        "absorbed": 1,
        "nonfinite": 0,
        "min_partial": -800.5,
        "max_partial": 912.25,
    }
    spans = list(range(24))
    return {
        "name": name,
        "saturates_at": "step",
        "wrong": outputs,
        "rate": 1.0,
        "largest_error": generator.uniform(1, 100),
        "sqnr_db": generator.uniform(5, 30),
        "events": events,
        "lost": generator.uniform(-1e4, 1e4),
        "lost_magnitude": generator.uniform(1e4, 1e5),
        "exponent_spans": {
            "spans": spans,
            "steps": [int(steps * 0.4 * 0.6**span) for span in spans],
        },
    }


def _channels(generator: random.Random, widest: int, count: int) -> list[int]:
    """Return a width a channel, at most `widest`, which the last one needs."""
    less = generator.choices((0, 1, 1, 1, 2, 2, 3), k=count - 1)
    return [*(max(2, widest - bits) for bits in less), widest]


def layer(
    name: str,
    *,
    given: int = 18,
    terms: int = 576,
    channels: int = 64,
    dots: int = 1000,
    accumulators: Sequence[str] = ACCUMULATORS,
) -> dict[str, Any]:
    """Return a layer whose data need `given` bits in the given order."""
    generator = random.Random(f"{name!r} {given}")
    outputs = dots * channels
    final, any_order = given - 1, given + 2
    bounds = {"data_type": given + 6, "l1": given + 4, "sign_split": given + 3}
    bounds["input_ranges"] = any_order
    data = {"given": given, "final": final, "any_order": any_order, "greedy": final}
    curve = _curve(generator, given, final, outputs)
    entries: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    channel_overflowed = {}
    for accumulator in accumulators:
        kind, _, rule = accumulator.partition(":")
        if not kind.startswith("int"):
            entries.append(_float_accumulator(generator, accumulator, terms, outputs))
            continue
        width = int(kind.removeprefix("int"))
        counts = {key: curve[key][WIDTHS.index(width)] for key in curve if key != "widths"}
        wrong = counts["persistent"] if rule == "wrap" else counts["overflowed"]
        entries.append(
            {
                "name": accumulator,
                "saturates_at": "step" if rule == "saturate" else "nowhere",
                "wrong": wrong,
                "rate": wrong / outputs if outputs else 0.0,
                "largest_error": 1 << width if wrong else 0,
                "sqnr_db": generator.uniform(3, 40) if wrong else None,
                **counts,
            }
        )
        low, rest = divmod(counts["overflowed"], channels)
        channel_overflowed[str(width)] = [low + (n >= channels - rest) for n in range(channels)]
        if counts["overflowed"]:
            before = (1 << width - 1) - 8
            first[str(width)] = {
                "sample": 17,
                "coordinate": [3, channels - 1],
                "channel": channels - 1,
                "k": terms // 2,
                "term": terms // 2,
                "value": before + 84,
                "before": before,
                "input": 12,
                "weight": 7,
            }
    bits = list(range(given))
    counts_of = [outputs * terms // 2 ** (2 + abs(given - 6 - bit)) for bit in bits]
    return {
        "name": name,
        "kind": "linear",
        "terms": terms,
        "channels": channels,
        "dots": dots,
        "outputs": outputs,
        "operands": {
            "input": "u8",
            "weight": "s8",
            "input_range": [0, 255],
            "weight_range": [-128, 127],
            "observed_input_range": [0, 201],
        },
        "bounds": bounds,
        "data_widths": data,
        "curve": curve,
        "partial_sums": {
            "smallest": -(1 << given - 2),
            "largest": (1 << given - 1) - 1,
            "bits": bits,
            "negative": [0, *(count // 3 for count in counts_of[1:-1]), 0],
            "positive": counts_of,
        },
        "first_overflow": first,
        "channel_bounds": {key: _channels(generator, bounds[key], channels) for key in bounds},
        "channel_data_widths": {key: _channels(generator, data[key], channels) for key in data},
        "channel_overflowed": channel_overflowed,
        "accumulators": entries,
        "fits": {
            "int32": True,
            "acc48": True,
            "acc58": True,
            "DSP48E1": given < 20,
            "DSP48E2": True,
            "DSP58": True,
        },
    }


def report(layers: Sequence[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Return a report of these layers; `changes` replace its parts."""
    names = [entry["name"] for entry in layers[0]["accumulators"]] if layers else ["int16:wrap"]
    return {
        "version": 1,
        "title": "digits network",
        "samples": 1000,
        "settings": {
            "accumulators": names,
            "widths": [8, 32],
            "group": 1,
            "tile": 0,
            "order": "natural",
            "signed": True,
        },
        "skipped": [],
        "layers": list(layers),
        **changes,
    }


def empty_layer(name: str) -> dict[str, Any]:
    """Return a layer of which only the bounds are known: no sample has been counted."""
    known = layer(name, dots=0)
    zero = [0] * len(WIDTHS)
    return {
        **known,
        "data_widths": dict.fromkeys(known["data_widths"], 1),
        "curve": {"widths": WIDTHS, "persistent": zero, "transient": zero, "overflowed": zero},
        "partial_sums": None,
        "first_overflow": {},
        "channel_data_widths": {key: [1] * 64 for key in known["data_widths"]},
        "channel_overflowed": {},
        "operands": {**known["operands"], "observed_input_range": [0, 0]},
        "accumulators": [
            {
                "name": name,
                "saturates_at": "step",
                "wrong": 0,
                "rate": 0.0,
                "largest_error": 0,
                "sqnr_db": None,
                "persistent": 0,
                "transient": 0,
                "overflowed": 0,
            }
            for name in ("int16:wrap", "int16:saturate")
        ],
    }


def model(count: int = 36) -> dict[str, Any]:
    """Return a report of a model with layers of many sizes, a few of which overflow."""
    parts = ("query", "key", "value", "attention.output.dense", "intermediate", "output")
    layers = [
        layer(
            f"encoder.layer.{index // 6}.{parts[index % 6]}",
            given=(21, 14, 15, 13, 16, 18, 12, 15, 14, 16, 13, 17)[index % 12] - index // 24,
            terms=1536 if index % 6 == 5 else 384,
            channels=384,
        )
        for index in range(count)
    ]
    skipped = [{"name": "/Resize", "reason": "no dot product: operator Resize"}]
    return report(layers, title="all-MiniLM-L6", skipped=skipped)
