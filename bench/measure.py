"""One case of a bench, its measurement beside its baseline, and a description of the machine."""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

import abcdeep_core as ab

Run = Callable[[], object]

# The flags that decide which kernels exist and how fast they are.
FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What every case is built for: the side of its matrices, elements of its vectors, threads."""

    size: int = 1024
    elements: int = 1 << 22
    threads: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A call, the work it does, and the call it is measured beside.

    Parameters
    ----------
    name : str
        The row of the table; the same in every run.
    work : float
        Multiply-accumulates or elements of one call.
    unit : {"MAC", "element"}
        What `work` counts.
    run, baseline_run : callable
        The two calls. The ratio is the baseline's time by the call's.
    baseline : str
        What the ratio is against.
    yardstick_run : callable, optional
        The same product by the in-process Eigen kernel of the instruction set in use.
    ceiling_run, ceiling_work : callable, float
        The steps of one register tile with operands in registers, and the work of that call.
    ceiling : mapping of instruction set to ratio
        What that is, by counting operations, of the baseline on a processor of four 512-bit pipes.
    targets : mapping of instruction set to ratio
        The ratios aimed at.
    target_of : (str, float), optional
        Target instead: a share of the ratio of another row.
    path : str
        Which kernel ran, as far as the plan tells.
    shape : str
        M, N and K, or the number of elements.
    """

    name: str
    work: float
    unit: str
    run: Run
    baseline_run: Run
    baseline: str
    yardstick_run: Run | None = None
    ceiling_run: Run | None = None
    ceiling_work: float = 0.0
    ceiling: Mapping[str, float] = dataclasses.field(default_factory=dict)
    targets: Mapping[str, float] = dataclasses.field(default_factory=dict)
    target_of: tuple[str, float] | None = None
    path: str = ""
    shape: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What a case measured: seconds of one call, work a second, ratios."""

    name: str
    isa: str
    threads: int
    seconds: float
    speed: float
    unit: str
    ratio: float
    baseline: str
    yardstick_ratio: float | None
    target: float | None
    ceiling_ratio: float | None
    expected_ceiling: float | None
    path: str
    shape: str

    @property
    def target_here(self) -> float | None:
        """The target, at the same share of the ceiling where this processor's is lower."""
        if self.target is None or self.ceiling_ratio is None or self.expected_ceiling is None:
            return self.target
        return self.target * min(1.0, self.ceiling_ratio / self.expected_ceiling)

    @property
    def is_missed(self) -> bool:
        return self.target_here is not None and self.ratio < self.target_here

    @property
    def key(self) -> tuple[str, str, int]:
        """What names the row in another run."""
        return self.name, self.isa, self.threads


def targets(avx512: float, avx2: float) -> dict[str, float]:
    return {"x86-64-v4": avx512, "x86-64-v3": avx2}


def measure(case: Case, isa: str, threads: int, *, repeats: int, sample: float) -> Row:
    """Time a case and its baselines in turn, `repeats` times each, and return the medians' row.

    In turn, so that a change of clock or of load meets all of them. A sample is as many calls as
    take `sample` seconds.
    """
    runs = [case.run, case.baseline_run]
    optional = [run for run in (case.yardstick_run, case.ceiling_run) if run is not None]
    runs += optional
    samples = time_in_turn(runs, repeats, sample)
    seconds, baseline, *others = (statistics.median(times) for times in samples)
    yardstick = others.pop(0) if case.yardstick_run is not None else None
    ceiling = others.pop(0) if case.ceiling_run is not None else None
    return Row(
        name=case.name,
        isa=isa,
        threads=threads,
        seconds=seconds,
        speed=case.work / seconds,
        unit=case.unit,
        ratio=baseline / seconds,
        baseline=case.baseline,
        yardstick_ratio=yardstick / seconds if yardstick else None,
        target=case.targets.get(isa),
        ceiling_ratio=case.ceiling_work / ceiling / (case.work / baseline) if ceiling else None,
        expected_ceiling=case.ceiling.get(isa),
        path=case.path,
        shape=case.shape or str(int(case.work)),
    )


def time_in_turn(runs: Sequence[Run], repeats: int, sample: float) -> list[list[float]]:
    """Return the times of each run, `repeats` of them, each of as many calls as take `sample`."""
    calls = [_calls(run, sample) for run in runs]
    samples: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, count, times in zip(runs, calls, samples, strict=True):
            times.append(_time(run, count))
    return samples


def _time(run: Run, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count


def _calls(run: Run, sample: float) -> int:
    run()  # the first call allocates and starts threads
    return max(1, round(sample / max(_time(run, 1), 1e-7)))


def numpy_blas() -> str:
    """Return which BLAS kernel NumPy's matmul runs, as far as it can be found out."""
    np.ones((2, 2), np.float32) @ np.ones((2, 2), np.float32)
    found = [
        f"{info.get('internal_api')} {info.get('version')} {info.get('architecture', '')}".strip()
        for info in threadpool_info()
        if info.get("user_api") == "blas" and "numpy" in str(info.get("filepath", ""))
    ]
    if found:
        return ", ".join(found)
    config: Any = np.show_config(mode="dicts")
    return str(config["Build Dependencies"]["blas"]["name"])


def describe_machine() -> dict[str, Any]:
    """Return the CPU's model and flags, versions, and NumPy's BLAS: nothing that names a host."""
    model, flags = platform.machine(), set[str]()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = (part.strip() for part in line.partition(":"))
            if name == "model name":
                model = value
            elif name in ("flags", "Features"):
                flags = set(value.split())
    return {
        "cpu": model,
        "flags": [flag for flag in FLAGS if flag in flags],
        "processors": len(os.sched_getaffinity(0)),
        "instruction_sets": ab.isa_info()["supported"],
        "version": ab.__version__,
        "numpy": np.__version__,
        "numpy_blas": numpy_blas(),
        "python": platform.python_version(),
    }


def with_relative_targets(rows: Sequence[Row], cases: Mapping[str, Case]) -> list[Row]:
    """Fill in the targets that are shares of another row's ratio."""
    ratios = {row.key: row.ratio for row in rows}
    filled = []
    for row in rows:
        target_of = cases[row.name].target_of
        if target_of is not None:
            other, share = target_of
            ratio = ratios.get((other, row.isa, row.threads))
            row = dataclasses.replace(row, target=None if ratio is None else share * ratio)
        filled.append(row)
    return filled
