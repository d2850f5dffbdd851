"""matmul_backward: straight-through estimators against the oracle and float32 sums in order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import abcdeep_core as ab
from datapath_cases import assert_bits, each_isa, random_words
from datapath_random import pick, random_datapath, random_operands
from oracle_datapath import ste_gradients

M7E4 = ab.lba_accumulator()
STE = ("identity", "recursive_of", "immediate_of", "immediate_diff")
STOCHASTIC = ab.lba_accumulator(rounding="stochastic", chunk=5)


def normal(seed, shape, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def masks(a, b, datapath, ste, c=None, seed=0, stream=0, call=0, batch=0):
    """Return dL/dp / g, 0 or 1, as an array (M, N, K): the oracle's."""
    (m, k), n = a.shape, b.shape[1]
    words = random_words(datapath, m, n, k, seed, stream, call, batch)
    rows, columns = a.tolist(), b.T.tolist()
    factors = np.zeros((m, n, k), bool)
    for i, j in itertools.product(range(m), range(n)):
        start = None if c is None else c[i, j].item()
        factors[i, j] = ste_gradients(rows[i], columns[j], datapath, ste, start, words(i, j))
    return factors


def masked_gradients(g, a, b, passes):
    """Return both gradients in separate float32 operations, in increasing index, as the spec."""
    grad_a, grad_b = np.zeros_like(a), np.zeros_like(b)
    with np.errstate(all="ignore"):
        for n in range(b.shape[1]):
            term = g[:, n, None] * b[None, :, n]
            grad_a = grad_a + np.where(passes[:, n], term, np.float32(0))
        for m in range(a.shape[0]):
            term = a[m, :, None] * g[None, m, :]
            grad_b = grad_b + np.where(passes[m].T, term, np.float32(0))
    return tuple(np.where(np.isnan(x), np.float32(np.nan), x) for x in (grad_a, grad_b))


def check_backward(g, a, b, datapath, ste, c=None, **address):
    expected = masked_gradients(g, a, b, masks(a, b, datapath, ste, c, **address))
    assert expected[0].dtype == np.float32
    for _ in each_isa():
        for threads in (1, 3):
            got = ab.matmul_backward(g, a, b, datapath, ste=ste, c=c, threads=threads, **address)
            for one, wanted in zip(got, expected, strict=True):
                assert_bits(one, wanted, ste, datapath)


def test_golden_vector(isa):
    x = np.float32([[7.5] * 6 + [2**-4, -7.5, 1.5]])
    w = np.float32([[2] * 6 + [2**-5, 2, 2]]).T
    one = np.ones((1, 1), np.float32)
    running = [float(ab.matmul(x[:, :k], w[:k], M7E4)[0, 0]) for k in range(1, 10)]
    assert running == [15, 30, 45, 60, 63.75, 63.75, 63.75, 48.75, 51.75]
    for ste, factors in (
        ("identity", [1] * 9), ("recursive_of", [0, 0, 0, 0, 0, 0, 0, 1, 1]),
        ("immediate_of", [1, 1, 1, 1, 0, 0, 0, 1, 1]),
        ("immediate_diff", [1, 1, 1, 1, 1, 0, 0, 1, 1]),
    ):  # fmt: skip
        grad_x, grad_w = ab.matmul_backward(one, x, w, M7E4.replace(chunk=0), ste=ste)
        assert_bits(grad_x, (w.T * np.float32(factors)), ste)
        assert_bits(grad_w, (x.T * np.float32(factors)[:, None]) + 0, ste)


@pytest.mark.parametrize("ste", STE)
@pytest.mark.parametrize("shard", range(3))
def test_random_datapaths(ste, shard):
    rng = np.random.default_rng([shard, 3])
    done = 0
    while done < 4000:
        datapath = random_datapath(rng, pick(rng, ("lba", "plain", "float")))
        if datapath.step != "chain" or datapath.merge_order == "pairwise":
            continue
        m, k, n = pick(rng, ((3, 17, 9), (1, 16, 20), (11, 2, 4), (2, 33, 3), (9, 1, 5)))
        a, b, c = random_operands(rng, datapath, m, k, n)
        g = normal(done, (m, n))
        g[rng.random(g.shape) < 0.1] = 0
        check_backward(g, a, b, datapath, ste, c, seed=shard, stream=1, call=done)
        done += m * n


