"""The command `abcdeep overflow`, end to end on files, and what it says when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
import overflow_cases as cases
from abcdeep_core import _cli_overflow, overflow
from abcdeep_core.cli import main


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Files of a model with one linear layer and one convolution, in the current directory."""
    monkeypatch.chdir(tmp_path)
    fc, conv = cases.linear(), cases.convolution()
    manifest = {
        "layers": [
            {"name": "fc", "weight": "fc", "input_type": "u8"},
            {
                "name": "conv", "weight": "conv", "kind": "conv2d", "input_type": "s8",
                "stride": [2, 1], "padding": [1, 0], "groups": 2,
            },
        ]
    }  # fmt: skip
    np.savez("model.npz", manifest=json.dumps(manifest), fc=fc.weight, conv=conv.weight)
    np.savez("data.npz", **cases.inputs())
    return tmp_path


def run(*arguments: str) -> int:
    return main(["overflow", *arguments])


def test_a_model_in_files(files, capsys):
    assert run("model.npz", "--data", "data.npz", "-o", "page.html", "--json", "report.json") == 0
    out = capsys.readouterr().out
    assert "wrote page.html" in out
    assert "wrote report.json" in out
    assert "int16" in out
    data = json.loads((files / "report.json").read_text())
    layers = [cases.linear(), cases.convolution(weight_type="s8")]
    report = ab.overflow_report(layers, cases.inputs())
    for got, one in zip(data["layers"], report.layers, strict=True):
        want = one.to_dict()
        for key in ("curve", "data_widths", "first_overflow", "accumulators", "partial_sums"):
            assert got[key] == want[key]
    assert (files / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_options_reach_the_report(files):
    options = (
        "--acc int12:saturate m7e4 --widths 10:20 --group 2 --tile 8 --tile-merge exact --title T "
        "--threads 1 --quiet --json report.json"
    )
    assert run("model.npz", "--data", "data.npz", *options.split()) == 0
    data = json.loads((files / "report.json").read_text())
    assert data["title"] == "T"
    assert data["settings"] == {
        "accumulators": ["int12:saturate", "m7e4"],
        "widths": [10, 20],
        "group": 2,
        "tile": 8,
        "tile_merge": "exact",
        "order": "natural",
        "signed": True,
    }
    assert run("model.npz", "--data", "data.npz", "--order", "best", "--json", "best.json") == 0
    best = json.loads((files / "best.json").read_text())
    assert best["settings"]["order"] == "greedy"
    for layer in best["layers"]:
        assert layer["data_widths"]["given"] <= layer["data_widths"]["greedy"]


def test_a_rate_fails(files, capsys):
    arguments = ("model.npz", "--data", "data.npz", "--acc")
    assert run(*arguments, "int30:wrap", "--fail-over", "0") == 0
    assert run(*arguments, "int12:wrap", "--fail-over", "0") == 1
    captured = capsys.readouterr()
    assert "of a layer's outputs overflow, more than 0 (12 bits)" in captured.err
    assert captured.err.count("fc") + captured.err.count("conv") == 1
    assert "conv" in captured.out
    assert run(*arguments, "int12:wrap", "--fail-over", "1") == 0


def test_a_checkpoint_is_kept_and_used(files):
    arguments = ("model.npz", "--data", "data.npz", "--checkpoint", "run.npz", "--json")
    assert run(*arguments, "a.json") == 0
    assert (files / "run.npz").exists()
    assert run(*arguments, "b.json") == 0
    assert (files / "a.json").read_text() == (files / "b.json").read_text()


def test_without_the_extra_json_is_written(files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert run("model.npz", "--data", "data.npz", "-o", "page.html") == 1
    captured = capsys.readouterr()
    assert "[report]" in captured.err
    assert "wrote page.json" in captured.out
    assert json.loads((files / "page.json").read_text())["version"] == 1
    assert not (files / "page.html").exists()


WRONG: dict[str, tuple[list[str], str]] = {
    "no file": (["none.npz", "--data", "data.npz"], "none.npz"),
    "no data": (["model.npz", "--data", "none.npz"], "none.npz"),
    "corrupt": (["broken.npz", "--data", "data.npz"], "broken.npz"),
    "suffix": (["model.txt", "--data", "data.npz"], "model.txt"),
    "folder": (
        ["model.npz", "--data", "data.npz", "--json", "none/report.json"],
        "abcdeep overflow: none/report.json: there is no such folder",
    ),
    "page": (["model.npz", "--data", "data.npz", "-o", "."], "abcdeep overflow: .: Is a directory"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_one_line(files, capsys, name):
    (files / "broken.npz").write_bytes((files / "model.npz").read_bytes()[:300])
    (files / "model.txt").write_text("weights")
    arguments, text = WRONG[name]
    assert run(*arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("abcdeep overflow: ")
    assert text in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        "model.npz",
        "--data x.npy",
        "--widths 9",
        "--fail-over 2",
        "--order x",
        "--order best --tile 8",
        "--acc int16:wrp",
        "--acc int16:wrap int16:wrap",
        "--group 0",
        "--tile -1",
        "--threads 0",
        "--quantise foo",
        "--quantise int99",
        "-o a.html --json a.html",
        "model.npz --data x.npy --json model.npz",
        "model.npz --data x.npy --json model.json",
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run(*arguments.split())
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "expected" in error or "invalid choice" in error or "differ" in error or "wrp" in error
    assert not list(tmp_path.iterdir())


def test_nothing_is_run_for_a_report_that_cannot_be_written(files, capsys, monkeypatch):
    monkeypatch.setattr("abcdeep_core._cli_overflow._report", lambda args: pytest.fail("it ran"))
    assert run("model.npz", "--data", "data.npz", "--checkpoint", "none/run.npz") == 1
    assert "none/run.npz: there is no such folder" in capsys.readouterr().err


def test_names_in_messages_are_printable(files, capsys):
    np.savez("bad.npz", **{"a\x1b[31m\nb": np.full((4, 2), np.nan, np.float32)})
    np.save("x.npy", np.ones((3, 4), np.float32))
    assert run("bad.npz", "--data", "x.npy", "--quantise", "int8") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert line.startswith("abcdeep overflow: bad.npz: a")


def test_the_json_of_a_missing_extra_does_not_replace_a_manifest(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert run("model.npz", "--data", "data.npz", "-o", "model.html") == 1
    assert not (files / "model.json").exists()
    assert json.loads((files / "model.html.json").read_text())["version"] == 1


def test_an_interrupt_is_one_line(files, capsys, monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("abcdeep_core._cli_overflow._report", interrupted)
    assert run("model.npz", "--data", "data.npz") == 130
    assert capsys.readouterr().err == "abcdeep: interrupted\n"


def test_unsigned_accumulators_by_default(files):
    np.savez("positive.npz", fc=np.full((20, 2), 9, np.uint8))
    np.save("x.npy", np.full((3, 20), 200, np.uint8))
    arguments = ("positive.npz", "--data", "x.npy", "--unsigned", "--json", "report.json")
    assert run(*arguments) == 0
    settings = json.loads((files / "report.json").read_text())["settings"]
    assert settings["accumulators"] == ["uint16:wrap", "uint16:saturate"]


@pytest.mark.slow
def test_the_digits_network(tmp_path):
    pytest.importorskip("sklearn", reason="needs the extra [examples]")
    command: list[Any] = [sys.executable, "-m", "abcdeep_core", "overflow"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "12 Linear" in done.stdout
    assert (tmp_path / "abcdeep_report_overflow.html").exists()


@pytest.mark.parametrize("quiet", [False, True])
def test_what_takes_long_is_said_on_stderr(files, capsys, monkeypatch, quiet):
    examined = overflow.overflow_report

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.3)
        return examined(*arguments, **options)

    monkeypatch.setattr(_cli_overflow, "_SILENT_SECONDS", 0.05)
    monkeypatch.setattr(overflow, "overflow_report", slow)
    assert run("model.npz", "--data", "data.npz", *(["--quiet"] if quiet else [])) == 0
    said = capsys.readouterr()
    samples = len(cases.inputs()["fc"])
    line = f"abcdeep overflow: running {samples} samples through 2 layers"
    assert (line in said.err.splitlines()) == (not quiet)
    assert "running" not in said.out


def test_what_is_quick_is_not_said(files, capsys):
    assert run("model.npz", "--data", "data.npz", "--quiet") == 0
    assert capsys.readouterr().err == ""
