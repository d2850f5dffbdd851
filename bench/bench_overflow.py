"""Widths of accumulators in one pass, and the overflow report, beside plain emulation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import abcdeep_core as ab

from .measure import Case, Settings

# The pass may cost three times a plain emulated product.
_THIRD = {"x86-64-v4": 1 / 3, "x86-64-v3": 1 / 3}
_WIDTHS = (8, 32)


def cases(settings: Settings) -> Iterator[Case]:
    """Yield the cases: one pass against products, and against a run for every width."""
    size, threads = settings.size, settings.threads
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (size, size)).astype(np.int8)
    w = rng.integers(-128, 128, (size, size)).astype(np.int8)
    work, shape = float(size) ** 3, f"{size}, {size}, {size}"

    def product(bits: int, group: int = 1) -> ab.Datapath:
        return ab.integer_accumulator(bits, "saturate", group=group)

    for group in (1, 4):
        suffix = "" if group == 1 else f", group {group}"
        for bits in (24, 16):
            yield Case(
                name=f"width curve, int8{suffix}, against P = {bits}",
                work=work,
                unit="MAC",
                run=lambda group=group: ab.accumulator_widths(x, w, group=group, threads=threads),
                baseline_run=lambda group=group, bits=bits: ab.matmul(
                    x, w, product(bits, group), threads=threads
                ),
                baseline=f"integer saturate, P = {bits}{suffix}",
                targets=_THIRD,
                shape=shape,
            )

    def every_width() -> None:
        for bits in range(_WIDTHS[0], _WIDTHS[1] + 1):
            ab.matmul(x, w, product(bits), events="overflow", threads=threads)

    yield Case(
        name="width curve, int8, against a run for every width",
        work=work,
        unit="MAC",
        run=lambda: ab.accumulator_widths(x, w, threads=threads),
        baseline_run=every_width,
        baseline="25 products with events, P = 8 to 32",
        shape=shape,
    )
    layer = ab.OverflowLayer(name="fc", weight=w, input_range="s8")
    yield Case(
        name="overflow report, int8",
        work=work,
        unit="MAC",
        run=lambda: ab.overflow_report(layer, x, threads=threads),
        baseline_run=lambda: ab.matmul(x, w, product(24), threads=threads),
        baseline="integer saturate, P = 24",
        shape=shape,
    )
