"""encode and decode: every code word of every narrow format, there and back."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab
from quantize_cases import DETERMINISTIC, bits_of, floats_of, generic_formats

PRESETS = [name for name in ab.formats() if ab.get_format(name).bits <= 16]
P3109 = [
    f"binary{width}p{precision}{sign}{domain}"
    for width in (3, 4, 5, 6, 8)
    for sign in "su"
    for precision in range(1, width + (sign == "u"))
    for domain in "ef"
]
LBA = [ab.lba_format(7, 4, 10), ab.lba_format(4, 3, 5), ab.lba_format(0, 3, 2)]


def words_of(fmt):
    return np.arange(1 << fmt.bits, dtype=fmt.code_dtype) << fmt.padding_bits


def canonical(words, values, fmt):
    """Return the words that encode gives back: not the other NaNs, nor words without a meaning."""
    keep = np.ones(words.shape, bool)
    if fmt.nan_code is not None:
        keep &= ~np.isnan(values) | (words == fmt.nan_code)
    zeros = values == 0
    keep &= ~zeros | (words == 0) | ((words == fmt.sign_mask) & fmt.has_negative_zero)
    return keep


def assert_round_trip(fmt, roundings=DETERMINISTIC):
    words = words_of(fmt)
    values = ab.decode(words, fmt)
    assert values.dtype == fmt.value_dtype
    assert np.array_equal(bits_of(values), bits_of(fmt.code_values()))
    keep = canonical(words, values, fmt)
    words, values = words[keep], values[keep]
    for rounding in roundings:
        if rounding != "jam":  # moves exact values too
            for source in (values, values.astype(np.float64)):
                codes = ab.encode(source, fmt, rounding)
                assert codes.dtype == fmt.code_dtype
                assert np.array_equal(codes, words), (fmt, rounding)
    codes = ab.encode(values, fmt, "stochastic", seed=1)
    assert np.array_equal(codes, words)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_there_and_back(isa, name):
    assert_round_trip(ab.get_format(name))


@pytest.mark.parametrize("width", [3, 4, 5, 6, 8])
def test_p3109_there_and_back(isa, width):
    for name in P3109:
        if name.startswith(f"binary{width}p"):
            assert_round_trip(ab.get_format(name))


@pytest.mark.parametrize("name", ["binary16p8se", "binary16p11uf", "binary12p5sf", "binary9p1ue"])
def test_wider_p3109_there_and_back(isa, name):
    assert_round_trip(ab.get_format(name))


@pytest.mark.parametrize("code0", ["subnormal", "ordinary", "zero"])
@pytest.mark.parametrize("specials", ["ieee", "fn", "fnuz", "none"])
def test_generic_formats_there_and_back(isa, specials, code0):
    for signed in (True, False):
        if signed or specials != "fnuz":
            for fmt in generic_formats(specials=specials, code0=code0, signed=signed):
                assert_round_trip(fmt, ["nearest_even", "toward_positive", "away_from_zero"])


@pytest.mark.parametrize("fmt", LBA, ids=["m7e4", "m4e3", "m0e3"])
def test_lba_there_and_back(isa, fmt):
    assert_round_trip(fmt)


def test_decode_equals_the_oracle(isa):
    for name in [*PRESETS, *P3109]:
        fmt = ab.get_format(name)
        if fmt.bits <= 8:
            values = ab.decode(words_of(fmt), fmt).astype(np.float64)
            assert np.array_equal(bits_of(values), bits_of(floats_of(fmt))), name


@pytest.mark.parametrize("rules", [
    {"underflow": "flush_before"},
    {"underflow": "cell"},
    {"overflow": "sat_finite", "nan_to": "zero"},
    {"overflow": "to_nan", "nan_to": "raise"},
])  # fmt: skip
def test_decode_does_not_depend_on_the_rules_of_the_format(isa, rules):
    for name in ("e4m3fn", "e5m2", "bf16"):
        fmt = ab.get_format(name)
        values = ab.decode(words_of(fmt), fmt.replace(**rules))
        assert np.array_equal(bits_of(values), bits_of(fmt.code_values()))


@pytest.mark.parametrize("name", ["tf32", "fp22", "binary32", "binary64"])
def test_wide_formats_there_and_back(isa, name):
    fmt = ab.get_format(name)
    rng = np.random.default_rng(1)
    words = rng.integers(0, 1 << 64, 100_000, np.uint64) >> np.uint64(64 - fmt.bits)
    words = (words << np.uint64(fmt.padding_bits)).astype(fmt.code_dtype)
    values = ab.decode(words, fmt)
    number = ~np.isnan(values)
    assert np.array_equal(ab.encode(values[number], fmt), words[number])
    assert (ab.encode(values[~number], fmt) == fmt.nan_code).all()
    if fmt.ml_dtype is not None:
        assert np.array_equal(bits_of(values[number]), words[number])
    if name == "tf32":
        same = words.view(np.float32)
        assert np.array_equal(bits_of(values[number]), bits_of(same[number]))
        assert np.array_equal(ab.decode(words | 0x1FFF, fmt)[number], values[number])


@pytest.mark.parametrize("padding", [1, 8, 24, 32, 56])
def test_padding_bits(isa, padding):
    plain = ab.get_format("e5m2")
    fmt = plain.replace(padding_bits=padding)
    shift = np.array(padding, fmt.code_dtype)
    words = np.arange(256, dtype=fmt.code_dtype)
    values = ab.decode(words << shift, fmt)
    assert np.array_equal(bits_of(values), bits_of(ab.decode(words, plain)))
    assert np.array_equal(ab.encode(values, fmt) >> shift, ab.encode(values, plain))


def test_words_are_values_on_the_line_of_magnitudes():
    # The smallest word that rounds to each preset's largest value, and what is beyond.
    for name, x, code in (
        ("e4m3fn", 464, 0x7E), ("e4m3fn", 465, 0x7F), ("e5m2", 61439, 0x7B), ("e5m2", 61440, 0x7C),
        ("e4m3fnuz", 247.9, 0x7F), ("e4m3fnuz", 248, 0x80), ("e3m0", 1e9, 7), ("e3m0", -0.1, 0),
        ("e8m0", 0, 0xFF), ("e8m0", 2.0**-140, 0), ("e8m0", np.inf, 0xFF), ("e8m0", 3, 0x80),
        ("fp7_142", 0.99, 0), ("fp7_142", -0.99, 0x40), ("uniform4", -7.4, 15),
        ("binary8p4se", np.inf, 0x7F), ("binary8p4se", -np.inf, 0xFF), ("tf32", 1, 0x3F800000),
    ):  # fmt: skip
        assert ab.encode(np.float32([x]), name).tolist() == [code], (name, x)


def test_lba_smallest_value_has_no_word(isa):
    fmt = ab.lba_format(7, 4, 10)
    x = np.float32([[3, 1], [2.0**-10 * 1.001, 2.0**-10]])
    assert ab.quantize(x, fmt)[1].tolist() == [2.0**-10, 2.0**-10]
    with pytest.raises(ValueError, match=r"the word of \+-0.0009765625 is zero's .* at \[1, 0\]"):
        ab.encode(x, fmt)
    random = np.zeros(3, np.uint32)
    for rounding in ("stochastic", "toward_positive"):
        with pytest.raises(ValueError, match=r"got -0.00098 at \[2\]"):
            ab.encode(np.float64([1, 5, -0.00098]), fmt, rounding, random_bits=random)
    above = x * np.float32(1.01)
    assert np.array_equal(ab.decode(ab.encode(above, fmt), fmt), ab.quantize(above, fmt))
    out = np.zeros(1, np.uint16)
    with pytest.raises(ValueError, match="the word of"):
        ab.encode(x[1, 1:], fmt, out=out)
    below = ab.encode(np.float32([2.0**-10 * 0.999, -(2.0**-11)]), fmt)
    assert below.tolist() == [0, fmt.sign_mask]  # flushed before rounding


DTYPES = [name for name in ab.formats() if ab.get_format(name).ml_dtype is not None]


@pytest.mark.parametrize("name", DTYPES)
def test_dtype_views_the_same_bytes(isa, name):
    fmt = ab.get_format(name)
    x = np.abs(np.random.default_rng(2).normal(size=(4, 3)))
    typed, codes = ab.encode(x, fmt, dtype=True), ab.encode(x, fmt)
    assert typed.dtype == fmt.ml_dtype
    assert np.array_equal(typed.view(fmt.code_dtype), codes)
    assert np.array_equal(ab.decode(typed, fmt), ab.decode(codes, fmt))
    assert np.array_equal(typed.astype(np.float64), ab.quantize(x, fmt))
    out = np.zeros(x.shape, fmt.ml_dtype)
    assert ab.encode(x, fmt, dtype=True, out=out) is out
    assert np.array_equal(out.view(fmt.code_dtype), codes)
    with pytest.raises(TypeError, match="out must have dtype"):
        ab.encode(x, fmt, dtype=True, out=np.zeros(x.shape, bool))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("signed", [True, False])
def test_integer_dtypes(isa, bits, signed):
    fmt = ab.FixedFormat(bits=bits, fraction_bits=0, signed=signed, overflow="saturate")
    if bits == 64 and not signed:
        with pytest.raises(ValueError, match="at most 63 for an unsigned"):
            ab.encode(np.float64([1]), fmt)
        return
    limits = [fmt.min_code, max(fmt.min_code, -1), 0, min(1, fmt.max_code)]
    x = np.array(limits, np.float64)
    typed = ab.encode(x, fmt, dtype=True)
    assert typed.dtype == fmt.ml_dtype
    assert [int(v) for v in typed] == limits
    assert typed.tobytes() == np.array(limits).astype(fmt.ml_dtype).tobytes()
    out = np.zeros((4, 2), fmt.ml_dtype)[:, 1]
    assert ab.encode(x, fmt, dtype=True, out=out) is out
    assert out.tobytes() == typed.tobytes()
    assert ab.encode(x[0], fmt, dtype=True) == typed[0]
    if bits < 64:
        assert np.array_equal(ab.decode(typed, fmt), x)


def test_codes_of_narrow_integer_dtypes():
    assert ab.decode(np.array([1, 15], ml_dtypes.uint4), "e2m1").tolist() == [0.5, -6]
    fixed = ab.FixedFormat(bits=6, fraction_bits=1)
    assert ab.decode(np.array([1, -8], ml_dtypes.int4), fixed).tolist() == [0.5, -4]


def test_dtype_needs_a_dtype():
    for fmt in ("e3m0", "tf32", ab.FixedFormat(bits=12, fraction_bits=0)):
        with pytest.raises(ValueError, match="dtype=True needs a format with a dtype"):
            ab.encode(np.float32([1]), fmt, dtype=True)


@pytest.mark.parametrize(("codes", "fmt", "error", "message"), [
    ([0, 256], "e4m3fn", ValueError, r"codes must be in 0\.\.255, got 256 at \[1\]"),
    ([[0], [-1]], "e4m3fn", ValueError, r"codes must be in 0\.\.255, got -1 at \[1, 0\]"),
    (np.uint8([16]), "e2m1", ValueError, r"codes must be in 0\.\.15, got 16 at \[0\]"),
    (np.uint64([1 << 63]), "bf16", ValueError, "got 9223372036854775808"),
    (np.int64([-1]), "binary64", ValueError, "got -1"),
    ([8], ab.FixedFormat(bits=4, fraction_bits=0), ValueError, r"codes must be in -8\.\.7, got 8"),
    (np.uint64([8]), ab.FixedFormat(bits=4, fraction_bits=0), ValueError, r"in -8\.\.7, got 8"),
    ([-1], ab.FixedFormat(bits=4, fraction_bits=0, signed=False), ValueError, r"in 0\.\.15"),
    ([0.0], "e4m3fn", TypeError, "codes must hold integers or the dtype of 'e4m3fn', got float64"),
    ([True], "e4m3fn", TypeError, "got bool"),
    (np.array([1], ml_dtypes.float8_e5m2), "e4m3fn", TypeError, "got float8_e5m2"),
    (["1"], "e4m3fn", TypeError, "codes must hold integers"),
    ([1], "e4m3", None, ""),
    ([1], "e4m3f", ValueError, "unknown format 'e4m3f'"),
    ([1], ab.FloatFormat(exponent_bits=5, mantissa_bits=2, bias=2000), ValueError, "float64"),
    ([1], ab.FixedFormat(bits=8, fraction_bits=2000), ValueError, "float64"),
    ([1], ab.FixedFormat(bits=60, fraction_bits=0), ValueError, "do not fit float64"),
])  # fmt: skip
def test_codes_that_are_none(codes, fmt, error, message):
    if error is None:
        ab.decode(codes, fmt)
        return
    with pytest.raises(error, match=message):
        ab.decode(codes, fmt)


def test_decode_arguments():
    with pytest.raises(ValueError, match="threads: expected 1 to"):
        ab.decode([1], "e4m3fn", threads=0)
    with pytest.raises(TypeError, match="out must have dtype float32, got float64"):
        ab.decode([1], "e4m3fn", out=np.zeros(1))
    with pytest.raises(TypeError, match="out must have dtype float64, got float32"):
        ab.decode([1], "binary64", out=np.zeros(1, np.float32))
    assert ab.decode(np.array([], np.uint8), "e4m3fn").shape == (0,)
    assert ab.decode(np.array([0x3F80], ">u2"), "bf16").tolist() == [1]
    assert ab.decode(np.int64([0x3F80]), "bf16").tolist() == [1]
