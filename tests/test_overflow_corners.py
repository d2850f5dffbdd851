"""Corners of the overflow report: empty sums, unsigned curves, accumulators of their own steps."""

from __future__ import annotations

import tracemalloc

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab
import overflow_cases as cases
from abcdeep_core import _accumulator_widths
from abcdeep_core.cli import main


def linear(w, **fields):
    return ab.OverflowLayer(name="fc", weight=w, **{"input_range": "u8"} | fields)


def accumulators(layer, x, given, **options):
    """Return (wrong, persistent, overflowed) of each accumulator."""
    report = ab.overflow_report(layer, x, accumulators=given, **options)
    rows = report.to_dict()["layers"][0]["accumulators"]
    return [(row["wrong"], row["persistent"], row["overflowed"]) for row in rows]


def test_the_sum_of_a_later_tile_starts_from_zero():
    # 127 (the bias) + 0, then -129 alone, which 8 bits do not hold; in all -2
    layer = linear(np.int8([[0], [1]]), input_range="s16", bias=np.array([127]))
    x = np.int16([[0, -129]])
    own = ab.integer_accumulator(8, "saturate", chunk=1)
    assert accumulators(layer, x, ["int8:saturate"], tile=1) == [(1, 0, 1)]
    assert accumulators(layer, x, [own, "int8:wrap"]) == [(1, 0, 1), (0, 0, 0)]


def test_a_signed_accumulator_beside_unsigned_curves():
    layer = linear(np.uint8([[1]]))
    found = accumulators(layer, np.uint8([[200]]), ["int8:wrap", "uint8:wrap"], signed=False)
    assert found == [(1, 1, 1), (0, 0, 0)]
    layer = linear(np.uint16([[65535]]), input_range="u16")
    names = ["int32:wrap", "int33:wrap", "uint32:wrap", "uint31:wrap"]
    found = accumulators(layer, np.uint16([[65535]]), names, signed=False)
    assert found == [(1, 1, 1), (0, 0, 0), (0, 0, 0), (1, 1, 1)]


@pytest.mark.parametrize("group", [1, 4])
def test_counts_are_those_of_the_accumulators_own_groups(group):
    layer = linear(np.int8([[1], [1], [-1], [0]]))
    x = np.uint8([[100, 100, 100, 0]])  # 100, 200, 100; the sum of all four at once is 100
    found = accumulators(layer, x, ["int8:wrap", "int8:wrap:g4"], group=group)
    assert found == [(0, 0, int(group == 1)), (0, 0, 0)]
    of_order = ab.integer_accumulator(8).replace(order="reverse")  # 0, -100, 0, 100
    assert accumulators(layer, x, [of_order], group=group) == [(0, 0, 0)]


def test_a_bias_that_an_accumulator_of_its_own_group_does_not_hold():
    layer = linear(np.int8([[-1], [0]]), bias=np.array([200]))
    own = ab.integer_accumulator(8, "wrap", group=2)
    assert accumulators(layer, np.uint8([[100, 0]]), [own]) == [(0, 0, 1)]


def test_tiles_that_are_merged_exactly_have_no_negative_counts():
    layer = linear(np.int8([[1]] * 4))
    report = ab.overflow_report(
        layer, np.full((1, 4), 100, np.uint8), tile=1, tile_merge="exact", widths=(6, 10)
    )
    curve = report.curve("fc")
    assert curve.overflowed.tolist() == curve.persistent.tolist() == [1, 1, 0, 0, 0]
    assert curve.transient.tolist() == [0] * 5


def test_no_terms():
    layer = linear(np.ones((0, 2), np.int8), bias=np.array([300, -2]))
    x = np.zeros((4, 0), np.uint8)
    assert accumulators(layer, x, ["int9:saturate", "int10:wrap"]) == [(4, 4, 4), (0, 0, 0)]
    report = ab.overflow_report(layer, x, accumulators=["m7e4"])
    assert report["fc"].data_widths["given"] == 10
    assert report.to_dict()["layers"][0]["operands"]["observed_input_range"] == [0, 0]


def test_what_was_seen_need_not_hold_zero():
    report = ab.overflow_report(linear(np.ones((3, 2), np.int8)), np.full((4, 3), 9, np.uint8))
    assert report.to_dict()["layers"][0]["operands"]["observed_input_range"] == [9, 9]


def test_four_bit_weights_are_of_four_bits():
    layer = linear(np.ones((3, 2), ml_dtypes.int4))
    assert (layer.weight_type, layer.weight_range) == ("s4", (-8, 7))


@pytest.mark.parametrize("padding", [-3, 300])
def test_padding_that_the_inputs_dtype_does_not_hold(padding):
    layer = ab.OverflowLayer(
        name="conv", kind="conv2d", weight=np.ones((1, 1, 1, 3), np.int8),
        input_range=(-300, 300), padding=(0, 1), padding_value=padding,
    )  # fmt: skip
    rows = layer.rows(np.uint8([[[[7, 8, 9]]]]))
    assert rows.tolist() == [[padding, 7, 8], [7, 8, 9], [8, 9, padding]]
    with pytest.raises(ValueError, match="conv: input of uint16 must fit 16 bits") as raised:
        ab.OverflowLayer(
            name="conv", kind="conv2d", weight=layer.weight, input_range=(-3, 65535),
            padding=(0, 1), padding_value=-3,
        ).rows(np.uint16([[[[7, 8, 9]]]]))  # fmt: skip
    assert "-3" in str(raised.value)


