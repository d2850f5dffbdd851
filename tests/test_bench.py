"""The benches run, write their rows, and compare with an earlier run."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from abcdeep_core import _core

pytest.importorskip("threadpoolctl", reason="the benches hold NumPy to the same threads")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")  # what importing the package would set
    return importlib.import_module("bench.__main__")


def test_every_case_runs_and_is_written(bench, tmp_path, capsys):
    path = tmp_path / "rows.json"
    isa = _core.supported_isas()[-1]
    assert bench.main(["--quick", "--isa", isa, "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    rows = report["rows"]
    assert report["machine"]["numpy"] == np.__version__
    assert report["machine"]["numpy_blas"]
    assert len({row["name"] for row in rows}) == len(rows) > 40
    assert all(row["seconds"] > 0 and row["ratio"] > 0 for row in rows)
    printed = capsys.readouterr().out
    assert all(row["name"] in printed for row in rows)
    square, deep = (
        next(row for row in rows if row["name"].endswith(end))
        for end in ("cannot overflow", "K = 4 x size")
    )
    assert deep["target"] == 0.7 * square["ratio"]


def test_an_earlier_run_is_compared_by_the_ratio(bench, tmp_path, capsys):
    path = tmp_path / "rows.json"
    arguments = ["random", "--quick", "--filter", "32 bits"]
    bench.main([*arguments, "--json", str(path)])
    report = json.loads(path.read_text())
    for row in report["rows"]:
        row["ratio"] = 1e6
    path.write_text(json.dumps(report))
    capsys.readouterr()
    bench.main([*arguments, "--compare", str(path)])
    assert "1000000.00 -> " in capsys.readouterr().out


def test_the_selection_is_restored(bench):
    before = _core.selected_isa()
    bench.main(["random", "--quick", "--isa", *_core.supported_isas(), "--threads", "1", "2"])
    assert _core.selected_isa() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["matmull"],
            "bench: expected some of matmul, quantize, random, luq, uniform, blocks, hadamard, nm, "
            "transposable, pack_24, overflow, got matmull",
        ),
        (["--isa", "avx9"], "--isa: expected some of base"),
        (["--size", "0"], "expected a positive integer, got 0"),
    ],
)
def test_wrong_arguments_are_errors(bench, capsys, arguments, message):
    with pytest.raises(SystemExit):
        bench.main(arguments)
    assert message in capsys.readouterr().err
