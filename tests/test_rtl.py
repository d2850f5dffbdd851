"""Test vectors: memory words, expected results, refusals, and what the sources may contain."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core.rtl.mac_unit import OverflowRule
from oracle_datapath import dot
from oracle_fixed import integer_range, wrap_integer
from rtl_cases import random_case

MODES = ("wrap", "saturate", "saturate_zero", "saturate_symmetric", "wrap_sign_magnitude")


# memory words


@pytest.mark.parametrize("msb_first", [False, True])
@pytest.mark.parametrize(("bits", "lanes"), [(4, 1), (5, 1), (7, 3), (8, 4), (16, 2), (64, 2)])
def test_words(tmp_path: Path, bits: int, lanes: int, msb_first: bool) -> None:
    rng = np.random.default_rng(bits)
    values = rng.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1, 6 * lanes, endpoint=True)
    path = tmp_path / "x.hex"
    ab.rtl.write_hex(path, values, bits, lanes, msb_first)
    lines = path.read_text().splitlines()
    assert len(lines) == 6
    for line, group in zip(lines, values.reshape(6, lanes).tolist(), strict=True):
        assert re.fullmatch(rf"[0-9a-f]{{{-(-bits * lanes // 4)}}}", line)
        binary = "".join(
            f"{value % (1 << bits):0{bits}b}" for value in group[:: 1 if msb_first else -1]
        )
        assert int(line, 16) == int(binary, 2)
    np.testing.assert_array_equal(ab.rtl.read_hex(path, bits, lanes, msb_first), values)
    unsigned = ab.rtl.read_hex(path, bits, lanes, msb_first, signed=False)
    assert unsigned.tolist() == [value % (1 << bits) for value in values.tolist()]


def test_words_as_readmemh_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "x.hex"
    path.write_text("// two words\n7F\n\n8_0 // the lowest\n")
    assert ab.rtl.read_hex(path, 8).tolist() == [127, -128]


def test_words_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.hex"
    with pytest.raises(ValueError, match=r"values must be in -8\.\.15, got 16 at \[1\]"):
        ab.rtl.write_hex(path, [0, 16], 4)
    with pytest.raises(ValueError, match="values must be a multiple of lanes=2 in number, got 3"):
        ab.rtl.write_hex(path, [0, 1, 2], 4, 2)
    with pytest.raises(TypeError, match="values must hold integers, got float64"):
        ab.rtl.write_hex(path, [0.5], 4)
    for text in ("12\n1g\n", "12\n123\n", "12\n-1\n", "12\n0x1\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match="line 2 must be a hexadecimal word of 8 bits"):
            ab.rtl.read_hex(path, 8)
    assert ab.rtl.write_hex(path, [], 8) is None
    assert ab.rtl.read_hex(path, 8).size == 0


@pytest.mark.parametrize(("notation", "digits", "base"), [("hex", 8, 16), ("binary", 32, 2)])
def test_float_text(tmp_path: Path, notation: str, digits: int, base: int) -> None:
    words = np.array([0, 1, 0x80000000, 0x7F800000, 0x7FC12345, 0x3F800000, 0xC0490FDB], np.uint32)
    path = tmp_path / "a.txt"
    ab.rtl.write_float_text(path, words.view(np.float32), notation)
    lines = path.read_text().splitlines()
    assert {len(line) for line in lines} == {digits}
    assert [int(line, base) for line in lines] == words.tolist()
    assert ab.rtl.read_float_text(path, notation).view(np.uint32).tolist() == words.tolist()
    ab.rtl.write_float_text(path, np.array([1.5, -2], ml_dtypes.bfloat16), notation)
    assert ab.rtl.read_float_text(path, notation).tolist() == [1.5, -2]


def test_float_text_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(TypeError, match="values must hold float32 or narrower floats, got float64"):
        ab.rtl.write_float_text(path, [0.5])
    with pytest.raises(ValueError, match="notation must be 'hex' or 'binary', got 'octal'"):
        ab.rtl.write_float_text(path, np.float32([1]), "octal")
    path.write_text("3f800000\n3f80000\n")
    with pytest.raises(ValueError, match="line 2 must be 8 hex digits"):
        ab.rtl.read_float_text(path)


# expected results


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_overflow_rule_is_that_of_the_oracle(mode: str, signed: bool) -> None:
    if mode == "wrap_sign_magnitude" and not signed:
        pytest.skip("not defined for unsigned words")
    for bits in range(2, 7):
        for wrap_bits in range(bits + 2 if mode.startswith("wrap") else 1):
            datapath = ab.integer_accumulator(bits, mode, signed=signed, wrap_bits=wrap_bits)
            assert datapath.accumulator is not None
            rule = OverflowRule.of(datapath.accumulator)
            assert (rule.lowest, rule.highest) == integer_range(bits, signed, mode)
            for v in range(-(1 << (bits + 3)), 1 << (bits + 3)):
                assert rule.apply(v) == wrap_integer(v, bits, signed, mode, wrap_bits)


@pytest.mark.parametrize("seed", range(60))
def test_expected_results_are_those_of_the_oracle(seed: int) -> None:
    case = random_case(seed)
    expected = ab.rtl.expected_results(case.x, case.w, case.datapath, **case.values)
    for d in range(len(case.x)):
        c = None if case.options["c"] is None else int(case.options["c"][d])
        x, w = case.x[d].tolist(), case.w[d].tolist()
        found = dot(x, w, case.datapath, c)
        assert expected.result[d] == found.value
        assert expected.overflow[d] == (found.events["accumulator_overflow"] > 0)
        assert (expected.first_step[d] >= 0) == expected.overflow[d]


@pytest.mark.parametrize("group", [1, 4, 5])
@pytest.mark.parametrize("mode", ["wrap", "saturate", "saturate_zero"])
def test_first_step_is_the_shortest_prefix_with_events(mode: str, group: int) -> None:
    rng = np.random.default_rng(group)
    x, w = rng.integers(-128, 128, (2, 50, 32), dtype=np.int8)
    datapath = ab.integer_accumulator(16, mode, group=group)
    first = ab.rtl.expected_results(x, w, datapath, c=1000).first_step
    shortest = np.full(50, -1)
    for step in reversed(range(-(-32 // group))):
        end = (step + 1) * group
        rows, columns = x[:, None, :end], w[:, :end, None]
        _, events = ab.matmul(rows, columns, datapath, c=1000, events=True, per_output=True)
        flagged = np.asarray(events.accumulator_overflow).reshape(-1) > 0
        shortest = np.where(flagged, step, shortest)
    assert (first > 0).any()
    np.testing.assert_array_equal(first, shortest)


def test_merge_overflow_is_raised_in_the_last_step_of_its_chunk() -> None:
    merge = ab.integer_accumulator(8, "saturate")
    datapath = ab.integer_accumulator(16, chunk=3, merge=merge, group=2)
    x = np.array([[50, 0, 50, 0, 0, 50, 1]], np.int8)
    expected = ab.rtl.expected_results(x, np.ones_like(x), datapath)
    assert (expected.result.tolist(), expected.first_step.tolist()) == ([127], [3])


def test_dot_products() -> None:
    rng = np.random.default_rng(0)
    a, b = (
        rng.integers(-128, 128, (5, 7), dtype=np.int8),
        rng.integers(0, 9, (7, 4)).astype(np.uint8),
    )
    x, w = ab.rtl.dot_products(a, b)
    assert x.dtype == np.int8
    assert w.dtype == np.uint8
    datapath = ab.integer_accumulator(12, "saturate")
    expected = ab.rtl.expected_results(x, w, datapath)
    np.testing.assert_array_equal(expected.result.reshape(5, 4), ab.matmul(a, b, datapath))
    x, w = ab.rtl.dot_products(a, b, [(4, 0), (0, 3)])
    np.testing.assert_array_equal(x, a[[4, 0]])
    np.testing.assert_array_equal(w, b.T[[0, 3]])
    with pytest.raises(ValueError, match=r"outputs must be in 0\.\.3 \(column\), got 4 at \[0\]"):
        ab.rtl.dot_products(a, b, [(0, 4)])
    with pytest.raises(ValueError, match=r"a, b must have shapes \(M, K\), \(K, N\)"):
        ab.rtl.dot_products(a, a)


# bundles


def bundle(folder: Path, seed: int, **options: Any) -> ab.rtl.Bundle:
    case = random_case(seed)
    return ab.rtl.write_bundle(folder, case.x, case.w, case.datapath, **case.options, **options)


@pytest.mark.parametrize("seed", range(20))
def test_bundle_describes_itself(tmp_path: Path, seed: int) -> None:
    case = random_case(seed)
    written = bundle(tmp_path, seed, vhdl=bool(seed % 2), cocotb=seed % 3 > 0)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest == written.manifest
    assert ab.Datapath.from_dict(manifest["datapath"]) == case.datapath
    assert sorted(written.files) == sorted(path.name for path in tmp_path.iterdir())
    assert set(manifest["sha256"]) == set(written.files) - {"manifest.json"}
    for file, digest in manifest["sha256"].items():
        assert hashlib.sha256((tmp_path / file).read_bytes()).hexdigest() == digest

    x, w, c = ab.rtl.read_operands(tmp_path)
    k = np.arange(case.x.shape[1])
    order = {"natural": k, "reverse": k[::-1], "pair4": np.argsort(k % 4 >= 2, kind="stable")}
    places = order[str(case.datapath.order)]
    np.testing.assert_array_equal(x, case.x[:, places])
    np.testing.assert_array_equal(w, case.w[:, places])
    assert (c is None) == (case.options["c"] is None)
    again = ab.rtl.expected_results(
        x, w, case.datapath.replace(order="natural"), **case.values | {"c": c}
    )
    np.testing.assert_array_equal(again.result, written.expected.result)

    fields = manifest["expected"]
    digits, bits = fields["word_bits"] // 4, fields["result_bits"]
    for d, line in enumerate((tmp_path / "expected.hex").read_text().splitlines()):
        assert len(line) == digits == 9 + -(-bits // 4)
        assert int(line[:8], 16) == max(written.expected.first_step[d], 0)
        assert line[8] == str(int(written.expected.overflow[d]))
        assert int(line[9:], 16) == written.expected.result[d] % (1 << bits)


def test_words_of_a_bundle(tmp_path: Path) -> None:
    datapath = ab.integer_accumulator(16, group=2, chunk=3)
    x = np.array([[1, 2, 3, 4, 5]])
    ab.rtl.write_bundle(tmp_path, x, -x, datapath, x_type="u4", w_type="s4", lanes=4)
    assert (tmp_path / "x.hex").read_text().split() == ["0321", "0054"]
    assert (tmp_path / "w.hex").read_text().split() == ["0def", "00bc"]
    ab.rtl.write_bundle(
        tmp_path, x, -x, datapath, x_type="u4", w_type="s4", lanes=4, msb_first=True, c=-2
    )
    assert (tmp_path / "x.hex").read_text().split() == ["1230", "4500"]
    assert (tmp_path / "c.hex").read_text().split() == ["fffe"]


def test_start_values_are_brought_into_range(tmp_path: Path) -> None:
    x = np.zeros((3, 1), np.int8)
    datapath = ab.integer_accumulator(8, "saturate_symmetric")
    written = ab.rtl.write_bundle(tmp_path, x, x, datapath, c=[-128, 200, 5])
    assert (tmp_path / "c.hex").read_text().split() == ["81", "7f", "05"]
    assert not written.expected.overflow.any()


REFUSED = {
    "logic": r"\blogic\b",
    "typed parameters": r"\b(parameter|localparam)\s+(int|bit|integer|signed|\[)",
    "size casts": r"\w'\(",
    "implicit ports": r"\(\s*\.\w+\s*[,)]|,\s*\.\w+\s*[,)]",
    "SystemVerilog blocks": r"\balways_(ff|comb)\b",
}


@pytest.mark.parametrize("seed", range(20))
def test_sources_stay_within_verilog_2005(tmp_path: Path, seed: int) -> None:
    bundle(tmp_path, seed)
    for file in ("mac.v", "tb.v"):
        source = re.sub(r"//.*|\"[^\"]*\"", "", (tmp_path / file).read_text())
        for what, pattern in REFUSED.items():
            assert not re.search(pattern, source), (what, file)
        assert source.isascii()


INT16 = ab.integer_accumulator(16)
ROWS = np.ones((2, 4), np.int8)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"datapath": ab.lba_accumulator()}, NotImplementedError, "must have an integer accumul"),
        ({"datapath": "int16"}, TypeError, "datapath must be a Datapath, got str"),
        ({"datapath": INT16.replace(step="tree")}, NotImplementedError, "step='tree' has no"),
        ({"datapath": INT16.replace(c_join="end")}, NotImplementedError, "c_join='end' has no"),
        (
            {"datapath": INT16.replace(product=INT16.accumulator)},
            NotImplementedError,
            "product=.* has no Verilog unit",
        ),
        (
            {"datapath": INT16.replace(chunk=2, merge_order="pairwise")},
            NotImplementedError,
            "merge_order='pairwise' has no",
        ),
        (
            {"datapath": ab.integer_accumulator(63, chunk=1, merge="exact")},
            ValueError,
            "merge='exact' must need at most 63 bits, got 65",
        ),
        ({"x": ROWS.astype(np.int64)}, TypeError, "x must hold int4, .* got int64; .*x_type"),
        ({"x": ROWS.astype(float)}, TypeError, "x must hold integers, got float64"),
        ({"x": ROWS[0]}, ValueError, r"x must have shape \(dots, terms\), got \(4,\)"),
        ({"x": ROWS[:1]}, ValueError, "x and w must have one shape"),
        ({"x": ROWS[:, :0], "w": ROWS[:, :0]}, ValueError, "x must have rows and terms"),
        ({"x": ROWS * 8, "x_type": "s4"}, ValueError, r"x must be in -8\.\.7 \(s4\), got 8 at"),
        ({"w_type": "s17"}, ValueError, r"w_type must be s2\.\.s16 or u2\.\.u16, got 's17'"),
        ({"w_type": 8}, TypeError, "w_type must be a text"),
        ({"lanes": 3, "datapath": INT16.replace(step="exact_group", group=2)}, ValueError,
         "lanes must be a multiple of the group, 2, got 3"),
        ({"c": [1, 2, 3]}, ValueError, r"c must broadcast to \(2,\), got \(3,\)"),
        ({"c": 0.5}, TypeError, "c must hold integers"),
        ({"name": "tb"}, ValueError, "name must be a free Verilog identifier"),
        ({"name": "a-b"}, ValueError, "name must be a free Verilog identifier"),
        ({"msb_first": 1}, TypeError, "msb_first must be a bool"),
    ],
)  # fmt: skip
def test_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments: dict[str, Any] = {"x": ROWS, "w": ROWS, "datapath": INT16} | changes
    with pytest.raises(error, match=message):
        ab.rtl.write_bundle(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_damaged_bundles(tmp_path: Path) -> None:
    ab.rtl.write_bundle(tmp_path, ROWS, ROWS, INT16, c=1)
    (tmp_path / "c.hex").write_text("0001\n")
    with pytest.raises(ValueError, match=r"c\.hex must hold 2 values, got 1"):
        ab.rtl.read_operands(tmp_path)
    (tmp_path / "x.hex").write_text("01\n")
    with pytest.raises(ValueError, match=r"x\.hex must hold 8 operands, got 1"):
        ab.rtl.read_operands(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json must be JSON"):
        ab.rtl.read_operands(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match=r"manifest\.json must be the manifest of a bundle"):
        ab.rtl.simulate(tmp_path)
