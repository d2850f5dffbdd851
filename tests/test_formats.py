"""Formats: the preset table literally, code tables against independent truth."""

import re
from fractions import Fraction
from itertools import product

import ml_dtypes
import numpy as np
import pytest

from abcdeep_core import FixedFormat, FloatFormat, formats, get_format, lba_format


def p2(exponent):
    return Fraction(2) ** exponent


# name, s-E-M, bias, specials, max, its word, smallest normal, smallest subnormal, words of Inf,
# words of NaN, word of 1.0, number of finite values (-0 is 0)
PRESET_ROWS = [
    ("e4m3fn", "1-4-3", 7, "fn", 448, 0x7E, p2(-6), p2(-9), [], [0x7F, 0xFF], 0x38, 253),
    ("e5m2", "1-5-2", 15, "ieee", 57344, 0x7B, p2(-14), p2(-16), [0x7C, 0xFC],
     [0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF], 0x3C, 247),
    ("e4m3fnuz", "1-4-3", 8, "fnuz", 240, 0x7F, p2(-7), p2(-10), [], [0x80], 0x40, 255),
    ("e5m2fnuz", "1-5-2", 16, "fnuz", 57344, 0x7F, p2(-15), p2(-17), [], [0x80], 0x40, 255),
    ("e4m3b11fnuz", "1-4-3", 11, "fnuz", 30, 0x7F, p2(-10), p2(-13), [], [0x80], 0x58, 255),
    ("e4m3", "1-4-3", 7, "ieee", 240, 0x77, p2(-6), p2(-9), [0x78, 0xF8],
     [*range(0x79, 0x80), *range(0xF9, 0x100)], 0x38, 239),
    ("e3m4", "1-3-4", 3, "ieee", Fraction("15.5"), 0x6F, p2(-2), p2(-6), [0x70, 0xF0],
     [*range(0x71, 0x80), *range(0xF1, 0x100)], 0x30, 223),
    ("e2m3", "1-2-3", 1, "none", Fraction("7.5"), 0x1F, 1, p2(-3), [], [], 0x08, 63),
    ("e3m2", "1-3-2", 3, "none", 28, 0x1F, p2(-2), p2(-4), [], [], 0x0C, 63),
    ("e2m1", "1-2-1", 1, "none", 6, 0x7, 1, Fraction("0.5"), [], [], 0x2, 15),
    ("e3m0", "1-3-0", 1, "none", 64, 0x7, 1, None, [], [], 0x1, 15),
    ("uniform4", "1-1-2", -1, "none", 7, 0x7, 4, 1, [], [], 0x1, 15),
    ("fp7_142", "1-4-2", 1, "none", Fraction("1.75") * p2(14), 0x3F, 1, None, [], [], 0x04, 121),
    ("e8m0", "0-8-0", 127, "e8m0", p2(127), 0xFE, p2(-127), None, [], [0xFF], 0x7F, 255),
    ("ue4m3", "0-4-3", 7, "fn", 448, 0x7E, p2(-6), p2(-9), [], [0x7F], 0x38, 127),
    ("fp16", "1-5-10", 15, "ieee", 65504, 0x7BFF, p2(-14), p2(-24), [0x7C00, 0xFC00],
     [*range(0x7C01, 0x8000), *range(0xFC01, 0x10000)], 0x3C00, 63487),
    ("bf16", "1-8-7", 127, "ieee", p2(127) * (2 - p2(-7)), 0x7F7F, p2(-126), p2(-133),
     [0x7F80, 0xFF80], [*range(0x7F81, 0x8000), *range(0xFF81, 0x10000)], 0x3F80, 65279),
    ("tf32", "1-8-10", 127, "ieee", p2(127) * (2 - p2(-10)), 0x7F7FE000, p2(-126), p2(-136),
     [0x7F800000, 0xFF800000], None, 0x3F800000, None),
    ("fp22", "1-8-13", 127, "ieee", p2(127) * (2 - p2(-13)), 0x1FDFFF, p2(-126), p2(-139),
     [0x1FE000, 0x3FE000], None, 0xFE000, None),
    ("binary32", "1-8-23", 127, "ieee", p2(127) * (2 - p2(-23)), 0x7F7FFFFF, p2(-126), p2(-149),
     [0x7F800000, 0xFF800000], None, 0x3F800000, None),
    ("binary64", "1-11-52", 1023, "ieee", p2(1023) * (2 - p2(-52)), 0x7FEF_FFFF_FFFF_FFFF,
     p2(-1022), p2(-1074), [0x7FF0 << 48, 0xFFF0 << 48], None, 0x3FF0 << 48, None),
]  # fmt: skip