def test_float_sums_beyond_float32():
    layer = linear(np.full((3, 1), 127, np.int8), input_scale=1e18, weight_scale=1e18)
    report = ab.overflow_report(layer, np.full((4, 3), 9, np.uint8), accumulators=["fp32"])
    row = report.to_dict()["layers"][0]["accumulators"][0]
    assert (row["wrong"], row["nonfinite"], row["lost"], row["sqnr_db"]) == (4, 4, 0, None)


def test_a_step_of_a_group_is_no_single_product():
    layer = linear(np.full((4, 1), 127, np.int8))
    found = ab.overflow_report(layer, np.full((1, 4), 200, np.uint8), group=4)
    text = "sample 0, output (0), k=0: 0 -> 101600 needs more than 16 bits"
    assert str(found.first_overflow("fc", 16)) == text


def test_what_overflows_the_widest_curve_has_a_first():
    layer = linear(np.full((4, 1), 127, np.int8))
    x = np.full((1, 4), 200, np.uint8)
    report = ab.overflow_report(layer, x, widths=(8, 12), accumulators=())
    assert list(report.to_dict()["layers"][0]["first_overflow"]) == ["12"]
    for call in (report["fc"].first_overflow, report.rate):
        with pytest.raises(ValueError, match="width"):
            call(0)


def test_a_rate_is_reached_as_a_decimal():
    x = np.full((10, 4), 1, np.uint8)
    x[:3] = 200
    layer = linear(np.full((4, 1), 127, np.int8))
    choice = ab.minimize_accumulators([layer], {"fc": x}, max_rate=0.3)  # 0.3 is below 3/10
    assert (choice.layers[0].bits, choice.layers[0].rate) == (10, 0.3)


def test_spans_take_no_memory_a_row():
    x = np.ones((100_000, 1), np.float32)
    tracemalloc.start()
    counts = _accumulator_widths.exponent_spans(x, np.ones((1, 1), np.float32), 1, None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counts[0] == counts.sum() == 100_000
    assert peak < 40e6


def test_a_checkpoint_needs_a_folder(tmp_path):
    layer = linear(np.ones((3, 2), np.int8))
    with pytest.raises(FileNotFoundError, match="checkpoint: there is no folder"):
        ab.overflow_report(layer, np.ones((4, 3), np.uint8), checkpoint=tmp_path / "none" / "file")


@pytest.mark.parametrize("sample", [0, 5, 9])
def test_a_checkpoint_of_other_data_is_refused(tmp_path, sample):
    layer, x = linear(np.ones((3, 2), np.int8)), np.ones((10, 3), np.uint8)
    ab.overflow_report(layer, x, checkpoint=tmp_path / "file")
    x[sample] = 2
    with pytest.raises(ValueError, match="expected that of the same model, data and settings"):
        ab.overflow_report(layer, x, checkpoint=tmp_path / "file")


@pytest.mark.parametrize("option", ["-o", "--json", "--checkpoint"])
def test_missing_folders_are_seen_before_the_work(tmp_path, capsys, option):
    file = str(tmp_path / "none" / "file")
    # the model is missing too: it is not looked for
    assert main(["overflow", "none.npz", "--data", "none.npz", option, file]) == 1
    line = f"abcdeep overflow: {file}: there is no such folder\n"
    assert capsys.readouterr().err == line


def test_wrong_settings_are_seen_before_the_work(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["overflow", "none.npz", "--data", "none.npz", "--acc", "int"])
    assert stopped.value.code == 2
    assert "got 'int'" in capsys.readouterr().err


def test_stochastic_accumulators_are_refused():
    with pytest.raises(ValueError, match="must not round stochastically, got 'm7e4:sr'"):
        ab.overflow_report(cases.linear(), cases.inputs()["fc"], accumulators="m7e4:sr")


def test_bounds_of_tiles_hold_sums_that_start_from_zero():
    layer = ab.OverflowLayer(
        name="fc", weight=np.full((4, 1), -100, np.int8), input_range="u8", bias=[60000]
    )
    x = np.full((2, 4), 255, np.uint8)
    for tile in (0, 2):
        report = ab.overflow_report(layer, x, tile=tile)
        assert report["fc"].data_widths["given"] <= report["fc"].bounds["sign_split"]
        assert report["fc"].data_widths["any_order"] <= report["fc"].bounds["sign_split"]
    # -102000 without the bias, -42000 with it
    assert report["fc"].bounds["sign_split"] == 18
    assert ab.overflow_report(layer, x)["fc"].bounds["sign_split"] == 17
