"""The narrow quantise, encode and decode kernels beside the general ones: equal bits."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import _core
from abcdeep_core._quantizer import float_quantizer
from quantize_cases import DETERMINISTIC, assert_same, bits_of, generic_formats

PRESETS = {name: ab.get_format(name) for name in ab.formats()}
PRESETS = {
    name: form
    for name, form in PRESETS.items()
    if isinstance(form, ab.FloatFormat) and form.value_dtype == np.float32
}
OTHERS = {
    "m7e4": ab.lba_format(7, 4, 10),
    "m4e3": ab.lba_format(4, 3, 5),
    "e8m21": ab.FloatFormat(exponent_bits=8, mantissa_bits=21),
    "e5m15 high": ab.FloatFormat(exponent_bits=5, mantissa_bits=15, bias=-90),
    "e5m3 low": ab.FloatFormat(exponent_bits=5, mantissa_bits=3, bias=127),
    "e5m3 near low": ab.FloatFormat(exponent_bits=5, mantissa_bits=3, bias=126),
    "binary8p4se": ab.get_format("binary8p4se"),
    "binary8p3sf": ab.get_format("binary8p3sf"),
    "binary8p4ue": ab.get_format("binary8p4ue"),
}
FORMATS = PRESETS | OTHERS
NO_RESULT = 1 | 4  # NaN, or no word: cpp/quantize.hpp
SEED = (0x0123456789ABCDEF, 3, 5)


@cache
def inputs() -> np.ndarray:
    """Return float16's numbers, random bits, ties at many widths, ends of float32, NaN payloads."""
    rng = np.random.default_rng(0)
    with np.errstate(invalid="ignore"):
        half = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    random = rng.integers(0, 1 << 32, 1 << 16, np.uint32)
    kept = rng.integers(0, 24, random.size).astype(np.uint32)  # 1 and then zeros after these bits
    ties = (random | 1) << kept
    ties = (random & np.uint32(0xFF800000)) | (ties & np.uint32(0x007FFFFF))
    around = np.concatenate([ties, ties - 1, ties + 1])
    few = rng.integers(0, 1 << 9, 1 << 12, np.uint32)
    ends = np.concatenate(
        [base + few for base in map(np.uint32, (0, 0x7F800000, 0x7F7FFF00, 0x00800000 - 256))]
    )
    words = np.concatenate([bits_of(half), random, around, ends, ends | np.uint32(1 << 31)])
    return words.view(np.float32)


def both(x, q, dtype, code_bytes, seed=SEED):
    """Return the results and failures of the narrow and of the general kernel."""
    found = []
    for general in (False, True):
        out = np.zeros(x.shape, dtype)
        failed = _core.quantize(x, out, code_bytes, q, *seed, None, 1, general)
        found.append((out, failed))
    return found


def assert_equal(x, fmt, rounding="nearest_even", words=True, **rules):
    q = float_quantizer(fmt, rounding, **rules)
    if q.nan_is_error:
        assert both(x, q, np.float32, 0)[0][1] & 1 == np.isnan(x).any()
        x = x[~np.isnan(x)]
    dtypes = [np.dtype(np.float32)]
    if words and fmt.code_dtype.itemsize <= 2:
        dtypes.append(fmt.code_dtype)
    for dtype in dtypes:
        (got, failed), (expected, expected_failed) = both(x, q, dtype, dtype.itemsize % 4)
        assert failed == expected_failed, (fmt, rounding, rules, dtype)
        if failed & NO_RESULT:
            continue  # the call raises
        assert_same(got, expected, x, fmt, rounding, rules, dtype)


def test_which_jobs_are_narrow():
    """The formats and modes that the docs promise; otherwise these tests compare nothing."""
    fast = ("e4m3fn", "e5m2", "e4m3fnuz", "e2m1", "e3m2", "fp16", "bf16", "fp22", "m7e4")
    for name in fast:
        for rounding in DETERMINISTIC:
            q = float_quantizer(FORMATS[name], rounding)
            assert _core.quantizes_narrow(q, 0) == (rounding != "jam"), (name, rounding)
        for rule in ("a", "b", "c", "odd"):
            q = float_quantizer(FORMATS[name], "stochastic", bits=8, rule=rule)
            assert _core.quantizes_narrow(q, 0)
    assert not _core.quantizes_narrow(float_quantizer(FORMATS["e8m0"]), 1)
    assert not _core.quantizes_narrow(float_quantizer(FORMATS["e4m3fn"], underflow="cell"), 1)


