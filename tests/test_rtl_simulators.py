"""Bundles in real simulators: every bit agrees, and a bench fails where something is wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from rtl_cases import random_case

INSTALLED = ab.rtl.simulators()
needs_icarus = pytest.mark.skipif("icarus" not in INSTALLED, reason="needs iverilog")
needs_verilator = pytest.mark.skipif("verilator" not in INSTALLED, reason="needs verilator")
needs_ghdl = pytest.mark.skipif("ghdl" not in INSTALLED, reason="needs ghdl")
EACH = [
    pytest.param("icarus", marks=needs_icarus),
    pytest.param("verilator", marks=needs_verilator),
    pytest.param("ghdl", marks=needs_ghdl),
]
# Of the reference bench Verilator, whose builds are slow, runs one mode in the quick tests.
REFERENCE = [
    pytest.param("icarus", "wrap", marks=needs_icarus),
    pytest.param("icarus", "saturate", marks=needs_icarus),
    pytest.param("verilator", "wrap", marks=[needs_verilator, pytest.mark.slow]),
    pytest.param("verilator", "saturate", marks=needs_verilator),
    pytest.param("ghdl", "saturate", marks=needs_ghdl),
]


def write(folder: Path, seed: int, **options: Any) -> ab.rtl.Bundle:
    case = random_case(seed)
    return ab.rtl.write_bundle(folder, case.x, case.w, case.datapath, **case.options, **options)


def reported(simulation: ab.rtl.Simulation) -> tuple[int, int, int] | None:
    """Return what a bench saw: dot products with overflow, and the first of them and its step."""
    line = next(line for line in simulation.output.splitlines() if line.startswith("overflow: "))
    if line == "overflow: none":
        return None
    count, first, step = re.findall(r"\d+", line)
    return int(count), int(first), int(step)


def check(bundle: ab.rtl.Bundle, simulation: ab.rtl.Simulation) -> None:
    dots = bundle.manifest["dots"]
    assert simulation.passed, simulation.output
    assert simulation.last_line == f"PASS {dots} dot products, 0 mismatches"
    raised = np.flatnonzero(bundle.expected.overflow)
    expected = None
    if raised.size:
        expected = (raised.size, raised[0], bundle.expected.first_step[raised[0]])
    assert reported(simulation) == expected


def reference_operands() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x, w = rng.integers(-128, 128, (2, 2000, 64), dtype=np.int8)
    return x, w


@pytest.mark.parametrize(("simulator", "mode"), REFERENCE)
def test_reference_bench(tmp_path: Path, simulator: str, mode: str) -> None:
    x, w = reference_operands()
    datapath = ab.integer_accumulator(16, mode)
    bundle = ab.rtl.write_bundle(tmp_path, x, w, datapath, vhdl=simulator == "ghdl")
    simulation = ab.rtl.simulate(tmp_path, simulator)
    check(bundle, simulation)
    # The cycle of the first flag, from NumPy alone: prefixes of exact sums leave 16 bits there.
    prefixes = np.cumsum(x.astype(np.int64) * w, axis=1)
    outside = (prefixes < -(2**15)) | (prefixes >= 2**15)
    first = np.flatnonzero(outside.any(axis=1))
    assert reported(simulation) is not None
    count, dot, step = reported(simulation) or (0, 0, 0)
    assert (dot, step) == (first[0], np.argmax(outside[first[0]]))
    if mode == "saturate":
        assert count == first.size
        rows = np.flatnonzero(bundle.expected.overflow)
        np.testing.assert_array_equal(bundle.expected.first_step[rows], outside[rows].argmax(1))


@needs_icarus
@pytest.mark.parametrize("seed", range(100, 150))
def test_random_units_in_icarus(tmp_path: Path, seed: int) -> None:
    check(write(tmp_path, seed), ab.rtl.simulate(tmp_path, "icarus"))


@needs_ghdl
@pytest.mark.parametrize("seed", range(200, 225))
def test_random_units_in_ghdl(tmp_path: Path, seed: int) -> None:
    check(write(tmp_path, seed, vhdl=True), ab.rtl.simulate(tmp_path, "ghdl"))


@needs_verilator
@pytest.mark.parametrize(
    "seed", [301, *(pytest.param(s, marks=pytest.mark.slow) for s in (302, 303))]
)
def test_random_units_in_verilator(tmp_path: Path, seed: int) -> None:
    check(write(tmp_path, seed), ab.rtl.simulate(tmp_path, "verilator"))


@needs_verilator
@pytest.mark.parametrize("seed", range(400, 415))
def test_no_warnings_of_verilator(tmp_path: Path, seed: int) -> None:
    write(tmp_path, seed)
    command = ["verilator", "--lint-only", "-Wall", "mac.v"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout + run.stderr) == (0, "")


@needs_icarus
@pytest.mark.parametrize("seed", range(400, 415))
def test_no_warnings_of_icarus(tmp_path: Path, seed: int) -> None:
    write(tmp_path, seed)
    for files in (["mac.v"], ["tb.v", "mac.v"]):
        command = ["iverilog", "-g2005", "-Wall", "-t", "null", *files]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (run.returncode, run.stdout + run.stderr) == (0, "")


# what must fail


@pytest.fixture
def overflowing(tmp_path: Path) -> ab.rtl.Bundle:
    """20 dot products of 12 terms in 16 bits, most of which overflow."""
    rng = np.random.default_rng(1)
    x, w = rng.integers(64, 128, (2, 20, 12), dtype=np.int8)
    return ab.rtl.write_bundle(
        tmp_path, x, w, ab.integer_accumulator(16, "saturate", chunk=8), vhdl=True, c=5
    )


def fails(bundle: ab.rtl.Bundle, simulator: str) -> str:
    simulation = ab.rtl.simulate(bundle.folder, simulator)
    assert not simulation.passed
    assert re.fullmatch(r"FAIL 20 dot products, \d+ mismatches", simulation.last_line)
    return simulation.output


@pytest.mark.parametrize("simulator", EACH)
def test_wrong_missing_and_absent_words_fail(overflowing: ab.rtl.Bundle, simulator: str) -> None:
    path = overflowing.folder / "expected.hex"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:19]) + "\n")
    assert not ab.rtl.simulate(overflowing.folder, simulator).passed
    path.unlink()
    assert not ab.rtl.simulate(overflowing.folder, simulator).passed
    places = {"result": -1, "flag": 8, "step": 7}
    for row, place in enumerate(places.values(), 3):
        digits = list(lines[row])
        digits[place] = f"{int(digits[place], 16) ^ 1:x}"
        lines[row] = "".join(digits)
    path.write_text("\n".join(lines) + "\n")
    output = fails(overflowing, simulator)
    named = re.findall(r"MISMATCH dot product (\d+):", output)
    assert named == ["3", "4", "5"]


MUTATIONS = {
    "the operator": ("wide_x(x[lane*8 +: 8]) *", "wide_x(x[lane*8 +: 8]) +"),
    "the limit": ("sum > 17'sd32767", "sum > 17'sd32766"),
    "a flag that is not sticky": ("|| (overflow && !first)", "|| (overflow && 1'b0)"),
    "a flag that is not cleared": ("(overflow && !first)", "overflow"),
    "no start value": ("first ? c : partial", "first ? 16'h0 : partial"),
    "no merge": ("last ? merged : earlier", "last ? next : earlier"),
    "a chunk that is not cleared": ("partial <= last ? 16'h0 : next", "partial <= next"),
    "sign of an operand": ("{value[7]}", "{1'b0}"),
}


@needs_icarus
@pytest.mark.parametrize("what", MUTATIONS)
def test_a_wrong_unit_fails(tmp_path: Path, what: str) -> None:
    rng = np.random.default_rng(2)
    x, w = rng.integers(-128, 128, (2, 20, 12), dtype=np.int8)
    x[:3], w[:3] = 127, 127  # the flag is raised at once, and the next dot product has none
    x[3], w[3] = np.repeat([127, -127, 0], 4), 127  # out of range, and back
    x[4], w[4] = 1, 1
    x[5], w[5] = 0, 0  # up to the highest number in range and no further
    x[5, :3], w[5, :3] = [127, 127, 4], [127, 127, 126]
    x[5, 3:5], w[5, 3:5] = 1, 1
    datapath = ab.integer_accumulator(16, "saturate", chunk=8)
    bundle = ab.rtl.write_bundle(tmp_path, x, w, datapath, c=3)
    assert ab.rtl.simulate(tmp_path).passed
    path = tmp_path / "mac.v"
    source, (old, new) = path.read_text(), MUTATIONS[what]
    assert old in source
    path.write_text(source.replace(old, new))
    fails(bundle, "icarus")


@needs_icarus
def test_waves(overflowing: ab.rtl.Bundle) -> None:
    assert ab.rtl.simulate(overflowing.folder, "icarus").passed
    command = ["vvp", "-n", "tb.vvp", "+vcd"]
    subprocess.run(command, cwd=overflowing.folder, capture_output=True, check=True)
    assert "$var" in (overflowing.folder / "tb.vcd").read_text()


@needs_icarus
def test_other_names_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    bundle = write(folder, 7, name="dot4")
    check(bundle, ab.rtl.simulate(folder))
    assert (folder / "dot4.v").exists()
    assert (folder / "test_dot4.py").exists()


@needs_icarus
def test_cocotb_example(tmp_path: Path) -> None:
    pytest.importorskip("cocotb_tools", reason="needs cocotb 2")
    write(tmp_path, 12)
    command = [sys.executable, "test_mac.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "TESTS=2 PASS=2 FAIL=0" in run.stdout
    path = tmp_path / "mac.v"
    path.write_text(path.read_text().replace("wide_x(x[", "1 + wide_x(x["))
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "TESTS=2 PASS=0 FAIL=2" in run.stdout


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 3)
    with pytest.raises(ValueError, match="simulator 'ghdl' needs a bundle with VHDL files"):
        ab.rtl.simulate(tmp_path, "ghdl")
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        ab.rtl.simulate(tmp_path / "nothing")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert ab.rtl.simulators() == ()
    with pytest.raises(FileNotFoundError, match="iverilog is not installed"):
        ab.rtl.simulate(tmp_path)


@needs_icarus
def test_a_run_that_takes_too_long(tmp_path: Path) -> None:
    write(tmp_path, 3)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["name"] == "mac"
    (tmp_path / "run.sh").write_text("sleep 30; echo PASS\n")
    with pytest.raises(TimeoutError, match=r"icarus did not end within 0\.1 s"):
        ab.rtl.simulate(tmp_path, timeout=0.1)
