"""Fixed point: the tables of docs/formats.md, the exact oracle, and the SystemC library."""

from __future__ import annotations

import itertools
import shutil
import subprocess

import numpy as np
import pytest

import abcdeep_core as ab
from oracle_fixed import round_fixed, wrap_integer
from quantize_cases import DETERMINISTIC, assert_same, each_isa

OVERFLOWS = ("wrap", "saturate", "saturate_zero", "saturate_symmetric", "wrap_sign_magnitude")
QUANTISATION_INPUTS = [-2.75, -2.5, -2.25, -1.5, -0.5, 0.5, 1.5, 2.25, 2.5, 2.75]
QUANTISATION = {
    "RND": [-3, -2, -2, -1, 0, 1, 2, 2, 3, 3],
    "RND_ZERO": [-3, -2, -2, -1, 0, 0, 1, 2, 2, 3],
    "RND_MIN_INF": [-3, -3, -2, -2, -1, 0, 1, 2, 2, 3],
    "RND_INF": [-3, -3, -2, -2, -1, 1, 2, 2, 3, 3],
    "RND_CONV": [-3, -2, -2, -2, 0, 0, 2, 2, 2, 3],
    "TRN": [-3, -3, -3, -2, -1, 0, 1, 2, 2, 2],
    "TRN_ZERO": [-2, -2, -2, -1, 0, 0, 1, 2, 2, 2],
}
# Signed, 3 bits, of -12..12; the second key is the number of saturated bits.
OVERFLOW = {
    ("SAT", 0): "-4 -4 -4 -4 -4 -4 -4 -4 -4 -3 -2 -1 0 1 2 3  3  3  3  3  3  3  3  3  3",
    ("SAT_ZERO", 0): "0  0  0  0  0  0  0  0 -4 -3 -2 -1 0 1 2 3  0  0  0  0  0  0  0  0  0",
    ("SAT_SYM", 0): "-3 -3 -3 -3 -3 -3 -3 -3 -3 -3 -2 -1 0 1 2 3  3  3  3  3  3  3  3  3  3",
    ("WRAP", 0): "-4 -3 -2 -1  0  1  2  3 -4 -3 -2 -1 0 1 2 3 -4 -3 -2 -1  0  1  2  3 -4",
    ("WRAP", 1): "-4 -3 -2 -1 -4 -3 -2 -1 -4 -3 -2 -1 0 1 2 3  0  1  2  3  0  1  2  3  0",
    ("WRAP", 2): "-4 -3 -4 -3 -4 -3 -4 -3 -4 -3 -2 -1 0 1 2 3  2  3  2  3  2  3  2  3  2",
    ("WRAP_SM", 0): "3  2  1  0 -1 -2 -3 -4 -4 -3 -2 -1 0 1 2 3  3  2  1  0 -1 -2 -3 -4 -4",
    ("WRAP_SM", 1): "-4 -3 -2 -1 -1 -2 -3 -4 -4 -3 -2 -1 0 1 2 3  3  2  1  0  0  1  2  3  3",
    ("WRAP_SM", 2): "-4 -3 -3 -4 -4 -3 -3 -4 -4 -3 -2 -1 0 1 2 3  3  2  2  3  3  2  2  3  3",
}
UNSIGNED_OVERFLOW = {
    ("SAT", 0): [0] * 12 + [*range(8)] + [7] * 5,
    ("SAT_ZERO", 0): [0] * 12 + [*range(8)] + [0] * 5,
    ("SAT_SYM", 0): [0] * 12 + [*range(8)] + [7] * 5,
    ("WRAP", 0): [v % 8 for v in range(-12, 13)],
    ("WRAP", 1): [0, 1, 2, 3] * 3 + [*range(8)] + [4, 5, 6, 7, 4],
    ("WRAP", 2): [0, 1] * 6 + [*range(8)] + [6, 7, 6, 7, 6],
}


@pytest.mark.parametrize("rounding", QUANTISATION)
@pytest.mark.parametrize("fraction_bits", [0, 5, -3])
def test_quantisation_table(isa, rounding, fraction_bits):
    expected = np.array(QUANTISATION[rounding])
    x = np.ldexp(np.array(QUANTISATION_INPUTS), -fraction_bits)
    fmt = ab.FixedFormat(bits=8, fraction_bits=fraction_bits, rounding=rounding)
    assert ab.encode(x, fmt).tolist() == expected.tolist()
    assert ab.encode(x.astype(np.float32), fmt).tolist() == expected.tolist()
    assert ab.encode(x, fmt.replace(rounding="TRN"), rounding).tolist() == expected.tolist()
    assert np.array_equal(ab.quantize(x, fmt), np.ldexp(expected.astype(float), -fraction_bits))


@pytest.mark.parametrize("signed", [True, False])
def test_overflow_tables(isa, signed):
    x = np.arange(-12.0, 13)
    for (overflow, wrap_bits), row in (OVERFLOW if signed else UNSIGNED_OVERFLOW).items():
        expected = [int(v) for v in row.split()] if isinstance(row, str) else row
        fmt = ab.FixedFormat(
            bits=3, fraction_bits=0, signed=signed, overflow=overflow, wrap_bits=wrap_bits
        )
        assert ab.encode(x, fmt).tolist() == expected, (overflow, wrap_bits)
        assert ab.encode(x / 4, fmt.replace(fraction_bits=2)).tolist() == expected
        assert [wrap_integer(v, 3, signed, overflow, wrap_bits) for v in range(-12, 13)] == expected