def exact_value(fmt, word):
    """Return the value of a word as a Fraction, "nan", "inf" or "-inf": by the definition."""
    e_bits, m_bits = fmt.exponent_bits, fmt.mantissa_bits
    sign = word >> (e_bits + m_bits)
    e, m = (word >> m_bits) & ((1 << e_bits) - 1), word & ((1 << m_bits) - 1)
    all_ones = e == (1 << e_bits) - 1 and m == (1 << m_bits) - 1
    infinity = "-inf" if sign else "inf"
    match fmt.specials:
        case "ieee" if e == (1 << e_bits) - 1:
            return "nan" if m else infinity
        case "fn" | "e8m0" if all_ones:
            return "nan"
        case "fnuz" if sign and e == m == 0:
            return "nan"
        case "p3109" | "p3109_finite":
            width = fmt.bits
            if word == (2 ** (width - 1) if fmt.signed else 2**width - 1):
                return "nan"
            if (
                fmt.specials == "p3109"
                and fmt.signed
                and word % 2 ** (width - 1) == (2 ** (width - 1) - 1)
            ):
                return infinity
            if fmt.specials == "p3109" and not fmt.signed and word == 2**width - 2:
                return "inf"
    if fmt.code0 == "ordinary":
        zero = e == m == 0 and fmt.specials != "e8m0"
        value = Fraction(0) if zero else (2**m_bits + m) * p2(e - fmt.bias - m_bits)
    elif e == 0:
        value = m * p2(1 - fmt.bias - m_bits) if fmt.code0 == "subnormal" else Fraction(0)
    else:
        value = (2**m_bits + m) * p2(e - fmt.bias - m_bits)
    return -value if sign else value


def assert_code_table(fmt):
    """Every word by word-by-word truth; the queries and `values` by what the words give."""
    table = fmt.code_values()
    assert table.shape == (1 << fmt.bits,)
    truth = [exact_value(fmt, word) for word in range(1 << fmt.bits)]
    for got, expected in zip(table.tolist(), truth, strict=True):
        assert str(got) == expected if isinstance(expected, str) else Fraction(got) == expected
    finite = {value for value in truth if not isinstance(value, str)}
    if fmt.code0 == "ordinary" and fmt.has_zero:
        finite |= {sign * p2(fmt.emin) for sign in ((1, -1) if fmt.signed else (1,))}
    assert [Fraction(v) for v in fmt.values().tolist()] == sorted(finite)
    assert not np.signbit(fmt.values()[fmt.values() == 0]).any()
    assert fmt.max == max(finite)
    assert fmt.min == min(finite)
    positive = sorted(value for value in finite if value > 0)
    assert fmt.emax == positive[-1].numerator.bit_length() - positive[-1].denominator.bit_length()
    assert truth[fmt.max_code] == fmt.max
    words = {"inf": fmt.inf_code, "-inf": fmt.negative_inf_code, "nan": fmt.nan_code}
    for text, word in words.items():
        assert (text in truth) == (word is not None)
        assert word is None or truth[word] == text
    assert fmt.has_inf == ("inf" in truth)
    assert fmt.has_nan == ("nan" in truth)
    assert fmt.has_zero == (0 in finite)
    if fmt.smallest_subnormal is not None:
        assert positive[0] == fmt.smallest_subnormal == p2(fmt.emin - fmt.mantissa_bits)
    elif fmt.smallest_normal is not None:
        assert positive[0] == fmt.smallest_normal == p2(fmt.emin)
    assert fmt.value_dtype == table.dtype
    in_float32 = all(Fraction(float(np.float32(v))) == v for v in map(float, finite))
    assert table.dtype == (np.float32 if in_float32 else np.float64)
    # The index line: neighbours differ by one, and it ends at the largest value.
    line = [Fraction(s) * p2(k) for s, k in map(fmt.significand_exponent, range(fmt.max_index + 1))]
    assert line == sorted(set(line))
    first = 1 if fmt.code0 == "subnormal" else 1 << fmt.mantissa_bits
    assert line[first:] == positive
    shift = 1 << fmt.mantissa_bits if fmt.code0 == "ordinary" else 0
    for index in range(first + (fmt.code0 == "ordinary" and fmt.has_zero), fmt.max_index + 1):
        assert truth[index - shift] == line[index]


