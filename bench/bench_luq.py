"""Logarithmic unbiased quantisation, its pass for the maximum included, beside np.copyto."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import abcdeep_core as ab

from .bench_quantize import copy_of, data
from .measure import Case, Settings, targets

NEAREST = {"underflow": "nearest", "log_rounding": "nearest"}


def cases(settings: Settings) -> Iterator[Case]:
    n, threads = 4 * settings.elements, settings.threads
    x, out = data(n, "normal"), np.empty(n, np.float32)
    columns = math.gcd(n, 4096)
    shape = (n // columns, columns)
    options: dict[str, dict[str, Any]] = {
        "luq": {"seed": 1},
        "luq, maximum of each row": {"seed": 1, "axis": 1},
        "luq, maximum of each column": {"seed": 1, "axis": 0},
        "luq, deterministic": NEAREST,
        "luq, mean of 2 samples": {"seed": 1, "samples": 2},
    }
    rows, rows_out = x.reshape(shape), out.reshape(shape)
    for name, arguments in options.items():

        def run(arguments: dict[str, Any] = arguments) -> object:
            return ab.luq(rows, out=rows_out, threads=threads, **arguments)

        yield Case(
            name=name,
            work=n,
            unit="element",
            run=run,
            baseline_run=copy_of(8 * n),
            baseline="np.copyto",
            targets=targets(0.3, 0.1) if name == "luq" else {},
        )
    yield Case(
        name="luq_encode",
        work=n,
        unit="element",
        run=lambda: ab.luq_encode(rows, seed=1, threads=threads),
        baseline_run=copy_of(5 * n),
        baseline="np.copyto",
    )
    words = np.empty(n, np.uint32)
    yield Case(
        name="luq, against its random words alone",
        work=n,
        unit="element",
        run=lambda: ab.luq(rows, seed=1, out=rows_out, threads=threads),
        baseline_run=lambda: ab.random_bits(n, seed=1, out=words, threads=threads),
        baseline="random_bits",
    )
