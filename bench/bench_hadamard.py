"""Hadamard rotations, beside copies of as many bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import abcdeep_core as ab

from .measure import Case, Settings, targets


def cases(settings: Settings) -> Iterator[Case]:
    # 2^24 elements: beyond every cache.
    rows = cols = 4096 if settings.elements >= 1 << 20 else 128
    x = np.random.default_rng(7).standard_normal((rows, cols)).astype(np.float32)
    out = np.empty_like(x)
    for block, axis in ((16, -1), (128, -1), (16, 0), (128, 0)):
        for inverse in (False, True):

            def rotate(block: int = block, axis: int = axis, inverse: bool = inverse) -> object:
                return ab.random_hadamard(
                    x,
                    block=block,
                    seed=1,
                    axis=axis,
                    inverse=inverse,
                    out=out,
                    threads=settings.threads,
                )

            yield Case(
                name=f"random_hadamard {block}, axis {axis}{', inverse' * inverse}",
                work=x.size,
                unit="element",
                run=rotate,
                baseline_run=lambda: np.copyto(out, x),
                baseline="np.copyto",
                targets=targets(0.5, 0.5) if (block, axis) == (16, -1) else {},
            )
