"""The fast paths of matmul_backward against the general engine, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import _backward, _core
from abcdeep_core._gemm import compile_datapath
from datapath_cases import assert_bits, each_isa
from datapath_random import pick, random_datapath, random_operands

STE = ("recursive_of", "immediate_of", "immediate_diff")
M7E4 = ab.lba_accumulator(7, 4, bias=10, product_bias=12, chunk=16)
REVERSED = tuple(range(69, -1, -1))


def normal(seed, shape, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def plan(datapath, a, b, ste, c=None, path=None):
    compiled = compile_datapath(datapath, a.shape[-1])
    return _backward._plan(datapath, compiled, a, b, ste, c, 1, path)[0]


def is_possible(path, a, b, datapath, ste, c):
    try:
        return plan(datapath, a, b, ste, c, path) == path
    except ValueError:
        return False


def backward(path, g, a, b, datapath, ste, c=None, threads=1):
    address = (None, 0, 0)
    return _backward.backward_stacks(g, a, b, datapath, ste, c, address, threads, {}, path)


def check(g, a, b, datapath, ste, c=None, paths=None):
    """Compare every path that is possible with the general engine; return their names."""
    seen = set()
    for _ in each_isa():
        expected = backward("lanes", g, a, b, datapath, ste, c)
        for path in paths or ("products", "truncate"):
            if not is_possible(path, a, b, datapath, ste, c):
                continue
            seen.add(path)
            for threads in (1, 3):
                got = backward(path, g, a, b, datapath, ste, c, threads)
                for one, wanted in zip(got, expected, strict=True):
                    assert_bits(one, wanted, ste, datapath, path, threads)
    return seen


def fast_chains():
    return {"truncate"} if _core.has_fused_multiply_add() else set()


# data: operands, and what they do on M7E4
CASES = {
    "in range": lambda k: (normal(1, (13, k), 0.4), normal(2, (k, 37), 0.4)),
    "products": lambda k: (normal(3, (13, k), 3.0), normal(4, (k, 37), 3.0)),
    "sums": lambda k: (np.abs(normal(5, (13, k), 1.5)), np.abs(normal(6, (k, 37), 1.5))),
    "merges": lambda k: (np.abs(normal(7, (13, k), 1.2)), np.abs(normal(8, (k, 37), 1.0))),
    "cancelling": lambda k: (
        normal(9, (13, k), 0.5) + np.float32(2) * (-1) ** np.arange(k, dtype=np.float32),
        np.abs(normal(10, (k, 37), 1.5)),
    ),
}


@pytest.mark.parametrize("ste", STE)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chunk", [0, 16, 3, 1, 48, 100])
def test_lba_against_the_general_engine(ste, case, chunk):
    a, b = CASES[case](70)
    a[0, 3], b[5, 1] = 0, -0.0
    g = normal(11, (13, 37))
    g[1], g[2, 3], g[4, :3] = 0, -0.0, (np.inf, np.nan, -np.inf)
    datapath = M7E4.replace(chunk=chunk)
    c = normal(12, (13, 37), 20.0).astype(np.float64)
    for start in (None, c):
        assert check(g, a, b, datapath, ste, start) - {"products"} == fast_chains()
    stopped, _ = backward("lanes", np.abs(normal(11, (13, 37))), a, b, datapath, ste)
    whole, _ = ab.matmul_backward(np.abs(normal(11, (13, 37))), a, b, datapath)
    if case != "cancelling":
        assert (stopped != whole).any() == (case != "in range" or ste == "immediate_diff")


@pytest.mark.parametrize("ste", STE)
def test_data_in_range_take_plain_products(isa, ste):
    a, b = CASES["in range"](70)
    g = normal(11, (13, 37))
    g[0, 0] = -0.0
    assert (plan(M7E4, a, b, ste) == "products") == (ste != "immediate_diff")
    if ste != "immediate_diff":
        assert check(g, a, b, M7E4, ste, paths=("products",)) == {"products"}
    # the bound is over all terms, with c
    c = np.full((13, 37), 60.0)
    assert plan(M7E4, a, b, ste, c) != "products"
    assert plan(M7E4, np.tile(a, 8), np.tile(b.T, 8).T, ste) != "products"
    assert plan(ab.lba_accumulator(product_bias=16), a, b, ste) != "products"


def test_a_term_at_the_largest_value_is_not_in_range(isa):
    one, largest = np.ones((1, 1), np.float32), np.float32([[15.9375]])
    below = np.nextafter(largest, np.float32(0))
    for ste in STE[:2]:
        assert plan(M7E4, largest, one, ste) != "products"
        for x, passes in ((largest, 0), (below, 1)):
            for path in ("lanes", *fast_chains()):
                grad, _ = backward(path, one, x, one, M7E4, ste)
                assert grad == passes


@pytest.mark.parametrize("ste", STE)
@pytest.mark.parametrize(
    ("datapath", "scale"),
    [
        (M7E4.replace(order="reverse"), 2.0),
        (M7E4.replace(order="pair4", chunk=5), 2.0),
        (M7E4.replace(order=REVERSED), 2.0),
        (ab.lba_accumulator(7, 4, arithmetic="fp32_mask"), 2.0),
        (ab.lba_accumulator(7, 4, underflow=False, chunk=0), 2.0),
        (ab.lba_accumulator(4, 3, 4, 6, chunk=4), 1.0),
        (ab.lba_accumulator(10, 5, chunk=32), 8.0),
        (ab.float_accumulator("fp16", product="fp16", rounding="toward_zero",
                              overflow="sat_finite", chunk=7), 80.0),
        (ab.float_accumulator("e4m3fn", rounding="toward_zero", overflow="sat_finite"), 9.0),
        (ab.float_accumulator("binary32", rounding="toward_zero", overflow="sat_finite"), 1e19),
        (ab.float_accumulator("fp16", chunk=5), 80.0),  # stays in the general engine
    ],
    ids=range(11),
)  # fmt: skip
def test_datapaths(ste, datapath, scale):
    a, b = normal(20, (9, 70), scale), normal(21, (70, 41), scale)
    a[:3], b[:, :20] = np.abs(a[:3]), np.abs(b[:, :20])
    check(normal(22, (9, 41)), a, b, datapath, ste)


@pytest.mark.parametrize("ste", STE)
def test_exact_products(ste):
    # of few bits: one rounding a step, and no limit of products
    rng = np.random.default_rng(23)
    a = np.ldexp(rng.integers(-15, 16, (17, 50)), -2).astype(np.float32)
    b = np.ldexp(rng.integers(-15, 16, (50, 65)), -2).astype(np.float32)
    a[:5], b[:, :9] = np.abs(a[:5]), np.abs(b[:, :9])
    check(normal(24, (17, 65)), a, b, M7E4, ste)


@pytest.mark.parametrize("ste", STE)
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(1, 1, 1), (1, 40, 5), (5, 3, 1), (70, 33, 1), (300, 31, 3), (3, 65, 130), (65, 96, 66),
     (0, 4, 3), (2, 0, 3), (2, 4, 0), (270, 20, 70)],
)  # fmt: skip
def test_shapes(ste, m, k, n):
    a, b, g = normal(25, (m, k), 3.0), normal(26, (k, n), 3.0), normal(27, (m, n))
    c = normal(28, (m, n), 20.0).astype(np.float64)
    for start in (None, c):
        check(g, a, b, M7E4, ste, start)


@pytest.mark.parametrize("ste", STE)
def test_strides(ste):
    a, b, g = normal(29, (40, 60), 3.0), normal(30, (60, 50), 3.0), normal(31, (40, 50))
    c = normal(32, (40, 50), 20.0).astype(np.float64)
    for one in (lambda x: x, np.asfortranarray, lambda x: x[::-1, ::-1], lambda x: x[1::2, 3::3]):
        x, y = one(a), one(b)
        y = y[: x.shape[1]] if y.shape[0] >= x.shape[1] else y
        x = x[:, : y.shape[0]]
        for turn in (lambda z: z, np.asfortranarray):
            shape = np.s_[: x.shape[0], : y.shape[1]]
            check(turn(g[shape]), x, y, M7E4, ste, turn(c[shape]))
    spread = np.broadcast_to(np.float32(1), g.shape)
    check(spread, a, b, M7E4, ste, np.broadcast_to(np.float64(3), g.shape))


@pytest.mark.parametrize("ste", STE)
@pytest.mark.parametrize("rows", [5, 200])
def test_batches(ste, rows):
    # batches of small products are shared out whole
    a, b = normal(33, (3, 2, rows, 40), 3.0), normal(34, (2, 40, 33), 3.0)
    b = np.broadcast_to(b, (3, 2, 40, 33))
    g = normal(35, (3, 2, rows, 33))
    c = normal(36, (3, 2, rows, 33), 20.0).astype(np.float64)
    assert check(g, a, b, M7E4, ste) == fast_chains()
    assert check(g, a, b, M7E4, ste, c) == fast_chains()


@pytest.mark.parametrize("ste", STE)
def test_blocks_of_a_large_product(ste):
    a, b = normal(37, (530, 300), 1.0), normal(38, (300, 140), 1.0)
    a[0], b[:, 0] = np.abs(a[0]), np.abs(b[:, 0])
    g = normal(39, (530, 140))
    expected = backward("lanes", g, a, b, M7E4, ste)
    for path in fast_chains():
        for threads in (1, 4):
            got = backward(path, g, a, b, M7E4, ste, threads=threads)
            for one, wanted in zip(got, expected, strict=True):
                assert_bits(one, wanted, ste, threads)


@pytest.mark.parametrize("ste", STE)
def test_conv2d(monkeypatch, ste):
    x, w = normal(40, (2, 4, 7, 6), 3.0), normal(41, (6, 2, 3, 2), 3.0)
    options = {"stride": (2, 1), "padding": 1, "groups": 2}
    g = normal(42, ab.conv2d(x, w, M7E4, **options).shape)
    c = normal(43, (1, 6, 1, 1), 9.0)
    whole = _backward._plan
    for start in (None, c):
        for _ in each_isa():
            got = ab.conv2d_backward(g, x, w, M7E4, ste=ste, c=start, **options)
            with monkeypatch.context() as patch:
                patch.setattr(_backward, "_plan", lambda *args: whole(*args[:-1], "lanes"))
                expected = ab.conv2d_backward(g, x, w, M7E4, ste=ste, c=start, **options)
            for one, wanted in zip(got, expected, strict=True):
                assert_bits(one, wanted, ste)


@pytest.mark.parametrize("ste", STE)
def test_random_datapaths(ste):
    rng = np.random.default_rng([4, STE.index(ste)])
    paths = set()
    for i in range(150):
        datapath = random_datapath(rng, pick(rng, ("lba", "plain", "float")))
        stochastic = "stochastic" in repr(datapath)
        if datapath.step != "chain" or datapath.merge_order == "pairwise" or stochastic:
            continue
        m, k, n = pick(rng, ((3, 17, 9), (1, 16, 20), (11, 2, 4), (9, 45, 35)))
        a, b, c = random_operands(rng, datapath, m, k, n)
        scale = np.float32(pick(rng, (1.0, 0.125)))
        start = None if c is None else np.broadcast_to(c, (m, n)).astype(np.float64)
        paths |= check(normal(i, (m, n)), a * scale, b * scale, datapath, ste, start)
    assert paths >= fast_chains() | ({"products"} if ste != "immediate_diff" else set())


def test_a_path_that_is_not_possible():
    a = np.float32([[1, 2, np.nan]])
    g = np.ones((1, 1), np.float32)
    nan = ab.float_accumulator("binary32", rounding="toward_zero", overflow="sat_finite")
    for path in ("products", "truncate"):
        with pytest.raises(ValueError, match=f"path='{path}' is not possible, but 'lanes'"):
            backward(path, g, a, a.T, nan, "recursive_of")
