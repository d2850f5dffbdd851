"""Formats as values: equality, copies, names, rules in force, and what is refused."""

import dataclasses
import json
import pickle

import ml_dtypes
import numpy as np
import pytest

from abcdeep_core import FixedFormat, FloatFormat, formats, get_format, lba_format
from abcdeep_core.formats import format_from_dict

EXAMPLES = [
    *formats().values(),
    get_format("binary8p4se"),
    get_format("binary16p1uf"),
    lba_format(7, 4, 10),
    FloatFormat(exponent_bits=4, mantissa_bits=3, overflow="ovf_inf", underflow="flush_after"),
    FloatFormat(exponent_bits=0, mantissa_bits=3, bias=1, specials="none", nan_to="zero"),
    FixedFormat(bits=16, fraction_bits=8),
    FixedFormat(bits=7, fraction_bits=-2, signed=False, rounding="RND", overflow="SAT", name="q"),
    FixedFormat(bits=7, fraction_bits=9, overflow="WRAP_SM", wrap_bits=2),
]


@pytest.mark.parametrize("fmt", EXAMPLES, ids=lambda fmt: fmt.name or None)
def test_a_format_is_a_value(fmt):
    copies = [
        eval(repr(fmt)),
        pickle.loads(pickle.dumps(fmt)),
        type(fmt).from_dict(fmt.to_dict()),
        format_from_dict(json.loads(json.dumps(fmt.to_dict()))),
        fmt.replace(),
        dataclasses.replace(fmt),
    ]
    for copy in copies:
        assert copy == fmt
        assert hash(copy) == hash(fmt)
        assert copy.name == fmt.name
        assert copy.to_dict() == fmt.to_dict()
    assert get_format(fmt) is fmt
    renamed = fmt.replace(name="another")
    assert renamed == fmt
    assert hash(renamed) == hash(fmt)
    assert len({*copies, renamed}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        fmt.bits = 3


def test_presets_are_distinct():
    assert len({*formats().values()}) == len(formats())


def test_replace_and_equality():
    e4m3 = get_format("e4m3fn")
    assert e4m3.replace(overflow="sat_finite").name == ""
    assert e4m3.replace(overflow="sat_finite") != e4m3
    assert e4m3.replace(exponent_bits=5).bias == 7
    assert e4m3.replace(exponent_bits=5, bias=None).bias == 15
    assert e4m3 != FixedFormat(bits=8, fraction_bits=0)
    assert FixedFormat(bits=8, fraction_bits=0, rounding="TRN") == FixedFormat(
        bits=8, fraction_bits=0, rounding="rdn"
    )
    sized = FloatFormat(exponent_bits=np.int64(4), mantissa_bits=np.uint8(3), signed=np.True_)
    assert type(sized.exponent_bits) is type(sized.mantissa_bits) is int
    assert type(sized.signed) is bool


def test_aliases():
    for alias, name in (
        ("OCP E4M3", "e4m3fn"), ("OCP E5M2", "e5m2"), ("AMD fp8", "e4m3fnuz"),
        ("AMD bf8", "e5m2fnuz"), ("OCP FP4", "e2m1"), ("e2m1fn", "e2m1"), ("e2m3fn", "e2m3"),
        ("e3m2fn", "e3m2"), ("e8m0fnu", "e8m0"), ("bfloat16", "bf16"), ("float16", "fp16"),
        ("BFloat16", "bf16"), ("binary16", "fp16"), ("fp32", "binary32"), ("float64", "binary64"),
        (np.float32, "binary32"), (np.dtype("float16"), "fp16"), (np.dtype(">f8"), "binary64"),
        (ml_dtypes.float8_e4m3b11fnuz, "e4m3b11fnuz"),
    ):  # fmt: skip
        assert get_format(alias) is formats()[name]


def test_rules_in_force():
    for name, overflow, underflow, nan_to in (
        ("e5m2", "ieee", "gradual", "nan"),
        ("e4m3fn", "ieee", "gradual", "nan"),
        ("e4m3fnuz", "ieee", "gradual", "nan"),
        ("e2m1", "sat_finite", "gradual", "raise"),
        ("e3m0", "sat_finite", "gradual", "raise"),
        ("uniform4", "sat_finite", "gradual", "raise"),
        ("fp7_142", "sat_finite", "flush_before", "raise"),
        ("e8m0", "ieee", "gradual", "nan"),
        ("ue4m3", "ieee", "gradual", "nan"),
        ("binary8p4se", "ieee", "gradual", "nan"),
        ("binary8p4sf", "ieee", "gradual", "nan"),
        (lba_format(7, 4, 10), "sat_finite", "flush_before", "raise"),
    ):
        fmt = get_format(name)
        assert fmt.resolved_rounding() == "nearest_even"
        assert fmt.resolved_overflow() == overflow
        assert fmt.resolved_underflow() == underflow
        assert fmt.resolved_nan_to() == nan_to
    own = get_format("e5m2").replace(overflow="to_nan", underflow="cell", nan_to="zero")
    assert (own.resolved_overflow(), own.resolved_underflow()) == ("to_nan", "cell")
    assert (own.resolved_overflow("ovf_inf"), own.resolved_nan_to()) == ("ieee", "zero")
    fixed = FixedFormat(bits=8, fraction_bits=0, rounding="RND_CONV", overflow="SAT_SYM")
    assert (fixed.resolved_rounding(), fixed.resolved_overflow()) == (
        "nearest_even",
        "saturate_symmetric",
    )
    assert (fixed.resolved_rounding("rtz"), fixed.resolved_overflow("WRAP")) == (
        "toward_zero",
        "wrap",
    )


def test_rounding_names():
    fmt = get_format("e5m2")
    for alias, name in (
        ("rne", "nearest_even"), ("rna", "nearest_away"), ("rtz", "toward_zero"),
        ("rup", "toward_positive"), ("rdn", "toward_negative"), ("rto", "to_odd"),
        ("RND", "nearest_up"), ("RND_ZERO", "nearest_zero"), ("RND_MIN_INF", "nearest_down"),
        ("RND_INF", "nearest_away"), ("RND_CONV", "nearest_even"), ("TRN", "toward_negative"),
        ("TRN_ZERO", "toward_zero"),
    ):  # fmt: skip
        assert fmt.resolved_rounding(alias) == fmt.resolved_rounding(name) == name
    for name in ("nearest_odd", "away_from_zero", "jam", "stochastic"):
        assert fmt.resolved_rounding(name) == name
    for unknown in ("tz", "tp", "tn", "rnz", "nearest_toward_zero", "RNE", "trn", ""):
        with pytest.raises(ValueError, match=f"unknown rounding '{unknown}'"):
            fmt.resolved_rounding(unknown)


FIELDS = {"exponent_bits": 4, "mantissa_bits": 3}


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"exponent_bits": 12}, ValueError, r"exponent_bits must be in 0\.\.11, got 12"),
        ({"exponent_bits": -1}, ValueError, r"exponent_bits must be in 0\.\.11, got -1"),
        ({"exponent_bits": 4.0}, TypeError, r"exponent_bits must be an integer, got 4\.0 \(float"),
        ({"exponent_bits": True}, TypeError, "exponent_bits must be an integer, got True"),
        ({"mantissa_bits": 53}, ValueError, r"mantissa_bits must be in 0\.\.52, got 53"),
        ({"mantissa_bits": "3"}, TypeError, "mantissa_bits must be an integer, got '3'"),
        ({"bias": 1.5}, TypeError, r"bias must be an integer, got 1\.5"),
        ({"exponent_bits": 0, "specials": "none"}, ValueError, "bias must be given"),
        ({"exponent_bits": 0, "bias": 1}, ValueError, "exponent_bits must be at least 1"),
        ({"code0": "subnormals"}, ValueError, "unknown code0 'subnormals'; nearest: 'subnormal'"),
        ({"code0": 0}, TypeError, r"code0 must be a string, got 0 \(int\)"),
        ({"specials": "IEEE"}, ValueError, "unknown specials 'IEEE'; nearest: 'ieee'"),
        ({"signed": 1}, TypeError, "signed must be a bool, got 1"),
        ({"name": None}, TypeError, "name must be a string, got None"),
        ({"specials": "fn", "mantissa_bits": 0}, ValueError, "mantissa_bits must be at least 1"),
        ({"specials": "fnuz", "signed": False}, ValueError, "signed must be True for specials='fn"),
        ({"specials": "e8m0"}, ValueError, "signed must be False for specials='e8m0', got True"),
        ({"specials": "e8m0", "signed": False}, ValueError, "mantissa_bits must be 0"),
        ({"specials": "e8m0", "signed": False, "mantissa_bits": 0}, ValueError, "code0 must be"),
        ({"specials": "p3109", "code0": "zero"}, ValueError, "code0 must be 'subnormal'"),
        ({"specials": "p3109", "exponent_bits": 17}, ValueError, r"in 0\.\.16, got 17"),
        ({"exponent_bits": 1, "mantissa_bits": 0}, ValueError, "must have a finite value"),
        ({"mantissa_bits": 52, "exponent_bits": 11, "padding_bits": 1}, ValueError, "got 65"),
        ({"specials": "fnuz", "negative_zero": True}, ValueError, "negative_zero must be None or"),
        ({"overflow": "saturate"}, ValueError, "unknown overflow 'saturate'; nearest: 'sat_"),
        ({"overflow": 1}, TypeError, "overflow must be a string, got 1"),
        ({"specials": "fn", "overflow": "to_inf"}, ValueError, "'to_inf' needs a format with Inf;"),
        ({"specials": "none", "overflow": "to_nan"}, ValueError, "needs a format with NaN;"),
        ({"specials": "none", "overflow": "ieee"}, ValueError, "needs a format with Inf or NaN"),
        ({"underflow": "flush"}, ValueError, "unknown underflow 'flush'; nearest: 'flush_"),
        ({"code0": "ordinary", "underflow": "gradual"}, ValueError, "got 'gradual'"),
        ({"nan_to": "max"}, ValueError, "unknown nan_to 'max'; nearest: 'max_pos'"),
    ],
)
def test_float_fields_that_contradict(changes, error, text):
    with pytest.raises(error, match=text):
        FloatFormat(**(FIELDS | changes))


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"bits": 0}, ValueError, r"bits must be in 1\.\.64, got 0"),
        ({"bits": 8.0}, TypeError, "bits must be an integer"),
        ({"fraction_bits": None}, TypeError, "fraction_bits must be an integer, got None"),
        ({"signed": "yes"}, TypeError, "signed must be a bool"),
        ({"rounding": "TRUNC"}, ValueError, "unknown rounding 'TRUNC'; nearest: 'TRN'"),
        ({"overflow": "sat_finite"}, ValueError, "unknown overflow 'sat_finite'"),
        ({"overflow": None}, TypeError, "overflow must be a string, got None"),
        ({"overflow": "WRAP_SM", "signed": False}, ValueError, "another mode for signed=False"),
        ({"overflow": "SAT", "wrap_bits": 1}, ValueError, "wrap_bits must be 0 unless"),
        ({"wrap_bits": -1}, ValueError, r"wrap_bits must be in 0\.\.64, got -1"),
    ],
)
def test_fixed_fields_that_contradict(changes, error, text):
    with pytest.raises(error, match=text):
        FixedFormat(**({"bits": 8, "fraction_bits": 4} | changes))


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("e4m3f", ValueError, "unknown format 'e4m3f'; nearest: 'e4m3fn'"),
        ("E4M3FN", ValueError, "unknown format 'E4M3FN'; nearest: 'e4m3fn'"),
        ("xyzzy", ValueError, "unknown format 'xyzzy'; expected one of e4m3fn, "),
        ("", ValueError, "unknown format ''"),
        ("binary2p1se", ValueError, r"width K must be in 3\.\.16, got 2"),
        ("binary17p1se", ValueError, r"width K must be in 3\.\.16, got 17"),
        ("binary8p8se", ValueError, r"precision P must be in 1\.\.7 .* got 8"),
        ("binary8p9uf", ValueError, r"precision P must be in 1\.\.8 .* got 9"),
        ("binary8p0se", ValueError, r"precision P must be in 1\.\.7 .* got 0"),
        ("binary8p4", ValueError, "nearest: 'binary8p4se'"),
        (np.int8, TypeError, r"got int8; write an integer format as FixedFormat"),
        (np.dtype("complex64"), TypeError, "got complex64$"),
        (ml_dtypes.int4, TypeError, "got int4; write"),
        (float, TypeError, "format must be a name"),
        (None, TypeError, r"got None \(NoneType\)"),
        (8, TypeError, r"got 8 \(int\)"),
    ],
)
def test_names_that_are_none(name, error, text):
    with pytest.raises(error, match=text):
        get_format(name)


