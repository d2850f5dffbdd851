"""`abcdeep width`: the bound table from types, weights and formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core.cli import main

Array = np.ndarray[Any, Any]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["width", *arguments]) == 0
    return capsys.readouterr().out


def bits_by_bound(text: str) -> dict[str, int]:
    return {row["bound"]: row["bits"] for row in json.loads(text)["bounds"]}


def test_types(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "--k", "1024", "--x", "u8", "--w", "s4")
    lines = out.splitlines()
    assert lines[0].split() == ["bound", "bits", "formula", "sound", "for"]
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "data type",
        "data type, closed form",
        "fixed point (hls4ml)",
        "fits: int32, acc48, acc58, DSP48E1, DSP48E2, DSP58",
    ]
    found = bits_by_bound(printed(capsys, "--k", "1024", "--x", "u8", "--w", "s4", "--json"))
    assert found == {"data type": 22, "data type, closed form": 23, "fixed point (hls4ml)": 22}
    assert "22" in lines[1]


@pytest.mark.parametrize("k", [1, 64, 576, 4096])
@pytest.mark.parametrize("x", ["u8", "s8", "u1", "int4"])
@pytest.mark.parametrize("w", ["s8", "s2", "u4"])
def test_widths_are_those_of_the_library(
    capsys: pytest.CaptureFixture[str], k: int, x: str, w: str
) -> None:
    found = bits_by_bound(printed(capsys, "--k", str(k), "--x", x, "--w", w, "--json"))
    bits = ab.data_type_width(k, x, w)
    assert found["data type"] == bits
    assert found["data type, closed form"] == ab.data_type_width(k, x, w, closed_form=True)
    unsigned = bits - 1 if (x[0], w[0]) == ("u", "u") else None
    assert found.get("data type, unsigned") == unsigned


def test_bias_and_ranges(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "--k", "10", "--x=-3:252", "--w", "s8", "--bias", "20", "--json")
    assert json.loads(found)["x"] == "-3..252"
    bias = (-(2**19), 2**19 - 1)
    expected = ab.data_type_width(10, (-3, 252), "s8", bias=bias)
    assert bits_by_bound(found)["data type"] == expected
    assert bits_by_bound(found)["fixed point (hls4ml)"] == 9 + 8 + 4 + 1
    # what that rule does not cover: a bias wider than the sum, or with a sign where it has none
    plain = printed(capsys, "--k", "10", "--x", "u8", "--w", "u8", "--bias", "4", "--json")
    assert "fixed point (hls4ml)" not in bits_by_bound(plain)
    wide = printed(capsys, "--k", "10", "--x", "u8", "--w", "s8", "--bias", "32", "--json")
    assert "fixed point (hls4ml)" not in bits_by_bound(wide)
    assert bits_by_bound(wide)["data type"] == 33


def test_caps(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "--k", "10", "--x", "u8", "--w", "s8", "--accumulator", "16")
    assert "l1 cap at 16 bits: 127.99 " in out
    assert "l1 cap at 16 bits: 256.99 " in out
    out = printed(capsys, "--k", "10", "--x", "2:5", "--w", "s8", "--accumulator", "16")
    assert out.count("l1 cap") == 1


def test_formats(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "--k", "4096", "--format", "e4m3fn")
    assert out.splitlines()[1].split()[:2] == ["Kulisch", "49"]
    out = printed(capsys, "--k", "32", "--format", "binary8p3se", "e2m1", "--json")
    assert bits_by_bound(out) == {"Kulisch": ab.kulisch_width("binary8p3se", "e2m1", 32)}


@pytest.fixture
def weights() -> Array:
    w = np.random.default_rng(0).integers(-8, 8, (64, 5)).astype(np.int8)
    w[:, 3] = abs(w[:, 3]) % 8
    return w


def test_one_array(tmp_path: Path, weights: Array, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "w.npy", weights)
    file = str(tmp_path / "w.npy")
    bounds = ab.accumulator_bounds(weights, "u8", w_range="s4")
    lines = printed(capsys, "--weights", file, "--x", "u8", "--w", "s4").splitlines()
    widths = bounds.widths
    expected = ["-", "64", "5", *(str(widths[m]) for m in ("data_type", "l1", "sign_split"))]
    assert lines[1].split()[:6] == expected
    (layer,) = json.loads(printed(capsys, "--weights", file, "--x", "u8", "--w", "s4", "--json"))[
        "layers"
    ]
    assert layer["widths"] == widths
    assert layer["channel_widths"] == bounds.channel_widths
    assert layer["widest_channels"][0] == 3
    assert layer["fits"] == ab.dsp_fits("u8", "s4", widths["sign_split"])
    out = printed(capsys, "--weights", file, "--x", "u8", "--accumulator", "16")
    assert "l1 cap at 16 bits: 127.99" in out


def test_several_arrays(tmp_path: Path, weights: Array, capsys: pytest.CaptureFixture[str]) -> None:
    kernels = np.random.default_rng(1).integers(-128, 128, (4, 3, 3, 3)).astype(np.int8)
    file = tmp_path / "model.npz"
    np.savez(file, dense=weights, conv=kernels, scale=np.ones((2, 2), np.float32))
    layers = json.loads(printed(capsys, "--weights", str(file), "--x", "u8", "--json"))["layers"]
    by_name = {layer["name"]: layer for layer in layers}
    assert by_name["scale"] == {"name": "scale", "left_out": "shape (2, 2), dtype float32"}
    conv = ab.accumulator_bounds(kernels.reshape(4, 27).T, "u8")
    assert by_name["conv"]["channel_widths"] == conv.channel_widths
    assert by_name["conv"]["terms"] == 27
    out = printed(capsys, "--weights", str(file), "--x", "u8")
    assert "left out: shape (2, 2), dtype float32" in out


def test_all_positive_weights_allow_an_unsigned_accumulator(
    tmp_path: Path, weights: Array, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "w.npy", weights[:, 3:4])
    out = printed(capsys, "--weights", str(tmp_path / "w.npy"), "--x", "u8")
    bits = ab.accumulator_bounds(weights[:, 3:4], "u8").width("sign_split")
    assert out.splitlines()[1].split()[5:7] == [str(bits), str(bits - 1)]


def test_files_that_hold_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    floats, text, outside = (tmp_path / name for name in ("f.npy", "t.npy", "o.npy"))
    np.save(floats, np.ones((4, 4)))
    text.write_text("not an array")
    np.save(outside, np.full((2, 2), 100, np.int8))
    for file, message in (
        (tmp_path / "none.npy", "No such file"),
        (floats, "expected a matrix of integers, got none (- shape (4, 4), dtype float64)"),
        (text, "expected arrays of numbers, as .npy or .npz files hold them"),
        (outside, "array -: w must be within w_range, -8 to 7, got 100 at [0, 0]"),
    ):
        assert main(["width", "--weights", str(file), "--x", "u8", "--w", "s4"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"abcdeep width: {file}: ")
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "required: --k"),
        ("--k 4 --x u8", "required: --w"),
        ("--k 0 --x u8 --w s8", "expected an integer from 1"),
        ("--k 4 --x u99 --w s8", "TYPE must have 1 to 16 bits"),
        ("--k 4 --x fp8 --w s8", "TYPE must be a type such as 'u8'"),
        ("--k 4 --x 5:2 --w s8", "TYPE must not be empty"),
        ("--k 4 --x float32 --w s8", "TYPE must be an integer type"),
        ("--format e4m3fn", "required: --k"),
        ("--k 4 --format e4m3fn --x u8", "argument --x: not allowed with argument --format"),
        ("--k 4 --format e4m3fm", "nearest"),
        ("--k 4 --format e4m3fn e5m2 e2m1", "expected one or two names, got 3"),
        ("--weights w.npy", "required: --x"),
        ("--weights w.npy --x u8 --k 3", "argument --k: not allowed with argument --weights"),
        ("--weights w.npy --x u8 --format e2m1", "not allowed"),
        ("--k 4 --x u8 --w s8 --accumulator 1", "expected an integer from 2"),
    ],
)
def test_wrong_arguments(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["width", *arguments.split()])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
