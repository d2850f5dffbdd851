"""The oracle's formats and rounding against the written tables and against enumeration."""

from bisect import bisect_left
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import pytest

from oracle import (
    INF,
    NAN,
    NEG_ZERO,
    ROUNDINGS,
    all_values,
    decode_code,
    encode_value,
    identical,
    raw,
    round_floats,
    round_value,
)
from oracle_fixed import round_fixed, wrap_integer


def fmt(e, m, bias, specials="ieee", code0="subnormal", **fields):
    return SimpleNamespace(
        exponent_bits=e, mantissa_bits=m, bias=bias, specials=specials, code0=code0, **fields
    )


def lba(m, e, bias):
    return fmt(e, m, bias, "none", "ordinary")


def p3109(width, precision, signed=True, extended=True):
    exponent_bits = width - precision + (not signed)
    kind = "p3109" if extended else "p3109_finite"
    return fmt(exponent_bits, precision - 1, None, kind, signed=signed)


E4M3FN = fmt(4, 3, 7, "fn")
E5M2 = fmt(5, 2, 15)
E2M1 = fmt(2, 1, 1, "none")
E3M0 = fmt(3, 0, 1, "none", negative_zero=False)
E8M0 = fmt(8, 0, 127, "e8m0", "ordinary", signed=False)
BF16 = fmt(8, 7, 127)

