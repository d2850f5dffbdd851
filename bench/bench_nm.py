"""N:M masks and unbiased N:M sparsity, beside np.copyto of the same array and plain NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import abcdeep_core as ab

from .bench_quantize import copy_of, data
from .measure import Case, Settings, targets

Array = npt.NDArray[Any]
COLUMNS = 4096

MASKS = {(2, 4): targets(0.5, 0.3)} | dict.fromkeys(
    [(1, 2), (4, 8), (8, 16), (3, 5)], targets(0.07, 0.05)
)
UNBIASED = {
    (1, 2): {},
    (2, 4): targets(0.25, 0.2),
    (4, 8): targets(0.12, 0.1),
    (8, 16): targets(0.07, 0.05),
    (16, 32): {},
    (3, 5): {},
}


def numpy_mask(x: Array, n: int, m: int) -> Array:
    """Return the magnitude mask of groups along the last axis, by sorting."""
    groups = np.abs(x).reshape(-1, m)
    order = np.argsort(-groups, axis=1, kind="stable")
    mask = np.zeros(groups.shape, np.bool_)
    np.put_along_axis(mask, order[:, :n], True, axis=1)
    return mask.reshape(x.shape)


def numpy_unbiased(x: Array, n: int, m: int, rng: np.random.Generator) -> Array:
    """Return an unbiased N:M estimate in float32: water-filling, then systematic sampling."""
    groups = x.reshape(-1, m)
    magnitude = np.abs(groups)
    capped = np.zeros(groups.shape, np.bool_)
    left = np.full((len(groups), 1), n, np.float32)
    while True:
        active = np.where(capped, 0, magnitude)
        total = active.sum(axis=1, keepdims=True)
        found = (left * active >= total) & (active > 0)
        count = found.sum(axis=1, keepdims=True)
        found &= count < left
        if not found.any():
            break
        capped |= found
        left -= np.where(count < left, count, 0)
    p = np.where(capped, 1, np.minimum(1, left * active / total))
    passed = np.ceil(np.cumsum(p, axis=1) - rng.random((len(groups), 1), np.float32))
    kept = np.diff(passed, axis=1, prepend=0) > 0
    return np.where(kept, groups / p, np.float32(0)).reshape(x.shape)


def cases(settings: Settings) -> Iterator[Case]:
    columns = min(COLUMNS, settings.elements)
    threads = settings.threads

    def array(m: int) -> Array:
        width = columns // m * m
        return data(4 * settings.elements // columns * width, "normal").reshape(-1, width)

    for (n, m), goals in MASKS.items():
        x = array(m)
        out = np.empty(x.shape, np.bool_)

        def mask(x: Array = x, n: int = n, m: int = m, out: Array = out, axis: int = -1) -> object:
            return ab.nm_mask(x, n, m, axis, out=out, threads=threads)

        def plain(x: Array = x, n: int = n, m: int = m) -> object:
            return numpy_mask(x, n, m)

        yield _case(f"nm_mask {n}:{m}", x, mask, goals)
        if (n, m) == (2, 4):
            rows = x[: len(x) // 4 * 4]
            out = np.empty(rows.shape, np.bool_)

            def columnwise(x: Array = rows, out: Array = out) -> object:
                return ab.nm_mask(x, 2, 4, 0, out=out, threads=threads)

            yield _case("nm_mask 2:4, axis 0", rows, columnwise, {})
        yield _beside_numpy(f"nm_mask {n}:{m}", x, mask, plain)
    for (n, m), goals in UNBIASED.items():
        x = array(m)
        y = np.empty_like(x)

        def unbiased(x: Array = x, n: int = n, m: int = m, out: Array = y) -> object:
            return ab.nm_unbiased(x, n, m, seed=1, out=out, threads=threads)

        def plain(x: Array = x, n: int = n, m: int = m) -> object:
            with np.errstate(divide="ignore", invalid="ignore"):
                return numpy_unbiased(x, n, m, np.random.default_rng(1))

        yield _case(f"nm_unbiased {n}:{m}", x, unbiased, goals)
        if (n, m) == (2, 4):
            yield from _variants(x, y, threads)
        yield _beside_numpy(f"nm_unbiased {n}:{m}", x, unbiased, plain)


def _variants(x: Array, y: Array, threads: int) -> Iterator[Case]:
    rows, out = x[: len(x) // 4 * 4], y[: len(x) // 4 * 4]
    options: dict[str, dict[str, Any]] = {
        "approx": {"method": "approx"},
        "30 bits": {"probability_bits": 30},
        "axis 0": {"axis": 0},
    }
    for name, arguments in options.items():

        def run(arguments: dict[str, Any] = arguments) -> object:
            return ab.nm_unbiased(rows, 2, 4, seed=1, out=out, threads=threads, **arguments)

        yield _case(f"nm_unbiased 2:4, {name}", rows, run, {})


def _case(name: str, x: Array, run: Any, goals: dict[str, float]) -> Case:
    return Case(
        name=name,
        work=x.size,
        unit="element",
        run=run,
        baseline_run=copy_of(2 * x.nbytes),
        baseline="np.copyto of x",
        targets=goals,
    )


def _beside_numpy(name: str, x: Array, run: Any, plain: Any) -> Case:
    return Case(
        name=f"{name}, against NumPy",
        work=x.size,
        unit="element",
        run=run,
        baseline_run=plain,
        baseline="plain NumPy",
    )
