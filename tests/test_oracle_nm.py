"""The oracle of N:M sparsity itself: published values, closed forms, machine arithmetic."""

from __future__ import annotations

import itertools
import operator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import oracle_nm as oracle
from nm_cases import FAMILIES, GOLDEN, PATTERNS, exact_pi, family


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_tables(name: str) -> None:
    golden = GOLDEN[name]
    q = oracle.probabilities_of(golden.a, golden.n, 16)
    assert q == golden.q
    for u, kept in golden.kept.items():
        result = oracle.unbiased(golden.a, golden.n, u)
        assert [i for i, k in enumerate(result.kept) if k] == kept
    if golden.values is not None:
        y = [
            oracle.estimate(Fraction(a), p, 16, oracle.BINARY32) if p else Fraction(0)
            for a, p in zip(golden.a, q, strict=True)
        ]
        assert [f"{abs(float(value)):.8g}" for value in y] == golden.values
        assert all((float(value) < 0) == (a < 0) for value, a in zip(y, golden.a, strict=True))


@pytest.mark.parametrize(
    ("form", "dtype", "size"),
    [(oracle.BINARY32, np.float32, 4000), (oracle.BINARY64, np.float64, 2000)],
    ids=["float32", "float64"],
)
def test_rounding_is_that_of_the_machine(form: Any, dtype: Any, size: int) -> None:
    rng = np.random.default_rng(1)
    span = 74 if dtype is np.float32 else 537  # quotients and products reach the subnormals
    a, b = (
        np.ldexp(rng.uniform(1, 2, size), rng.integers(-span, span // 2, size)).astype(dtype)
        for _ in range(2)
    )
    b[::3] = (a * dtype(rng.uniform(0.5, 2)))[::3]  # sums of like numbers are rounded at all
    b[::5] *= dtype(-1)
    for function in (operator.add, operator.mul, operator.truediv):
        expected = function(a, b)
        for x, y, z in zip(a.tolist(), b.tolist(), expected.tolist(), strict=True):
            assert oracle.rounded(function(Fraction(x), Fraction(y)), form) == Fraction(z)


def test_rounding_at_the_ends_of_the_range() -> None:
    smallest, limit = Fraction(1, 2**149), Fraction(2**128)
    half_step = Fraction(2**103)
    assert oracle.rounded(smallest / 2, oracle.BINARY32) == 0
    assert oracle.rounded(smallest * 3 / 2, oracle.BINARY32) == 2 * smallest
    assert oracle.rounded(-smallest * 51 / 100, oracle.BINARY32) == -smallest
    assert oracle.rounded(limit - half_step - 1, oracle.BINARY32) == limit - 2 * half_step
    with pytest.raises(OverflowError):
        oracle.rounded(limit - half_step, oracle.BINARY32)


def test_the_order_of_the_sum_is_part_of_the_definition() -> None:
    # From left to right 1 + 2^-24 would be 1 again.
    half = Fraction(1, 2**24)
    values = [Fraction(1), Fraction(0), half, half]
    assert oracle.tree_sum(values, oracle.BINARY32) == 1 + 2 * half
    assert oracle.tree_sum([Fraction(1), half, half], oracle.BINARY32) == 1
    assert oracle.tree_sum([Fraction(3)], oracle.BINARY32) == 3


@pytest.mark.parametrize("bits", [16, 30])
@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_invariants(n: int, m: int, bits: int) -> None:
    one = 1 << bits
    for name in FAMILIES:
        for block in family(name, 4, m, seed=7).tolist():
            q = oracle.probabilities_of(block, n, bits)
            nonzero = sum(a != 0 for a in block)
            assert all(
                (p >= 1) == (a != 0) and 0 <= p <= one for a, p in zip(block, q, strict=True)
            )
            assert sum(q) == min(nonzero, n) * one
            for u in (0, 1, one // 3, one - 1):
                assert sum(oracle.sample(q, bits, u)) == min(nonzero, n)


@pytest.mark.parametrize("a", [[3, -1, 2, 0.5], [10, 1, -1, 0.5], [1, 1, 2.0**-30, 0]], ids=str)
def test_systematic_sampling_keeps_every_element_q_times(a: list[float]) -> None:
    q = oracle.probabilities_of(a, 2, 16)
    kept = np.array([oracle.sample(q, 16, u) for u in range(1 << 16)])
    assert kept.sum(axis=0).tolist() == q
    assert (kept.sum(axis=1) == 2).all()


def test_least_variance_in_closed_form() -> None:
    rng = np.random.default_rng(3)
    for block in np.exp(rng.standard_normal((200, 4))).tolist():
        a = [Fraction(x) for x in block]
        total, squares, largest = sum(a), sum(x * x for x in a), max(a)
        best = oracle.variance(a, oracle.water_filling(a, 2))
        if largest <= total - largest:
            assert best == total**2 / 2 - squares
            assert best == sum(x * (total - 2 * x) for x in a) / 2
        else:
            x, y, z = sorted(a)[:3]
            assert best == 2 * (x * y + x * z + y * z)
        assert oracle.variance(a, oracle.water_filling(a, 1)) == total**2 - squares
        assert oracle.variance(a[:2], oracle.water_filling(a[:2], 1)) == 2 * a[0] * a[1]
        pairs = [oracle.variance(b, oracle.water_filling(b, 1)) for b in (a[:2], a[2:])]
        assert best <= sum(pairs)


@pytest.mark.parametrize(("n", "m"), [(1, 5), (2, 4), (3, 5), (5, 12)])
def test_no_other_probabilities_have_less_variance(n: int, m: int) -> None:
    # The first-order condition: |a_i| / p_i is one constant below the cap, and larger on it.
    for name in ("gaussian", "lognormal3", "sparse", "ties"):
        for block in family(name, 10, m, seed=2).tolist():
            p = oracle.water_filling(block, n)
            nonzero = [abs(Fraction(a)) / q for a, q in zip(block, p, strict=True) if 0 < q < 1]
            capped = [abs(Fraction(a)) for a, q in zip(block, p, strict=True) if q == 1]
            assert sum(p) == min(n, sum(a != 0 for a in block))
            assert len(set(nonzero)) <= 1
            assert not nonzero or all(a >= nonzero[0] for a in capped)


def test_two_draws() -> None:
    a = [3.0, -1.0, 2.0, 0.5]
    _, _, pi = oracle.two_draw_terms(a)
    assert [f"{p:.4g}" for p in pi] == ["0.789", "0.3669", "0.653", "0.191"]
    p = [Fraction(x) for x in pi]
    assert f"{float(oracle.variance(a, p)):.4g}" == "7.316"
    assert f"{float(oracle.variance(a, oracle.water_filling(a, 2))):.4g}" == "6.875"
    assert oracle.two_draws([0.0, 3.0, -0.0, -1.0], (0, 0)).y == [0, 3, 0, -1]


def test_two_draws_are_unbiased() -> None:
    rng = np.random.default_rng(5)
    for block in np.exp(2 * rng.standard_normal((100, 4))).tolist():
        exact = exact_pi(block)
        assert sum(exact) == 2
        _, _, pi = oracle.two_draw_terms(block)
        assert all(abs(Fraction(x) / y - 1) < 2.0**-49 for x, y in zip(pi, exact, strict=True))
        # 1 - pi_j as a sum of positive terms: the form that is stable in floating point.
        s = [Fraction(x) for x in block]
        total = sum(s)
        for j in range(4):
            rest = [i for i in range(4) if i != j]
            lost = sum(s[i] / total * (total - s[i] - s[j]) / (total - s[i]) for i in rest)
            assert 1 - exact[j] == lost


def test_a_draw_takes_the_first_candidate_above_the_word() -> None:
    quarter = [0.25] * 4
    words = [0, 2**30 - 1, 2**30, 2**31, 3 * 2**30, 2**32 - 1]
    assert [oracle.draw(quarter, range(4), w) for w in words] == [0, 0, 1, 2, 3, 3]
    assert oracle.draw([0.0, 0.5, 0.5, 0.0], range(4), 0) == 1
    assert oracle.draw([0.0, 0.5, 0.5, 0.0], range(4), 2**32 - 1) == 2


def test_masks() -> None:
    assert oracle.mask_of([1, -3, 2, 3], 2) == [False, True, False, True]
    assert oracle.mask_of([1, -1, 1, 1], 2) == [True, True, False, False]
    assert oracle.mask_of([-0.0, 0.0, 5, 0], 2) == [True, False, True, False]
    assert oracle.mask_of([-0.0, 0.0, 5, 0], 2, nonzero_only=True) == [False, False, True, False]
    # Every kept element is at least as large as every other one, for all orders of a block.
    for block in itertools.permutations([0, 1, -1, 2, -3]):
        kept = oracle.mask_of(block, 3)
        largest = sorted((abs(a) for a in block), reverse=True)[:3]
        assert sorted(abs(a) for a, k in zip(block, kept, strict=True) if k) == largest[::-1]


def test_words_of_the_logical_index() -> None:
    seed = 0x0123456789ABCDEF
    words = [0xB850222E, 0xC58CB04B, 0x14A7A020, 0x7A84FFF9, 0xADCA1466]
    assert [oracle.philox_word(i, seed) for i in range(5)] == words
    assert oracle.philox_word(2**34 + 1, seed) == 0x59DD3F68
    assert oracle.philox_word(0, seed, stream=1) == 0xFA9DFF5E
    assert oracle.philox_word(0, seed, call=1) == 0xD0E1FE69
    assert [oracle.offset(i, 16, seed) for i in range(4)] == [0x222E, 0xB850, 0xB04B, 0xC58C]
    assert oracle.offset(1, 30, seed) == 0xC58CB04B >> 2


def test_blocks_and_back() -> None:
    x = np.arange(2 * 7 * 3).reshape(2, 7, 3)
    for axis, m in ((0, 2), (1, 4), (2, 2), (-2, 7)):
        blocks = oracle.blocks_of(x, m, axis)
        assert blocks.shape[-1] == m
        assert np.array_equal(oracle.array_of(blocks, x.shape, axis), x)
    assert oracle.blocks_of(x, 4, 1)[1, 2].tolist() == [[23, 26, 29, 32], [35, 38, 41, 0]]
