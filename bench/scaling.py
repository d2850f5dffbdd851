"""Plots speed beside NumPy's float32 matmul over the size of the matrices and over K."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import abcdeep_core as ab

from .bench_matmul import LBA, Operands
from .measure import Run, describe_machine, time_in_turn

SIZES = (16, 32, 64, 128, 256, 512, 1024)
TERMS = (64, 256, 1024, 4096, 16384)
LINES = {
    "LBA M7E4": ("small", LBA),
    "fp16, nearest even, rounded products": (
        "small",
        ab.float_accumulator("fp16", product="fp16"),
    ),
    "int8, saturate at 16 bits": ("int8", ab.integer_accumulator(16, "saturate")),
    "int8, wrap": ("int8", ab.integer_accumulator(32)),
}


def main() -> None:
    """Measure, and write the picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("scaling.png"))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    machine = describe_machine()
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), sharey=True)
    panels = (
        ("M = N = K", [(size, size, size) for size in SIZES]),
        ("K, with M = N = 256", [(256, 256, terms) for terms in TERMS]),
    )
    for axis, (title, shapes) in zip(axes, panels, strict=True):
        for name, (kind, datapath) in LINES.items():
            ratios = list(measured(shapes, kind, datapath, options.repeats))
            print(f"{title}: {name}: {', '.join(f'{ratio:.2f}' for ratio in ratios)}", flush=True)
            axis.plot([shape[2] for shape in shapes], ratios, marker="o", label=name)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        axis.set_xlabel(title)
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("speed / NumPy's float32 matmul")
    axes[0].legend(fontsize="small")
    figure.suptitle(f"{machine['cpu']}, one thread, {machine['numpy_blas']}", fontsize="small")
    figure.tight_layout()
    figure.savefig(options.output, dpi=110)


def measured(
    shapes: list[tuple[int, int, int]], kind: str, datapath: ab.Datapath, repeats: int
) -> Iterator[float]:
    for shape in shapes:
        operands = Operands(*shape, threads=1)
        runs: list[Run] = [
            partial(ab.matmul, *getattr(operands, kind), datapath, threads=1),
            operands.numpy,
        ]
        own, numpy = (statistics.median(times) for times in time_in_turn(runs, repeats, 0.02))
        yield float(np.divide(numpy, own))


if __name__ == "__main__":
    with threadpool_limits(1, user_api="blas"):
        main()