@pytest.mark.parametrize("row", PRESET_ROWS, ids=[row[0] for row in PRESET_ROWS])
def test_preset_row(row):
    name, widths, bias, specials, largest, max_code, normal, subnormal, infs, nans, one, count = row
    fmt = get_format(name)
    assert fmt.name == name
    assert f"{int(fmt.signed)}-{fmt.exponent_bits}-{fmt.mantissa_bits}" == widths
    assert fmt.bits == sum(map(int, widths.split("-")))
    assert (fmt.bias, fmt.specials) == (bias, specials)
    assert fmt.max == largest
    assert fmt.max_code == max_code
    assert fmt.min == (-largest if fmt.signed else p2(-127) if name == "e8m0" else 0)
    assert fmt.smallest_normal == normal
    assert fmt.smallest_subnormal == subnormal
    assert fmt.eps == p2(-fmt.mantissa_bits)
    assert [c for c in (fmt.inf_code, fmt.negative_inf_code) if c is not None] == infs
    shift = 1 << fmt.mantissa_bits if fmt.code0 == "ordinary" else 0
    significand, exponent = fmt.significand_exponent((one >> fmt.padding_bits) + shift)
    assert significand * p2(exponent) == 1
    if nans is None:
        assert fmt.nan_code == infs[0] + (1 << (fmt.mantissa_bits - 1) << fmt.padding_bits)
        with pytest.raises(ValueError, match="at most 16"):
            fmt.values()
        return
    table = fmt.code_values()
    assert np.flatnonzero(np.isnan(table)).tolist() == nans
    assert (fmt.nan_code in nans) if nans else fmt.nan_code is None
    assert np.flatnonzero(np.isinf(table)).tolist() == infs
    assert len(fmt.values()) == count
    assert table[one] == 1
    assert np.array_equal(np.unique(table[np.isfinite(table)] + 0.0), fmt.values())


def test_every_preset_has_a_row():
    assert sorted(formats()) == sorted(row[0] for row in PRESET_ROWS)
    assert all(fmt.name == name for name, fmt in formats().items())
    with pytest.raises(TypeError):
        formats()["mine"] = get_format("e4m3")


@pytest.mark.parametrize("name", [name for name in formats() if get_format(name).bits <= 8])
def test_preset_code_table_by_the_definition(name):
    assert_code_table(get_format(name))


@pytest.mark.parametrize("specials", ["ieee", "fn", "fnuz", "none"])
@pytest.mark.parametrize("code0", ["subnormal", "ordinary", "zero"])
def test_generic_code_tables_by_the_definition(specials, code0):
    checked = 0
    for e, m, bias, signed in product(range(6), range(5), (-3, None, 20), (True, False)):
        try:
            fmt = FloatFormat(exponent_bits=e, mantissa_bits=m, bias=bias, code0=code0,
                              specials=specials, signed=signed)  # fmt: skip
        except ValueError:
            continue  # combinations that are no format: see test_layouts_that_contradict
        if fmt.bits <= 8 or bias is None:
            assert_code_table(fmt)
            checked += 1
    assert checked >= 20


def test_decoded_magnitudes_of_the_4_bit_formats():
    for name, expected in (
        ("e2m1", [0, 0.5, 1, 1.5, 2, 3, 4, 6]),
        ("e3m0", [0, 1, 2, 4, 8, 16, 32, 64]),
        ("uniform4", [0, 1, 2, 3, 4, 5, 6, 7]),
    ):
        table = get_format(name).code_values()
        assert table[:8].tolist() == expected
        assert table[8:].tolist() == [-v for v in expected]
        assert np.signbit(table[8]) == (name != "e3m0")


def test_negative_zero():
    with_it = {name for name, fmt in formats().items() if fmt.has_negative_zero}
    without = {"e4m3fnuz", "e5m2fnuz", "e4m3b11fnuz", "e3m0", "e8m0", "ue4m3"}
    assert with_it == set(formats()) - without
    assert not get_format("binary8p4se").has_negative_zero
    assert lba_format(7, 4, 10).has_negative_zero
    e2m1 = get_format("e2m1")
    assert e2m1.replace(negative_zero=True) == e2m1
    assert e2m1.replace(negative_zero=False) != e2m1
    assert not np.signbit(e2m1.replace(negative_zero=False).code_values()[8])


