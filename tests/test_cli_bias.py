"""`abcdeep bias`: its rows are those of bias_report, and bad files and arguments are refused."""

import json

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core.cli import main

X = np.random.default_rng(3).standard_normal((64, 48)).astype(np.float32)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, X)
    return str(path)


def records(capsys, *arguments):
    assert main(["bias", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_rows_are_the_means_of_the_reports(capsys, file):
    found = records(capsys, file, "luq", "int4:sawb", "nvfp4", "--seed", "5", "--draws", "3")
    assert [(row["format"], row["rounding"], row["draws"]) for row in found] == [
        (name, rounding, draws)
        for name in ("luq", "int4:sawb", "nvfp4")
        for rounding, draws in (("nearest_even", 1), ("stochastic", 3))
    ]
    quantized = [
        [ab.luq(X, underflow="nearest", log_rounding="nearest")],
        [ab.luq(X, seed=5, call=call) for call in range(3)],
        [ab.quantize_uniform(X)],
        [ab.quantize_uniform(X, rounding="stochastic", seed=5, call=call) for call in range(3)],
        [ab.quantize_blocks(X, "nvfp4")],
        [ab.quantize_blocks(X, "nvfp4", "stochastic", seed=5, call=call) for call in range(3)],
    ]
    for row, draws in zip(found, quantized, strict=True):
        reports = [ab.bias_report(X, q) for q in draws]
        assert row["bias"] == sum(report.bias for report in reports) / len(reports)
        assert row["clipped"] == sum(report.clipped for report in reports) / len(reports)
        assert (row["standard_error_of_bias"] is None) == (len(reports) == 1)
    assert found[-1]["bits"] == 4.5


def test_a_number_format_is_scaled_by_the_largest_power_that_fits(capsys, tmp_path):
    # 5 fits below 6 of e2m1 times 1, 7 only times 1/2; e4m3fn has 448, not its top binade's end.
    for largest, fmt, scale in ((5, "e2m1", 1), (7, "e2m1", 2), (500, "e4m3fn", 2)):
        x = np.linspace(-largest, largest, 41).astype(np.float32)
        path = tmp_path / "line.npy"
        np.save(path, x)
        (row,) = records(capsys, str(path), fmt, "--rounding", "nearest_even")
        expected = ab.bias_report(x, ab.quantize(x / np.float32(scale), fmt) * np.float32(scale))
        assert row["relative_mse"] == expected.relative_mse


def test_blocks_lie_along_the_axis(capsys, file):
    (row,) = records(capsys, file, "mxfp4", "--axis", "0", "--rounding", "nearest_even")
    expected = ab.bias_report(X, ab.quantize_blocks(X, "mxfp4", axis=0))
    assert row["relative_mse"] == expected.relative_mse


def test_table_has_a_row_for_each_default_format(capsys, file):
    assert main(["bias", file]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["format", "bits", "rounding"]
    assert len(lines) == 14
    assert lines[0].startswith("luq")


def test_zeros_have_no_bias(capsys, tmp_path):
    path = tmp_path / "zeros.npy"
    np.save(path, np.zeros(40, np.float16))
    for row in records(capsys, str(path), "luq", "e4m3fn", "nvfp4", "int4:sawb"):
        assert row["bias"] is None
        assert row["clipped"] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no array", "abcdeep bias: "),
        (b"", "abcdeep bias: "),
        (np.array(["text"]), "must hold floats"),
        (np.float32([1, np.nan]), "expected finite numbers"),
        (np.float32(1), "of at least one dimension"),
        (np.array([1e300, 1]), "within the range of float32"),
        (np.array([1e-300, 1]), "within the range of float32"),
    ],
)
def test_bad_files_are_refused(capsys, tmp_path, content, message):
    path = tmp_path / "bad.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    assert main(["bias", str(path)]) == 1
    assert message in capsys.readouterr().err
    assert main(["bias", str(tmp_path / "missing.npy")]) == 1


def test_what_a_format_refuses_is_told(capsys, tmp_path):
    path = tmp_path / "line.npy"
    np.save(path, np.float32([1, 2, 3]))
    assert main(["bias", str(path), "nvfp4_2d"]) == 1
    assert "abcdeep bias: nvfp4_2d: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nvfp5"], "unknown format 'nvfp5'"),
        (["int6:sawb"], "no coefficients of SAWB"),
        (["e8m0"], "expected a signed format"),
        (["binary64"], "expected a signed format whose values float32 holds"),
        (["luq", "--axis", "2"], "expected an axis of shape (64, 48), got 2"),
        (["luq", "--seed", "-1"], "expected 0 to 2^64 - 1, got -1"),
        (["luq", "--draws", "0"], "expected at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(capsys, file, arguments, message):
    with pytest.raises(SystemExit) as exit_:
        main(["bias", file, *arguments])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
