"""`nm_unbiased`, one block at a time: golden tables, every bit of the oracle, every offset U."""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
import oracle_nm as oracle
from nm_cases import FAMILIES, GOLDEN, PATTERNS, family, of_every_family

Array = np.ndarray[Any, Any]

# Input dtype and bits of a probability: the three paths of the exact estimator.
PATHS = [(np.float32, 16), (np.float32, 30), (np.float64, 30)]
PATH_IDS = ["float32-16", "float32-30", "float64-30"]


def same(got: Array, expected: Array) -> None:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert np.ascontiguousarray(got).tobytes() == np.ascontiguousarray(expected).tobytes()


def every_part(x: Array, n: int, m: int, **options: Any) -> tuple[Array, Array, Array]:
    """Return y, mask and probabilities."""
    return ab.nm_unbiased(x, n, m, return_mask=True, return_probabilities=True, **options)


def word(u: Any, bits: int) -> Array:
    """Return random words whose upper `bits` bits are u, the lower ones all set."""
    shift = 32 - bits
    return (np.asarray(u, np.uint64) << shift | ((1 << shift) - 1)).astype(np.uint32)


@functools.cache
def references(n: int, m: int, dtype: Any, bits: int) -> tuple[Array, list[list[int]], Array]:
    """Return blocks of every family, their q, and the value of each element if it is kept."""
    x = of_every_family({1: 12, 2: 12, 4: 20, 5: 12, 8: 8, 12: 4, 16: 4}.get(m, 3), m, 0, dtype)
    q = [oracle.probabilities_of(block, n, bits) for block in x.tolist()]
    return x, q, values_if_kept(x, q, bits)


def values_if_kept(x: Array, q: list[list[int]], bits: int) -> Array:
    form = oracle.BINARY64 if x.dtype == np.float64 else oracle.BINARY32
    y = [
        float(oracle.estimate(Fraction(a), p, bits, form)) if p else 0.0
        for block, row in zip(x.tolist(), q, strict=True)
        for a, p in zip(block, row, strict=True)
    ]
    return np.array(y).reshape(x.shape).astype(x.dtype)