@pytest.mark.parametrize("name", [n for n in formats() if get_format(n).ml_dtype is not None])
def test_code_table_of_ml_dtypes(name):
    fmt = get_format(name)
    dtype = fmt.ml_dtype
    assert get_format(dtype) is fmt
    assert get_format(dtype.type) is fmt
    assert get_format(dtype.name) is fmt
    assert fmt.replace(overflow="sat_finite").ml_dtype == dtype
    if fmt.bits > 16:
        info = np.finfo(dtype)
        assert (fmt.max, fmt.eps) == (float(info.max), float(info.eps))
        assert fmt.smallest_subnormal == float(info.smallest_subnormal)
        return
    words = np.arange(1 << fmt.bits, dtype=fmt.code_dtype)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        expected = words.view(dtype).astype(np.float32)
    table = fmt.code_values()
    assert np.array_equal(table, expected, equal_nan=True)
    assert np.array_equal(np.signbit(table) & ~np.isnan(table),
                          np.signbit(expected) & ~np.isnan(expected))  # fmt: skip
    info = ml_dtypes.finfo(dtype)
    assert (fmt.max, fmt.min, fmt.eps) == (float(info.max), float(info.min), float(info.eps))
    assert fmt.smallest_normal == float(info.smallest_normal)


def test_which_ml_dtypes_are_formats():
    kinds = ("float4", "float6", "float8", "bfloat")
    names = [name for name in dir(ml_dtypes) if name.startswith(kinds)]
    assert len(names) >= 12
    for name in names:
        assert get_format(getattr(ml_dtypes, name)).ml_dtype == np.dtype(getattr(ml_dtypes, name))
    assert {n for n, f in formats().items() if f.ml_dtype is None} == {
        "e3m0", "uniform4", "fp7_142", "ue4m3", "tf32", "fp22",
    }  # fmt: skip
    assert FixedFormat(bits=8, fraction_bits=0).ml_dtype == np.int8
    assert FixedFormat(bits=4, fraction_bits=0, signed=False).ml_dtype == ml_dtypes.uint4
    assert FixedFormat(bits=8, fraction_bits=1).ml_dtype is None
    assert FixedFormat(bits=12, fraction_bits=0).ml_dtype is None


@pytest.mark.parametrize(
    ("name", "gfloat_name"),
    [("e4m3fn", "ocp_e4m3"), ("e5m2", "ocp_e5m2"), ("e2m3", "ocp_e2m3"), ("e3m2", "ocp_e3m2"),
     ("e2m1", "ocp_e2m1"), ("e8m0", "ocp_e8m0"), ("fp16", "binary16"), ("bf16", "bfloat16")],
)  # fmt: skip
def test_code_table_of_gfloat(name, gfloat_name):
    gfloat = pytest.importorskip("gfloat", reason="gfloat is not installed")
    info = getattr(pytest.importorskip("gfloat.formats"), "format_info_" + gfloat_name)
    fmt = get_format(name)
    expected = gfloat.decode_ndarray(info, np.arange(1 << fmt.bits))
    assert np.array_equal(fmt.code_values().astype(np.float64), expected, equal_nan=True)
    assert fmt.max == info.max
    assert fmt.smallest_subnormal == (info.smallest_subnormal if info.has_subnormals else None)


def p3109_names(widths):
    for width in widths:
        for sign, highest in (("s", width - 1), ("u", width)):
            for precision, domain in product(range(1, highest + 1), "ef"):
                yield f"binary{width}p{precision}{sign}{domain}"


def test_p3109_code_tables():
    assert len(list(p3109_names(range(3, 17)))) == 504
    for name in p3109_names(range(3, 9)):
        fmt = get_format(name)
        assert fmt.name == name
        assert_code_table(fmt)
        assert get_format("B" + name[1:]) == fmt