def fixed_formats(bits):
    for signed, overflow in itertools.product((True, False), OVERFLOWS):
        if signed or overflow != "wrap_sign_magnitude":
            for wrap_bits in range(bits + 2) if overflow.startswith("wrap") else (0,):
                yield ab.FixedFormat(
                    bits=bits,
                    fraction_bits=2,
                    signed=signed,
                    overflow=overflow,
                    wrap_bits=wrap_bits,
                )


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8])
def test_overflow_against_the_oracle(bits):
    beyond = 3 * 2**bits
    x = np.arange(-beyond, beyond + 1) / 4
    huge = np.ldexp(
        np.array([1.0, 1.5, 1.9999999]), np.array([[20], [60], [61], [62], [63], [100]])
    )
    x = np.concatenate([x, huge.ravel(), -huge.ravel(), [1e300, -1e300]])
    for fmt in fixed_formats(bits):
        expected = np.array([round_fixed(v, fmt) for v in x.tolist()]).astype(fmt.code_dtype)
        for isa in each_isa():
            assert_same(ab.encode(x, fmt), expected, x, fmt, isa)
            values = np.ldexp(expected.astype(np.float64), -2)
            assert_same(ab.quantize(x, fmt), values, x, fmt, isa)
            assert_same(ab.decode(expected, fmt), values.astype(np.float32), x, fmt, isa)


ROUNDED = [(4, 0), (6, 3), (5, 9), (5, -4), (8, 40), (12, -30), (3, 149), (20, 1000)]


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize(("bits", "fraction_bits"), ROUNDED)
def test_rounding_against_the_oracle(rounding, bits, fraction_bits):
    rng = np.random.default_rng(bits)
    eighths = np.arange(-40, 41) / 8
    spread = np.ldexp(rng.uniform(-1, 1, 400), rng.integers(-70, bits + 2, 400))
    numbers = np.concatenate([eighths, np.nextafter(eighths, 9), np.nextafter(eighths, -9), spread])
    for dtype in (np.float32, np.float64):
        x = np.ldexp(numbers, -fraction_bits).astype(dtype)
        x = np.concatenate([x, np.array([np.finfo(dtype).smallest_subnormal], dtype)])
        for signed in (True, False):
            fmt = ab.FixedFormat(
                bits=bits, fraction_bits=fraction_bits, signed=signed, overflow="saturate"
            )
            exact = [round_fixed(v, fmt, rounding) for v in x.tolist()]
            expected = np.array(exact).astype(fmt.code_dtype)
            values = np.ldexp(expected.astype(np.float64), -fraction_bits)
            for isa in each_isa():
                assert_same(ab.encode(x, fmt, rounding), expected, x, fmt, rounding, isa)
                if fmt.value_dtype.itemsize <= x.itemsize:
                    got = ab.quantize(x, fmt, rounding)
                    assert_same(got, values.astype(dtype), x, fmt, rounding, isa)


@pytest.mark.parametrize("bits", [32, 53, 54, 63, 64])
@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_wide_words(bits, overflow):
    steps = np.array([0.0, 1.0, -1.0, 2.0**11, -(2.0**11)])
    edges = np.concatenate([
        sign * 2.0**power + steps
        for sign in (1, -1) for power in (31, 32, 52, 53, 62, 63, 64, 65, 66)
    ])  # fmt: skip
    odd = np.ldexp(2.0**53 - 1, [10, 11, 12, 63, 64, 65])  # bit 64 decides how 64 bits wrap
    x = np.concatenate([edges, edges / 3, odd, -odd, [2.0**900, -(2.0**900)]])
    for signed in (True, False):
        if signed or (bits < 64 and overflow != "wrap_sign_magnitude"):
            for wrap_bits in (0, 1, 5, 64) if overflow.startswith("wrap") else (0,):
                for rounding in ("TRN", "jam"):
                    fmt = ab.FixedFormat(
                        bits=bits, fraction_bits=0, signed=signed, overflow=overflow,
                        wrap_bits=wrap_bits, rounding=rounding,
                    )  # fmt: skip
                    exact = [round_fixed(v, fmt) for v in x.tolist()]
                    expected = np.array(exact, fmt.code_dtype)
                    for isa in each_isa():
                        assert_same(ab.encode(x, fmt), expected, x, fmt, isa)


