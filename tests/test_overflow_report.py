"""The overflow report against plain loops over Python integers, and against separate runs."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest

import abcdeep_core as ab
import oracle_partial_sums
import overflow_cases as cases

ACCUMULATORS = ("int16:wrap", "int16:saturate", "int12:saturate")


def brute_force(layer, x, *, order="natural", group=1, chunk=0, merge="same"):
    """Return, for every output in the order of the report, its place, partial sums and sum."""
    rows = []
    for place, (inputs, weights) in cases.operands(layer, x).items():
        places = range(layer.terms)[:: -1 if order == "reverse" else 1]
        terms = [inputs[k] * weights[k] for k in places]
        channel = place[1]
        bias = 0 if layer.bias is None else int(layer.bias[channel])
        sums = oracle_partial_sums.partial_sums(terms, bias, group, chunk, merge == "same")
        partial = sums.partial
        if order == "greedy":
            partial = oracle_partial_sums.greedy_sums(terms, bias)
        rows.append((place, channel, partial, sums))
    return rows


def bits(sums):
    return oracle_partial_sums.signed_bits(min(0, *sums), max(0, *sums))


OPTIONS = {
    "plain": {},
    "group": {"group": 4},
    "tile": {"tile": 16},
    "tiles merged exactly": {"tile": 16, "tile_merge": "exact", "group": 4},
    "reverse": {"order": "reverse"},
    "greedy": {"order": "greedy"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_counts_are_those_of_plain_loops(isa, name):
    options = OPTIONS[name]
    layers, x = cases.model(), cases.inputs()
    report = ab.overflow_report(layers, x, accumulators=ACCUMULATORS, widths=(6, 26), **options)
    for layer in layers:
        rows = brute_force(
            layer,
            x[layer.name],
            order=options.get("order", "natural"),
            group=options.get("group", 1),
            chunk=options.get("tile", 0),
            merge=options.get("tile_merge", "same"),
        )
        given = [bits(partial) for _, _, partial, _ in rows]
        final = [bits([sums.final]) for _, _, _, sums in rows]
        if options.get("tile_merge") == "exact":  # the sum of tiles is in a wider accumulator
            final = [min(pair) for pair in zip(final, given, strict=True)]
        curve = report.curve(layer.name)
        assert curve.outputs == len(rows)
        for i, width in enumerate(range(6, 27)):
            assert curve.widths[i] == width
            assert curve.overflowed[i] == sum(b > width for b in given)
            assert curve.persistent[i] == sum(b > width for b in final)
            assert curve.transient[i] == curve.overflowed[i] - curve.persistent[i] >= 0
        one = report[layer.name]
        assert one.data_widths["given"] == max(given)
        assert one.data_widths["final"] == max(final)
        data = one.to_dict()
        for channel in range(layer.channels):
            own = [b for b, row in zip(given, rows, strict=True) if row[1] == channel]
            assert data["channel_data_widths"]["given"][channel] == max(own)
            assert data["channel_overflowed"]["12"][channel] == sum(b > 12 for b in own)
        assert data["curve"]["overflowed"] == curve.overflowed.tolist()


@pytest.mark.parametrize("name", OPTIONS)
def test_the_first_overflow_is_the_first(name):
    options = OPTIONS[name]
    layers, x = cases.model(), cases.inputs()
    report = ab.overflow_report(layers, x, **options)
    for layer in layers:
        rows = brute_force(
            layer,
            x[layer.name],
            order=options.get("order", "natural"),
            group=options.get("group", 1),
            chunk=options.get("tile", 0),
            merge=options.get("tile_merge", "same"),
        )

        def key(row):
            # sample, position, channel
            place = row[0]
            return (place[0], place[2:], place[1])

        ordered = sorted(rows, key=key)
        for width in range(8, 24):
            over = [row for row in ordered if bits(row[2]) > width]
            found = report.first_overflow(layer.name, width)
            if not over:
                assert found is None
                continue
            place, channel, partial, _ = over[0]
            assert (found.sample, *found.coordinate) == place
            assert found.channel == channel
            low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
            step = next(i for i, s in enumerate(partial) if not low <= s <= high)
            assert found.value == partial[step]
            assert found.before == (partial[step - 1] if found.term >= 0 else found.before)
            inputs, weights = cases.operands(layer, x[layer.name])[place]
            if found.term >= 0:
                assert found.input == inputs[found.term]
                assert found.weight == weights[found.term]
            total = sum(a * b for a, b in zip(found.inputs, found.weights, strict=True))
            assert total == sum(a * b for a, b in zip(inputs, weights, strict=True))


@pytest.mark.parametrize("options", [{}, {"group": 4}], ids=["chain", "groups"])
def test_the_curve_is_that_of_separate_runs(isa, options):
    layer, x = cases.linear(terms=96), cases.inputs(terms=96)["fc"]
    report = ab.overflow_report(layer, x, widths=(8, 25), **options)
    curve = report.curve("fc")
    for i, width in enumerate(curve.widths):
        for overflow in ("wrap", "saturate"):
            accumulator = ab.integer_accumulator(int(width), overflow, **options)
            _, events = ab.matmul(x, layer.weight, accumulator, events=True)
            assert events.overflowed_outputs == curve.overflowed[i]
            assert events.persistent == curve.persistent[i]
            assert events.transient == curve.transient[i]


def test_the_first_step_is_that_of_the_events():
    layer, x = cases.linear(terms=96), cases.inputs(terms=96)["fc"]
    found = ab.overflow_report(layer, x).first_overflow("fc", 16)
    row, column = x[found.sample], layer.weight[:, found.channel]
    run = ab.integer_accumulator(16, "saturate")
    for steps in range(1, 97):
        _, events = ab.matmul(row[:steps], column[:steps], run, events=True)
        if events.accumulator_overflow:
            break
    assert found.step == steps - 1


def test_errors_of_integer_accumulators():
    layers, x = cases.model(), cases.inputs()
    report = ab.overflow_report(layers, x, accumulators=ACCUMULATORS)
    for layer in layers:
        wrong = {name: [] for name in ACCUMULATORS}
        signal = 0
        for _, _, _, sums in brute_force(layer, x[layer.name]):
            signal += sums.final**2
            steps = [0 if layer.bias is None else sums.partial[1], *sums.stepped]
            for name in ACCUMULATORS:
                width, overflow = int(name[3:5]), name.split(":")[1]
                low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1

                def limit(s, low=low, high=high, overflow=overflow):
                    if overflow == "wrap":
                        return (s - low) % (high - low + 1) + low
                    return min(max(s, low), high)

                s = limit(steps[0])
                for before, after in itertools.pairwise(steps):
                    s = limit(s + after - before)
                wrong[name].append(s - sums.final)
        for name, data in zip(
            ACCUMULATORS, report[layer.name].to_dict()["accumulators"], strict=True
        ):
            errors = wrong[name]
            assert data["name"] == name
            assert data["saturates_at"] == "step"
            assert data["wrong"] == sum(e != 0 for e in errors)
            assert data["rate"] == data["wrong"] / len(errors)
            assert data["largest_error"] == max(map(abs, errors))
            noise = sum(e * e for e in errors)
            if noise == 0:
                assert data["sqnr_db"] is None
            else:
                ratio = 10 * math.log10(Fraction(signal, noise))
                assert data["sqnr_db"] == pytest.approx(ratio, rel=1e-12)


def test_float_accumulators():
    layer = cases.linear(input_scale=2.0**-7, weight_scale=2.0 ** -np.arange(3.0, 10.0))
    x = cases.inputs()["fc"]
    names = ("m7e4", "fp32", "m4e3:b4:p6:c8:rne")
    report = ab.overflow_report(layer, x, accumulators=names)
    xf = x.astype(np.float32) / 128
    wf = (layer.weight * layer.weight_scale).astype(np.float32)
    exact = xf.astype(np.float64) @ wf.astype(np.float64)
    data = report["fc"].to_dict()["accumulators"]
    for name, one in zip(names, data, strict=True):
        got, events = ab.matmul(xf, wf, ab.get_accumulator(name), events=True)
        lost = [
            Fraction(float(np.float32(e))) - Fraction(float(g))
            for e, g in zip(exact.ravel(), got.ravel(), strict=True)
        ]
        assert one["lost"] == float(sum(lost))
        assert one["lost_magnitude"] == float(sum(map(abs, lost)))
        assert one["wrong"] == sum(e != 0 for e in lost)
        assert one["largest_error"] == float(max(map(abs, lost)))
        assert one["events"] == events.to_dict()
        assert one["nonfinite"] == 0
        chunk = ab.get_accumulator(name).chunk or 48
        steps = sum(
            any(x[m, k] and layer.weight[k, n] for k in range(start, min(start + chunk, 48)))
            for m in range(len(x))
            for n in range(7)
            for start in range(0, 48, chunk)
        )
        assert sum(one["exponent_spans"]["steps"]) == steps
        assert one["saturates_at"] == "step"


def test_partial_sums_are_counted():
    layers, x = cases.model(), cases.inputs()
    report = ab.overflow_report(layers, x)
    for layer in layers:
        data = report[layer.name].to_dict()["partial_sums"]
        counts = {}
        for _, _, _, sums in brute_force(layer, x[layer.name]):
            for s in sums.stepped:
                place = (s < 0, abs(s).bit_length())
                counts[place] = counts.get(place, 0) + 1
        for i, width in enumerate(data["bits"]):
            assert data["negative"][i] == counts.pop((True, width), 0)
            assert data["positive"][i] == counts.pop((False, width), 0)
        assert not counts
        every = [s for _, _, partial, _ in brute_force(layer, x[layer.name]) for s in partial]
        assert (data["smallest"], data["largest"]) == (min(every), max(every))


def test_bounds_hold_on_the_data():
    layers, x = cases.model(), cases.inputs()
    report = ab.overflow_report(layers, x)
    for layer in layers:
        one = report[layer.name]
        rows = brute_force(layer, x[layer.name])
        assert one.data_widths["any_order"] <= one.bounds["input_ranges"]
        assert one.bounds["input_ranges"] <= one.bounds["sign_split"] <= one.bounds["l1"]
        assert one.bounds["l1"] <= one.bounds["data_type"] or layer.bias is not None
        assert max(bits(partial) for _, _, partial, _ in rows) <= one.bounds["sign_split"]


def test_unsigned_accumulators():
    layer = ab.OverflowLayer(name="fc", weight=np.full((20, 2), 9, np.uint8), input_range="u8")
    x = np.full((3, 20), 200, np.uint8)
    report = ab.overflow_report(layer, x, signed=False, accumulators="uint16:saturate")
    assert report["fc"].data_widths["given"] == (20 * 9 * 200).bit_length() == 16
    assert report.curve("fc").overflowed[15 - 8] == 6
    assert report.first_overflow("fc", 15).step == 18
    mixed = ab.overflow_report(cases.linear(), cases.inputs()["fc"], signed=False)
    assert mixed["fc"].data_widths["given"] == 65
    assert mixed["fc"].to_dict()["fits"] == {}
    json.loads(mixed.to_json())
    assert "fc" in mixed.table()
    assert mixed.to_html()


def test_json_is_plain():
    report = ab.overflow_report(cases.model(), cases.inputs(), accumulators=("int16:wrap", "m7e4"))
    data = json.loads(report.to_json())
    assert data == report.to_dict()
    assert data["version"] == 1
    assert data["samples"] == cases.SAMPLES
    assert data["layers"][0]["operands"]["input"] == "u8"


def test_names_and_rates():
    report = ab.overflow_report(cases.model(), cases.inputs(), accumulators=["int16:wrap"])
    curve = report.curve("fc")
    assert report.rate(16) == report.rate() == curve.overflowed[8] / curve.outputs
    with pytest.raises(KeyError, match=r"no layer 'x'.*'fc', 'conv'"):
        report["x"]
    assert "bits" in str(report.first_overflow("fc", 12))


@pytest.mark.parametrize("samples", [0, 1])
def test_few_samples(samples):
    x = {name: array[:samples] for name, array in cases.inputs().items()}
    report = ab.overflow_report(cases.model(), x)
    assert report.samples == samples
    assert report.curve("fc").outputs == 7 * samples
    json.loads(report.to_json())
    assert report.table()
    if samples == 0:
        assert report.first_overflow("fc", 8) is None
        assert report.rate() == 0
