"""The LUQ study: trainings on a process pool, diverged ones, its table, claims and plot."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from abcdeep_core import nn
from abcdeep_core.examples import luq_fashion, luq_rows, training_figure, training_study
from abcdeep_core.examples.training_study import Row, Settings, Training
from abcdeep_core.examples.training_text import Expectation, Trained, claims, grouped, table
from test_examples import write_images
from test_report import without

NAMES = luq_fashion.COMMAND.names


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("fashion"))


def settings(folder: Path, **changes: Any) -> Settings:
    fields: dict[str, Any] = {"folder": str(folder), "widths": {"mlp": 8}, "epochs": 2, **changes}
    return Settings(**fields)


def same(one: Training, other: Training) -> bool:
    return (
        one.history.to_dict() == other.history.to_dict()
        and np.array_equal(one.correct, other.correct)
        and (one.network, one.name, one.seed) == (other.network, other.name, other.seed)
    )


# Trainings.


def test_a_row_and_its_tunings(folder: Path) -> None:
    row = luq_rows.ROWS[1]
    results = training_study.train_row(settings(folder), "mlp", row, 3)
    assert [result.name for result in results] == list(row.names) == ["LUQ", *row.names[1:]]
    assert [len(result.history.loss) for result in results] == [2, 1, 1]
    assert all(result.correct.shape == (60,) for result in results)
    assert all(0 < result.loss < 3 for result in results)
    again = training_study.train_row(settings(folder), "mlp", row, 3)
    assert all(same(one, other) for one, other in zip(results, again, strict=True))
    other = training_study.train_row(settings(folder), "mlp", row, 4)
    assert not same(results[0], other[0])


def test_every_row_computes_otherwise(folder: Path) -> None:
    losses = [
        training_study.train_row(
            settings(folder, epochs=1), "mlp", Row(row.name, row.arithmetic), 0
        )
        for row in luq_rows.ROWS
    ]
    assert len({result.loss for (result,) in losses}) == len(luq_rows.ROWS)


def test_a_diverged_training_is_a_result(folder: Path) -> None:
    (result,) = training_study.train_row(
        settings(folder, rate=1e30), "mlp", Row("float32", luq_rows.float32), 0
    )
    assert "expected" in result.failure
    assert np.isnan(result.accuracy)
    assert not result.correct.any()
    record = result.to_dict()
    assert record["accuracy"] is None
    assert json.loads(json.dumps(record))["failure"] == result.failure


def test_workers_do_not_change_results(folder: Path) -> None:
    before = dict(os.environ)
    rows = [Row("LUQ", luq_rows.luq), Row("float32", luq_rows.float32)]

    def trained(workers: int) -> dict[tuple[str, int], Training]:
        jobs = training_study.train_all(settings(folder), ["mlp"], rows, [0, 1], workers=workers)
        return {(result.name, result.seed): result for job in jobs for result in job}

    one, two = trained(1), trained(2)
    assert one.keys() == two.keys() == {(row.name, seed) for row in rows for seed in (0, 1)}
    assert all(same(one[key], two[key]) for key in one)
    assert dict(os.environ) == before


# The words.


def fake(name: str, percent: float, loss: float, seed: int = 0, failure: str = "") -> Training:
    """Return a training of 1000 test samples, of which the first are right."""
    return Training(
        network="mlp",
        name=name,
        seed=seed,
        history=nn.History(loss=[2 * loss, loss]),
        correct=np.arange(1000) < round(10 * percent) if not failure else np.zeros(1000, bool),
        failure=failure,
        seconds=1.0,
    )


def rows_of(**values: list[tuple[float, float] | None]) -> list[Trained]:
    """Rows by name, from (accuracy, loss) of each seed, None for a diverged training."""
    trainings = [
        fake(name, 0, 0, seed, "diverged") if value is None else fake(name, *value, seed)
        for name, seeds in values.items()
        for seed, value in enumerate(seeds)
    ]
    return grouped(trainings[::-1], list(values))


def test_table_pairs_seeds() -> None:
    rows = rows_of(
        float32=[(90, 0.1), (80, 0.2)],
        luq=[(89, 0.2), (79.5, 0.25)],
        wild=[(50, 0.5), None],
        lost=[None, None],
    )
    lines = [" ".join(line.split()) for line in table(rows).splitlines()]
    assert [line for line in lines if not line.startswith("---")] == [
        "arithmetic accuracy % to float32 training loss to float32 diverged seconds",
        "float32 85.00 ± 7.07 0.1500 ± 0.0707 1",
        "luq 84.25 ± 6.72 -0.75 ± 0.35 0.2250 ± 0.0354 +0.0750 ± 0.0354 1",
        "wild 50.00 -40.00 0.5000 +0.4000 1 of 2 1",
        "lost - - - - 2 of 2 1",
    ]


def shown(row: list[Any], other: list[Any], better: bool) -> tuple[bool, bool]:
    """Return whether accuracy and loss show that `row` is better (or worse)."""
    rows = rows_of(float32=[(90, 0.1)] * len(row), luq=other, twin=row)
    expectation = Expectation("claim", "twin", "luq", better)
    near, accuracy, loss = claims(rows, [expectation], near=("luq",))
    assert near.text == "luq trains to within 1 % of float32"
    assert accuracy.text == "claim: accuracy"
    assert loss.text == "claim: training loss"
    return accuracy.shown, loss.shown


def test_claims_need_all_seeds_and_enough_samples() -> None:
    luq = [(90.0, 0.2), (89.0, 0.3)]
    assert shown([(85, 0.3), (86, 0.4)], luq, better=False) == (True, True)
    assert shown([(85, 0.3), (86, 0.4)], luq, better=True) == (False, False)
    assert shown([(85, 0.1), (89.5, 0.4)], luq, better=False) == (False, False)
    assert shown([(89.9, 0.2), (88.9, 0.4)], luq, better=False) == (False, False)
    assert shown([(92, 0.1), (91, 0.2)], luq, better=True) == (True, True)
    assert shown([None, (86, 0.4)], luq, better=False) == (True, True)
    assert shown([None, None], [None, None], better=False) == (False, False)


@pytest.mark.parametrize(
    ("luq", "expected"), [([89.1], True), ([88.9], False), ([90.9], True), ([None], False)]
)
def test_near_means_one_point(luq: list[float | None], expected: bool) -> None:
    rows = rows_of(float32=[(90, 0.1)], luq=[None if a is None else (a, 0.1) for a in luq])
    (claim,) = claims(rows, [Expectation("claim", "absent", "luq", True)], near=("luq",))
    assert claim.shown is expected


def test_every_expectation_is_about_rows_of_the_study() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for expectation in luq_rows.EXPECTATIONS:
        assert {expectation.row, expectation.other} <= set(NAMES)


# The command.


def test_command(folder: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [report]")
    files = tmp_path / "luq.png", tmp_path / "luq.json"
    argv = ["--data", str(folder), "--width", "8", "--seeds", "0", "--epochs", "1"]
    argv += ["--networks", "mlp", "cnn", "--samples", "150", "--test-samples", "50"]
    assert luq_fashion.main([*argv, "-o", str(files[0]), "--json", str(files[1])]) == 0
    captured = capsys.readouterr()
    count = len(NAMES)
    assert f"[{2 * count}/{2 * count}]" in captured.err
    record = json.loads(files[1].read_text())
    assert len(record["trainings"]) == 2 * count
    assert {t["network"] for t in record["trainings"]} == {"mlp", "cnn"}
    assert len(record["claims"]) == 2 * (1 + 2 * len(luq_rows.EXPECTATIONS))
    for claim in record["claims"]:
        verdict = "shows" if claim["shown"] else "DOES NOT SHOW"
        assert f"{verdict}: {claim['claim']}: {claim['measured']}" in captured.out
    for name in NAMES:
        assert captured.out.count(f"\n{name}  ") == 2
    assert "--networks mlp cnn" in record["facts"]["command"]
    assert files[0].read_bytes().startswith(b"\x89PNG")


def test_plot_of_a_study_with_a_diverged_row(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [report]")
    rows = rows_of(float32=[(90, 0.1)], luq=[(89, 0.2)], lost=[None])
    assert training_figure.draw({"mlp": rows}, tmp_path / "plot.svg")
    assert "lost (diverged)" in (tmp_path / "plot.svg").read_text()


def test_command_refuses(folder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    assert luq_fashion.main(["--data", str(tmp_path)]) == 1
    assert "apt-get install dataset-fashion-mnist" in capsys.readouterr().err
    for argv, text in (
        (["-o", "plot.html"], "expected a file name in .png, .svg, .pdf"),
        (["--epochs", "0"], "expected an integer of at least 1"),
        (["--networks", "rnn"], "invalid choice"),
    ):
        with pytest.raises(SystemExit):
            luq_fashion.main(argv)
        assert text in capsys.readouterr().err
    without(monkeypatch, "matplotlib")
    assert luq_fashion.main(["--data", str(folder), "-o", str(tmp_path / "plot.png")]) == 1
    assert "abcdeep_core[report]" in capsys.readouterr().err