# name: format, (largest, its code), emin, exponent of the smallest subnormal, codes of Inf and NaN
# among the codes from that of the largest value on, code of 1.0, count of finite values
PRESETS = {
    "e4m3fn": (E4M3FN, (448, 0x7E), -6, -9, (), (0x7F, 0xFF), 0x38, 253),
    "e5m2": (E5M2, (57344, 0x7B), -14, -16, (0x7C, 0xFC),
             (0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF), 0x3C, 247),
    "e4m3fnuz": (fmt(4, 3, 8, "fnuz"), (240, 0x7F), -7, -10, (), (0x80,), 0x40, 255),
    "e5m2fnuz": (fmt(5, 2, 16, "fnuz"), (57344, 0x7F), -15, -17, (), (0x80,), 0x40, 255),
    "e4m3b11fnuz": (fmt(4, 3, 11, "fnuz"), (30, 0x7F), -10, -13, (), (0x80,), 0x58, 255),
    "e4m3": (fmt(4, 3, 7), (240, 0x77), -6, -9, (0x78, 0xF8),
             (*range(0x79, 0x80), *range(0xF9, 0x100)), 0x38, 239),
    "e3m4": (fmt(3, 4, 3), (15.5, 0x6F), -2, -6, (0x70, 0xF0),
             (*range(0x71, 0x80), *range(0xF1, 0x100)), 0x30, 223),
    "e2m3": (fmt(2, 3, 1, "none"), (7.5, 0x1F), 0, -3, (), (), 0x08, 63),
    "e3m2": (fmt(3, 2, 3, "none"), (28, 0x1F), -2, -4, (), (), 0x0C, 63),
    "e2m1": (E2M1, (6, 0x7), 0, -1, (), (), 0x2, 15),
    "e3m0": (E3M0, (64, 0x7), 0, None, (), (), 0x1, 15),
    "fp7_142": (fmt(4, 2, 1, "none", "zero"), (2**14 * 1.75, 0x3F), 0, None, (), (), 0x04, 121),
    "e8m0": (E8M0, (2.0**127, 0xFE), -127, None, (), (0xFF,), 0x7F, 255),
    "ue4m3": (fmt(4, 3, 7, "fn", signed=False), (448, 0x7E), -6, -9, (), (0x7F,), 0x38, 127),
    "fp16": (fmt(5, 10, 15), (65504, 0x7BFF), -14, -24, (0x7C00, 0xFC00), None, 0x3C00, 63487),
    "bf16": (BF16, (2.0**127 * (2 - 2**-7), 0x7F7F), -126, -133, (0x7F80, 0xFF80), None, 0x3F80,
             65279),
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_preset_row(name):
    f, (largest, largest_code), emin, lowest, inf_codes, nan_codes, one, finite = PRESETS[name]
    values = all_values(f)
    assert decode_code(largest_code, f) == largest == max(v for v in values if v not in (INF,))
    assert raw(f).emin == emin
    smallest = min(v for v in values if v > 0)
    assert smallest == Fraction(2) ** (emin if lowest is None else lowest)
    assert decode_code(one, f) == 1
    infs = tuple(code for code, v in enumerate(values) if v in (INF, -INF))
    nans = tuple(code for code, v in enumerate(values) if v != v)
    assert infs == inf_codes
    assert nan_codes in (nans, None)
    assert len({v for v in values if isinstance(v, Fraction)}) == finite
    has_negative_zero = raw(f).signed and raw(f).specials in ("ieee", "fn", "none")
    assert any(identical(v, NEG_ZERO) for v in values) == (has_negative_zero and name != "e3m0")
    for v in values[:: len(values) // 256 or 1] + values[-2:]:
        assert identical(decode_code(encode_value(v, f), f), v)
        if v == v and not identical(v, NEG_ZERO):
            assert identical(round_value(v, f), v)


def test_wide_presets():
    for f, largest, code in (
        (fmt(8, 10, 127, padding_bits=13), 2.0**127 * (2 - 2**-10), 0x7F7FE000),
        (fmt(8, 13, 127), 2.0**127 * (2 - 2**-13), 0x1FDFFF),
        (fmt(8, 23, 127), 2.0**127 * (2 - 2**-23), 0x7F7FFFFF),
        (fmt(11, 52, 1023), float.fromhex("0x1.fffffffffffffp1023"), 0x7FEFFFFFFFFFFFFF),
    ):
        assert decode_code(code, f) == largest
        assert encode_value(largest, f) == code
        assert round_value(INF, f) == INF
        smallest = Fraction(2) ** (raw(f).emin - f.mantissa_bits)
        assert decode_code(1 << raw(f).padding_bits, f) == smallest
    assert encode_value(1, fmt(8, 10, 127, padding_bits=13)) == 0x3F800000


def test_magnitudes_of_four_bit_formats():
    assert all_values(E2M1)[:8] == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert all_values(E3M0)[:8] == [0, 1, 2, 4, 8, 16, 32, 64]
    assert all_values(fmt(1, 2, -1, "none"))[:8] == list(range(8))


def test_lba_limits():
    for f, r_of, r_uf in (
        (lba(7, 4, 10), 63.75, 2**-10), (lba(7, 4, 12), 15.9375, 2**-12),
        (lba(4, 3, 5), 7.75, 2**-5), (lba(4, 3, 6), 3.875, 2**-6), (lba(4, 3, 7), 1.9375, 2**-7),
    ):  # fmt: skip
        for rounding in ROUNDINGS[:-1]:
            assert round_value(1e9, f, rounding) == r_of
            assert round_value(-INF, f, rounding) == -r_of
            # the threshold acts on the unrounded value, in every rounding mode
            assert identical(round_value(-r_uf * (1 - 2**-40), f, rounding), NEG_ZERO)
        assert round_value(r_uf, f) == r_uf
        with pytest.raises(ValueError, match="no code"):
            encode_value(r_uf, f)
        assert encode_value(r_uf * (1 + Fraction(1, 2**f.mantissa_bits)), f) == 1
        with pytest.raises(ValueError, match="nan"):
            round_value(NAN, f)
    assert round_value(2**-20, lba(7, 4, 10), underflow="off") == 2**-20
    assert round_value(2**-127, lba(7, 4, 10), underflow="off") == 0


def test_range_rules_of_ml_dtypes_and_p3109():
    assert identical(round_value(464, E4M3FN), 448)
    assert identical(round_value(464.1, E4M3FN), NAN)
    assert identical(round_value(INF, E4M3FN), NAN)
    assert identical(round_value(248, fmt(4, 3, 8, "fnuz")), NAN)
    assert round_value(61440, E5M2) == INF
    assert round_value(61440, E5M2, "toward_zero") == 57344
    assert round_value(65536, E5M2, "toward_zero", overflow="to_inf") == INF
    assert round_value(INF, E5M2, overflow="sat_finite") == 57344
    assert round_value(INF, E5M2, overflow="sat_propagate") == INF
    assert round_value(-1e9, E5M2, "to_odd") == -INF
    assert round_value(-1e9, E5M2, "toward_positive") == -57344
    assert round_value(-INF, E2M1) == -6
    assert identical(round_value(NAN, E2M1, nan_to="zero"), 0)
    assert round_value(NAN, E2M1, nan_to="max_pos") == 6
    assert identical(round_value(-0.0, fmt(4, 3, 8, "fnuz")), 0)
    for f, rules in (
        (E2M1, {"overflow": "ieee"}), (E4M3FN, {"overflow": "to_inf"}), (E2M1, {"nan_to": "raise"}),
        (lba(7, 4, 10), {"underflow": "gradual"}), (E5M2, {"rounding": "tz"}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r".+"):
            round_value(NAN, f, **rules)
    with pytest.raises(ValueError, match="negative"):
        round_value(-1e-9, fmt(4, 3, 7, "fn", signed=False))
    with pytest.raises(ValueError, match="power of two"):
        round_value(Fraction(1, 3), E5M2)


def test_p3109_values_and_projection():
    assert raw(p3109(8, 4)).bias == 8
    assert max(v for v in all_values(p3109(8, 4)) if v < INF) == 224
    assert raw(p3109(8, 3)).bias == 16
    assert max(v for v in all_values(p3109(8, 3)) if v < INF) == 49152
    assert max(v for v in all_values(p3109(8, 1, False, False)) if v == v) == 2**126
    assert all_values(p3109(4, 2, True, False))[:8] == [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3]
    assert raw(p3109(8, 8, False)).bias == 1
    assert raw(p3109(8, 1)).bias == 64
    signed, unsigned = p3109(8, 4), p3109(8, 4, False)
    for f, nan, inf, negative_inf, one in (
        (signed, 0x80, 0x7F, 0xFF, 0x40), (unsigned, 0xFF, 0xFE, None, 0x80)
    ):  # fmt: skip
        assert encode_value(NAN, f) == nan
        assert encode_value(INF, f) == inf
        assert negative_inf is None or encode_value(-INF, f) == negative_inf
        assert encode_value(1, f) == one
    finite, unsigned_finite = p3109(8, 4, True, False), p3109(8, 4, False, False)
    top = decode_code(0xFD, unsigned)
    # Saturation, row by row: format, saturation, rounding, x, result
    for f, rule, rounding, x, z in (
        (signed, "sat_finite", "rne", INF, 224), (signed, "sat_finite", "rne", -1e9, -224),
        (unsigned, "sat_finite", "rne", -1e9, 0), (unsigned, "sat_finite", "rne", -INF, 0),
        (signed, "sat_propagate", "rne", INF, INF), (signed, "sat_propagate", "rne", -INF, -INF),
        (unsigned, "sat_propagate", "rne", -INF, 0), (signed, "sat_propagate", "rne", 1e9, 224),
        (finite, "sat_propagate", "rne", INF, 240),
        (signed, "ieee", "rne", INF, INF), (finite, "ieee", "rne", INF, 240),
        (signed, "ieee", "rne", -INF, -INF), (unsigned, "ieee", "rne", -INF, NAN),
        (finite, "ieee", "rne", -INF, -240), (unsigned, "ieee", "to_odd", 1e9, top),
        (unsigned_finite, "ieee", "rne", -INF, NAN), (signed, "ieee", "to_odd", 1e9, INF),
        (signed, "ieee", "rtz", 1e9, 224), (signed, "ieee", "rdn", 1e9, 224),
        (signed, "ieee", "rup", 1e9, INF), (signed, "ieee", "rtz", -1e9, -224),
        (signed, "ovf_inf", "rup", -1e9, -224), (unsigned, "ieee", "rtz", -1e9, 0),
        (unsigned, "ieee", "rup", -1e9, 0), (signed, "ieee", "rne", -1e9, -INF),
        (unsigned, "ieee", "rne", -1e9, NAN), (finite, "ieee", "rne", -1e9, -240),
        (signed, "ieee", "rne", 1e9, INF), (finite, "ieee", "rne", 1e9, 240),
        (signed, "ieee", "rne", NAN, NAN), (unsigned, "ieee", "rne", -1e-9, 0),
    ):  # fmt: skip
        assert identical(round_value(x, f, rounding, overflow=rule), z), (f, rule, rounding, x)


def test_e8m0():
    for x, z in (
        (0, NAN), (-0.0, NAN), (-1, NAN), (NAN, NAN), (INF, NAN), (-INF, NAN),
        # Ties go to the even exponent code: 2 has 128. (ml_dtypes takes them all upward.)
        (1.5, 2), (3, 2), (2.0**-140, 2.0**-127), (2.0**128, NAN), (1.9 * 2.0**127, NAN),
        (1.2 * 2.0**127, 2.0**127),
    ):  # fmt: skip
        assert identical(round_value(x, E8M0), z), x
    assert round_value(1.5, E8M0, "nearest_up") == 2
    assert round_value(INF, E8M0, overflow="sat_finite") == 2.0**127
    assert round_value(1e39, E8M0, "toward_zero") == 2.0**127


def test_stochastic_worked_values():
    # nu, and the probability of rounding away of rules A, B, C with two random bits
    for nu, *expected in ((0.125, 0, 0.25, 0), (0.3125, 0.25, 0.25, 0.25), (0.375, 0.25, 0.5, 0.5),
                          (0.625, 0.5, 0.75, 0.5)):  # fmt: skip
        for rule, probability in zip("abc", expected, strict=True):
            f = fmt(5, 4, 15)
            away = [
                round_value(1 + nu / 16, f, "stochastic", random=r, bits=2, rule=rule) > 1
                for r in range(4)
            ]
            assert sum(away) / 4 == probability
            assert away == sorted(away)
    # rule "odd": the ties of nu * 2^r go to odd
    for nu, expected in ((0.125, 1), (0.375, 1), (0.625, 3), (0.25, 1)):
        away = [round_value(1 + nu, fmt(5, 0, 15), "stochastic", random=r, bits=2, rule="odd") > 1
                for r in range(4)]  # fmt: skip
        assert sum(away) == expected
    # exact: rule A with 32 bits
    x = 1 + Fraction(5, 2**34)
    assert round_value(x, fmt(5, 2, 15), "stochastic", random=2**32 - 5) > 1
    assert round_value(x, fmt(5, 2, 15), "stochastic", random=2**32 - 6) == 1
    with pytest.raises(ValueError, match="random"):
        round_value(x, E5M2, "stochastic")


def test_stochastic_bf16_table():
    table = """3f800000 3f80 3f80 3f80 3f80 3f80 3f80
               3f808000 3f80 3f80 3f80 3f81 3f81 3f81
               3f804000 3f80 3f80 3f80 3f80 3f81 3f81
               bf804000 bf80 bf80 bf80 bf80 bf81 bf81
               7f61b1e6 7f61 7f61 7f62 7f62 7f62 7f62
               7f7f8000 7f7f 7f7f 7f7f 7f80 7f80 7f80
               000116c2 0001 0001 0001 0001 0001 0002"""
    for line in table.splitlines():
        word, *expected = (int(text, 16) for text in line.split())
        x = decode_code(word, fmt(8, 23, 127))
        for random, code in zip((0, 0x3FFF, 0x7FFF, 0x8000, 0xC000, 0xFFFF), expected, strict=True):
            z = round_value(x, BF16, "stochastic", random=random, bits=16, rule="a")
            assert encode_value(z, BF16) == code


def test_one_significand_bit_rounds_to_the_even_code():
    # e3m0: 0 1 2 4 ... have the exponent codes 0 1 2 3 ...
    for x, even, odd in ((0.5, 0, 1), (1.5, 2, 1), (3, 2, 4), (6, 8, 4), (-1.5, -2, -1)):
        assert identical(round_value(x, E3M0), even)
        assert round_value(x, E3M0, "nearest_odd") == odd
    assert round_value(2.1, E3M0, "to_odd") == 4
    assert round_value(1.1, E3M0, "to_odd") == 1
    assert identical(round_value(-0.2, E3M0), 0)


def test_underflow_rules():
    f = fmt(3, 2, 3)  # emin -2, quantum 2^-4
    for x, gradual, before, after, cell in (
        (0.25, 0.25, 0.25, 0.25, 0.25), (0.2, 0.1875, 0, 0, 0.25), (0.125, 0.125, 0, 0, 0),
        (0.24, 0.25, 0, 0.25, 0.25), (0.13, 0.125, 0, 0, 0.25), (-0.01, NEG_ZERO, -0.0, -0.0, -0.0),
    ):  # fmt: skip
        rules = ("gradual", "flush_before", "flush_after", "cell")
        for rule, z in zip(rules, (gradual, before, after, cell), strict=True):
            assert identical(round_value(x, f, underflow=rule), z)
    assert round_value(2**-9, f, "away_from_zero", underflow="cell") == 0.25
    assert round_value(2**-9, f, "jam", underflow="cell") == 0.25
    assert round_value(2**-9, f, "jam") == 2**-4
    assert round_value(1, f, "jam") == 1.25


def rounded_by_enumeration(x, values, mode, codes):
    """Round x to a member of `values` (ascending) by looking at its two neighbours."""
    place = bisect_left(values, x)
    if values[place] == x:
        return x
    below, above = values[place - 1 : place + 1]
    toward_zero, away = (below, above) if x > 0 else (above, below)
    even = next(v for v in (below, above) if codes[v] % 2 == 0)
    odd = next(v for v in (below, above) if codes[v] % 2 == 1)
    ties = {
        "nearest_even": even, "nearest_odd": odd, "nearest_zero": toward_zero,
        "nearest_away": away, "nearest_up": above, "nearest_down": below,
    }  # fmt: skip
    if mode in ties:
        if x - below == above - x:
            return ties[mode]
        return below if x - below < above - x else above
    return {"toward_zero": toward_zero, "away_from_zero": away, "toward_positive": above,
            "toward_negative": below, "to_odd": odd}[mode]  # fmt: skip


@pytest.mark.parametrize("specials", ["none", "ieee", "fn", "fnuz"])
def test_every_mode_by_enumeration(specials):
    for e in range(1, 5):
        for m in range(4):
            if (specials == "fn" and m == 0) or (specials == "ieee" and e == 1):
                continue
            f = fmt(e, m, 2, specials)
            values = sorted({v for v in all_values(f) if isinstance(v, Fraction)})
            codes = {v: encode_value(abs(v), f) for v in values}
            quarters = [
                low + (high - low) * Fraction(k, 4)
                for low, high in pairwise(values)
                for k in range(4)
            ]
            for mode in set(ROUNDINGS) - {"jam", "stochastic"}:
                expected = [rounded_by_enumeration(x, values, mode, codes) for x in quarters]
                assert [round_value(x, f, mode) for x in quarters] == expected, (e, m, mode)
                assert round_floats(map(float, quarters), f, rounding=mode) == expected


def test_fixed_point_quantisation_table():
    x = (-2.75, -2.5, -2.25, -1.5, -0.5, 0.5, 1.5, 2.25, 2.5, 2.75)
    table = {
        "RND": (-3, -2, -2, -1, 0, 1, 2, 2, 3, 3),
        "RND_ZERO": (-3, -2, -2, -1, 0, 0, 1, 2, 2, 3),
        "RND_MIN_INF": (-3, -3, -2, -2, -1, 0, 1, 2, 2, 3),
        "RND_INF": (-3, -3, -2, -2, -1, 1, 2, 2, 3, 3),
        "RND_CONV": (-3, -2, -2, -2, 0, 0, 2, 2, 2, 3),
        "TRN": (-3, -3, -3, -2, -1, 0, 1, 2, 2, 2),
        "TRN_ZERO": (-2, -2, -2, -1, 0, 0, 1, 2, 2, 2),
    }
    for mode, expected in table.items():
        f = SimpleNamespace(bits=4, fraction_bits=0)
        assert tuple(round_fixed(v, f, mode) for v in x) == expected
        finer = SimpleNamespace(bits=4, fraction_bits=3)
        assert tuple(round_fixed(v / 8, finer, mode) for v in x) == expected


def test_fixed_point_overflow_tables():
    signed = """SAT 0        -4 -4 -4 -4 -4 -4 -4 -4 -4 -3 -2 -1 0 1 2 3  3  3  3  3  3  3  3  3  3
        SAT_ZERO 0    0  0  0  0  0  0  0  0 -4 -3 -2 -1 0 1 2 3  0  0  0  0  0  0  0  0  0
        SAT_SYM 0    -3 -3 -3 -3 -3 -3 -3 -3 -3 -3 -2 -1 0 1 2 3  3  3  3  3  3  3  3  3  3
        WRAP 0       -4 -3 -2 -1  0  1  2  3 -4 -3 -2 -1 0 1 2 3 -4 -3 -2 -1  0  1  2  3 -4
        WRAP 1       -4 -3 -2 -1 -4 -3 -2 -1 -4 -3 -2 -1 0 1 2 3  0  1  2  3  0  1  2  3  0
        WRAP 2       -4 -3 -4 -3 -4 -3 -4 -3 -4 -3 -2 -1 0 1 2 3  2  3  2  3  2  3  2  3  2
        WRAP_SM 0     3  2  1  0 -1 -2 -3 -4 -4 -3 -2 -1 0 1 2 3  3  2  1  0 -1 -2 -3 -4 -4
        WRAP_SM 1    -4 -3 -2 -1 -1 -2 -3 -4 -4 -3 -2 -1 0 1 2 3  3  2  1  0  0  1  2  3  3
        WRAP_SM 2    -4 -3 -3 -4 -4 -3 -3 -4 -4 -3 -2 -1 0 1 2 3  3  2  2  3  3  2  2  3  3"""
    for line in signed.splitlines():
        mode, n, *expected = line.split()
        got = [wrap_integer(v, 3, True, mode, int(n)) for v in range(-12, 13)]
        assert got == [int(v) for v in expected], (mode, n)
    inside = list(range(8))
    for mode, n, below, above in (
        ("SAT", 0, [0] * 12, [7] * 5), ("SAT_ZERO", 0, [0] * 12, [0] * 5),
        ("SAT_SYM", 0, [0] * 12, [7] * 5), ("WRAP", 0, [4, 5, 6, 7, *inside], [0, 1, 2, 3, 4]),
        ("WRAP", 1, [0, 1, 2, 3] * 3, [4, 5, 6, 7, 4]), ("WRAP", 2, [0, 1] * 6, [6, 7, 6, 7, 6]),
    ):  # fmt: skip
        got = [wrap_integer(v, 3, False, mode, n) for v in range(-12, 13)]
        assert got == below + inside + above, (mode, n)
    for mode in ("WRAP", "WRAP_SM"):
        assert [wrap_integer(v, 3, True, mode, 3) for v in (-9, 9)] == [-4, 3]
    with pytest.raises(ValueError, match="unsigned"):
        wrap_integer(0, 3, False, "WRAP_SM")


def test_fixed_point_of_specials():
    f = SimpleNamespace(bits=8, fraction_bits=4, overflow="SAT")
    assert [round_fixed(x, f) for x in (INF, -INF, -0.0, 1e300)] == [127, -128, 0, 127]
    for x, overflow in ((NAN, "SAT"), (INF, "WRAP")):
        with pytest.raises(ValueError, match="no value"):
            round_fixed(x, f, overflow=overflow)
    assert round_fixed(0.5, f, "stochastic", random=0) == 8
    assert round_fixed(Fraction(17, 32), f, "stochastic", random=1 << 31) == 9
