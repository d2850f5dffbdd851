"""The command line: what `abcdeep formats` prints, and what it refuses."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

import abcdeep_core
from abcdeep_core import FloatFormat, formats, get_format
from abcdeep_core.cli import main


def run(capsys, *argv):
    assert main(argv) == 0
    return capsys.readouterr().out


def refuse(capsys, *argv):
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_formats_lists_every_format(capsys):
    header, *lines = run(capsys, "formats").splitlines()
    assert header.split()[:3] == ["name", "s-E-M", "bias"]
    assert [line.split()[0] for line in lines] == list(formats())
    assert max(map(len, (header, *lines))) < 160


def test_formats_by_name(capsys):
    lines = run(capsys, "formats", "e4m3fn", "float8_e5m2", "Binary8p4se", "e3m0").splitlines()
    fields = [line.split("  ") for line in lines]
    rows = [[field.strip() for field in line if field] for line in fields]
    assert rows[1:] == [
        ["e4m3fn", "1-4-3", "7", "fn", "448 (0x7e)", "0.015625", "2^-9", "ieee: NaN",
         "OCP E4M3, float8_e4m3fn"],
        ["e5m2", "1-5-2", "15", "ieee", "57344 (0x7b)", "2^-14", "2^-16", "ieee: Inf",
         "OCP E5M2, float8_e5m2"],
        ["binary8p4se", "1-4-3", "8", "p3109", "224 (0x7e)", "0.0078125", "2^-10", "ieee: Inf"],
        ["e3m0", "1-3-0", "1", "none", "64 (0x7)", "1", "-", "sat_finite: max"],
    ]  # fmt: skip


def test_formats_out_of_float64(capsys):
    out = run(capsys, "formats", "binary16p1ue", "binary16p1uf", "tf32")
    assert "2^32765 (0xfffd)" in out
    assert "ieee: max" in out
    assert "(2-2^-10)*2^127 (0x7f7fe000)" in out
    (record,) = json.loads(run(capsys, "formats", "binary16p1ue", "--json"))
    assert record["max"] is None
    assert record["emax"] == 32765


def test_values(capsys):
    first, header, *lines = run(capsys, "formats", "e2m1", "--values").splitlines()
    assert first == f"e2m1: {get_format('e2m1')!r}"
    assert header.split() == ["code", "seem", "value"]
    assert [line.split() for line in lines[::3]] == [
        ["0x0", "0000", "0"],
        ["0x3", "0011", "1.5"],
        ["0x6", "0110", "4"],
        ["0x9", "1001", "-0.5"],
        ["0xc", "1100", "-2"],
        ["0xf", "1111", "-6"],
    ]
    assert lines[8].split() == ["0x8", "1000", "-0"]


@pytest.mark.parametrize("name", ["e5m2", "e8m0", "binary8p3se", "bf16"])
def test_printed_values_are_the_values(capsys, name):
    fmt = get_format(name)
    rows = [line.split() for line in run(capsys, "formats", name, "--values").splitlines()[2:]]
    expected = fmt.code_values().astype(np.float64)
    assert [int(row[0], 16) for row in rows] == list(range(1 << fmt.bits))
    assert [int(row[1], 2) for row in rows] == list(range(1 << fmt.bits))
    assert np.array_equal([float(row[2]) for row in rows], expected, equal_nan=True)


def test_values_of_all_small_formats(capsys):
    out = run(capsys, "formats", "--values")
    small = [name for name, fmt in formats().items() if fmt.bits <= 8]
    assert [line.split(":")[0] for line in out.splitlines() if ":" in line] == small


def test_json(capsys):
    records = json.loads(run(capsys, "formats", "--json"))
    assert [record["name"] for record in records] == list(formats())
    for record, fmt in zip(records, formats().values(), strict=True):
        fields = {key: record[key] for key in fmt.to_dict()}
        assert FloatFormat.from_dict(fields) == fmt
        for query in ("bits", "max", "min", "smallest_normal", "smallest_subnormal", "eps", "emin",
                      "emax", "max_code", "inf_code", "negative_inf_code", "nan_code"):  # fmt: skip
            assert record[query] == getattr(fmt, query)
    (record,) = json.loads(run(capsys, "formats", "e5m2", "--json", "--values"))
    values = [float(value) for value in record["values"]]
    assert np.array_equal(values, get_format("e5m2").code_values(), equal_nan=True)
    assert record["values"][0x7C] == "inf"
    assert math.copysign(1, record["values"][0x80]) == -1


def test_what_is_refused(capsys):
    assert "unknown format 'e4m3f'; nearest: 'e4m3fn'" in refuse(capsys, "formats", "e4m3f")
    assert "precision P must be in 1..7" in refuse(capsys, "formats", "binary8p8se")
    error = refuse(capsys, "formats", "e2m1", "fp22", "--values")
    assert "--values: fp22 must have at most 16 bits, got 22" in error
    error = refuse(capsys, "formats", "binary16p1ue", "--values")
    assert "binary16p1ue has values that do not fit float64" in error
    assert "invalid choice: 'format'" in refuse(capsys, "format")
    assert "COMMAND" in refuse(capsys)


def test_help_and_version(capsys):
    for argv in (["--help"], ["formats", "--help"]):
        with pytest.raises(SystemExit) as exit_:
            main(argv)
        assert exit_.value.code == 0
        assert "usage: abcdeep" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"abcdeep_core {abcdeep_core.__version__}\n"


def test_as_a_process():
    command = [sys.executable, "-m", "abcdeep_core", "formats", "fp16", "--values"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("fp16: FloatFormat(")
    process.stdout.close()  # as `head -1` does
    assert process.stderr.read() == ""
    assert process.wait() == 1
    process.stderr.close()