def test_dicts_that_are_none():
    data = get_format("e5m2").to_dict()
    with pytest.raises(ValueError, match="unknown field 'exponent'; nearest: 'exponent_bits'"):
        FloatFormat.from_dict({**data, "exponent": 3})
    with pytest.raises(ValueError, match="'kind'] must be 'fixed', got 'float'"):
        FixedFormat.from_dict(data)
    with pytest.raises(ValueError, match="'kind'] must be 'float' or 'fixed', got 'block'"):
        format_from_dict({**data, "kind": "block"})
    with pytest.raises(TypeError, match="mantissa_bits"):
        FloatFormat.from_dict({"exponent_bits": 3})


def test_values_that_do_not_fit_float64():
    wide = FloatFormat(exponent_bits=5, mantissa_bits=2, bias=-2000)
    for query in ("max", "min", "smallest_normal", "smallest_subnormal", "value_dtype"):
        with pytest.raises(ValueError, match="float64"):
            getattr(wide, query)
    for query in (wide.values, wide.code_values):
        with pytest.raises(ValueError, match="do not fit float64"):
            query()
    assert (wide.emin, wide.emax, wide.max_code) == (2001, 2030, 0x7B)
    low = FloatFormat(exponent_bits=5, mantissa_bits=2, bias=1075)
    assert low.smallest_normal == 2.0**-1074
    with pytest.raises(ValueError, match=r"smallest_subnormal .* does not fit float64"):
        _ = low.smallest_subnormal
    assert get_format("binary16p1ue").emax == 32765
    long = FixedFormat(bits=64, fraction_bits=0)
    assert long.min == -(2.0**63)
    with pytest.raises(ValueError, match=r"max .* does not fit float64"):
        _ = long.max
