"""Random words by logical index, beside NumPy's default generator."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import abcdeep_core as ab

from .measure import Case, Settings


def cases(settings: Settings) -> Iterator[Case]:
    generator = np.random.default_rng(1)
    for bits, dtype in ((32, np.uint32), (16, np.uint16), (8, np.uint8), (1, np.uint8)):
        out = np.empty(settings.elements, dtype)

        def draw(bits: int = bits, out: np.ndarray = out) -> object:
            return ab.random_bits(out.size, seed=1, bits=bits, out=out, threads=settings.threads)

        def baseline(bits: int = bits, size: int = out.size) -> object:
            dtype = {32: np.uint32, 16: np.uint16}.get(bits, np.uint8)
            return generator.integers(0, 1 << bits, size, dtype)

        yield Case(
            name=f"random_bits, {bits} bit{'s' * (bits > 1)}",
            work=out.size,
            unit="element",
            run=draw,
            baseline_run=baseline,
            baseline="Generator.integers, 1 thread",
        )
