"""matmul as a function: shapes, operands, start values, out, randomness, special values, errors."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab
from datapath_cases import assert_bits, check, expected_product
from test_parallel import run_python

M7E4 = ab.lba_accumulator()
FP16, FP32 = ab.float_accumulator("fp16"), ab.float_accumulator("binary32")
INT16 = ab.integer_accumulator(16, "saturate")
RNG_SHAPES = [
    ((3, 5), (5, 7)), ((5,), (5, 7)), ((3, 5), (5,)), ((5,), (5,)), ((2, 3, 5), (5, 7)),
    ((3, 5), (4, 5, 7)), ((2, 1, 3, 5), (4, 5, 7)), ((6, 1, 5), (6, 5, 1)), ((2, 3, 5), (5,)),
    ((5,), (2, 5, 7)), ((1, 1), (1, 1)), ((130, 3), (3, 70)),
    ((3, 0), (0, 7)), ((0, 5), (5, 7)), ((3, 5), (5, 0)), ((0, 3, 5), (5, 7)), ((0,), (0,)),
    ((0, 0), (0, 0)), ((2, 0, 3, 5), (1, 5, 7)),
]  # fmt: skip


def normal(seed, shape, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize(("shape_a", "shape_b"), RNG_SHAPES)
def test_shapes_are_those_of_numpy(isa, shape_a, shape_b):
    a, b = normal(1, shape_a), normal(2, shape_b)
    reference = np.matmul(a, b)
    for datapath in (M7E4, FP16, ab.float_accumulator("fp16", group=4, chunk=3)):
        got = ab.matmul(a, b, datapath)
        assert np.shape(got) == reference.shape
        assert got.dtype == np.float32
        assert np.isscalar(got) == np.isscalar(reference)
    # every row and column of every matrix, alone
    stack_a, stack_b = (a if a.ndim > 1 else a[None]), (b if b.ndim > 1 else b[:, None])
    batch = np.broadcast_shapes(shape_a[:-2], shape_b[:-2])
    stack_a = np.broadcast_to(stack_a, (*batch, *stack_a.shape[-2:]))
    stack_b = np.broadcast_to(stack_b, (*batch, *stack_b.shape[-2:]))
    parts = np.asarray(ab.matmul(a, b, M7E4)).reshape(*batch, stack_a.shape[-2], stack_b.shape[-1])
    for *i, m, n in np.ndindex(*parts.shape):
        one = ab.matmul(stack_a[(*i, m)], stack_b[(*i, slice(None), n)], M7E4)
        assert_bits(one, parts[(*i, m, n)])


def test_oracle_over_tiles_and_their_edges():
    # more rows and columns than any tile or block, in every path
    for datapath in (M7E4, ab.float_accumulator("fp16", product="fp16", chunk=3), FP32):
        a, b = normal(3, (70, 5), 3.0), normal(4, (5, 133), 3.0)
        check(a, b, datapath)


@pytest.mark.parametrize("datapath", [M7E4, FP16, ab.float_accumulator("bf16", group=4)])
def test_no_terms_give_the_start_values(isa, datapath):
    a, b = np.zeros((2, 0), np.float32), np.zeros((0, 3), np.float32)
    assert_bits(ab.matmul(a, b, datapath), np.zeros((2, 3), np.float32))
    c = np.array([[1.00390625, -2.001, -0.0], [1e30, -1e-30, 3.0]])
    form, rounding = datapath.accumulator.format, datapath.accumulator.rounding
    assert_bits(ab.matmul(a, b, datapath, c=c), np.float32(ab.quantize(c, form, rounding)) + 0)
    assert ab.matmul(a[0], b[:, 0], datapath) == 0


def test_strides_do_not_matter(isa):
    a, b = normal(5, (40, 33)), normal(6, (33, 50))
    for datapath in (M7E4, FP16, ab.float_accumulator("fp16", product="fp16")):
        expected = ab.matmul(a, b, datapath)
        wide = np.zeros((80, 99), np.float32)
        wide[::2, ::3] = a
        fields = np.zeros((40, 33), [("skip", "u1"), ("x", "<f4")])
        fields["x"] = a
        variants = (
            np.asfortranarray(a), wide[::2, ::3], a[::-1, ::-1].copy()[::-1, ::-1],
            np.array(a.astype(">f4")), fields["x"], np.broadcast_to(a, (3, 40, 33))[1],
        )  # fmt: skip
        for x in variants:
            assert_bits(ab.matmul(x, b, datapath), expected)
        for y in (np.asfortranarray(b), b.T.copy().T, b[:, ::-1].copy()[:, ::-1]):
            assert_bits(ab.matmul(a, y, datapath), expected)
        # broadcast operands have strides of zero
        row = np.broadcast_to(a[:1], a.shape)
        assert_bits(ab.matmul(row, b, datapath), np.repeat(expected[:1], 40, axis=0))
        one = np.broadcast_to(np.float32(0.5), (40, 33))
        assert_bits(ab.matmul(one, b, datapath), ab.matmul(one.copy(), b, datapath))


NARROW = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "float6_e3m2fn")


@pytest.mark.parametrize("dtype", NARROW)
def test_narrower_floats_are_widened_exactly(isa, dtype):
    narrow = np.dtype(getattr(ml_dtypes, dtype, dtype))
    a, b = (normal(seed, shape).astype(narrow) for seed, shape in ((7, (9, 20)), (8, (20, 11))))
    wide_a, wide_b = a.astype(np.float32), b.astype(np.float32)
    expected = ab.matmul(wide_a, wide_b, M7E4)
    for x, y in ((a, b), (a, wide_b), (wide_a, b)):
        assert_bits(ab.matmul(x, y, M7E4), expected)


def test_start_values_broadcast_and_are_rounded(isa):
    a, b = normal(9, (2, 3, 5)), normal(10, (5, 7))
    full = normal(11, (2, 3, 7)).astype(np.float64) * 1.000001
    expected = ab.matmul(a, b, FP16, c=full)
    rounded = ab.quantize(full, "fp16")
    assert_bits(ab.matmul(a, b, FP16, c=rounded.astype(np.float16)), expected)
    assert_bits(ab.matmul(a, b, FP16, c=np.asfortranarray(full)), expected)
    for c in (1.5, full[0, 0], full[:, :1, :1], full[0], np.float16(2), full[..., :1]):
        whole = np.broadcast_to(np.asarray(c, np.float64), (2, 3, 7))
        assert_bits(ab.matmul(a, b, FP16, c=c), ab.matmul(a, b, FP16, c=whole.copy()))
    assert ab.matmul(a[0, 0], b[:, 0], FP16, c=1.0).dtype == np.float32
    for c in (np.zeros((3, 7, 1)), np.zeros((4, 2, 3, 7)), np.zeros(6)):
        with pytest.raises(ValueError, match=r"c must broadcast to .*\(2, 3, 7\), got"):
            ab.matmul(a, b, FP16, c=c)


def test_an_exact_accumulator_does_not_round_its_start_value(isa):
    one = np.ones((1, 1), np.float32)
    c = 2049.0  # no fp16
    assert ab.matmul(one, one, ab.exact_accumulator("fp16"), c=c)[0, 0] == 2050
    assert ab.matmul(one, -one, ab.exact_accumulator(), c=1 + 2.0**-40)[0, 0] == 2.0**-40


def test_out(isa):
    a, b = normal(12, (6, 8)), normal(13, (8, 6))
    for datapath in (M7E4, ab.float_accumulator("fp16"), ab.exact_accumulator("bf16")):
        expected = ab.matmul(a, b, datapath)
        strided = np.full((12, 6), np.nan, np.float32)[::2]
        for out in (np.full((6, 6), np.nan, np.float32), strided,
                    np.asfortranarray(np.zeros((6, 6), np.float32))):  # fmt: skip
            assert ab.matmul(a, b, datapath, out=out) is out
            assert_bits(out.copy(), expected)
        result, seen = ab.matmul(a, b, datapath, out=strided, events=True)
        assert result is strided
        assert seen.outputs == 36
    scalar = np.zeros((), np.float32)
    assert ab.matmul(a[0], b[:, 0], M7E4, out=scalar) is scalar
    assert scalar == ab.matmul(a[0], b[:, 0], M7E4)


def test_out_may_be_an_operand(isa):
    a, b, c = normal(14, (7, 7)), normal(15, (7, 7)), normal(16, (7, 7))
    expected = ab.matmul(a, b, M7E4, c=c)
    for which in range(3):
        x = [a.copy(), b.copy(), c.copy()]
        assert_bits(ab.matmul(x[0], x[1], M7E4, c=x[2], out=x[which]), expected)
    square = a.copy()
    assert_bits(ab.matmul(square, square.T, M7E4, out=square), ab.matmul(a, a.T, M7E4))


def test_result_dtype():
    one, eight = np.ones((1, 1), np.float32), np.ones((1, 1), np.int8)
    wide = ab.FloatFormat(exponent_bits=10, mantissa_bits=30, code0="ordinary", bias=500)
    promoted = ab.Quantizer(format=wide)
    for datapath, dtype in (
        (M7E4, np.float32), (FP32, np.float32), (ab.exact_accumulator("e4m3fn"), np.float32),
        (ab.float_accumulator(wide), np.float64), (ab.exact_accumulator(wide), np.float64),
        (FP16.replace(chunk=8, merge=promoted), np.float64),
        (ab.float_accumulator(wide).replace(output=ab.Quantizer(format="fp16")), np.float32),
    ):  # fmt: skip
        # whatever the number of terms
        for k in (0, 1, 9):
            assert ab.matmul(np.repeat(one, k, 1), np.repeat(one, k, 0), datapath).dtype == dtype
    for bits, signed, merge, dtype in (
        (32, True, "same", np.int32), (33, True, "same", np.int64), (31, False, "same", np.int32),
        (32, False, "same", np.int64), (16, True, "exact", np.int64),
    ):  # fmt: skip
        datapath = ab.integer_accumulator(bits, signed=signed, chunk=8, merge=merge)
        for k in (0, 1, 9):
            got = ab.matmul(np.repeat(eight, k, 1), np.repeat(eight, k, 0), datapath)
            assert got.dtype == dtype


def test_zeros_are_positive(isa):
    a, b = np.float32([[-1.0, 1.0, 0.0]]), np.float32([[0.0], [-0.0], [-5.0]])
    tiny = np.float32([[-(2.0**-60)]])
    one = np.ones((1, 1), np.float32)
    for datapath in (
        M7E4, FP16, FP32, ab.exact_accumulator(), ab.float_accumulator("fp16", product="fp16"),
        ab.float_accumulator("fp16", group=2), FP32.replace(output=ab.Quantizer(format="fp16")),
    ):  # fmt: skip
        assert_bits(ab.matmul(a, b, datapath), np.zeros((1, 1), np.float32))
        assert_bits(ab.matmul(a, b, datapath, c=-0.0), np.zeros((1, 1), np.float32))
        if datapath.accumulator is not None and datapath not in (FP32,):
            assert_bits(ab.matmul(tiny, one, datapath), np.zeros((1, 1), np.float32))


STOCHASTIC = [
    ab.lba_accumulator(rounding="stochastic"),
    ab.float_accumulator("fp16", product="e5m2", rounding="stochastic", bits=8, chunk=5),
    ab.float_accumulator("bf16", rounding="stochastic", bits=1, group=3, chunk=7),
    ab.float_accumulator("fp16", product="bf16", product_rounding="stochastic"),
    FP16.replace(chunk=4, merge=ab.Quantizer(format="bf16", rounding="stochastic", bits=13)),
]


@pytest.mark.parametrize("case", range(len(STOCHASTIC)))
def test_random_words_have_the_address_of_their_output(isa, case):
    datapath = STOCHASTIC[case]
    address = {"seed": 2**63 + 5, "stream": 9, "call": 12}
    a, b = normal(18, (2, 3, 5, 20)), normal(19, (3, 20, 11))
    whole = ab.matmul(a, b, datapath, **address)
    for threads in (1, 3):
        assert_bits(ab.matmul(a, b, datapath, threads=threads, **address), whole)
    view = np.asfortranarray(a)
    assert_bits(ab.matmul(view, b, datapath, **address), whole)
    for i, (x, y) in enumerate(np.ndindex(2, 3)):
        expected = expected_product(
            a[x, y], b[y], datapath, dtype=np.float32, events=False, batch=i, **address
        )
        assert_bits(whole[x, y], expected.result, x, y)
    for change in ({"seed": 1}, {"stream": 1}, {"call": 13}):
        assert not np.array_equal(ab.matmul(a, b, datapath, **(address | change)), whole)
    _, seen = ab.matmul(a, b, datapath, events=True, **address)
    assert seen.rounded
    with pytest.raises(ValueError, match="a stochastic accumulator needs seed=, got None"):
        ab.matmul(a, b, datapath)


def test_threads_and_interrupt():
    a, b = normal(20, (200, 30)), normal(21, (30, 150))
    for datapath in (M7E4, FP16, STOCHASTIC[0]):
        expected = ab.matmul(a, b, datapath, seed=1, threads=1)
        for threads in (2, 7, None, np.int8(3)):
            assert_bits(ab.matmul(a, b, datapath, seed=1, threads=threads), expected)


@pytest.mark.parametrize("what", ["M7E4", "INT16", "FP16, events", "backward"])
def test_an_interrupt_is_noticed_within_a_second(what):
    result = run_python(
        """
        import os, signal, sys, threading, time
        import numpy as np
        import abcdeep_core as ab
        from abcdeep_core import _core

        _core.set_isa("base")
        what = os.environ["WHAT"]
        kind = np.int8 if what == "INT16" else np.float32
        a, b = np.ones((1500, 3000), kind), np.ones((3000, 1500), kind)
        lba = ab.lba_accumulator(rounding="nearest_away")
        calls = {
            "M7E4": lambda: ab.matmul(a, b, lba, threads=2),
            "INT16": lambda: ab.matmul(a, b, ab.integer_accumulator(40, "saturate"), threads=1),
            "FP16, events": lambda: ab.matmul(a, b, ab.float_accumulator("fp16"), events=True),
            "backward": lambda: ab.matmul_backward(a @ b, a, b, lba, ste="immediate_of"),
        }
        sent = []

        def interrupt():
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        threading.Timer(0.3, interrupt).start()
        try:
            calls[what]()
        except KeyboardInterrupt:
            delay = time.perf_counter() - sent[0]
            assert delay < 1, delay
            assert ab.matmul(a[:1, :2], b[:2, :1], ab.integer_accumulator(8)
                             if what == "INT16" else ab.lba_accumulator())[0, 0] == 2
        else:
            raise AssertionError("the call ended before the interrupt was noticed")
        """,
        WHAT=what,
    )
    assert result.returncode == 0, result.stderr


def test_arrays_of_other_libraries():
    a, b = normal(22, (4, 5)), normal(23, (5, 6))
    expected = ab.matmul(a, b, M7E4)

    class Exporter:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    assert_bits(ab.matmul(Exporter(a), Exporter(b), M7E4, c=Exporter(np.zeros(6))), expected)

    class ArrayLike:
        def __array__(self, dtype=None, copy=None):
            return a

    assert_bits(ab.matmul(ArrayLike(), b, M7E4), expected)


def test_torch_tensors():
    torch = pytest.importorskip("torch", reason="torch is not installed: no tensors to pass")
    a, b = normal(22, (4, 5)), normal(23, (5, 6))
    expected = ab.matmul(a, b, M7E4)
    assert_bits(ab.matmul(torch.tensor(a), torch.tensor(b.T.copy()).T, M7E4), expected)
    with pytest.raises(TypeError, match="a must be an array"):
        ab.matmul(torch.tensor(a, requires_grad=True), b, M7E4)