def offsets(q: list[list[int]], bits: int) -> list[list[int]]:
    """Return values of U for each block: random ones, and those around every change of the mask."""
    rng = np.random.default_rng(bits)
    found = []
    for row in q:
        edges = np.cumsum(row)[:: max(1, len(row) // 4)]
        chosen = [0, (1 << bits) - 1, *rng.integers(0, 1 << bits, 3).tolist()]
        found.append([*chosen, *(int(e + d) % (1 << bits) for e in edges for d in (-1, 0))])
    length = min(len(row) for row in found)
    return [row[:length] for row in found]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_tables(isa: str, name: str) -> None:
    golden = GOLDEN[name]
    a, m = np.array(golden.a, np.float32), len(golden.a)
    for u, kept in golden.kept.items():
        y, mask, p = every_part(a, golden.n, m, random_bits=word([u], 16))
        assert (p * 65536).astype(int).tolist() == golden.q
        assert p.dtype == np.float32
        assert np.nonzero(mask)[0].tolist() == kept
        assert (y[~mask] == 0).all()
        if golden.values is not None:
            for i in kept:
                assert f"{abs(y[i]):.8g}" == golden.values[i]
                assert np.sign(y[i]) == np.sign(a[i])


@pytest.mark.parametrize(("dtype", "bits"), PATHS, ids=PATH_IDS)
@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_every_bit_of_the_oracle(isa: str, n: int, m: int, dtype: Any, bits: int) -> None:
    x, q, if_kept = references(n, m, dtype, bits)
    probability_type = np.float32 if bits == 16 else np.float64
    probabilities = (np.array(q) / (1 << bits)).astype(probability_type)
    for column in zip(*offsets(q, bits), strict=True):
        kept = np.array([oracle.sample(row, bits, u) for row, u in zip(q, column, strict=True)])
        words = word(column, bits).reshape(-1, 1)
        y, mask, p = every_part(x, n, m, random_bits=words, probability_bits=bits)
        same(p, probabilities)
        same(mask, kept)
        same(y, np.where(kept, if_kept, dtype(0)))


@pytest.mark.parametrize(
    ("n", "m"), [(1, 1), (1, 2), (2, 4), (3, 5), (4, 8), (5, 12), (8, 16), (16, 32), (31, 32)]
)
def test_every_offset_of_a_block(isa: str, n: int, m: int) -> None:
    u = np.arange(1 << 16)
    names = ["lognormal2", "wide", "near_ties", *(["gaussian", "sparse", "ties"] if m < 16 else [])]
    blocks = [family(name, 1, m, seed=3)[0] for name in names]
    if (n, m) == (2, 4):
        blocks += [np.array(g.a, np.float32) for g in GOLDEN.values() if len(g.a) == 4]
    for block in blocks:
        q = oracle.probabilities_of(block.tolist(), n, 16)
        if_kept = values_if_kept(block[None], [q], 16)
        upper = np.cumsum(q)
        lower = upper - q
        kept = (-((u[:, None] - upper) >> 16)) - (-((u[:, None] - lower) >> 16)) == 1
        tiled = np.broadcast_to(block, (1 << 16, m))
        y, mask, p = every_part(tiled, n, m, random_bits=word(u, 16)[:, None])
        assert mask.sum(axis=0).tolist() == q
        assert (mask.sum(axis=1) == min(n, np.count_nonzero(block))).all()
        same(mask, kept)
        same(p, np.broadcast_to(np.array(q) / 65536, tiled.shape).astype(np.float32))
        same(y, np.where(kept, if_kept, np.float32(0)))


@pytest.mark.parametrize(("dtype", "bits"), PATHS, ids=PATH_IDS)
@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_invariants(isa: str, n: int, m: int, dtype: Any, bits: int) -> None:
    x = of_every_family(4000 // m, m, 8, dtype)
    y, mask, p = every_part(x, n, m, seed=5, probability_bits=bits)
    q = p.astype(np.float64) * 2.0**bits
    size = np.minimum(np.count_nonzero(x, axis=1), n)
    assert np.array_equal(q, np.floor(q))
    assert np.array_equal(q >= 1, x != 0)
    assert q.max() <= 2.0**bits
    assert np.array_equal(q.sum(axis=1), size * 2.0**bits)
    assert np.array_equal(mask.sum(axis=1), size)
    assert np.array_equal(np.signbit(y), np.signbit(x) & mask)
    assert not y[~mask].any()
    assert np.array_equal((p == 1) & mask, p == 1)
    if dtype is np.float32 and bits == 16:
        same(y[mask], x[mask] / p[mask])  # float32 division of exact operands


@pytest.mark.parametrize(("dtype", "bits"), PATHS, ids=PATH_IDS)
@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (4, 8), (3, 5), (16, 32)])
def test_seeded_offsets_are_those_of_the_logical_index(
    isa: str, n: int, m: int, dtype: Any, bits: int
) -> None:
    address = {"seed": 0x0123456789ABCDEF, "stream": 3, "call": 9}
    x = of_every_family(3, m, 4, dtype).reshape(10, 3 * m)
    expected = oracle.nm_unbiased(
        x, m, -1,
        lambda index: oracle.offset(index, bits, **address),
        lambda block, u: oracle.unbiased(block, n, u, bits, dtype is np.float64),
    )  # fmt: skip
    y, mask, p = every_part(x, n, m, probability_bits=bits, **address)
    same(y, expected[0].astype(dtype))
    same(mask, expected[1])
    same(p, expected[2].astype(p.dtype))
    for other in ({"seed": 1}, {"stream": 4}, {"call": 10}):
        options = {**address, **other}
        assert not np.array_equal(ab.nm_unbiased(x, n, m, probability_bits=bits, **options), y)
    if bits == (16 if dtype is np.float32 else 30):
        same(ab.nm_unbiased(x, n, m, **address), y)  # the default number of bits


def test_as_many_as_there_are_return_the_input(isa: str) -> None:
    for dtype, bits in PATHS:
        for m in (1, 2, 4, 7, 32):
            x = of_every_family(9, m, 0, dtype)
            y, mask, p = every_part(x, m, m, seed=1, probability_bits=bits)
            same(y, x + dtype(0))  # -0 becomes +0
            same(mask, x != 0)
            same(p, (x != 0).astype(p.dtype))


def two_draw_words(x: Array, seed: int) -> Array:
    """Return pairs of words, many of them next to a step of the running sum of the draw."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**32, (len(x), 1, 2), dtype=np.uint32)
    for row, block in enumerate(x.tolist()):
        if sum(a != 0 for a in block) < 3 or row % 4 == 0:
            words[row, 0] = rng.choice([0, 2**32 - 1, 2**31], 2)
            continue
        m, others, _ = oracle.two_draw_terms(block)
        draws = [[a / (m[0] + m[1] + m[2] + m[3]) for a in m]]
        draws.append([a / others[0] for a in m[1:]])
        for k, weights in enumerate(draws):
            step = int(np.cumsum(weights)[rng.integers(len(weights))] * 2**32)
            words[row, 0, k] = min(max(step + int(rng.integers(-1, 2)), 0), 2**32 - 1)
    return words


@functools.cache
def two_draw_references(dtype: Any) -> tuple[Array, list[Array], list[tuple[Array, ...]]]:
    # The blocks of float64 stay within the range in which no magnitude underflows when scaled.
    x = np.concatenate([family(name, 24, 4, 11).astype(dtype) for name in FAMILIES])
    if dtype is np.float64:
        x = np.concatenate([x, *(family(f, 24, 4, 11, dtype) for f in ("gaussian", "near_ties"))])
        x = np.concatenate([x, family("subnormal", 24, 4, 11, dtype), x * 2.0**800])
    words = [two_draw_words(x, seed) for seed in range(8)]
    results = [
        oracle.nm_unbiased(
            x, 4, -1,
            lambda index, given=given: given[index, 0].tolist(),
            lambda block, pair: oracle.two_draws(block, pair, dtype is np.float64),
        )
        for given in words
    ]  # fmt: skip
    return x, words, results


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_draws_every_bit_of_the_oracle(isa: str, dtype: Any) -> None:
    x, words, results = two_draw_references(dtype)
    for given, expected in zip(words, results, strict=True):
        y, mask, pi = every_part(x, 2, 4, method="approx", random_bits=given)
        same(pi, expected[2])
        same(mask, expected[1])
        same(y, expected[0].astype(dtype))
        assert not np.signbit(y[y == 0]).any()


def test_two_draws_take_two_words_of_the_logical_index(isa: str) -> None:
    x = of_every_family(5, 4).reshape(10, 20)
    address = {"seed": 99, "stream": 1, "call": 2}
    expected = oracle.nm_unbiased(
        x, 4, -1,
        lambda index: [oracle.philox_word(2 * index + k, **address) for k in (0, 1)],
        oracle.two_draws,
    )  # fmt: skip
    y, mask, pi = every_part(x, 2, 4, method="approx", **address)
    same(y, expected[0].astype(np.float32))
    same(mask, expected[1])
    same(pi, expected[2])


@pytest.mark.parametrize(
    "block", [[2.0**1000, 2.0**-100, 0, -0.0], [0, 2.0**-1074, -(2.0**1023), 0]]
)
def test_two_draws_keep_two_magnitudes_that_underflow_when_scaled(
    isa: str, block: list[float]
) -> None:
    x = np.tile(np.array(block), (200, 1))
    y, mask, pi = every_part(x, 2, 4, method="approx", seed=1)
    same(y, x + 0.0)
    assert np.array_equal(y != 0, mask)
    same(pi, (x != 0).astype(np.float64))


@pytest.mark.parametrize(
    "block", [[2.0**1000, 2.0**-74, -(2.0**-74), 2.0**-75], [2.0**-1074, 2.0**-1074, 2.0**1023, 1]]
)
def test_two_draws_refuse_what_float64_does_not_see(isa: str, block: list[float]) -> None:
    x = np.tile(np.array(block), (20, 1))
    with pytest.raises(
        ValueError, match=r"x: expected no element below 2\^-1000 times the largest"
    ):
        ab.nm_unbiased(x, 2, 4, method="approx", seed=1)
    assert ab.nm_unbiased(x, 2, 4, seed=1).shape == x.shape


METHODS: dict[str, Callable[..., Any]] = {
    "exact": lambda x, words: every_part(x, 2, 4, random_bits=words[..., 0]),
    "exact30": lambda x, words: every_part(x, 2, 4, random_bits=words[..., 0], probability_bits=30),
    "approx": lambda x, words: every_part(x, 2, 4, method="approx", random_bits=words),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_scale_does_not_matter(isa: str, method: str, dtype: Any) -> None:
    if method == "exact" and dtype is np.float64:
        pytest.skip("16-bit probabilities are of float32 numbers")
    x = np.concatenate([family(f, 200, 4, 2, dtype) for f in ("gaussian", "near_ties", "ties")])
    words = np.random.default_rng(7).integers(0, 2**32, (len(x), 1, 2), dtype=np.uint32)
    y, mask, p = METHODS[method](x, words)
    for power in (-100, -20, 100):
        # No magnitude is below 2^-26 but zero: nothing here becomes subnormal.
        scaled = METHODS[method](np.ldexp(x, power), words)
        same(scaled[0], np.ldexp(y, power))
        same(scaled[1], mask)
        same(scaled[2], p)
    # Subnormal numbers and the same multiples of one.
    smallest = -149 if dtype is np.float32 else -1074
    multiples = np.random.default_rng(8).integers(-99, 100, x.shape).astype(dtype)
    _, mask, p = METHODS[method](multiples, words)
    _, tiny_mask, tiny_p = METHODS[method](np.ldexp(multiples, smallest), words)
    same(tiny_mask, mask)
    same(tiny_p, p)