@pytest.mark.parametrize("ste", STE[1:])
@pytest.mark.parametrize(
    "datapath",
    [
        M7E4,
        ab.lba_accumulator(4, 3, 4, 6, chunk=4),
        ab.lba_accumulator(rounding="nearest_even", chunk=3),
        M7E4.replace(merge_order="first_then_back", chunk=4, order="pair4"),
        ab.float_accumulator("fp16", chunk=5, merge="exact"),
        ab.lba_accumulator(7, 7, 0, 0, chunk=4, arithmetic="fp32_mask"),
        STOCHASTIC,
    ],
    ids=range(7),
)
def test_sums_that_overflow(ste, datapath):
    # large terms, so that steps, products and merges leave the range
    scale = min(float(datapath.accumulator.format.max), 2.0**127) ** 0.5 / 2
    if datapath.product is not None:
        scale = min(scale, min(float(datapath.product.format.max), 2.0**127) ** 0.5)
    a, b = normal(1, (5, 22), scale), normal(2, (22, 7), scale)
    a[0], b[:, 0] = np.abs(a[0]), np.abs(b[:, 0])
    passes = masks(a, b, datapath, ste, seed=9)
    assert 0 < passes.mean() < 1
    check_backward(normal(3, (5, 7)), a, b, datapath, ste, seed=9)


def test_a_product_rounded_up_to_the_largest_value_does_not_pass(isa):
    # |p| is compared after Q_prod: 15.93 is below R_OF = 15.9375 but rounds to it
    datapath = ab.lba_accumulator(rounding="nearest_even")
    a, one = np.float32([[15.93, 1.0]]), np.ones((2, 1), np.float32)
    _, seen = ab.matmul(a, one, datapath, events=True)
    assert seen.product_overflow == 0
    g = np.ones((1, 1), np.float32)
    grad, _ = ab.matmul_backward(g, a, one, datapath, ste="immediate_of")
    assert grad.tolist() == [[0, 1]]


def test_a_merge_passes_on_its_chunk(isa):
    # chunk sums 60, 60, -60: the second merge saturates; 60 + 60 - 60 stays in range again
    a = np.float32([[15, 15, 15, 15] * 2 + [-15, -15, -15, -15]])
    b = np.ones((12, 1), np.float32)
    g = np.ones((1, 1), np.float32)
    datapath = ab.lba_accumulator(chunk=4)
    for ste, chunks in (("immediate_of", (1, 0, 1)), ("immediate_diff", (1, 0, 1)),
                        ("recursive_of", (0, 0, 1))):  # fmt: skip
        grad, _ = ab.matmul_backward(g, a, b, datapath, ste=ste)
        assert grad.tolist() == [np.repeat(np.float32(chunks), 4).tolist()], ste
    back = datapath.replace(merge_order="first_then_back")  # 60, -60, 60: nothing saturates
    grad, _ = ab.matmul_backward(g, a, b, back, ste="recursive_of")
    assert grad.tolist() == [[1.0] * 12]


def test_without_an_event_every_estimator_is_the_plain_gradient(isa):
    a, b, g = normal(4, (9, 30)), normal(5, (30, 21)), normal(6, (9, 21))
    g[0, 0] = -0.0
    wide = ab.float_accumulator("binary32", chunk=7)
    _, seen = ab.matmul(a, b, wide, events=True)
    assert seen.accumulator_overflow == seen.swamped == 0
    plain = masked_gradients(g, a, b, np.ones((9, 21, 30), bool))
    for ste in STE:
        got = ab.matmul_backward(g, a, b, wide, ste=ste)
        for one, wanted in zip(got, plain, strict=True):
            assert_bits(one, wanted, ste)


def test_special_values_of_the_gradient(isa):
    a, b = normal(7, (3, 4)), normal(8, (4, 5))
    g = np.float32([[np.inf, 1, -np.inf, 0, 3e38], [np.nan, 1, 1, 1, 1], [0, -0.0, 0, 0, 0]])
    for ste in STE:
        got = ab.matmul_backward(g, a, b, ab.float_accumulator("binary32"), ste=ste)
        expected = masked_gradients(g, a, b, np.ones((3, 5, 4), bool))
        for one, wanted in zip(got, expected, strict=True):
            assert_bits(one, wanted, ste)