def test_infinities_and_zeros(isa):
    x = np.array([np.inf, -np.inf, 0.0, -0.0, -0.01])
    for overflow, expected in (
        ("saturate", [7, -8, 0, 0, -1]),
        ("saturate_symmetric", [7, -7, 0, 0, -1]),
        ("saturate_zero", [0, 0, 0, 0, -1]),
    ):
        fmt = ab.FixedFormat(bits=4, fraction_bits=1, overflow=overflow)
        assert ab.encode(x, fmt).tolist() == expected
        values = ab.quantize(x, fmt)
        assert values.tolist() == [v / 2 for v in expected]
        assert not np.signbit(values[2:4]).any()
    for wrap_bits, works in ((0, False), (3, False), (4, True)):
        fmt = ab.FixedFormat(bits=4, fraction_bits=1, wrap_bits=wrap_bits)
        if works:  # all bits saturated: as saturate
            assert ab.encode(x, fmt).tolist() == [7, -8, 0, 0, -1]
        else:
            with pytest.raises(ValueError, match=r"x must be finite: .* got an infinity at \[0\]"):
                ab.encode(x, fmt)


def test_values_have_to_fit_the_dtype():
    wide = ab.FixedFormat(bits=26, fraction_bits=0)
    with pytest.raises(ValueError, match="x must be float64 for"):
        ab.quantize(np.float32([1]), wide)
    assert ab.quantize(np.float64([2.0**24 + 1]), wide).tolist() == [2.0**24 + 1]
    assert ab.encode(np.float32([2.0**24]), wide).tolist() == [2**24]
    with pytest.raises(ValueError, match="do not fit float64"):
        ab.quantize(np.float64([1]), ab.FixedFormat(bits=60, fraction_bits=0))
    with pytest.raises(ValueError, match="fraction_bits must be in -1022"):
        ab.encode(np.float64([1]), ab.FixedFormat(bits=8, fraction_bits=1023))
    with pytest.raises(ValueError, match="overflow must be another mode for signed=False"):
        ab.encode(
            np.float64([1]),
            ab.FixedFormat(bits=8, fraction_bits=0, signed=False),
            overflow="WRAP_SM",
        )


SYSTEMC = r"""
#define SC_INCLUDE_FX
#include <systemc>
#include <cstdio>

template <class Fixed>
void run(int bits, int integer_bits, int q, int o, int n, int low, int high, double step) {
    Fixed x(bits, integer_bits, sc_dt::sc_q_mode(q), sc_dt::sc_o_mode(o), n);
    for (int v = low; v <= high; ++v) {
        x = v * step;
        std::printf("%d ", int(x.to_double() / (integer_bits < bits ? 0.25 : 1.0)));
    }
    std::printf("\n");
}

int sc_main(int, char**) {
    int is_signed, bits, integer_bits, q, o, n, low, high;
    double step;
    while (std::scanf("%d %d %d %d %d %d %d %d %lf", &is_signed, &bits, &integer_bits, &q, &o, &n,
                      &low, &high, &step) == 9) {
        if (is_signed) run<sc_dt::sc_fix>(bits, integer_bits, q, o, n, low, high, step);
        else run<sc_dt::sc_ufix>(bits, integer_bits, q, o, n, low, high, step);
    }
    return 0;
}
"""
# The order of SystemC's enums sc_q_mode and sc_o_mode.
Q_MODES = ["RND", "RND_ZERO", "RND_MIN_INF", "RND_INF", "RND_CONV", "TRN", "TRN_ZERO"]
O_MODES = ["SAT", "SAT_ZERO", "SAT_SYM", "WRAP", "WRAP_SM"]


@pytest.fixture(scope="module")
def systemc(tmp_path_factory):
    """Return the program that rounds with SystemC, or skip where the library is not installed."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler for SystemC; the literal tables are tested")
    folder = tmp_path_factory.mktemp("systemc")
    (folder / "main.cpp").write_text(SYSTEMC)
    command = [compiler, "-std=c++17", "-O1", "main.cpp", "-o", "main", "-lsystemc"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip("libsystemc-dev is not installed; the literal tables are tested")
    return folder / "main"


def test_systemc(systemc):
    whole, fractional = [], []
    for bits in range(2, 9):
        for signed, (o, overflow) in itertools.product((1, 0), enumerate(O_MODES)):
            if signed or overflow != "WRAP_SM":
                for n in range(bits + 1) if overflow.startswith("WRAP") else (0,):
                    whole.append((signed, bits, bits, 5, o, n, -1100, 1100, 1.0))
    for signed, q, o in itertools.product((1, 0), range(7), range(5)):
        if signed or O_MODES[o] != "WRAP_SM":
            fractional.append((signed, 6, 4, q, o, 0, -600, 600, 1 / 32))
    jobs = whole + fractional
    lines = "\n".join(" ".join(map(str, job)) for job in jobs)
    run = subprocess.run([systemc], input=lines, capture_output=True, text=True, check=True)
    rows = [line for line in run.stdout.splitlines() if line[:1] in "-0123456789" and line]
    assert len(rows) == len(jobs)
    for (signed, bits, integer_bits, q, o, n, low, high, step), row in zip(jobs, rows, strict=True):
        fmt = ab.FixedFormat(
            bits=bits, fraction_bits=bits - integer_bits, signed=bool(signed),
            rounding=Q_MODES[q], overflow=O_MODES[o], wrap_bits=n,
        )  # fmt: skip
        x = np.arange(low, high + 1) * step
        assert_same(ab.encode(x, fmt), np.array(row.split(), fmt.code_dtype), x, fmt)
