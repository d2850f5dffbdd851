"""The examples: the demo in its quick form, the study's words, Fashion-MNIST from made-up files."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import nn
from abcdeep_core.cli import main
from abcdeep_core.examples import (
    accumulator_study,
    digits_demo,
    fashion_mnist,
    lba_fashion,
    study_output,
    study_plan,
    study_text,
)
from abcdeep_core.examples.study_result import (
    AS_TRAINED,
    FINE_TUNED,
    FLOAT32,
    FROM_SCRATCH,
    LayerGain,
    Result,
)
from test_report import without

AS_TRAINED_NAMES = ["M10E5", "M7E4", "M5E4", "M4E3", "M4E3 b6"]
AS_TRAINED_NAMES += ["int16 wrap", "int16 saturate", "int12 wrap", "int12 saturate"]


# The demo.


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run `abcdeep demo --quick` once; what it printed and wrote."""
    pytest.importorskip("sklearn", reason="needs the extra [examples]")
    folder = tmp_path_factory.mktemp("demo")
    files = [str(folder / name) for name in ("report.html", "demo.json")]
    capture = pytest.MonkeyPatch()
    lines: list[str] = []
    capture.setattr("builtins.print", lambda *texts, **_: lines.append(" ".join(map(str, texts))))
    try:
        status = main(["demo", "--quick", "--seed", "1", "-o", files[0], "--json", files[1]])
    finally:
        capture.undo()
    assert status == 0
    record = json.loads(Path(files[1]).read_text())
    return {"text": "\n".join(lines), "html": Path(files[0]).read_text(), "record": record}


def test_demo_has_every_row(demo: dict[str, Any]) -> None:
    rows = demo["record"]["rows"]
    assert [(row["stage"], row["name"]) for row in rows] == [
        (FLOAT32, FLOAT32),
        *((AS_TRAINED, name) for name in AS_TRAINED_NAMES),
        (FINE_TUNED, "M7E4"),
        *((FINE_TUNED, name) for name in ("M4E3", "M4E3", "M4E3 b6", "M4E3 b6")),
        (FROM_SCRATCH, "4-bit LUQ"),
    ]
    assert [row["bits"] for row in rows[:10]] == [32, 16, 12, 10, 8, 8, 16, 16, 12, 12]
    methods = ["two stages", "identity", "immediate/DIFF", "identity", "recursive/OF"]
    assert [row["method"] for row in rows[10:]] == [*methods, ""]


def test_demo_measures_what_it_says(demo: dict[str, Any]) -> None:
    *rows, luq = demo["record"]["rows"]
    assert rows[0]["accuracy"] > 0.8
    assert rows[0]["events"] is None
    assert rows[0]["speed_against_float32"] == 1
    by_name = {row["name"]: row for row in rows[1:10]}
    assert by_name["int12 wrap"]["overflow_percent"] > by_name["int16 wrap"]["overflow_percent"]
    assert by_name["M4E3"]["underflow_percent"] > by_name["M7E4"]["underflow_percent"] > 0
    assert by_name["M4E3 b6"]["overflow_percent"] > by_name["M4E3"]["overflow_percent"]
    assert by_name["M10E5"]["gain"] > by_name["M7E4"]["gain"] > by_name["M4E3"]["gain"] > 0
    assert abs(by_name["M10E5"]["accuracy"] - rows[0]["accuracy"]) < 0.02
    assert luq["accuracy"] > rows[0]["accuracy"] - 0.1
    assert luq["events"] is None
    assert luq["layers"] == []
    assert len(luq["history"]["loss"]) == 3
    for row in rows[1:]:
        assert row["speed_against_float32"] == pytest.approx(rows[0]["seconds"] / row["seconds"])
        assert [layer["terms"] for layer in row["layers"]] == [9, 144, 288, 256]
        assert row["events"]["outputs"] == 50 * (16 * 64 + 32 * 16 + 64 * 16 + 10)
    for row, (first, epochs) in zip(rows[10:], [(1, 2)] + 4 * [(0, 1)], strict=True):
        assert row["first_stage_epochs"] == first
        assert len(row["history"]["loss"]) == len(row["history"]["validation_accuracy"]) == epochs


