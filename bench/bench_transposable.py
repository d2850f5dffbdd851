"""Transposable masks, beside a copy of the weights and beside NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np

import abcdeep_core as ab

from .bench_quantize import copy_of, data
from .measure import Case, Run, Settings, targets

# Columns of the matrix of weights, a multiple of every block.
COLUMNS = 4096
GOALS = {
    (2, 4, "exact"): targets(0.14, 0.12),
    (4, 8, "exact"): targets(0.004, 0.004),
    (8, 16, "exact"): targets(0.0025, 0.0025),
    (16, 32, "exact"): targets(0.0015, 0.0015),
    (2, 4, "heavy_first"): targets(0.03, 0.02),
    (4, 8, "heavy_first"): targets(0.03, 0.02),
}


def weights(settings: Settings) -> np.ndarray:
    """Return a float32 matrix, 4096 x 4096 by default."""
    columns = min(COLUMNS, settings.elements // 32 // 32 * 32)
    rows = 4 * settings.elements // columns // 32 * 32
    return data(rows * columns, "normal").reshape(rows, columns)


def in_blocks(w: np.ndarray, m: int) -> np.ndarray:
    """Return the m x m blocks, each in a row of its own."""
    rows, columns = w.shape
    tiles = w.reshape(rows // m, m, columns // m, m).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(-1, m * m))


def pattern_product(w: np.ndarray) -> Run:
    """Return the 2:4 masks as the best of 90 scores, one product of (blocks, 16) and (16, 90)."""
    rows = [np.bincount(kept, minlength=4) for kept in itertools.combinations(range(4), 2)]
    every = np.array(list(itertools.product(rows, repeat=4)))
    patterns = every[(every.sum(axis=1) == 2).all(axis=1)].reshape(90, 16).astype(np.float32)
    masks = patterns.astype(bool)

    def run() -> object:
        # In pieces: the scores of the whole matrix would not fit a cache.
        blocks = np.abs(in_blocks(w, 4))
        return [
            masks[np.argmax(piece @ patterns.T, axis=1)]
            for piece in np.array_split(blocks, -(-len(blocks) // 4096))
        ]

    return run


def greedy_in_turn(w: np.ndarray, n: int, m: int) -> Run:
    """Return the heaviest-first masks by a loop over ranks, all blocks at once."""

    def run() -> object:
        blocks = np.abs(in_blocks(w, m))
        order = np.argsort(-blocks, axis=1, kind="stable")
        each = np.arange(len(blocks))
        masks = np.zeros(blocks.shape, bool)
        in_rows, in_columns = (np.zeros((len(blocks), m), np.int8) for _ in range(2))
        for elements in order.T:
            i, j = np.divmod(elements, m)
            kept = (in_rows[each, i] < n) & (in_columns[each, j] < n)
            in_rows[each, i] += kept
            in_columns[each, j] += kept
            masks[each, elements] = kept
        return masks

    return run


def cases(settings: Settings) -> Iterator[Case]:
    w = weights(settings)
    out = np.empty(w.shape, bool)
    small = w[: max(32, w.shape[0] // 16)]
    for (n, m, method), goal in GOALS.items():
        run = partial(
            ab.transposable_mask, w, n, m, method=method, out=out, threads=settings.threads
        )
        name = f"transposable_mask {n}:{m}, {method}"
        shape = f"{w.shape[0]}x{w.shape[1]}"
        yield Case(
            name=name,
            work=w.size,
            unit="element",
            run=run,
            baseline_run=copy_of(8 * w.size),
            baseline="np.copyto",
            targets=goal,
            shape=shape,
        )
        if (n, m) == (2, 4) and method == "exact":
            plain, what = pattern_product(small), "NumPy, 90 scores by matmul"
        elif method == "heavy_first":
            plain, what = greedy_in_turn(small, n, m), "NumPy, rank by rank"
        else:
            continue
        yield Case(
            name=f"{name}, against NumPy",
            work=small.size,
            unit="element",
            run=partial(ab.transposable_mask, small, n, m, method=method, threads=settings.threads),
            baseline_run=plain,
            baseline=what,
            shape=f"{small.shape[0]}x{small.shape[1]}",
        )
