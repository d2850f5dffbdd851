"""Uniform quantisers and the bias report, beside copies of as many bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

import abcdeep_core as ab

from .bench_quantize import copy_of, data
from .measure import Case, Settings


def cases(settings: Settings) -> Iterator[Case]:
    n, threads = settings.elements, settings.threads
    x, out = data(n, "normal"), np.empty(n, np.float32)
    codes = np.empty(n, np.int8)
    quantized = ab.quantize_uniform(x)
    runs: dict[str, tuple[int, Callable[[], object]]] = {
        "sawb_clip": (4, lambda: ab.sawb_clip(x)),
        "quantize_uniform, SAWB": (8, lambda: ab.quantize_uniform(x, out=out, threads=threads)),
        "quantize_uniform, max_abs": (
            8,
            lambda: ab.quantize_uniform(x, clip="max_abs", out=out, threads=threads),
        ),
        "quantize_uniform, max_abs, stochastic": (
            8,
            lambda: ab.quantize_uniform(
                x, clip="max_abs", rounding="stochastic", seed=1, out=out, threads=threads
            ),
        ),
        "encode_uniform, max_abs": (
            5,
            lambda: ab.encode_uniform(x, clip="max_abs", out=codes, threads=threads),
        ),
        "bias_report": (8, lambda: ab.bias_report(x, quantized)),
    }
    for name, (element_bytes, run) in runs.items():
        yield Case(
            name=name,
            work=n,
            unit="element",
            run=run,
            baseline_run=copy_of(element_bytes * n),
            baseline="np.copyto",
        )
