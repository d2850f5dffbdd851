"""quantize, encode and decode as functions of arrays: dtypes, memory layouts, out=, errors."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab
from quantize_cases import bits_of
from test_float_environment import STATES, float_state

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 7, 5)).astype(np.float32)
FIXED = ab.FixedFormat(bits=8, fraction_bits=4, overflow="saturate")


def same(got, expected):
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    return np.array_equal(
        bits_of(np.ascontiguousarray(got)), bits_of(np.ascontiguousarray(expected))
    )


LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.T,
    "fortran": np.asfortranarray,
    "strided": lambda x: x[::2, 1::3, ::-1],
    "broadcast": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "one column": lambda x: x[:, 3, 2],
    "unaligned": lambda x: np.frombuffer(b"?" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "empty": lambda x: x[:0],
    "empty last": lambda x: x[..., :0],
    "0-d": lambda x: x[0, 0, 0, ...],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fmt", ["e4m3fn", "e2m1", FIXED], ids=["e4m3fn", "e2m1", "fixed"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_memory_layouts(isa, layout, fmt, dtype):
    x = LAYOUTS[layout](X.astype(dtype))
    plain = np.array(x, dtype, order="C")
    flat = plain.reshape(-1)
    values = np.array([ab.quantize(v, fmt) for v in flat], dtype).reshape(x.shape)
    code_dtype = ab.get_format(fmt).code_dtype
    codes = np.array([ab.encode(v, fmt) for v in flat], code_dtype).reshape(x.shape)
    assert same(ab.quantize(x, fmt), values)
    assert same(ab.encode(x, fmt), codes)
    assert same(ab.decode(codes, fmt).astype(dtype), values)
    assert same(ab.decode(codes.copy(order="F").T, fmt).astype(dtype), values.T)


NARROW = [
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e8m0fnu",
    "float6_e2m3fn",
    "float4_e2m1fn",
]


@pytest.mark.parametrize("name", NARROW)
def test_narrow_floats_are_widened_exactly(isa, name):
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    words = np.arange(1 << min(16, 8 * dtype.itemsize)).astype(f"u{dtype.itemsize}")
    words = words & np.array((1 << ab.get_format(dtype).bits) - 1, words.dtype)
    narrow = words.view(dtype)
    with np.errstate(invalid="ignore"):
        wide = narrow.astype(np.float32)
    result = ab.quantize(narrow, "e5m2")
    assert same(result, ab.quantize(wide, "e5m2"))
    assert same(ab.encode(narrow, "e5m2"), ab.encode(wide, "e5m2"))
    canonical = ab.encode(narrow, dtype, dtype=True)
    assert canonical.dtype == dtype
    number = ~np.isnan(wide)
    assert np.array_equal(canonical.view(words.dtype)[number], words[number])


class OnlyDLPack:
    """An array of another library, as far as DLPack shows it."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **arguments):
        return self.array.__dlpack__(**arguments)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_what_asarray_takes():
    expected = np.array([0.25, -1.5])
    for x in ([0.25, -1.5], (0.25, -1.5), OnlyDLPack(expected), memoryview(expected)):
        assert same(ab.quantize(x, "e4m3fn"), expected)
    scalar = ab.quantize(0.3, "e4m3fn")
    assert isinstance(scalar, np.float64)
    assert scalar == 0.3125
    assert isinstance(ab.quantize(np.float32(0.3), "e4m3fn"), np.float32)
    assert isinstance(ab.encode(0.3, "e4m3fn"), np.uint8)
    assert ab.encode(np.float32(0.3), "e4m3fn", dtype=True) == ml_dtypes.float8_e4m3fn(0.3125)
    assert isinstance(ab.decode(0x38, "e4m3fn"), np.float32)
    assert isinstance(ab.decode(3, FIXED), np.float32)
    assert same(ab.decode(OnlyDLPack(np.uint8([0x38])), "e4m3fn"), np.float32([1]))