def test_demo_prints_and_reports_the_same_numbers(demo: dict[str, Any]) -> None:
    assert demo["record"]["summary"] in demo["text"]
    for row in demo["record"]["rows"]:
        accuracy = f"{100 * row['accuracy']:.2f}"
        assert accuracy in demo["text"]
        assert f">{accuracy}</td>" in demo["html"]
    assert demo["html"].count("<svg") == 6
    assert "--seed 1 --quick" in demo["html"]


def test_demo_without_the_extras(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    results = [fake(FLOAT32, FLOAT32, 90), fake("M7E4", AS_TRAINED, 90)]
    monkeypatch.setattr(digits_demo, "load_digits", lambda seed: (([], []), ([], [])))
    monkeypatch.setattr(digits_demo, "run", lambda *_, **__: results)
    without(monkeypatch, "matplotlib", "jinja2")
    assert main(["demo", "--json", "demo.json"]) == 0
    captured = capsys.readouterr()
    assert "no HTML report: jinja2 and matplotlib not installed" in captured.err
    assert "abcdeep_core[report]" in captured.err
    assert "M7E4" in captured.out
    assert json.loads(Path("demo.json").read_text())["rows"][1]["name"] == "M7E4"
    assert main(["demo", "-o", "asked-for.html"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["demo.json"]

    monkeypatch.undo()
    without(monkeypatch, "sklearn")
    assert main(["demo"]) == 1
    assert "scikit-learn; expected the extra [examples]" in capsys.readouterr().err


def test_demo_refuses(capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    for argv, text in ((["--seed", "-1"], "--seed"), (["--seed", "one"], "expected an integer")):
        with pytest.raises(SystemExit):
            main(["demo", *argv])
        assert text in capsys.readouterr().err
    monkeypatch.setattr(digits_demo, "load_digits", lambda seed: (([], []), ([], [])))
    monkeypatch.setattr(digits_demo, "run", lambda *_, **__: [fake(FLOAT32, FLOAT32, 90)])
    assert main(["demo", "--json", str(tmp_path / "no folder" / "demo.json")]) == 1
    assert "no folder" in capsys.readouterr().err


# The measurements.


def test_layer_gains_are_those_of_the_behaviour_table() -> None:
    # N(0, 1) and N(0, 1 / K) with K = 1024: M7E4 0.903, M10E5 0.987, M4E3 0.451.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 1024)).astype(np.float32)
    layer = nn.Linear(1024, 64, seed=0)
    layer.weight.value[...] = rng.standard_normal((1024, 64)) / 32
    assert layer.bias is not None
    layer.bias.value[...] = 100  # no part of the sums
    model = nn.Sequential(layer)
    assert accumulator_study.layer_gains(model, x) == []
    for (m, e), gain in {(7, 4): 0.903, (10, 5): 0.987, (4, 3): 0.451}.items():
        narrow = model.with_arithmetic(nn.lba_arithmetic(m, e))
        (found,) = accumulator_study.layer_gains(narrow, x)
        assert found.terms == 1024
        assert abs(found.gain - gain) < 0.02
        assert found.error >= 1 - found.gain
    silent = nn.Sequential(nn.Linear(4, 2, seed=0)).with_arithmetic(nn.lba_arithmetic())
    (found,) = accumulator_study.layer_gains(silent, np.zeros((3, 4), np.float32))
    assert (found.gain, found.error) == (1, 0)


def test_stages_switch_underflow_on_last() -> None:
    recipe = study_plan.Recipe(rates=(0.1, 0.1), epochs=(1, 1))
    for accumulator, biases in ((study_plan.M7E4, (10, 12)), (study_plan.M4E3_LOW, (6, 8))):
        tuning = study_plan.Tuning(accumulator=accumulator, recipe=recipe)
        numbers = (accumulator.mantissa_bits, accumulator.exponent_bits, *biases)
        off, on = (stage.forward.datapath for stage in tuning.stages())
        assert off == ab.lba_accumulator(*numbers, underflow=False)
        assert on == ab.lba_accumulator(*numbers)


# The words.


def fake(name: str, stage: str, percent: float, method: str = "", seed: int = 0) -> Result:
    """Return a result of 1000 samples, of which the first are right."""
    return Result(
        name=name,
        bits=8,
        stage=stage,
        method=method,
        loss=1.0,
        correct=np.arange(1000) < round(10 * percent),
        events=None if name == FLOAT32 else ab.Events(terms=1000, steps=1000, swamped=7),
        limit=1.0,
        seconds=1.0,
        speed=1.0 if name == FLOAT32 else 0.25,
        gains=[] if name == FLOAT32 else [LayerGain(terms=9, gain=0.9, error=0.2)],
        seed=seed,
    )


def test_sentences_follow_from_the_numbers() -> None:
    reference, kept, lost = (
        fake(FLOAT32, FLOAT32, 90),
        fake("M7E4", AS_TRAINED, 89.9),
        fake("M4E3", AS_TRAINED, 60),
    )
    text = study_text.sentences(
        [reference, kept, lost, fake("M4E3", FINE_TUNED, 85, "identity"),
         fake("M4E3", FINE_TUNED, 88, "immediate/DIFF"), fake("M7E4", FINE_TUNED, 92, "identity")]
    )  # fmt: skip
    assert text == (
        "The network reaches 90.00 % in float32; with the same weights M7E4 (8 bits) is not"
        " measurably different, while the accuracy changes by -30.00 points with M4E3 (8 bits)."
        " Fine-tuning takes M4E3 from 60.00 % to 85.00 % with identity and 88.00 % with"
        " immediate/DIFF (immediate/DIFF is 3.00 points above identity), and takes M7E4 from"
        " 89.90 % to 92.00 % (2.00 points above float32)."
    )
    worse = study_text.sentences(
        [reference, lost, fake("M4E3", FINE_TUNED, 89.8, "identity"),
         fake("M4E3", FINE_TUNED, 70, "immediate/DIFF"), fake("M4E3", FINE_TUNED, 89.7, "other")]
    )  # fmt: skip
    assert "with the same weights the accuracy changes by" in worse
    assert "immediate/DIFF is 19.80 points below identity" in worse
    assert "other is not measurably different from identity" in worse
    scratch = study_text.sentences([reference, kept, fake("LUQ", FROM_SCRATCH, 89.9)])
    assert scratch.endswith(
        " Trained from scratch with LUQ it reaches 89.90 % (not measurably different from float32)."
    )
    alone = study_text.sentences([reference, kept])
    assert alone.endswith("with the same weights M7E4 (8 bits) is not measurably different.")


def test_claims_are_not_made_where_they_do_not_show() -> None:
    rows = [
        fake(FLOAT32, FLOAT32, 90),
        fake("M7E4", AS_TRAINED, 80),
        fake(FLOAT32, FINE_TUNED, 91, "trained on"),
        fake("M7E4", FINE_TUNED, 90.6, "identity"),
        fake("M4E3", FINE_TUNED, 80, "identity"),
        fake("M4E3", FINE_TUNED, 80.1, "immediate/DIFF"),
        fake("M4E3", FINE_TUNED, 83, "recursive/OF"),
        fake("M4E3 b6", FINE_TUNED, 83, "identity"),
        fake("M4E3 b6", FINE_TUNED, 60, "recursive/OF"),
    ]
    assert [claim.shown for claim in study_text.claims(rows)] == [True, True, False, True, False]
    rows[3] = fake("M7E4", FINE_TUNED, 90.4, "identity")
    rows[1].gains.append(LayerGain(terms=9, gain=1.0, error=0.2))
    assert [claim.shown for claim in study_text.claims(rows)] == [False, False, False, True, False]


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (3, 3), (1, 9), (400, 330), (0, 6)])
def test_sign_test_is_that_of_scipy(wins: int, losses: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert study_text.sign_test(wins, losses) == pytest.approx(expected, rel=1e-12)


def test_seeds_share_a_row() -> None:
    results = [
        fake(*row, seed=seed)
        for seed, change in ((0, 0), (1, 2))
        for row in ((FLOAT32, FLOAT32, 90 + change), ("M4E3", AS_TRAINED, 60 - change))
    ]
    lines = study_text.table(results).splitlines()
    assert len(lines) == 5
    assert "91.00 ± 1.41" in lines[2]
    assert "59.00 ± 1.41  -32.00" in lines[4]
    assert lines[4].endswith("0.000        0.000      0.700  0.900  0.250")


# Fashion-MNIST.


def write_idx(path: Path, values: np.ndarray[Any, Any]) -> None:
    head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    raw = head + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_images(path: Path) -> Path:
    """Write made-up images in the files of the data set: one bright column a class, and noise."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 200), ("t10k", 60)):
        labels = rng.integers(0, 10, count)
        images = rng.integers(0, 100, (count, 28, 28))
        images[np.arange(count), :, 2 * labels] += 150
        suffix = ".gz" if name == "train" else ""
        write_idx(path / f"{name}-images-idx3-ubyte{suffix}", images)
        write_idx(path / f"{name}-labels-idx1-ubyte{suffix}", labels)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("fashion"))


def test_idx_files_are_read_plain_and_compressed(folder: Path) -> None:
    (images, labels), (test_images, test_labels) = fashion_mnist.load_fashion_mnist(folder)
    assert (images.shape, labels.shape) == ((200, 1, 28, 28), (200,))
    assert (test_images.shape, test_labels.shape) == ((60, 1, 28, 28), (60,))
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    assert abs(float(images.mean())) < 1e-4
    assert abs(float(images.std()) - 1) < 1e-4


def test_damaged_files_are_named(tmp_path: Path, folder: Path, capsys: Any) -> None:
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
        fashion_mnist.load_fashion_mnist(tmp_path)
    assert lba_fashion.main(["--data", str(tmp_path)]) == 1
    assert "apt-get install dataset-fashion-mnist" in capsys.readouterr().err
    path = tmp_path / "train-images-idx3-ubyte"
    whole = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
    bad = {
        whole[:-1]: "holds 156799",
        whole[:9]: "holds 0",
        b"": "begins b''",
        b"\0\0\x0d\1" + whole: "idx file of unsigned bytes",
        gzip.compress(whole)[:50]: "whole gzip file",
    }
    for raw, text in bad.items():
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=text):
            fashion_mnist.read_idx(path)
    for name in fashion_mnist._NAMES:
        write_idx(tmp_path / name, np.zeros((3, 4), np.uint8))
    with pytest.raises(ValueError, match=r"images \(N, 28, 28\)"):
        fashion_mnist.load_fashion_mnist(tmp_path)


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_fashion_study_runs(network: str, folder: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [report]")
    argv = ["--data", str(folder), "--network", network, "--width", "8", "--seeds", "0", "1"]
    argv += ["--epochs", "1", "--tuning-epochs", "1", "--narrow-epochs", "1"]
    argv += ["--narrow-samples", "30", "--event-samples", "20", "--test-samples", "50"]
    argv += ["--estimators", "immediate_of", "recursive_of"]
    argv += ["-o", str(tmp_path / "report.html"), "--json", str(tmp_path / "study.json")]
    assert lba_fashion.main(argv) == 0
    captured = capsys.readouterr()
    assert "[36/36] M4E3 b6, recursive/OF, fine-tuned" in captured.err
    assert captured.out.count("a fine-grained gradient beats the identity") == 4
    record = json.loads((tmp_path / "study.json").read_text())
    assert [row["seed"] for row in record["rows"]] == [0] * 18 + [1] * 18
    assert record["rows"][1]["events"]["outputs"] > 0
    assert "Fashion-MNIST" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--epochs", "0"], "expected an integer of at least 1, got '0'"),
        (["--seeds", "1", "-2"], "--seeds: expected an integer from 0 to 2^32 - 1, got '-2'"),
        (["--rate", "nan"], "expected a positive number, got 'nan'"),
        (["--rate", "fast"], "expected a positive number, got 'fast'"),
        (["--estimators", "identity"], "invalid choice: 'identity'"),
    ],
)
def test_fashion_study_refuses(argv: list[str], text: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as exit_:
        lba_fashion.main(argv)
    assert exit_.value.code == 2
    assert text in capsys.readouterr().err


def test_machine_facts_name_the_instruction_set() -> None:
    assert ab.isa_info()["selected"] in study_output.machine()["machine"]