def test_p3109_by_name_is_p3109_by_fields():
    for name in p3109_names(range(3, 17)):
        fmt = get_format(name)
        width, precision, sign, domain = re.fullmatch(r"binary(\d+)p(\d+)(.)(.)", name).groups()
        assert (fmt.bits, fmt.mantissa_bits + 1) == (int(width), int(precision))
        assert fmt == FloatFormat(
            exponent_bits=fmt.exponent_bits,
            mantissa_bits=fmt.mantissa_bits,
            specials="p3109" if domain == "e" else "p3109_finite",
            signed=sign == "s",
        )
        one = 2 ** (fmt.bits - 2) if fmt.signed else 2 ** (fmt.bits - 1)
        significand, exponent = fmt.significand_exponent(one)
        assert significand * p2(exponent) == 1


def test_p3109_tables_of_gfloat():
    gfloat = pytest.importorskip("gfloat", reason="gfloat is not installed")
    truth = pytest.importorskip("gfloat.formats")
    types = pytest.importorskip("gfloat.types")
    for name in p3109_names(range(3, 11)):
        fmt = get_format(name)
        if not -1074 <= fmt.emin - fmt.mantissa_bits <= fmt.emax <= 1023:
            continue
        info = truth.format_info_p3109(
            fmt.bits,
            fmt.mantissa_bits + 1,
            types.Signedness.Signed if fmt.signed else types.Signedness.Unsigned,
            types.Domain.Extended if fmt.has_inf else types.Domain.Finite,
        )
        expected = gfloat.decode_ndarray(info, np.arange(1 << fmt.bits))
        assert np.array_equal(fmt.code_values().astype(np.float64), expected, equal_nan=True), name


def test_p3109_check_values():
    assert (get_format("binary8p4se").bias, get_format("binary8p4se").max) == (8, 224)
    assert (get_format("binary8p3se").bias, get_format("binary8p3se").max) == (16, 49152)
    assert get_format("binary8p1uf").max == 2.0**126
    assert get_format("binary4p2sf").code_values()[:8].tolist() == [
        0,
        0.25,
        0.5,
        0.75,
        1,
        1.5,
        2,
        3,
    ]
    assert get_format("binary8p8uf").bias == 1
    assert get_format("binary8p1se").bias == 64


def test_lba_ranges():
    for m, e, bias, r_of, r_uf in (
        (7, 4, 10, 63.75, 2.0**-10),
        (7, 4, 12, 15.9375, 2.0**-12),
        (4, 3, 5, 7.75, 2.0**-5),
        (4, 3, 6, 3.875, 2.0**-6),
        (4, 3, 7, 1.9375, 2.0**-7),
    ):
        fmt = lba_format(m, e, bias)
        assert (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal) == (r_of, r_uf, None)
        assert {r_uf, -r_uf, 0.0} <= set(fmt.values().tolist())
        assert fmt.code_values()[0] == 0
        assert fmt.code_values()[1] == r_uf * (1 + 2.0**-m)
    assert lba_format(7, 4, 10).bits == 12


def test_queries_of_fixed_point():
    fmt = FixedFormat(bits=3, fraction_bits=0)
    assert fmt.values().tolist() == [-4, -3, -2, -1, 0, 1, 2, 3]
    assert (fmt.min_code, fmt.max_code, fmt.code_dtype) == (-4, 3, np.int8)
    assert (fmt.rounding, fmt.overflow) == ("toward_negative", "wrap")
    fmt = FixedFormat(bits=3, fraction_bits=5, signed=False)
    assert fmt.values().tolist() == [v / 32 for v in range(8)]
    assert (fmt.min, fmt.max, fmt.eps, fmt.code_dtype) == (0, 7 / 32, 1 / 32, np.uint8)
    assert FixedFormat(bits=8, fraction_bits=-3).max == 127 * 8
    assert FixedFormat(bits=1, fraction_bits=0).values().tolist() == [-1, 0]
    for bits, fraction_bits, signed, expected in (
        (25, 0, True, np.float32),
        (26, 0, True, np.float64),
        (25, 0, False, np.float64),
        (8, 149, True, np.float32),
        (8, 150, True, np.float64),
        (8, -120, True, np.float32),
        (8, -121, True, np.float64),
        (54, 0, True, np.float64),
    ):
        fmt = FixedFormat(bits=bits, fraction_bits=fraction_bits, signed=signed)
        assert fmt.value_dtype == expected
        value = Fraction(fmt.max_code) / p2(fraction_bits)
        assert fmt.max == value == Fraction(float(fmt.max))