@pytest.mark.parametrize("rounding", DETERMINISTIC)
def test_every_format_and_rounding(isa, rounding):
    for fmt in FORMATS.values():
        assert_equal(inputs(), fmt, rounding)


@pytest.mark.parametrize("underflow", ["gradual", "flush_before", "flush_after", "cell"])
@pytest.mark.parametrize("overflow", ["sat_finite", "sat_propagate", "ieee", "to_nan", "to_inf"])
def test_every_range_rule(isa, overflow, underflow):
    compared = 0
    for fmt in FORMATS.values():
        for rounding in ("nearest_even", "toward_zero", "toward_positive", "to_odd"):
            rules = {"overflow": overflow, "underflow": underflow}
            try:
                float_quantizer(fmt, rounding, **rules)
            except ValueError:
                continue
            assert_equal(inputs(), fmt, rounding, **rules)
            compared += 1
    assert compared > 10


@pytest.mark.parametrize("nan_to", [None, "raise", "zero", "max_pos"])
def test_every_nan_rule(isa, nan_to):
    finite = inputs()[np.isfinite(inputs())]
    for name in ("e4m3fn", "e5m2", "e2m1", "m7e4", "fp16", "e4m3fnuz"):
        fmt = FORMATS[name]
        for rounding in ("nearest_even", "toward_zero", "nearest_away"):
            for x in (inputs(), finite):
                assert_equal(x, fmt, rounding, nan_to=nan_to)


@pytest.mark.parametrize("specials", ["ieee", "fn", "fnuz", "none"])
@pytest.mark.parametrize("code0", ["subnormal", "ordinary", "zero"])
def test_generic_formats(isa, code0, specials):
    x = inputs()[::7].copy()
    for fmt in generic_formats(code0=code0, specials=specials):
        for rounding in ("nearest_even", "toward_zero", "nearest_odd"):
            assert_equal(x, fmt, rounding)


@pytest.mark.parametrize("rule", ["a", "b", "c", "odd"])
@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8, 9])
def test_stochastic_rules(isa, rule, bits):
    x = inputs()[::3].copy()
    for fmt in FORMATS.values():
        assert_equal(x, fmt, "stochastic", bits=bits, rule=rule)
    for underflow in ("flush_before", "flush_after"):
        rules = {"bits": bits, "rule": rule, "underflow": underflow}
        assert_equal(x, FORMATS["e4m3fn"], "stochastic", **rules)


def decoded(words, q, general):
    out = np.zeros(words.shape, np.float32)
    _core.decode(words, out, q, 1, general)
    return out


def all_decodable():
    yield from FORMATS.values()
    for code0 in ("subnormal", "ordinary", "zero"):
        for specials in ("ieee", "fn", "fnuz", "none"):
            yield from generic_formats(code0=code0, specials=specials)


def test_decode(isa):
    for fmt in all_decodable():
        if fmt.code_dtype.itemsize > 2:
            continue
        words = np.arange(1 << (fmt.bits + fmt.padding_bits)).astype(fmt.code_dtype)
        underflow = "gradual" if fmt.code0 == "subnormal" else None
        q = float_quantizer(fmt, "nearest_even", overflow="sat_finite", underflow=underflow)
        q.nan_value = np.nan
        got, expected = decoded(words, q, False), decoded(words, q, True)
        assert np.array_equal(bits_of(got), bits_of(expected)), fmt


@pytest.mark.parametrize("name", ["e4m3fn", "m7e4"])
def test_every_length_and_alignment(isa, name):
    fmt, x = FORMATS[name], inputs()[1000:]
    for rounding, bits in (("nearest_even", None), ("to_odd", None), ("stochastic", 8)):
        q = float_quantizer(fmt, rounding, bits=bits)
        for dtype in (np.dtype(np.float32), fmt.code_dtype):
            code_bytes = dtype.itemsize % 4
            expected = np.zeros(200, dtype)
            _core.quantize(x[:200], expected, code_bytes, q, *SEED, None, 1, True)
            for start in (0, 1, 3, 7):
                for length in range(131):
                    out = np.full(200, 77, dtype)
                    part = out[start : start + length]
                    _core.quantize(x[:length], part, code_bytes, q, *SEED, None, 1)
                    assert np.array_equal(bits_of(part), bits_of(expected[:length]))
                    assert (np.delete(out, slice(start, start + length)) == 77).all()
    words = np.arange(200).astype(fmt.code_dtype)
    q = float_quantizer(fmt)
    expected = decoded(words, q, True)
    for start in (0, 1, 3, 7):
        for length in range(131):
            out = np.full(200, 77, np.float32)
            _core.decode(words[start:][:length], out[start:][:length], q, 1)
            part = out[start:][:length]
            assert np.array_equal(bits_of(part), bits_of(expected[start:][:length]))
            assert (np.delete(out, slice(start, start + length)) == 77).all()