OUTS = {
    "contiguous": lambda shape, dtype: np.zeros(shape, dtype),
    "fortran": lambda shape, dtype: np.zeros(shape, dtype, order="F"),
    "strided": lambda shape, dtype: np.zeros((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2],
    "reversed": lambda shape, dtype: np.zeros(shape, dtype)[::-1],
}


@pytest.mark.parametrize("layout", OUTS)
@pytest.mark.parametrize("fmt", ["e5m2", "e2m1", FIXED], ids=["e5m2", "e2m1", "fixed"])
def test_out(isa, layout, fmt):
    form = ab.get_format(fmt)
    for function, x, dtype in (
        (ab.quantize, X, X.dtype),
        (ab.encode, X, form.code_dtype),
        (ab.decode, ab.encode(X, fmt), np.dtype(np.float32)),
    ):
        out = OUTS[layout](X.shape, dtype)
        assert function(x, fmt, out=out) is out
        assert same(out, function(x, fmt))
    if form.ml_dtype is not None:
        out = OUTS[layout](X.shape, form.ml_dtype)
        assert ab.encode(X, fmt, dtype=True, out=out) is out
        assert same(out, ab.encode(X, fmt, dtype=True))
    zero_d = np.zeros((), np.float32)
    assert ab.quantize(np.float32(0.3), fmt, out=zero_d) is zero_d
    assert zero_d == ab.quantize(np.float32(0.3), fmt)


@pytest.mark.parametrize("fmt", ["e5m2", "e2m1", FIXED], ids=["e5m2", "e2m1", "fixed"])
def test_out_may_be_or_overlap_the_input(isa, fmt):
    line = RNG.normal(size=70_000).astype(np.float32)
    x = line.copy()
    assert ab.quantize(x, fmt, out=x) is x
    assert same(x, ab.quantize(line, fmt))
    for shift in (1, 7, 600):
        x = line.copy()
        ab.quantize(x[:-shift], fmt, out=x[shift:])
        assert same(x[shift:], ab.quantize(line[:-shift], fmt))
        x = line.copy()
        ab.quantize(x[shift:], fmt, out=x[:-shift])
        assert same(x[:-shift], ab.quantize(line[shift:], fmt))
    x = line.copy()
    ab.quantize(x[::-1], fmt, out=x)
    assert same(x, ab.quantize(line[::-1], fmt))
    square = line[:10_000].reshape(100, 100).copy()
    expected = ab.quantize(square, fmt).T
    ab.quantize(square.T, fmt, out=square)
    assert same(square, expected)


def test_codes_may_overlap_the_values(isa):
    memory = np.zeros(4000, np.float32)
    memory[:] = RNG.normal(size=4000)
    expected = ab.encode(memory, "bf16")
    codes = memory.view(np.uint16)[1000:5000]
    assert same(ab.encode(memory, "bf16", out=codes), expected)
    words = np.zeros(8000, np.uint16)
    words[2000:6000] = expected
    values = ab.decode(words[2000:6000], "bf16", out=words.view(np.float32))
    assert same(values, (expected.astype(np.uint32) << 16).view(np.float32))
    random = RNG.integers(0, 1 << 32, 4000, np.uint32)
    x = RNG.normal(size=4000)
    expected = ab.quantize(x, "e4m3fn", "stochastic", random_bits=random)
    both = np.zeros(4000, np.float64)
    both.view(np.uint32)[:4000] = random
    ab.quantize(x, "e4m3fn", "stochastic", random_bits=both.view(np.uint32)[:4000], out=both)
    assert same(both, expected)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("fmt", ["e4m3fn", FIXED], ids=["e4m3fn", "fixed"])
def test_results_do_not_depend_on_threads(isa, fmt, threads):
    x = RNG.normal(size=200_003).astype(np.float32)
    assert same(ab.quantize(x, fmt, threads=threads), ab.quantize(x, fmt, threads=1))
    codes = ab.encode(x, fmt, threads=1)
    assert same(ab.encode(x, fmt, threads=threads), codes)
    assert same(ab.decode(codes, fmt, threads=threads), ab.decode(codes, fmt, threads=1))
    failing = np.abs(x)
    failing[150_001] = -1
    with pytest.raises(ValueError, match=r"ue4m3 is unsigned, got a negative at \[150001\]"):
        ab.quantize(failing, "ue4m3", threads=threads)


def test_a_failing_call_leaves_out_alone():
    for fmt, bad in (("e2m1", np.nan), ("ue4m3", -1), (ab.lba_format(7, 4, 10), np.nan)):
        out = np.full(3, 9, np.float32)
        with pytest.raises(ValueError, match="x must"):
            ab.quantize(np.float32([1, 2, bad]), fmt, out=out)
        assert (out == 9).all()


F32 = np.float32([1, 2])
BAD_INPUT = [
    (np.int32([1]), TypeError, "x must hold floats .* got int32"),
    ([1, 2], TypeError, "x must hold floats .* got int64"),
    (np.array([True]), TypeError, "x must hold floats .* got bool"),
    (np.complex64([1]), TypeError, "x must hold floats .* got complex64"),
    (np.array([1.5], object), TypeError, "x must hold floats .* got object"),
    (np.longdouble([1]), TypeError, "x must hold floats"),
    (np.array([1], ml_dtypes.int4), TypeError, "x must hold floats .* got int4"),
    ("text", TypeError, "x must hold floats"),
    (None, TypeError, "x must hold floats"),
    ([[1.0], [1.0, 2.0]], TypeError, "x must be an array, got list: .*inhomogeneous"),
    (OnlyDLPack(np.zeros(2, ">f4")), TypeError, "x must be an array, got OnlyDLPack"),
]


@pytest.mark.parametrize(("x", "error", "message"), BAD_INPUT, ids=lambda v: str(v)[:20])
@pytest.mark.parametrize("function", [ab.quantize, ab.encode])
def test_input_that_holds_no_floats(function, x, error, message):
    with pytest.raises(error, match=message):
        function(x, "e4m3fn")


BAD_ARGUMENTS = [
    ({"fmt": "e4m3fm"}, ValueError, "unknown format 'e4m3fm'; nearest: 'e4m3fn'"),
    ({"fmt": 8}, TypeError, "format must be a name"),
    ({"fmt": "binary64"}, ValueError, "x must be float64 for binary64, .* got float32"),
    ({"fmt": ab.FloatFormat(exponent_bits=8, mantissa_bits=24)}, ValueError, "x must be float64"),
    ({"fmt": ab.FloatFormat(exponent_bits=11, mantissa_bits=3)}, ValueError, "x must be float64"),
    ({"fmt": "binary16p1ue"}, ValueError, "do not fit float64"),
    ({"rounding": "nearest"}, ValueError, "unknown rounding 'nearest'; nearest: 'nearest_"),
    ({"rounding": "rnz"}, ValueError, "unknown rounding"),
    ({"rounding": 3}, TypeError, "rounding must be a string, got 3"),
    ({"overflow": "wrap"}, ValueError, "unknown overflow 'wrap'"),
    ({"overflow": "to_inf"}, ValueError, "overflow='to_inf' needs a format with Inf"),
    ({"fmt": "e2m1", "overflow": "ieee"}, ValueError, "needs a format with Inf or NaN"),
    ({"underflow": "off"}, ValueError, "unknown underflow 'off'"),
    ({"fmt": "e8m0", "underflow": "cell"}, ValueError, "underflow must be 'gradual'"),
    ({"nan_to": "nan"}, ValueError, "unknown nan_to 'nan'"),
    ({"rounding": "stochastic"}, ValueError, "needs seed= or random_bits=, got neither"),
    ({"seed": -1}, ValueError, "seed: expected 0 <= seed"),
    ({"seed": 1.5}, TypeError, "seed: expected an integer"),
    ({"stream": 1 << 32}, ValueError, "stream: expected"),
    ({"call": "1"}, TypeError, "call: expected an integer"),
    ({"bits": 0}, ValueError, r"bits must be in 1\.\.32, got 0"),
    ({"bits": 33}, ValueError, r"bits must be in 1\.\.32, got 33"),
    ({"bits": 8.0}, TypeError, "bits must be an integer"),
    ({"bits": True}, TypeError, "bits must be an integer"),
    ({"rule": "d"}, ValueError, "unknown rule 'd'"),
    ({"rule": 1}, TypeError, "rule must be a string"),
    ({"threads": 0}, ValueError, "threads: expected 1 to"),
    ({"threads": 1.5}, TypeError, "threads: expected an integer"),
    ({"random_bits": np.zeros(2)}, TypeError, "random_bits must have dtype uint32, got float64"),
    (
        {"random_bits": np.uint32([1])},
        ValueError,
        r"random_bits must have shape \(2,\)",
    ),
    ({"fmt": FIXED, "underflow": "gradual"}, ValueError, "underflow and nan_to must be None"),
    ({"fmt": FIXED, "overflow": "ieee"}, ValueError, "unknown overflow 'ieee'"),
    ({"out": [0, 0]}, TypeError, "out must be a NumPy array of .*, got list"),
    ({"out": np.zeros(2, np.int64)}, TypeError, "out must have dtype .*, got int64"),
    ({"out": np.zeros(2, ">f4")}, TypeError, "out must have dtype"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), BAD_ARGUMENTS, ids=lambda v: str(v)[:40]
)
@pytest.mark.parametrize("function", [ab.quantize, ab.encode])
def test_bad_arguments(function, arguments, error, message):
    rounding = "stochastic" if "random_bits" in arguments else None
    with pytest.raises(error, match=message):
        function(**{"x": F32, "fmt": "e4m3fn", "rounding": rounding, **arguments})


def test_bad_out():
    for out, message in (
        (np.zeros(3, np.float32), r"out must have shape \(2,\), got \(3,\)"),
        (np.zeros((1, 2), np.float32), r"out must have shape \(2,\), got \(1, 2\)"),
        (np.frombuffer(bytes(8), np.float32), "out must be writeable, got a read-only array"),
    ):
        with pytest.raises(ValueError, match=message):
            ab.quantize(F32, "e4m3fn", out=out)
        with pytest.raises(ValueError, match=message):
            ab.decode([1, 2], "e4m3fn", out=out)


def test_values_that_have_no_result():
    x = np.float32([[1, 2], [np.nan, -4], [np.inf, -np.inf]])
    for fmt in ("e2m1", ab.lba_format(7, 4, 10), FIXED):
        with pytest.raises(ValueError, match=r"x must not hold NaN: .*, got NaN at \[1, 0\]"):
            ab.quantize(x, fmt)
    assert ab.quantize(x, "e2m1", nan_to="zero")[1, 0] == 0
    assert ab.quantize(x, "e2m1", nan_to="max_pos")[1, 0] == 6
    assert ab.encode(-x, "e4m3fn", nan_to="zero")[1, 0] == 0
    assert ab.encode(-x, "e4m3fn", nan_to="max_pos")[1, 0] == 0x7E
    with pytest.raises(ValueError, match="give nan_to='zero' or 'max_pos'"):
        ab.quantize(x, "e4m3fn", nan_to="raise")
    with pytest.raises(ValueError, match=r"ue4m3 is unsigned, got a negative at \[1, 1\]"):
        ab.quantize(x, "ue4m3")
    assert same(ab.quantize(np.float32([-0.0]), "ue4m3"), np.float32([0.0]))
    with pytest.raises(
        ValueError, match=r"x must be finite: .* wraps, got an infinity at \[2, 0\]"
    ):
        ab.encode(np.where(np.isnan(x), 0, x), FIXED.replace(overflow="wrap"))


SMALL = np.arange(-40, 40) * 2.0**-136
SMALL_FIXED = ab.FixedFormat(bits=8, fraction_bits=149)
CALLS_NEAR_ZERO = [  # operands or results are subnormal floats, also on the way in and out
    (ab.quantize, SMALL.astype(np.float32), "bf16"),
    (ab.quantize, SMALL, "bf16"),
    (ab.quantize, np.arange(-40, 40) * 2.0**-1074, "binary64"),
    (ab.quantize, np.arange(1024, dtype=np.uint16).view(np.float16), "bf16"),
    (ab.quantize, np.arange(128, dtype=np.uint16).view(ml_dtypes.bfloat16), "bf16"),
    (ab.quantize, np.arange(255, dtype=np.uint8).view(ml_dtypes.float8_e8m0fnu), "e8m0"),
    (ab.quantize, SMALL * 2.0**-13, SMALL_FIXED),
    (ab.quantize, np.float32(SMALL * 2.0**-13), SMALL_FIXED),
    (ab.encode, SMALL * 2.0**-13, SMALL_FIXED),
    (ab.decode, np.arange(-128, 128, dtype=np.int8), SMALL_FIXED),
    (ab.decode, np.arange(256, dtype=np.uint8), "e8m0"),
    (ab.decode, np.arange(256, dtype=np.uint64), "binary64"),
]


@pytest.mark.parametrize(("function", "x", "fmt"), CALLS_NEAR_ZERO)
def test_the_callers_float_state_does_not_matter(isa, function, x, fmt):
    expected = function(x, fmt)
    assert np.count_nonzero(expected) > 60
    for flush, rounding in STATES:
        with float_state(flush, rounding):
            got = function(x, fmt)
        assert same(got, expected), (flush, rounding)