def test_identity_is_the_derivative():
    # of a function that is linear in each operand, by differences, exactly
    rng = np.random.default_rng(9)
    a = rng.integers(-20, 21, (4, 6)).astype(np.float32)
    b = rng.integers(-20, 21, (6, 5)).astype(np.float32)
    g = rng.integers(-4, 5, (4, 5)).astype(np.float32)
    exact = ab.exact_accumulator()
    grads = ab.matmul_backward(g, a, b, exact)
    for which, operand in enumerate((a, b)):
        for at in np.ndindex(*operand.shape):
            moved = [a.copy(), b.copy()]
            moved[which][at] += 0.5
            difference = ab.matmul(*moved, exact) - ab.matmul(a, b, exact)
            assert grads[which][at] == 2 * np.sum(g * difference)


SHAPES = [
    ((3, 5), (5, 7)), ((5,), (5, 7)), ((3, 5), (5,)), ((5,), (5,)), ((2, 3, 5), (5, 7)),
    ((3, 5), (4, 5, 7)), ((2, 1, 3, 5), (4, 5, 7)), ((5,), (2, 5, 7)), ((2, 3, 5), (5,)),
    ((3, 0), (0, 7)), ((0, 5), (5, 7)), ((3, 5), (5, 0)), ((0, 3, 5), (5, 7)), ((0,), (0,)),
    ((1, 3, 5), (2, 5, 7)), ((1, 3, 5), (0, 5, 7)),
]  # fmt: skip


@pytest.mark.parametrize("ste", ["identity", "immediate_of"])
@pytest.mark.parametrize(("shape_a", "shape_b"), SHAPES)
def test_shapes_and_broadcast_operands(isa, shape_a, shape_b, ste):
    a, b = normal(10, shape_a, 4.0), normal(11, shape_b, 4.0)
    shape = np.shape(ab.matmul(a, b, M7E4))
    g = normal(12, shape)
    grad_a, grad_b = ab.matmul_backward(g, a, b, M7E4, ste=ste)
    assert (grad_a.shape, grad_b.shape) == (a.shape, b.shape)
    assert grad_a.dtype == grad_b.dtype == np.float32
    # matrix by matrix; the gradient of a repeated operand is the sum, in order
    stack_a, stack_b = (a if a.ndim > 1 else a[None]), (b if b.ndim > 1 else b[:, None])
    batch = np.broadcast_shapes(stack_a.shape[:-2], stack_b.shape[:-2])
    whole_a = np.broadcast_to(stack_a, (*batch, *stack_a.shape[-2:]))
    whole_b = np.broadcast_to(stack_b, (*batch, *stack_b.shape[-2:]))
    whole_g = g.reshape(*batch, stack_a.shape[-2], stack_b.shape[-1])
    sums = np.zeros(stack_a.shape, np.float32), np.zeros(stack_b.shape, np.float32)
    for i in np.ndindex(*batch):
        parts = ab.matmul_backward(whole_g[i], whole_a[i], whole_b[i], M7E4, ste=ste)
        for total, part in zip(sums, parts, strict=True):
            last = i[len(i) - total.ndim + 2 :]
            own = tuple(j if size > 1 else 0 for j, size in zip(last, total.shape, strict=False))
            total[own] += part
    if len(batch) < 2:  # with two repeated axes the sums are nested
        assert_bits(grad_a, sums[0].reshape(a.shape))
        assert_bits(grad_b, sums[1].reshape(b.shape))
    out = np.full_like(a, np.nan), np.full_like(b, np.nan)
    got = ab.matmul_backward(g, a, b, M7E4, ste=ste, out=out)
    assert got[0] is out[0]
    assert got[1] is out[1]
    assert_bits(out[0], grad_a)
    assert_bits(out[1], grad_b)


