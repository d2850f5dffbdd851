"""`abcdeep vectors`: files, reports and random operands in, bundles out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core.cli import main

needs_icarus = pytest.mark.skipif(
    "icarus" not in ab.rtl.simulators(), reason="needs iverilog"
)  # fmt: skip


def vectors(folder: Path, *options: str | Path) -> dict[str, Any]:
    target = folder / "out"
    assert main(["vectors", "-o", str(target), *map(str, options)]) == 0
    manifest: dict[str, Any] = json.loads((target / "manifest.json").read_text())
    return manifest


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *options: str | Path) -> str:
    capsys.readouterr()
    assert main(["vectors", "-o", str(folder / "out"), *map(str, options)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("abcdeep vectors: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("abcdeep vectors: ").rstrip()


# random operands and files


def test_random_operands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--random", "30", "--k", "9", "--x-type", "u4", "--w-type", "s3", "--seed", "5")
    manifest = vectors(tmp_path, *options, "--acc", "int6:wrap", "--group", "2", "--vhdl")
    assert (manifest["dots"], manifest["terms"], manifest["group"]) == (30, 9, 2)
    assert (manifest["x"]["type"], manifest["w"]["type"]) == ("u4", "s3")
    assert (tmp_path / "out" / "mac.vhd").exists()
    x, w, c = ab.rtl.read_operands(tmp_path / "out")
    assert c is None
    assert (x.min(), x.max(), w.min(), w.max()) == (0, 15, -4, 3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("30 dot products of 9 terms, 11 files")
    assert lines[1] == "accumulator: 2 products u4 x s3 a step into int6, wrap"
    first = manifest["first_overflow"]
    assert lines[2] == (
        f"overflow: {manifest['overflowed']} dot products, the first is {first['dot']} at step "
        f"{first['step']}"
    )
    again = vectors(tmp_path, *options, "--acc", "int6:wrap", "--group", "2", "--vhdl")
    assert again == manifest


def test_defaults(tmp_path: Path) -> None:
    manifest = vectors(tmp_path)
    assert (manifest["dots"], manifest["terms"]) == (2000, 64)
    datapath = ab.Datapath.from_dict(manifest["datapath"])
    assert datapath == ab.integer_accumulator(16, "saturate")


def test_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.integers(-128, 128, (2, 6, 10), dtype=np.int8)
    for name, array in (("x", x), ("w", w), ("c", np.arange(6))):
        np.save(tmp_path / f"{name}.npy", array)
    files = ("--x", tmp_path / "x.npy", "--w", tmp_path / "w.npy", "--c", tmp_path / "c.npy")
    layout = ("--lanes", "6", "--msb-first", "--name", "dot3", "--no-cocotb")
    manifest = vectors(tmp_path, *files, "--acc", "int15:saturate:g3", "--chunk", "7", *layout)
    assert (manifest["lanes"], manifest["msb_first"], manifest["chunk"]) == (6, True, 7)
    rows = ab.rtl.read_operands(tmp_path / "out")
    for found, given in zip(rows, (x, w, np.arange(6)), strict=True):
        np.testing.assert_array_equal(found, given)
    assert sorted(manifest["sha256"]) == sorted(
        ("x.hex", "w.hex", "c.hex", "expected.hex", "dot3.v", "tb.v", "run.sh", "README.md")
    )


def test_operands_of_a_matrix_product(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-8, 8, (3, 10)), rng.integers(0, 4, (10, 2))
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", b)
    files = ("--x", tmp_path / "a.npy", "--w", tmp_path / "b.npy")
    types = ("--x-type", "s4", "--w-type", "u2")
    assert vectors(tmp_path, *files, *types, "--matmul")["dots"] == 6
    vectors(tmp_path, *files, *types, "--matmul", "2,1", "0,0")
    x, w, _ = ab.rtl.read_operands(tmp_path / "out")
    np.testing.assert_array_equal(x, a[[2, 0]])
    np.testing.assert_array_equal(w, b.T[[1, 0]])


@needs_icarus
def test_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors(tmp_path, "--random", "20", "--k", "5", "--run")
    assert capsys.readouterr().out.endswith("\nicarus: PASS 20 dot products, 0 mismatches\n")


def test_run_without_simulators(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = refused(capsys, tmp_path, "--random", "2", "--run")
    assert error.endswith("--run needs iverilog or verilator, and neither is installed")
    error = refused(capsys, tmp_path, "--random", "2", "--run", "verilator")
    assert error.endswith("verilator is not installed")


def test_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, archive = (tmp_path / name for name in ("good.npy", "bad.npy", "a.npz"))
    np.save(good, np.ones((2, 3), np.int8))
    bad.write_bytes(b"\x93NUMPY\x01")
    np.savez(archive, a=np.ones(3))
    floats = tmp_path / "floats.npy"
    np.save(floats, np.ones((2, 3)))
    for x, message in (
        (tmp_path / "none.npy", "No such file or directory"),
        (bad, ""),
        (archive, "expected one array, .npy"),
        (floats, "x must hold integers, got float64"),
    ):
        error = refused(capsys, tmp_path, "--x", x, "--w", good)
        assert error.startswith(f"{x}: ")
        assert message in error
    error = refused(capsys, tmp_path, "--x", good, "--w", good, "--matmul")
    assert "a, b must have shapes (M, K), (K, N)" in error
    types = ("--x-type", "u2", "--w-type", "s2")
    np.save(good, np.full((2, 3), 2))
    error = refused(capsys, tmp_path, "--x", good, "--w", good, *types)
    assert error == f"{good}: w must be in -2..1 (s2), got 2 at [0, 0]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--acc", "m7e4"], "argument --acc: expected an integer accumulator, got 'm7e4'"),
        (["--acc", "int99"], "argument --acc: "),
        (["--x", "x.npy"], "arguments --x and --w: expected both or none"),
        (["--row", "a"], "arguments --report and --row: expected both or none"),
        (["--x", "x", "--w", "w", "--random", "3"], "--random: not allowed with argument --x"),
        (["--c", "c.npy"], "argument --c: expected --x and --w too"),
        (["--matmul", "1;2"], "argument --matmul: expected M,N, got '1;2'"),
        (["--x-type", "s17"], "argument --x-type: type must be s2..s16 or u2..u16, got 's17'"),
        (["--group", "0"], "argument --group: expected a positive integer, got '0'"),
        (["--seed", "-1"], "argument --seed: expected 0 to 2^64 - 1, got -1"),
        (["--run", "ghdl"], "argument --run: expected --vhdl too for ghdl"),
        (["--name", "module"], "argument --name: name must be a free Verilog identifier"),
        (["--name", "A-b"], "argument --name: name must be a free Verilog identifier"),
        (["--lanes", "6", "--group", "4"], "--lanes: expected a multiple of the group, 4, got 6"),
        (["--lanes", "3", "--acc", "int16:wrap:g2"], "--lanes: expected a multiple of the group"),
        (["--run", "spice"], "argument --run: invalid choice: 'spice'"),
    ],
)
def test_bad_arguments(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as status:
        main(["vectors", "-o", str(tmp_path / "out"), *options])
    assert status.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# rows of a report


def entry(inputs: list[int], weights: list[int], k: int, bias: int = 0) -> dict[str, Any]:
    return {
        "sample": 4, "coordinate": [0, 2], "channel": 2, "k": k, "term": k, "value": 0,
        "inputs": inputs, "weights": weights, "bias": bias,
    }  # fmt: skip


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    ranges = {"input_range": [-3, 252], "weight_range": [-8, 7]}
    # 252 * 7 = 1764 a term: 11 bits hold none, 12 bits one
    entries = {"12": entry([252, 252, 1], [7, 7, 1], 1), "11": entry([252, 252, 1], [7, 7, 1], 0)}
    started = {"16": entry([100, 0, 0, 0, 0, 1, 0], [7] * 7, 5, bias=32067)}
    report = {
        "version": 1,
        "settings": {
            "accumulators": ["m7e4", "int12:saturate", "int16:wrap"],
            "group": 1,
            "tile": 0,
            "tile_merge": "same",
        },
        "layers": [
            {"name": "fc1", "operands": ranges, "first_overflow": entries},
            {"name": "conv:2", "operands": ranges, "first_overflow": started},
            {"name": "fc3", "operands": ranges, "first_overflow": {}},
        ],
    }
    path.write_text(json.dumps(report))
    return path


def changed(report: Path, change: Any) -> Path:
    data = json.loads(report.read_text())
    change(data)
    path = report.with_name("changed.json")
    path.write_text(json.dumps(data))
    return path


def test_rows_of_a_report(tmp_path: Path, report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = vectors(tmp_path, "--report", report, "--row", "fc1")
    assert (manifest["x"]["type"], manifest["w"]["type"]) == ("s9", "s4")
    assert ab.Datapath.from_dict(manifest["datapath"]) == ab.integer_accumulator(12, "saturate")
    assert manifest["first_overflow"] == {"dot": 0, "step": 1}
    assert manifest["origin"] == {
        "report": str(report), "layer": "fc1", "width": 12,
        "sample": 4, "coordinate": [0, 2], "channel": 2, "k": 1,
    }  # fmt: skip
    assert capsys.readouterr().out.splitlines()[-1] == (
        "overflow: 1 dot product, the first is 0 at step 1 (the report says 1)"
    )
    manifest = vectors(tmp_path, "--report", report, "--row", "fc1:11")
    assert ab.Datapath.from_dict(manifest["datapath"]) == ab.integer_accumulator(11)
    assert manifest["first_overflow"] == {"dot": 0, "step": 0}
    manifest = vectors(tmp_path, "--report", report, "--row", "fc1", "--acc", "int11:saturate")
    assert ab.Datapath.from_dict(manifest["datapath"]) == ab.integer_accumulator(11, "saturate")
    for row in ("conv:2", "conv:2:16"):
        manifest = vectors(tmp_path, "--report", report, "--row", row)
        assert manifest["first_overflow"] == {"dot": 0, "step": 5}
        assert (tmp_path / "out" / "c.hex").read_text() == f"{32067:x}\n"


def test_a_step_is_the_reports_only_with_its_settings(
    tmp_path: Path, report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors(tmp_path, "--report", report, "--row", "fc1", "--group", "2")
    assert "report says" not in capsys.readouterr().out
    path = changed(report, lambda data: data["layers"][0]["first_overflow"]["12"].update(k=-1))
    vectors(tmp_path, "--report", path, "--row", "fc1")
    assert "(the report says: the bias, before the first step)" in capsys.readouterr().out


def test_a_report_inside_another_object(tmp_path: Path, report: Path) -> None:
    report.write_text(json.dumps({"facts": {}, "overflow": json.loads(report.read_text())}))
    assert vectors(tmp_path, "--report", report, "--row", "fc1:12")["origin"]["layer"] == "fc1"


def test_settings_of_a_report(tmp_path: Path, report: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["settings"] |= {"group": 2, "tile": 2, "tile_merge": "exact", "signed": False}
        data["layers"][0]["first_overflow"]["11"] |= {"inputs": [252, 252, 0], "k": 0}

    path = changed(report, change)
    manifest = vectors(tmp_path, "--report", path, "--row", "fc1:11")
    expected = ab.integer_accumulator(11, signed=False, group=2, chunk=2, merge="exact")
    assert ab.Datapath.from_dict(manifest["datapath"]) == expected


@pytest.mark.parametrize(("merge", "k"), [("same", 6), ("exact", 4)])
def test_a_report_counts_merges_as_steps(
    tmp_path: Path, report: Path, merge: str, k: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(data: dict[str, Any]) -> None:
        data["settings"] |= {"group": 2, "tile": 3, "tile_merge": merge}
        row = {"inputs": [0] * 6 + [252, 252, 252], "weights": [7] * 9}
        data["layers"][0]["first_overflow"]["12"] |= row | {"k": k}

    # two cycles a tile and, unless it is exact, a merge; the third tile overflows at once
    vectors(tmp_path, "--report", changed(report, change), "--row", "fc1:12")
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "overflow: 1 dot product, the first is 0 at step 4 (the report says 4)"


@needs_icarus
def test_a_row_in_a_simulator(
    tmp_path: Path, report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors(tmp_path, "--report", report, "--row", "conv:2", "--run", "icarus")
    assert "icarus: PASS 1 dot products, 0 mismatches" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--row", "fc2"], "there is no layer 'fc2'; its layers are fc1, conv:2, fc3"),
        (["--row", "fc3"], "layer 'fc3' does not overflow"),
        (["--row", "fc1:16"], "layer 'fc1' does not overflow at 16 bits; it does at 11, 12"),
        (["--row", "fc1:0"], "layer 'fc1' does not overflow at 0 bits; it does at 11, 12"),
        (["--row", "fc1:12", "--acc", "int11"], "row 'fc1:12' and an accumulator of 11 bits disag"),
        (["--row", "fc1", "--acc", "int8"], "layer 'fc1' does not overflow at 8 bits; it does at"),
        (["--row", "fc1", "--x-type", "s8"], "x must be in -128..127 (s8), got 252 at [0, 0]"),
        (
            ["--row", "fc1:12", "--acc", "uint12"],
            "the dot product of row 'fc1:12' does not",
        ),
    ],
)
def test_rows_refused(
    options: list[str],
    message: str,
    tmp_path: Path,
    report: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = refused(capsys, tmp_path, "--report", report, *options)
    assert error.startswith(f"{report}: {message}")


def test_damaged_reports(tmp_path: Path, report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def first(data: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = data["layers"][0]
        return found

    def inputs(values: Any) -> Any:
        return lambda data: first(data)["first_overflow"]["12"].__setitem__("inputs", values)

    changes = {
        "layers must be a list, got NoneType": lambda data: data.pop("layers"),
        "layers must be objects with names": lambda data: data["layers"].append(3),
        "settings must be an object, got list": lambda data: data.__setitem__("settings", []),
        "first_overflow must be an object, got NoneType": lambda d: first(d).pop("first_overflow"),
        "first_overflow of 'fc1' must be by width": lambda data: first(data).__setitem__(
            "first_overflow", {"wide": {}}
        ),
        "12 must be an object, got list": lambda data: first(data)["first_overflow"].__setitem__(
            "12", []
        ),
        "inputs must be a list, got str": inputs("252"),
        "inputs of 'fc1' must be integers": inputs([252, 0.5, 1]),
        "inputs and weights of 'fc1' differ in number": inputs([252, 252]),
        "operands must be an object, got NoneType": lambda data: first(data).pop("operands"),
        "input_range of 'fc1' must be two integers": lambda data: first(data)["operands"].pop(
            "input_range"
        ),
        "weight_range of 'fc1' must be two integers": lambda data: first(data)[
            "operands"
        ].__setitem__("weight_range", [0.5, 2]),
        "accumulators must be a list, got int": lambda data: data["settings"].__setitem__(
            "accumulators", 16
        ),
        "input_range must be within 16 bits": lambda data: first(data)["operands"].__setitem__(
            "input_range", [-3, 65535]
        ),
        "bias of 'fc1' must be an integer": lambda data: first(data)["first_overflow"][
            "12"
        ].__setitem__("bias", 0.5),
        "group must be in 1..": lambda data: data["settings"].__setitem__("group", -1),
    }
    for message, change in changes.items():
        path = changed(report, change)
        error = refused(capsys, tmp_path, "--report", path, "--row", "fc1")
        assert error.startswith(f"{path}: {message}")
    path = tmp_path / "broken.json"
    for text in ('{"layers": [', "[" * 100_000, "\udcff"):
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        error = refused(capsys, tmp_path, "--report", path, "--row", "fc1")
        assert error.startswith(f"{path}: expected JSON: ")
    path.write_text("[]")
    error = refused(capsys, tmp_path, "--report", path, "--row", "fc1")
    assert error == f"{path}: expected the JSON of an overflow report, got no object"
    error = refused(capsys, tmp_path, "--report", tmp_path / "no.json", "--row", "fc1")
    assert error == f"{tmp_path / 'no.json'}: No such file or directory"


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("a file")
    assert "File exists" in refused(capsys, tmp_path, "--random", "2")


def test_one_is_singular(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors(tmp_path, "--random", "1", "--k", "1")
    lines = capsys.readouterr().out.splitlines()
    assert ": 1 dot product of 1 term, " in lines[0]
    assert lines[1].startswith("accumulator: one product s8 x s8 a step into int16, ")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "\n1 dot product of 1 term; one product s8 x s8 a step " in text


def test_a_text_is_no_array(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.npy").write_text("not an array")
    error = refused(capsys, tmp_path, "--x", tmp_path / "x.npy", "--w", tmp_path / "x.npy")
    assert "expected arrays of numbers, as .npy or .npz files hold them" in error