@pytest.mark.parametrize("rounding", ["nearest_even", "to_odd", "stochastic"])
def test_large_arrays_in_place_strided_and_threaded(isa, rounding):
    """Above the size from which stores go past the caches."""
    x = np.tile(inputs(), 5)[:1_300_003]
    rules = {"bits": 8, "seed": 7} if rounding == "stochastic" else {}
    q = float_quantizer(FORMATS["e4m3fn"], rounding, bits=rules.get("bits"))
    expected = np.empty_like(x)
    _core.quantize(x, expected, 0, q, 7, 0, 0, None, 1, True)
    for threads in (1, 2, 3):
        out = np.empty_like(x)
        assert ab.quantize(x, "e4m3fn", rounding, out=out, threads=threads, **rules) is out
        assert np.array_equal(bits_of(out), bits_of(expected))
    wide = np.zeros((x.size, 2), np.float32)
    wide[:, 1] = x
    got = ab.quantize(wide[:, 1], "e4m3fn", rounding, **rules)
    assert np.array_equal(bits_of(got), bits_of(expected))
    ab.quantize(wide[:, 1], "e4m3fn", rounding, out=wide[:, 1], **rules)
    assert np.array_equal(bits_of(wide[:, 1].copy()), bits_of(expected))
    ab.quantize(x, "e4m3fn", rounding, out=x, **rules)
    assert np.array_equal(bits_of(x), bits_of(expected))
    codes = ab.encode(x, "e4m3fn")
    back = ab.decode(codes, "e4m3fn", out=np.empty_like(x))
    assert np.array_equal(back.view(np.uint32), bits_of(expected))


def test_shifted_views_of_the_same_memory(isa):
    memory = inputs()[:5000].copy()
    expected = ab.quantize(memory[:-3].copy(), "e4m3fn")
    ab.quantize(memory[:-3], "e4m3fn", out=memory[3:])
    assert np.array_equal(bits_of(memory[3:]), bits_of(expected))
    memory = inputs()[:5000].copy()
    expected = ab.encode(memory[:1250].copy(), "e4m3fn")
    ab.encode(memory[:1250], "e4m3fn", out=memory.view(np.uint8)[:1250])
    assert np.array_equal(memory.view(np.uint8)[:1250], expected)


@pytest.mark.parametrize("encode", [False, True])
def test_a_call_that_fails_leaves_its_arrays(isa, encode):
    x = np.linspace(-1, 1, 3000, dtype=np.float32)
    for fmt, bad, message in [
        (FORMATS["e2m1"], np.nan, "NaN"),
        (FORMATS["m7e4"], np.nan, "NaN"),
        (FORMATS["ue4m3"], -1, "negative"),
    ]:
        values = np.abs(x) + np.float32(0.5)
        values[1234] = bad
        before = values.copy()
        others = [np.full(x.size, 3, fmt.code_dtype)] if encode else [np.zeros_like(x), values]
        for out in others:
            kept = out.copy()
            with pytest.raises(ValueError, match=rf"{message} at \[1234\]"):
                (ab.encode if encode else ab.quantize)(values, fmt, out=out)
            assert np.array_equal(bits_of(out), bits_of(kept))
            assert np.array_equal(bits_of(values), bits_of(before))


def test_a_result_without_a_word_leaves_out(isa):
    x = np.full(3000, 1, np.float32)
    x[77] = FORMATS["m7e4"].smallest_normal
    out = np.full(x.size, 9, FORMATS["m7e4"].code_dtype)
    with pytest.raises(ValueError, match=r"have a word: .* at \[77\]"):
        ab.encode(x, FORMATS["m7e4"], out=out)
    assert (out == 9).all()
