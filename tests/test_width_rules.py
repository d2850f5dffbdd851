"""Rules for accumulator widths against published tables and brute force; orders; retention."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import abcdeep_core as ab
from oracle_widths import narrowest


def test_widths_of_the_published_table():
    terms = (64, 128, 576, 1024, 4096)
    for x, w, expected, closed in (
        ("s8", "s8", [22, 23, 25, 26, 28], [22, 23, 25, 26, 28]),
        ("s8", (-127, 127), [21, 22, 25, 25, 27], None),
        ("u8", "s8", [22, 23, 26, 26, 28], [23, 24, 26, 27, 29]),
    ):
        assert [ab.data_type_width(k, x, w) for k in terms] == expected
        if closed is not None:
            assert [ab.data_type_width(k, x, w, closed_form=True) for k in terms] == closed
        for k, bits in zip(terms, expected, strict=True):
            matrix = np.ones((k, 2), np.int8)
            assert ab.accumulator_bounds(matrix, x, w_range=w).width("data_type") == bits


KULISCH = {
    "e2m1": (9, 14, 16, 21),
    "e2m3": (13, 18, 20, 25),
    "e3m2": (19, 24, 26, 31),
    "e4m3fn": (37, 42, 44, 49),
    "e4m3": (35, 40, 42, 47),
    "e5m2": (65, 70, 72, 77),
    "binary8p4se": (37, 42, 44, 49),
    "binary8p3se": (67, 72, 74, 79),
    "fp16": (81, 86, 88, 93),
    "bf16": (523, 528, 530, 535),
}


@pytest.mark.parametrize("name", KULISCH)
def test_kulisch_widths_of_the_published_table(name):
    widths = tuple(ab.kulisch_width(name, terms=k) for k in (1, 32, 128, 4096))
    assert widths == KULISCH[name]


@pytest.mark.parametrize("name", [*ab.formats(), "binary6p3se", "binary5p2uf", "binary8p1ue"])
def test_kulisch_unit_divides_every_value(name):
    form = ab.get_format(name)
    if form.bits > 16:
        largest = Fraction(form.max)
        units = largest / Fraction(form.smallest_subnormal)
    else:
        values = [Fraction(float(v)) for v in form.values() if v]
        largest = max(map(abs, values))
        bottom = Fraction(2) ** (form.emin - form.mantissa_bits)
        assert all((v / bottom).denominator == 1 for v in values)
        # no coarser unit would do
        assert math.gcd(*((v / bottom).numerator for v in values)) == 1
        units = largest / bottom
    assert units.denominator == 1
    for k in (1, 5):
        total = k * units.numerator**2
        assert ab.kulisch_width(name, terms=k) == narrowest([total, -total])


def test_kulisch_of_two_formats_and_of_fixed_point():
    assert ab.kulisch_width("e4m3fn", "e5m2", 32) == ab.kulisch_width("e5m2", "e4m3fn", 32)
    fixed = ab.FixedFormat(bits=8, fraction_bits=5)
    assert ab.kulisch_width(fixed, terms=64) == narrowest([64 * 128 * 128, -64 * 128 * 128])
    assert ab.kulisch_width("e2m1", terms=0) == 1


def log_form(t: Fraction) -> int:
    """Return ceil(log2(2^t + 1) + 1) of the published formulas, with T = 2^t an exact fraction."""
    return next(p for p in itertools.count(1) if t + 1 <= Fraction(2) ** (p - 1))


@given(
    st.integers(1, 10**6),
    st.integers(1, 16),
    st.booleans(),
    st.integers(1, 16),
)
def test_closed_forms_are_the_published_ones(terms, x_bits, signed, w_bits):
    x = f"{'s' if signed else 'u'}{x_bits}"
    published = log_form(Fraction(terms) * Fraction(2) ** (x_bits + w_bits - 1 - signed))
    w = f"s{w_bits}"
    assert ab.data_type_width(terms, x, w, closed_form=True) == published
    excess = published - ab.data_type_width(terms, x, w)
    assert 0 <= excess <= (0 if signed else 1 if x_bits > 1 else 2)
    assert ab.l1_width(terms, x) == log_form(Fraction(terms) * Fraction(2) ** (x_bits - signed))


def test_a_bias_widens():
    for bias in ((-128, 127), (0, 200), (-5, -5)):
        sums = [b + k * p for b in bias for k in (0, 3) for p in (-8 * 15, 7 * 15)]
        assert ab.data_type_width(3, "u4", "s4", bias=bias) == narrowest(sums)
        assert ab.data_type_width(3, "u4", "s4", bias=bias, closed_form=True) >= narrowest(sums)


# Zero-sum channels, caps, tiles


def test_zero_sum_rule_is_exact_for_zero_sum_channels_only():
    rng = np.random.default_rng(7)
    w = rng.integers(-20, 20, (30, 8))
    w[-1] = -w[:-1].sum(axis=0)
    for x in ("u8", "s8", (-3, 12)):
        exact = ab.accumulator_bounds(w, x).sign_split.widths
        np.testing.assert_array_equal(ab.zero_sum_widths(w, x), exact)
        for n, bits in enumerate(exact.tolist()):
            norm = int(abs(w[:, n]).sum())
            assert norm <= ab.l1_cap(bits, x, zero_sum=True)
            assert norm > ab.l1_cap(bits - 1, x, zero_sum=True)
    w[3, 5] += 1
    with pytest.raises(ValueError, match="sum to 0, got the sum 1 in channel 5"):
        ab.zero_sum_widths(w, "u8")
    # what the rule would have said of a channel that is not zero-sum is too narrow
    w = np.full((4, 1), 100)
    assert (400 * 255 + 1).bit_length() < ab.accumulator_bounds(w, "u8").width("sign_split")
    with pytest.raises(ValueError, match=r"range with 0 and another number, got 1\.\.5"):
        ab.zero_sum_widths([[1], [-1]], (1, 5))


@pytest.mark.parametrize("x", ["u1", "u4", "s4", "u8", "s8"])
@pytest.mark.parametrize("bits", [2, 8, 16, 32])
def test_l1_caps_are_tight(x, bits):
    lo, hi = ab.accumulator_bounds([[0]], x).x_range
    cap = math.floor(ab.l1_cap(bits, x))
    if cap:
        assert ab.accumulator_bounds([[cap], [0]], x).width("l1") <= bits
        assert ab.l1_width(cap, x) <= bits
    assert ab.l1_width(cap + 1, x) > bits
    # half the norm on each sign
    half = math.floor(ab.l1_cap(bits, x, zero_sum=True)) // 2
    assert ab.accumulator_bounds([[half], [-half]], x).width("sign_split") <= bits
    more = half + 1
    assert ab.accumulator_bounds([[more], [-more]], x).width("sign_split") > bits
    assert ab.l1_cap(bits, x, zero_sum=True) == Fraction(2**bits - 2, hi - lo)


@pytest.mark.parametrize("tile", [1, 7, 16, 50, 64])
def test_tiles(tile):
    w = np.random.default_rng(8).integers(-8, 8, (50, 4)).astype(np.int8)
    widths = ab.tile_widths(w, "u4", tile)
    for n in range(4):
        column = w[:, n].tolist()
        tiles = [column[k : k + tile] for k in range(0, 50, tile)]
        low = [15 * sum(v for v in part if v < 0) for part in tiles]
        high = [15 * sum(v for v in part if v > 0) for part in tiles]
        assert widths.inner[n] == narrowest(low + high)
        growth = next(e for e in itertools.count() if tile * 2**e >= 50)
        assert widths.outer[n] == widths.inner[n] + growth
        assert widths.outer_exact[n] == narrowest([sum(low), sum(high)])
        assert widths.outer_exact[n] <= widths.outer[n]


# Fixed point, slices, order


@pytest.mark.parametrize("signs", list(itertools.product((False, True), repeat=2)))
@pytest.mark.parametrize("bias", [False, True])
def test_fixed_point_rule_is_sound(signs, bias):
    x = ab.FixedFormat(bits=5, fraction_bits=2, signed=signs[0])
    w = ab.FixedFormat(bits=4, fraction_bits=6, signed=signs[1])
    for terms in (1, 2, 3, 64, 100):
        found = ab.fixed_accumulator_format(terms, x, w, bias=bias)
        growth = next(e for e in itertools.count() if 2**e >= terms) + bias
        assert found.bits == 9 + growth
        assert found.fraction_bits == 8
        assert found.bits - found.fraction_bits == (5 - 2) + (4 - 6) + growth
        ends = [a * b for a in (x.min_code, x.max_code) for b in (w.min_code, w.max_code)]
        assert found.min_code <= terms * min(0, *ends)
        assert terms * max(0, *ends) <= found.max_code


@pytest.mark.parametrize(
    ("x", "w", "bits", "expected"),
    [
        ("u8", "s8", 32, {"int32", "acc48", "acc58", "DSP48E1", "DSP48E2", "DSP58"}),
        ("u8", "s8", 33, {"acc48", "acc58", "DSP48E1", "DSP48E2", "DSP58"}),
        ("u8", "s8", 49, {"acc58", "DSP58"}),
        ("u8", "s8", 59, set()),
        ((0, 2**17 - 1), "s8", 40, {"acc48", "acc58", "DSP48E1", "DSP48E2", "DSP58"}),
        ((-(2**25), 0), "s8", 40, {"acc48", "acc58", "DSP48E2", "DSP58"}),
        ("s8", (0, 2**26 - 1), 40, {"acc48", "acc58", "DSP48E2", "DSP58"}),
        ("s8", (0, 2**26), 40, {"acc48", "acc58"}),
        ((0, 2**18 - 1), (0, 2**18 - 1), 40, {"acc48", "acc58", "DSP58"}),
    ],
)
def test_dsp_slices(x, w, bits, expected):
    fits = ab.dsp_fits(x, w, bits)
    assert list(fits) == ["int32", "acc48", "acc58", "DSP48E1", "DSP48E2", "DSP58"]
    assert {name for name, fit in fits.items() if fit} == expected


@given(st.lists(st.integers(-2000, 2000), max_size=30), st.integers(-5000, 5000))
def test_greedy_order_stays_within_its_width(products, start):
    order = ab.greedy_order(products, start=start).tolist()
    assert sorted(order) == list(range(len(products)))
    sums = [start]
    for place, k in enumerate(order):
        rest = [products[j] for j in order[place:]]
        if min(rest) < 0 < max(rest):
            assert products[k] > 0 if sums[-1] <= 0 else products[k] < 0
        sums.append(sums[-1] + products[k])
    largest = max(map(abs, products), default=0)
    ends = [start, sums[-1], largest, -largest]
    assert min(ends) <= min(sums) <= max(sums) <= max(ends)
    width = int(ab.greedy_width(products, start=start))
    assert width == narrowest(ends)
    assert narrowest(sums) <= width


def test_greedy_order_of_the_golden_vector():
    x = np.array([125, 100, -120, 30, 90, -70, 100, -90])
    w = np.array([12, 10, 10, 10, 10, 10, 20, 20])
    products = x * w
    order = ab.greedy_order(products)
    assert np.cumsum(products[order]).tolist() == [1500, 300, -400, 600, -1200, -900, 0, 2000]
    assert int(ab.greedy_width(products)) == 12
    both = np.stack([products, products[::-1]])
    assert ab.greedy_order(both)[0].tolist() == order.tolist()
    assert ab.greedy_width(both).tolist() == [12, 12]
    assert ab.greedy_order(np.zeros((2, 0), np.int8)).shape == (2, 0)
    with pytest.raises(ValueError, match="at least one axis"):
        ab.greedy_order(3)


# Variance retention


@pytest.mark.parametrize(
    ("m", "formula", "even", "truncated"),
    [
        (5, (0.992, 0.709), (1.01, 1.01), (0.58, 0.05)),
        (6, (0.998, 0.945), (0.98, 0.98), (0.73, 0.10)),
        (7, (1.000, 0.998), (1.01, 0.94), (0.88, 0.21)),
        (8, (1.000, 1.000), (1.01, 1.00), (0.93, 0.40)),
    ],
)
def test_variance_retention(m, formula, even, truncated):
    for n, by_formula, by_even, by_truncation in zip(
        (64, 1024), formula, even, truncated, strict=True
    ):
        assert round(ab.variance_retention_formula(m, n), 3) == by_formula
        # both sides of a comparison have a standard error of about 0.03
        found = ab.variance_retention(m, n, rows=1000)
        assert found == pytest.approx(by_even, abs=0.09)
        found = ab.variance_retention(m, n, rows=1000, rounding="toward_zero")
        assert found == pytest.approx(by_truncation, abs=0.06)


def test_variance_retention_with_chunks():
    whole = ab.variance_retention(5, 1024, rounding="toward_zero", rows=300)
    chunked = ab.variance_retention(5, 1024, rounding="toward_zero", rows=300, chunk=32)
    assert chunked > 2 * whole
    assert ab.variance_retention_formula(5, 1024, chunk=32) > 0.98
    assert ab.variance_retention_formula(5, 64, chunk=64) == ab.variance_retention_formula(5, 64)
    again = ab.variance_retention(5, 1024, rounding="toward_zero", rows=300)
    assert again == whole


# Errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ab.data_type_width(-1, "u8", "s8"), ValueError, "terms"),
        (lambda: ab.data_type_width(4, "u8", "s8", closed_form=1), TypeError, "closed_form"),
        (lambda: ab.l1_width(-1, "u8"), ValueError, "l1"),
        (lambda: ab.l1_cap(1, "u8"), ValueError, "bits must be in 2"),
        (lambda: ab.kulisch_width("e9m9"), ValueError, "unknown format"),
        (lambda: ab.kulisch_width(np.int8), TypeError, "FixedFormat"),
        (lambda: ab.tile_widths([[1]], "u8", 0), ValueError, "tile"),
        (lambda: ab.fixed_accumulator_format(4, "s8", "s8"), TypeError, "x must be a FixedFormat"),
        (lambda: ab.dsp_fits("u8", "s8", 0), ValueError, "accumulator_bits"),
        (lambda: ab.greedy_order([1.0]), TypeError, "products must be an integer"),
        (lambda: ab.variance_retention(0, 8), ValueError, "mantissa_bits"),
        (lambda: ab.variance_retention(5, 8, rounding="up"), ValueError, "rounding"),
        (lambda: ab.variance_retention_formula(5, 0), ValueError, "terms"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
