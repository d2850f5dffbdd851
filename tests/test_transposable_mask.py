"""Transposable masks: against every pattern, linear programs, and their certificates."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import _core
from oracle_transposable import (
    best_by_enumeration,
    best_by_linear_program,
    best_by_rows,
    count_patterns,
    first_best_24,
    integer_weights,
    patterns,
)

KINDS = ("normal", "lognormal", "tied", "zeros")


def draw(kind: str, shape: Any, seed: int = 0) -> np.ndarray:
    """Return float32 weights in multiples of 2^-10, so that sums are exact."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    x = rng.standard_normal(shape)
    if kind == "lognormal":
        x = np.exp(x) * rng.choice([-1, 1], shape)
    if kind == "tied":
        x = rng.integers(-3, 4, shape).astype(np.float64)
    if kind == "zeros":
        x[rng.random(shape) < 0.7] = 0
    return (np.rint(x * 1024) / 1024).astype(np.float32)


def in_blocks(x: np.ndarray, m: int) -> np.ndarray:
    """Return the m x m blocks of an array, of shape (blocks, m, m)."""
    *batch, rows, columns = x.shape
    tiles = x.reshape(*batch, rows // m, m, columns // m, m)
    return tiles.swapaxes(-3, -2).reshape(-1, m, m)


def side_by_side(blocks: np.ndarray) -> np.ndarray:
    """Return blocks as one row of them, of shape (m, blocks m)."""
    return np.concatenate(list(blocks), axis=1)


def kept_weight(w: np.ndarray, mask: np.ndarray, m: int) -> np.ndarray:
    """Return the kept weight of each block in units of 2^-10."""
    weights = np.rint(np.abs(w.astype(np.float64)) * 1024).astype(np.int64)
    return in_blocks(np.where(mask, weights, 0), m).sum(axis=(1, 2))


def solve_generally(w: np.ndarray, n: int, m: int) -> np.ndarray:
    """Return the mask of the solver of any n and m, which 2:4 does not use."""
    mask = np.empty(w.shape, bool)
    rows = mask.view(np.uint8).reshape(-1, w.shape[-1])
    assert _core.transposable(np.ascontiguousarray(w), rows, n, m, 0, False, None, None, 1)
    return mask


@cache
def many_blocks() -> tuple[np.ndarray, np.ndarray]:
    """Return 200,000 blocks of all kinds, ties and near ties among them, and their 2:4 masks."""
    rng = np.random.default_rng(5)
    shape = (25_000, 4, 4)
    kinds = [draw(kind, shape) for kind in KINDS]
    kinds.append(np.exp(3 * rng.standard_normal(shape)).astype(np.float32))
    kinds.append((1 + rng.integers(0, 4, shape) * 2.0**-23).astype(np.float32))
    # As far apart as what the quick comparison resolves.
    kinds.append((rng.integers(1, 4, shape) + rng.integers(-9, 10, shape) * 2.0**-15).astype("f4"))
    # float64 rounds these sums.
    wide = np.ldexp(rng.integers(1, 3, shape), rng.integers(-60, 1, shape) // 20 * 20)
    kinds.append(wide.astype(np.float32))
    blocks = np.concatenate(kinds)
    for block, value in zip(blocks, (0, 1, -1), strict=False):
        block[...] = value
    blocks = blocks[rng.permutation(len(blocks))]
    return blocks, first_best_24(blocks)


def test_counts_of_patterns():
    assert len(list(patterns(2, 4))) == count_patterns(2, 4) == 90
    assert len(set(patterns(1, 4))) == count_patterns(1, 4) == 24
    assert count_patterns(1, 2) == 2
    assert count_patterns(3, 6) == 297_200
    assert count_patterns(2, 8) == 187_530_840
    assert count_patterns(4, 8) == 116_963_796_250


def test_every_pattern_is_found(isa):
    masks = np.zeros((90, 4, 4), np.float32)
    for mask, pattern in zip(masks, patterns(2, 4), strict=True):
        for i, row in enumerate(pattern):
            mask[i, list(row)] = 1
    for w in (masks, masks + 1, 3 - masks, masks.astype(np.float64)):
        kept = w == w.max(axis=(1, 2), keepdims=True)
        assert np.array_equal(ab.transposable_mask(w, 2, 4), kept)
    # Where all weights are equal the first pattern wins.
    assert np.array_equal(ab.transposable_mask(np.ones((4, 4)), 2, 4), masks[0] == 1)
    assert np.array_equal(ab.transposable_mask(np.zeros((4, 4)), 2, 4), masks[0] == 1)


def test_24_is_the_first_of_the_best_patterns(isa):
    blocks, expected = many_blocks()
    assert len(blocks) == 200_000
    assert np.array_equal(
        ab.transposable_mask(blocks, 2, 4), expected
    )  # each in a strip of its own
    wide = side_by_side(blocks[:50_000])
    found = ab.transposable_mask(wide, 2, 4)
    assert np.array_equal(found, side_by_side(expected[:50_000]))
    doubles = blocks.astype(np.float64)
    assert np.array_equal(ab.transposable_mask(doubles, 2, 4), expected)


def test_24_of_doubles(isa):
    rng = np.random.default_rng(1)
    shape = (2000, 4, 4)
    blocks = rng.standard_normal(shape)
    blocks[:1000] = 1 + rng.integers(0, 3, (1000, 4, 4)) * 2.0**-52
    expected = first_best_24(blocks)
    for scale in (1.0, 2.0**-1000, 2.0**1000):
        assert np.array_equal(ab.transposable_mask(blocks * scale, 2, 4), expected)
    most = np.finfo(np.float64).max
    near = np.where(rng.random(shape) < 0.5, most, most / 2)  # the plain sums would be infinite
    assert np.array_equal(ab.transposable_mask(near, 2, 4), first_best_24(near / 16))


@pytest.mark.parametrize("columns", [*range(4, 140, 4), 404])
def test_24_of_any_width(isa, columns):
    w = draw("tied", (3, 12, columns), columns)
    expected = first_best_24(in_blocks(w, 4))
    assert np.array_equal(in_blocks(ab.transposable_mask(w, 2, 4), 4), expected)


def test_the_general_solver_keeps_as_much_as_the_24_search(isa):
    blocks, expected = many_blocks()
    general = solve_generally(blocks, 2, 4)
    assert (general.sum(axis=1) == 2).all()
    assert (general.sum(axis=2) == 2).all()
    magnitudes = np.abs(blocks.astype(np.float64))
    shift = 40 - (np.frexp(magnitudes.max(axis=(1, 2), keepdims=True))[1] - 1)
    exact = np.ldexp(magnitudes, shift)
    weights = np.floor(exact).astype(np.int64)
    difference = ((general.astype(int) - expected) * weights).sum(axis=(1, 2))
    is_exact = (exact == weights).all(axis=(1, 2))
    assert is_exact.sum() > 100_000
    assert not difference[is_exact].any()
    assert ((difference >= 0) & (difference <= 8)).all()


SMALL = [(1, 2), (1, 3), (2, 3), (1, 4), (2, 4), (3, 4), (1, 5), (2, 5), (4, 5)]


@pytest.mark.parametrize(("n", "m"), SMALL)
def test_against_every_pattern(isa, n, m):
    blocks = np.concatenate([draw(kind, (6, m, m), m) for kind in KINDS])
    rng = np.random.default_rng(m)
    blocks = np.concatenate([blocks, rng.standard_normal((8, m, m)).astype(np.float32)])
    masks, certificate = ab.transposable_mask(blocks, n, m, return_certificate=True)
    for block, mask, kept in zip(blocks, masks, certificate.kept.reshape(-1), strict=True):
        weights = integer_weights(block)
        assert kept == (np.array(weights) * mask).sum()
        gap = best_by_enumeration(weights, n) - kept
        assert 0 <= gap <= (8 if (n, m) == (2, 4) else 0)


@pytest.mark.parametrize(("n", "m"), [(3, 6), (4, 6), (2, 7)])
def test_against_a_dynamic_program(n, m):
    blocks = np.concatenate([draw(kind, (2, m, m), n) for kind in KINDS])
    blocks[-1] = np.random.default_rng(m).standard_normal((m, m))
    certificate = ab.transposable_mask(blocks, n, m, return_certificate=True)[1]
    for block, kept in zip(blocks, certificate.kept.reshape(-1), strict=True):
        assert kept == best_by_rows(integer_weights(block), n)


# 1040 blocks of the first three.
PROGRAMS = [(4, 8, 100), (2, 8, 100), (8, 16, 60), (5, 8, 20), (3, 16, 15), (16, 32, 5)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "m", "count"), PROGRAMS)
def test_against_linear_programs(n, m, count, kind):
    w = draw(kind, (count, m, m), n)
    mask = ab.transposable_mask(w, n, m)
    weights = np.rint(np.abs(w.astype(np.float64)) * 1024).astype(np.int64)
    best = best_by_linear_program(weights, n)
    assert np.array_equal(kept_weight(w, mask, m), best)


def on_instruction_set(name: str, w: np.ndarray, n: int, m: int, method: str) -> np.ndarray:
    previous = _core.selected_isa()
    _core.set_isa(name)
    try:
        return ab.transposable_mask(w, n, m, method=method)
    finally:
        _core.set_isa(previous)


@pytest.mark.parametrize("method", ["exact", "heavy_first", "light_first"])
@pytest.mark.parametrize(("n", "m"), [(3, 8), (4, 8), (8, 16), (5, 13), (16, 32), (7, 29)])
def test_instruction_sets_agree(n, m, method):
    for kind in (*KINDS, "fine"):
        rng = np.random.default_rng(m)
        shape = (6 * m, 8 * m)
        w = rng.standard_normal(shape) if kind == "fine" else draw(kind, shape, n)
        for x in (w.astype(np.float32), w.astype(np.float64)):
            first, *others = (
                on_instruction_set(name, x, n, m, method) for name in _core.supported_isas()
            )
            assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("m", range(1, 33))
def test_every_size_has_a_valid_certificate(isa, m):
    rng = np.random.default_rng(m)
    for n in range(1, m + 1):
        w = rng.standard_normal((m, 2 * m)).astype(np.float32)
        w[:, m:] = draw(KINDS[n % 4], (m, m), n)
        mask, certificate = ab.transposable_mask(w, n, m, return_certificate=True)
        certificate.check(w, mask)
        assert mask.reshape(m, 2, m).sum(axis=2).min() == n == mask.sum(axis=0).max()


@pytest.mark.parametrize(("n", "m"), [(2, 4), (3, 4), (4, 8), (3, 16), (16, 32)])
def test_certificates_refuse_what_is_not_theirs(n, m):
    w = np.random.default_rng(n).standard_normal((2, 3 * m, 2 * m)).astype(np.float32)
    mask, certificate = ab.transposable_mask(w, n, m, return_certificate=True)
    assert certificate.u.shape == certificate.v.shape == (2, 3, 2, m)
    assert certificate.exponents.shape == certificate.gap.shape == (2, 3, 2)
    certificate.check(w, mask)
    certificate.check(-w, mask)
    certificate.check(w.tolist(), mask.tolist())

    one_more = mask.copy()
    one_more[1, m, 0] ^= True
    with pytest.raises(ValueError, match=r"every row of block \[1, 1, 0\]"):
        certificate.check(w, one_more)
    moved = mask.copy()
    moved[0, 0, :m] = np.roll(mask[0, 0, :m], 1)
    with pytest.raises(ValueError, match=r"every column of block \[0, 0, 0\]"):
        certificate.check(w, moved)
    rolled = mask.copy()  # as many in each row and column, but other ones
    rolled[1, :m, m:] = np.roll(mask[1, :m, m:], 1, axis=0)
    with pytest.raises(ValueError, match=r"to keep \d+ units in block \[1, 0, 1\]"):
        certificate.check(w, rolled)
    other = w.copy()
    other[1, 2 * m, m] = 1000
    with pytest.raises(ValueError, match=r"exponent -?\d+ in block \[1, 2, 1\]"):
        certificate.check(other, mask)
    for name in ("u", "v"):
        dual = getattr(certificate, name).copy()
        dual[0, 1, 1, 0] += 1 << 38
        tampered = dataclasses.replace(certificate, **{name: dual})
        with pytest.raises(ValueError, match=r"a bound of \d+ units in block \[0, 1, 1\]"):
            tampered.check(w, mask)
        # Consistent in itself, but no proof.
        loose = ab.TransposableCertificate(
            n=n,
            m=m,
            exponents=certificate.exponents,
            u=tampered.u,
            v=tampered.v,
            kept=certificate.kept,
            bound=certificate.bound + bound_change(w, certificate, tampered),
        )
        with pytest.raises(ValueError, match=r"gap of at most \d units in block \[0, 1, 1\]"):
            loose.check(w, mask)
    with pytest.raises(ValueError, match="mask: expected shape"):
        certificate.check(w, mask[0])
    with pytest.raises(TypeError, match="mask must have dtype bool"):
        certificate.check(w, mask.astype(int))
    with pytest.raises(dataclasses.FrozenInstanceError):
        certificate.n = 1


def bound_change(w: np.ndarray, a: Any, b: Any) -> np.ndarray:
    """Return by how much the bound of b's dual variables is above that of a's."""
    blocks = in_blocks(w, a.m)
    bounds = []
    for c in (a, b):
        u, v = c.u.reshape(-1, a.m), c.v.reshape(-1, a.m)
        bound = []
        for block, rows, columns in zip(blocks, u.tolist(), v.tolist(), strict=True):
            weights = integer_weights(block)
            above = sum(
                max(0, weights[i][j] - rows[i] - columns[j]) for i in range(a.m) for j in range(a.m)
            )
            bound.append(a.n * (sum(rows) + sum(columns)) + above)
        bounds.append(bound)
    return np.subtract(bounds[1], bounds[0]).reshape(a.bound.shape)
