"""Transposable masks, slowly: patterns, enumeration, dynamic and linear programs, greedy."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import block_diag, csr_array, kron, vstack


def row_choices(n: int, m: int) -> list[tuple[int, ...]]:
    """Return the ways to keep n of m columns, in lexicographic order."""
    return list(itertools.combinations(range(m), n))


def patterns(n: int, m: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Yield every mask with n in each row and column as the kept columns of its rows, in order."""

    def extend(
        rows: tuple[tuple[int, ...], ...], counts: tuple[int, ...]
    ) -> Iterator[tuple[tuple[int, ...], ...]]:
        if len(rows) == m:
            yield rows
            return
        left = m - len(rows) - 1
        for row in row_choices(n, m):
            after = tuple(c + (j in row) for j, c in enumerate(counts))
            if all(n - left <= c <= n for c in after):
                yield from extend((*rows, row), after)

    return extend((), (0,) * m)


def count_patterns(n: int, m: int) -> int:
    """Count them row by row; columns that still need as many are interchangeable."""
    ways = Counter({(n,) * m: 1})
    for _ in range(m):
        following: Counter[tuple[int, ...]] = Counter()
        for needs, count in ways.items():
            for row in row_choices(n, m):
                if all(needs[j] > 0 for j in row):
                    after = tuple(sorted(need - (j in row) for j, need in enumerate(needs)))
                    following[after] += count
        ways = following
    return ways[(0,) * m]


def exponent(x: Fraction) -> int:
    """Return floor(log2 x) of a positive number."""
    guess = x.numerator.bit_length() - x.denominator.bit_length()
    return guess if Fraction(2) ** guess <= x else guess - 1


def integer_weights(block: np.ndarray) -> list[list[int]]:
    """Return floor(abs(w) * 2^(40 - E)), E the exponent of the largest magnitude."""
    exact = [[abs(Fraction(float(x))) for x in row] for row in block]
    largest = max(map(max, exact))
    scale = Fraction(2) ** (40 - exponent(largest)) if largest else Fraction(1)
    return [[int(x * scale) for x in row] for row in exact]


@cache
def pattern_masks(n: int, m: int) -> np.ndarray:
    """Return every pattern as a mask of integers, of shape (patterns, m, m)."""
    found = np.array(list(patterns(n, m)))
    return np.asarray((found[..., None] == np.arange(m)).sum(axis=2))


def best_by_enumeration(weights: Sequence[Sequence[int]], n: int) -> int:
    masks = pattern_masks(n, len(weights))
    return int((masks * np.array(weights)).sum(axis=(1, 2)).max())


def best_by_rows(weights: Sequence[Sequence[int]], n: int) -> int:
    """Return the largest weight by a dynamic program over what the columns still need."""
    m = len(weights)
    best = {(n,) * m: 0}
    for row in weights:
        following: dict[tuple[int, ...], int] = {}
        for needs, weight in best.items():
            for kept in row_choices(n, m):
                if all(needs[j] > 0 for j in kept):
                    after = tuple(need - (j in kept) for j, need in enumerate(needs))
                    total = weight + sum(row[j] for j in kept)
                    following[after] = max(following.get(after, 0), total)
        best = following
    return best[(0,) * m]


def best_by_linear_program(blocks: np.ndarray, n: int) -> np.ndarray:
    """Return the largest weight of each block of integers, by one run of HiGHS.

    The program's corners are 0/1 matrices. The weights of its corner are summed as integers.
    """
    count, m, _ = blocks.shape
    ones = csr_array(np.ones((1, m)))
    identity = csr_array(np.eye(m))
    sums = vstack([kron(identity, ones), kron(ones, identity)])
    result = linprog(
        -blocks.reshape(-1).astype(np.float64),
        A_eq=block_diag([sums] * count, format="csr"),
        b_eq=np.full(2 * m * count, float(n)),
        bounds=(0, 1),
        method="highs-ds",
    )
    assert result.status == 0
    kept = np.rint(result.x)
    assert np.abs(kept - result.x).max() < 1e-6
    kept = kept.astype(np.int64).reshape(blocks.shape)
    assert (kept.sum(axis=1) == n).all()
    assert (kept.sum(axis=2) == n).all()
    return np.asarray((kept * blocks).sum(axis=(1, 2)))


def first_best_24(blocks: np.ndarray) -> np.ndarray:
    """Return the masks of (B, 4, 4) blocks: the first of the 90 patterns with the largest sum.

    Sums of kept magnitudes are float64: those of a row's pair, then of the rows from the first on.
    """
    magnitudes = np.abs(blocks.astype(np.float64))
    best = np.full(len(blocks), -1.0)
    masks = np.zeros(blocks.shape, bool)
    for pattern in patterns(2, 4):
        score = np.zeros(len(blocks))
        mask = np.zeros((4, 4), bool)
        for i, (a, b) in enumerate(pattern):
            score = score + (magnitudes[:, i, a] + magnitudes[:, i, b])
            mask[i, [a, b]] = True
        better = score > best
        best = np.where(better, score, best)
        masks[better] = mask
    return masks


def greedy(block: np.ndarray, n: int, method: str) -> np.ndarray:
    """Return the mask of one block by a greedy method; equals in row-major order."""
    m = len(block)
    heavy = method == "heavy_first"
    sign = -1 if heavy else 1
    order = sorted(
        itertools.product(range(m), repeat=2), key=lambda ij: sign * abs(float(block[ij]))
    )
    taken = np.zeros((m, m), bool)
    most = n if heavy else m - n
    for i, j in order:
        room = [taken[i].sum() < most, taken[:, j].sum() < most]
        taken[i, j] = all(room) if heavy else any(room)
    return taken if heavy else ~taken