@pytest.mark.parametrize("ste", STE[1:])
def test_random_words_of_a_batch(isa, ste):
    a, b, g = normal(13, (3, 4, 11), 4.0), normal(14, (3, 11, 9), 4.0), normal(15, (3, 4, 9))
    address = {"seed": 3, "stream": 4, "call": 5}
    grads = ab.matmul_backward(g, a, b, STOCHASTIC, ste=ste, **address)
    for i in range(3):
        passes = masks(a[i], b[i], STOCHASTIC, ste, batch=i, **address)
        expected = masked_gradients(g[i], a[i], b[i], passes)
        assert_bits(grads[0][i], expected[0])
        assert_bits(grads[1][i], expected[1])
    with pytest.raises(ValueError, match="needs seed="):
        ab.matmul_backward(g, a, b, STOCHASTIC, ste=ste)


def test_strides_and_narrow_dtypes_do_not_matter(isa):
    a, b, g = normal(16, (9, 20), 4.0), normal(17, (20, 12), 4.0), normal(18, (9, 12))
    fields = np.zeros(g.shape, [("skip", "u1"), ("x", "<f4")])
    fields["x"] = g
    for ste in STE:
        expected = ab.matmul_backward(g, a, b, M7E4, ste=ste)
        for other in (np.asfortranarray(g), g[::-1].copy()[::-1], fields["x"], g.astype(">f4")):
            for x, y in ((a, b), (np.asfortranarray(a), b[:, ::-1].copy()[:, ::-1])):
                got = ab.matmul_backward(other, x, y, M7E4, ste=ste)
                assert_bits(got[0], expected[0])
                assert_bits(got[1], expected[1])
        half = g.astype(np.float16)
        got = ab.matmul_backward(half, a, b, M7E4, ste=ste)
        expected = ab.matmul_backward(half.astype(np.float32), a, b, M7E4, ste=ste)
        assert_bits(got[0], expected[0])
        one = np.broadcast_to(np.float32(1), g.shape)  # the gradient of a sum
        got = ab.matmul_backward(one, a, b, M7E4, ste=ste)
        assert_bits(got[1], ab.matmul_backward(one.copy(), a, b, M7E4, ste=ste)[1])


G, A, B = np.ones((2, 3), np.float32), np.ones((2, 4), np.float32), np.ones((4, 3), np.float32)
OF = {"ste": "recursive_of"}
NOT_FINITE = np.float32([[1, 1, 1, np.inf], [1, 1, 1, 1]])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((G, A, B, "m7e4"), {}, TypeError, "datapath must be a Datapath, got str"),
        ((G, A, B, M7E4), {"ste": "recursive_diff"}, ValueError, "unknown ste 'recursive_diff'"),
        ((G, A, B, M7E4), {"ste": None}, TypeError, "ste must be a string"),
        ((G.T, A, B, M7E4), {}, ValueError, r"shape of the product, \(2, 3\), got \(3, 2\)"),
        ((G.astype(np.float64), A, B, M7E4), {}, TypeError, "g must hold float32 .* got float64"),
        ((G, A.astype(np.int8), B, M7E4), {}, TypeError, "a must hold float32"),
        ((G, A, B, ab.integer_accumulator(16)), {}, TypeError, "a float datapath, got an integer"),
        ((G, A, B.T, M7E4), {}, ValueError, "the last dimension of a"),
        ((G, NOT_FINITE, B, M7E4), OF, ValueError, r"a must be finite: .* at \[0, 3\]"),
        ((G, A, B, M7E4), OF | {"c": np.float32(np.nan)}, ValueError, "c must be finite"),
        ((G, A, B, M7E4), {"out": A}, TypeError, "out must be a tuple of two arrays, got ndarray"),
        ((G, A, B, M7E4), {"out": (A, A)}, ValueError, r"out must have shape \(4, 3\)"),
        ((G, A, B, M7E4), {"out": (A, B.astype(float))}, TypeError, "out must have dtype float32"),
        ((G, A, B, ab.float_accumulator("fp16", group=2)), OF, NotImplementedError,
         "ste='recursive_of' needs step='chain'"),
        ((G, A, B, ab.exact_accumulator()), OF, NotImplementedError, "needs step='chain'"),
        ((G, A, B, M7E4.replace(merge_order="pairwise")), OF, NotImplementedError, "pairwise"),
        ((G, A, B, M7E4), OF | {"threads": 0}, ValueError, "threads: expected"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(arguments, options, error, message):
    with pytest.raises(error, match=message):
        ab.matmul_backward(*arguments, **options)
