"""Datapaths as values: construction, names as text, dicts, copies, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core.accumulators import get_accumulator
from datapath_random import RANDOM, random_integer

FP16 = ab.Quantizer(format="fp16")
LBA = ab.lba_format(7, 4, 10)
INT12 = ab.Quantizer(format=ab.FixedFormat(bits=12, fraction_bits=0))
ONE = np.ones((1, 1), np.float32)


def test_lba_accumulator_is_the_paper_s():
    lba = ab.lba_accumulator()
    assert lba == ab.lba_accumulator(7, 4, bias=10, product_bias=12, chunk=16)
    assert lba.accumulator == ab.Quantizer(format=LBA, rounding="toward_zero")
    assert lba.product == ab.Quantizer(format=ab.lba_format(7, 4, 12), rounding="rtz")
    assert (lba.chunk, lba.merge, lba.merge_order, lba.order) == (16, "same", "forward", "natural")
    assert (lba.step, lba.group, lba.arithmetic) == ("chain", 1, "exact")
    off = ab.lba_accumulator(underflow=False, rounding="rne", arithmetic="exact", chunk=0)
    assert off.accumulator.underflow == off.product.underflow == "off"
    assert off.accumulator.rounding == off.product.rounding == "nearest_even"
    assert ab.lba_accumulator(arithmetic="fp32_mask").arithmetic == "fp32_mask"


def test_float_accumulator():
    fma = ab.float_accumulator("bf16")
    assert fma.product is None
    assert fma.accumulator == ab.Quantizer(format="bf16")
    both = ab.float_accumulator(
        "binary32", product="e4m3fn", rounding="toward_zero", product_rounding="stochastic",
        overflow="sat_finite", group=4, chunk=128, merge="exact",
    )  # fmt: skip
    assert both.product.rounding == "stochastic"
    assert both.product.overflow == both.accumulator.overflow == "sat_finite"
    assert (both.step, both.group, both.chunk, both.merge) == ("exact_group", 4, 128, "exact")
    assert ab.float_accumulator("fp16", product="fp16", rounding="rto").product.rounding == "to_odd"
    # promotion: the merge is another datapath's accumulator
    promoted = ab.float_accumulator("fp16", chunk=128, merge=ab.float_accumulator("binary32"))
    assert promoted.merge == ab.Quantizer(format="binary32")
    assert ab.float_accumulator("fp16", chunk=2, merge=ab.exact_accumulator()).merge == "exact"


def test_integer_accumulator():
    d = ab.integer_accumulator(16, "SAT", group=4)
    assert d.is_integer
    assert not ab.float_accumulator("fp16").is_integer
    assert d.accumulator.format == ab.FixedFormat(bits=16, fraction_bits=0, overflow="saturate")
    tile = ab.integer_accumulator(32, chunk=8, merge=ab.integer_accumulator(16, "saturate"))
    assert tile.merge.format.bits == 16
    wrapped = ab.integer_accumulator(8, wrap_bits=3, signed=False).accumulator.format
    assert (wrapped.wrap_bits, wrapped.signed, wrapped.overflow) == (3, False, "wrap")


def test_exact_accumulator():
    assert ab.exact_accumulator() == ab.Datapath(output=ab.Quantizer(format="binary32"))
    assert ab.exact_accumulator("fp16").output == FP16
    assert ab.exact_accumulator(np.float16).output == FP16


def test_where_saturation_happens():
    for datapath, word in (
        (ab.lba_accumulator(), "step"),
        (ab.integer_accumulator(16, "saturate", group=4), "group"),
        (ab.Datapath(chunk=4, merge=FP16), "tile"),
        (ab.exact_accumulator(), "end"),
    ):
        assert datapath.saturates_at == word


@pytest.mark.parametrize(
    ("text", "datapath"),
    [
        ("exact", ab.exact_accumulator()),
        ("fp32", ab.float_accumulator("binary32")),
        ("m7e4", ab.lba_accumulator(7, 4, 10, 12, 16)),
        ("m10e5", ab.lba_accumulator(10, 5, 16, 18, 16)),
        ("m5e4", ab.lba_accumulator(5, 4, 10, 12, 16)),
        ("m4e3", ab.lba_accumulator(4, 3, 4, 6, 16)),
        ("m7e5", ab.lba_accumulator(7, 5, 16, 18, 16)),
        ("m3e2", ab.lba_accumulator(3, 2, 2, 4, 16)),
        ("m7e4:b9:p11:c32:rne", ab.lba_accumulator(7, 4, 9, 11, 32, rounding="nearest_even")),
        ("m7e4:b10:p12:c16:rtz", ab.lba_accumulator()),
        ("m7e4:c0", ab.lba_accumulator(chunk=0)),
        ("m7e4:sr:c8", ab.lba_accumulator(chunk=8, rounding="stochastic")),
        ("int16", ab.integer_accumulator(16)),
        ("int16:wrap", ab.integer_accumulator(16, "wrap")),
        ("int12:saturate", ab.integer_accumulator(12, "saturate")),
        ("int16:saturate:g4", ab.integer_accumulator(16, "saturate", group=4)),
        ("uint8:saturate_zero", ab.integer_accumulator(8, "saturate_zero", signed=False)),
    ],
)
def test_accumulators_as_text(text, datapath):
    assert get_accumulator(text) == datapath
    assert get_accumulator(datapath) is datapath


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("m7", ValueError, "accumulator must be 'exact', 'fp32', 'm7e4'"),
        ("M7E4", ValueError, "accumulator must be"),
        ("m7e4:x3", ValueError, "expected b<bias>, .* got 'x3'"),
        ("m7e4:b", ValueError, "got 'b'"),
        ("m7e4:", ValueError, "accumulator must be"),
        ("int16:clip", ValueError, "clip"),
        ("int64", ValueError, "bits must be in 2..63"),
        ("int1:wrap", ValueError, "bits must be in 2..63"),
        ("int16:saturate:g0", ValueError, "group must be in 1.."),
        ("", ValueError, "accumulator must be"),
        (16, TypeError, "accumulator must be a text or a Datapath, got int"),
    ],
)
def test_texts_that_name_no_accumulator(text, error, message):
    with pytest.raises(error, match=message):
        get_accumulator(text)


def some_datapaths():
    rng = np.random.default_rng(0)
    for make in (*RANDOM.values(), random_integer):
        made = 0
        while made < 40:
            try:
                yield make(rng)
            except ValueError:
                continue
            made += 1
    yield ab.Datapath(
        step="fused_trunc", group=16, alignment_bits=25, zero_rule="emin", exponent_floor=-133,
        operand_a=ab.get_format("e4m3fn"), operand_b=ab.get_format("e5m2"), flush_inputs=True,
        addend=ab.get_format("binary32"), accumulator=ab.Quantizer(format="tf32", rounding="rtz"),
        order=(1, 0, 2), c_join="end", group_quantizer=FP16, output=FP16,
    )  # fmt: skip


def test_round_trips_copies_and_hashes():
    seen = {}
    for datapath in some_datapaths():
        data = json.loads(json.dumps(datapath.to_dict()))
        assert ab.Datapath.from_dict(data) == datapath
        assert ab.Datapath.from_dict(data).to_dict() == datapath.to_dict()
        restored = pickle.loads(pickle.dumps(datapath))
        assert restored == datapath
        assert hash(restored) == hash(datapath)
        assert datapath.replace() == datapath
        assert eval(repr(datapath), vars(ab) | {"Datapath": ab.Datapath}) == datapath
        seen[datapath] = True
        for q in (datapath.product, datapath.accumulator, datapath.output):
            if q is not None:
                assert ab.Quantizer.from_dict(json.loads(json.dumps(q.to_dict()))) == q
    assert len(seen) > 150


def test_a_name_is_a_label():
    one, other = ab.lba_accumulator(), ab.lba_accumulator().replace(name="other")
    assert one.name == "m7e4"
    assert one == other
    assert hash(one) == hash(other)
    assert other.to_dict()["name"] == "other"


def test_fields_are_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ab.lba_accumulator().chunk = 3
    with pytest.raises(TypeError):
        ab.Datapath(FP16)
    with pytest.raises(TypeError):
        ab.Quantizer("fp16")
    with pytest.raises(TypeError, match="unknown_field"):
        ab.Datapath.from_dict({"unknown_field": 1})


def test_names_are_stored_in_one_spelling():
    q = ab.Quantizer(format="e5m2", rounding="rne", overflow="ovf_inf")
    assert (q.rounding, q.overflow) == ("nearest_even", "ieee")
    assert q == ab.Quantizer(format=ab.get_format("e5m2"), overflow="ieee")
    assert ab.Datapath(order=np.array([1, 0])).order == (1, 0)
    assert ab.Datapath(order=[np.int64(0)]).order == (0,)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"format": "fp17"}, ValueError, "unknown format 'fp17'"),
        ({"format": 3}, TypeError, "format must be a name"),
        ({"format": "fp16", "rounding": "RNE"}, ValueError, "unknown rounding 'RNE'; nearest"),
        ({"format": "fp16", "rounding": None}, TypeError, "rounding must be a string"),
        ({"format": "fp16", "overflow": "wrap"}, ValueError, "unknown overflow 'wrap'"),
        ({"format": LBA, "overflow": "ieee"}, ValueError, "ieee"),
        ({"format": LBA, "underflow": "gradual"}, ValueError, "gradual"),
        ({"format": "fp16", "underflow": "on"}, ValueError, "unknown underflow 'on'"),
        ({"format": "fp16", "bits": 33}, ValueError, "bits must be in 1..32, got 33"),
        ({"format": "fp16", "bits": 2.0}, TypeError, "bits must be an integer"),
        ({"format": "fp16", "rule": "d"}, ValueError, "unknown rule 'd'"),
        ({"format": INT12.format, "underflow": "off"}, ValueError, "underflow must be None"),
        ({"format": INT12.format, "overflow": "ieee"}, ValueError, "ieee"),
    ],
)
def test_quantizers_that_do_not_exist(fields, error, message):
    with pytest.raises(error, match=message):
        ab.Quantizer(**fields)


WIDE = ab.FixedFormat(bits=12, fraction_bits=2)
MASK = {"arithmetic": "fp32_mask", "product": FP16, "accumulator": FP16}


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"accumulator": "fp16"}, TypeError, "accumulator must be a Quantizer or None, got str"),
        ({"product": LBA}, TypeError, "product must be a Quantizer or None, got FloatFormat"),
        ({"output": 1}, TypeError, "output must be"),
        ({"group_quantizer": 1}, TypeError, "group_quantizer must be"),
        ({"merge": "other"}, ValueError, "unknown merge 'other'"),
        ({"merge": None}, TypeError, "merge must be a string"),
        ({"step": "chains"}, ValueError, "unknown step 'chains'; nearest: 'chain'"),
        ({"merge_order": "back"}, ValueError, "unknown merge_order"),
        ({"c_join": "mid"}, ValueError, "unknown c_join"),
        ({"arithmetic": "fp32"}, ValueError, "unknown arithmetic 'fp32'; nearest: 'fp32_mask'"),
        ({"zero_rule": "zero"}, ValueError, "unknown zero_rule"),
        ({"order": "forward"}, ValueError, "unknown order"),
        ({"order": (0, 2)}, ValueError, "order must be a permutation of 0..K-1"),
        ({"order": (0, 0)}, ValueError, "order must be a permutation"),
        ({"order": 3}, TypeError, "order must be a name or a tuple of integers, got 3"),
        ({"order": (0.0, 1.0)}, TypeError, "order must be a name or a tuple of integers"),
        ({"group": 0, "step": "exact_group"}, ValueError, "group must be in 1.."),
        ({"group": 2.0, "step": "exact_group"}, TypeError, "group must be an integer"),
        ({"group": 2}, ValueError, "group must be 1 for step='chain', got 2"),
        ({"chunk": -1}, ValueError, "chunk must be in 0.."),
        ({"chunk": True}, TypeError, "chunk must be an integer"),
        ({"name": 1}, TypeError, "name must be a string"),
        ({"flush_inputs": 1}, TypeError, "flush_inputs must be a bool"),
        ({"alignment_bits": 2.5}, TypeError, "alignment_bits must be an integer"),
        ({"exponent_floor": "a"}, TypeError, "exponent_floor must be an integer"),
        ({"operand_a": "fp16"}, TypeError, "operand_a must be a format or None, got str"),
        ({"accumulator": FP16, "product": INT12}, ValueError, "all be float or all be integer"),
        ({"accumulator": INT12, "merge": FP16}, ValueError, "all be float or all be integer"),
        ({"merge": INT12, "product": FP16}, ValueError, "all be float or all be integer"),
        ({"group_quantizer": INT12}, ValueError, "group_quantizer must be None for step='chain'"),
        ({"accumulator": ab.Quantizer(format=WIDE)}, ValueError, "must be -shift <= 0 .* got 2"),
        ({"accumulator": ab.Quantizer(format="ue4m3")}, ValueError, "must be signed"),
        (MASK, ValueError, "'fp32_mask' needs a float product with rounding='toward_zero'"),
        ({"arithmetic": "fp32_mask"}, ValueError, "'fp32_mask' needs a float product"),
    ],
)
def test_datapaths_that_do_not_exist(fields, error, message):
    with pytest.raises(error, match=message):
        ab.Datapath(**fields)


def test_fp32_mask_is_for_chains_of_float32_formats():
    lba = ab.lba_accumulator(arithmetic="fp32_mask")
    with pytest.raises(ValueError, match="needs step='chain', got 'exact_group'"):
        lba.replace(step="exact_group", group=2)
    with pytest.raises(ValueError, match="values are float32 numbers"):
        ab.lba_accumulator(24, 4, arithmetic="fp32_mask")
    with pytest.raises(ValueError, match="values are float32 numbers"):
        ab.lba_accumulator(7, 8, 127, 127, arithmetic="fp32_mask")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ab.float_accumulator(WIDE), TypeError, "fmt must be a floating-point format"),
        (lambda: ab.float_accumulator("fp16", product=WIDE), TypeError, "product must be a float"),
        (lambda: ab.exact_accumulator(WIDE), TypeError, "out must be a floating-point format"),
        (lambda: ab.float_accumulator("fp16", rounding=""), ValueError, "unknown rounding ''"),
        (
            lambda: ab.float_accumulator("fp16", product="fp16", product_rounding=""),
            ValueError,
            "unknown rounding ''",
        ),
        (lambda: ab.integer_accumulator(64), ValueError, "bits must be in 2..63"),
        (lambda: ab.integer_accumulator(16, "clip"), ValueError, "unknown overflow 'clip'"),
        (lambda: ab.integer_accumulator(16, merge="sum"), ValueError, "unknown merge 'sum'"),
        (lambda: ab.lba_accumulator("7"), TypeError, "mantissa_bits must be an integer"),
        (lambda: ab.lba_accumulator(53), ValueError, "mantissa_bits must be in 0..52"),
        (lambda: ab.lba_accumulator(rounding="tz"), ValueError, "unknown rounding 'tz'"),
    ],
)
def test_constructors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("datapath", "message"),
    [
        *(
            (ab.Datapath(step=step, group=2, accumulator=FP16), f"step='{step}'")
            for step in ("tree", "fused_trunc", "scaled_groups", "two_level")
        ),
        (ab.Datapath(accumulator=FP16, c_join="late"), "c_join='late'"),
        (ab.Datapath(accumulator=FP16, c_join="end"), "c_join='end'"),
        (ab.Datapath(accumulator=FP16, flush_inputs=True), "flush_inputs"),
        (ab.Datapath(accumulator=FP16, group_quantizer=FP16), "group_quantizer"),
        (ab.Datapath(chunk=4, merge=FP16, merge_order="pairwise"), "merge_order='pairwise'"),
        (ab.Datapath(accumulator=FP16, output=INT12), "output="),
        (
            ab.Datapath(
                accumulator=FP16, output=ab.Quantizer(format="e5m2", rounding="stochastic")
            ),
            "output with rounding='stochastic'",
        ),
    ],
)
def test_what_is_not_compiled_yet_says_so(datapath, message):
    with pytest.raises(NotImplementedError, match=message):
        ab.matmul(ONE, ONE, datapath)


def test_an_integer_result_is_not_rounded_further():
    with pytest.raises(NotImplementedError, match="output"):
        ab.matmul(
            np.ones((1, 1), np.int8),
            np.ones((1, 1), np.int8),
            ab.integer_accumulator(8).replace(output=FP16),
        )
