"""The accumulator GEMM, beside NumPy's float32 matmul and an in-process Eigen GEMM."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import abcdeep_core as ab
from abcdeep_core import _core

from .measure import Case, Run, Settings, targets

SQUARE = "LBA M7E4, data that cannot overflow"
SATURATE = "integer saturate, int8, P = 16"


class Operands:
    """Operands of one shape, and the float32 products they are measured beside."""

    def __init__(self, m: int, n: int, k: int, threads: int) -> None:
        self.shape, self.threads = (m, n, k), threads
        rng = np.random.default_rng(m + n + k)
        # |a| |b| K below 60: no sum reaches M7E4's largest number, 63.75.
        bound = math.sqrt(60 / k)
        self.small = self._pair(lambda shape: rng.uniform(-bound, bound, shape))
        self.large = self._pair(lambda shape: rng.standard_normal(shape) * 4)
        self.int8 = tuple(rng.integers(-128, 128, shape, np.int8) for shape in ((m, k), (k, n)))
        # Four significand bits and few exponents: exact products in M7, none below 2^-12.
        self.e4m3 = self._pair(
            lambda shape: np.ldexp(
                rng.integers(8, 16, shape) * rng.choice([-1.0, 1.0], shape),
                rng.integers(-9, -5, shape),
            )
        )
        self.out = np.empty((m, n), np.float32)

    def _pair(self, draw: Any) -> tuple[np.ndarray, np.ndarray]:
        m, n, k = self.shape
        return draw((m, k)).astype(np.float32), draw((k, n)).astype(np.float32)

    def numpy(self) -> object:
        return np.matmul(*self.small, out=self.out)

    def eigen(self) -> None:
        _core.matmul_float32(*self.small, self.out, self.threads)

    def emulated(self, pair: Any, datapath: ab.Datapath, **options: Any) -> Run:
        matmul: Any = ab.matmul
        return partial(matmul, *pair, datapath, **({"threads": self.threads} | options))

    def case(
        self, name: str, pair: Any, datapath: ab.Datapath, options: Any = None, **fields: Any
    ) -> Case:
        m, n, k = self.shape
        defaults: dict[str, Any] = {
            "baseline_run": self.numpy,
            "baseline": "NumPy float32 matmul",
            "yardstick_run": self.eigen,
            "path": datapath.plan(*pair).path,
            "run": self.emulated(pair, datapath, **(options or {})),
        }
        return Case(name=name, work=m * n * k, unit="MAC", **(defaults | fields))


def cases(settings: Settings) -> Iterator[Case]:
    size = settings.size
    square = Operands(size, size, size, settings.threads)
    yield from float_cases(square)
    yield from integer_cases(square)
    yield from event_cases(square)
    yield from other_cases(square, settings)


def float_cases(square: Operands) -> Iterator[Case]:
    lba = ab.lba_accumulator(7, 4, bias=10, product_bias=12, chunk=16)
    yield square.case(SQUARE, square.small, lba, targets=targets(0.7, 0.35))
    yield square.case(
        "LBA M7E4, exact products (E4M3 operands)",
        square.e4m3,
        lba,
        targets=targets(1.3, 0.65),
    )
    yield square.case("LBA M7E4, data that overflow", square.large, lba, targets=targets(0.45, 0.2))
    yield square.case(
        "LBA M7E4, fp32_mask", square.small, ab.lba_accumulator(7, 4, arithmetic="fp32_mask")
    )
    yield square.case(
        "float accumulator fp16, nearest_even, rounded products",
        square.small,
        ab.float_accumulator("fp16", product="fp16"),
        targets=targets(0.25, 0.15),
    )
    wide = ab.FloatFormat(exponent_bits=8, mantissa_bits=21)
    yield square.case(
        "float accumulator E8M21, nearest_even, exact products",
        square.small,
        ab.float_accumulator(wide),
        targets=targets(0.15, 0.06),
    )
    for bits in (8, 16):
        yield square.case(
            f"float accumulator fp16, stochastic, {bits} bits",
            square.small,
            ab.float_accumulator("fp16", rounding="stochastic", bits=bits),
            {"seed": 1},
            targets=targets(0.05, 0.02),
        )


def integer_cases(square: Operands) -> Iterator[Case]:
    features = ab.isa_info()["features"]
    vnni = features.get("avx512_vnni") or features.get("avx_vnni")
    wrap = targets(5.0 if vnni else 1.5, 1.5)
    for bits in (16, 32):
        yield square.case(
            f"integer wrap, int8, P = {bits}",
            square.int8,
            ab.integer_accumulator(bits),
            targets=wrap,
        )
    for bits, goal in ((16, targets(1.8, 0.9)), (12, targets(1.3, 0.6))):
        yield square.case(
            SATURATE if bits == 16 else f"integer saturate, int8, P = {bits}",
            square.int8,
            ab.integer_accumulator(bits, "saturate"),
            targets=goal,
        )
    yield square.case(
        "integer saturate, int8, P = 24, group 4",
        square.int8,
        ab.integer_accumulator(24, "saturate", group=4),
        targets=targets(0.8, 0.4),
    )


def event_cases(square: Operands) -> Iterator[Case]:
    # Shares of the speed without events; the wrapping accumulator's, of the saturating one's.
    lba = ab.lba_accumulator(7, 4, bias=10, product_bias=12, chunk=16)
    saturate, wrap = ab.integer_accumulator(16, "saturate"), ab.integer_accumulator(16)
    rows = (
        ("LBA M7E4", square.small, lba, lba, "without events"),
        ("integer saturate", square.int8, saturate, saturate, "without events"),
        ("integer wrap", square.int8, wrap, saturate, "saturate without events"),
    )
    for events, goal in (("overflow", 0.5), (True, 0.2)):
        for name, pair, datapath, reference, against in rows:
            yield square.case(
                f"{name}, events={events!r}",
                pair,
                datapath,
                {"events": events},
                path="",
                baseline_run=square.emulated(pair, reference),
                baseline=against,
                targets=targets(goal, goal),
            )


def other_cases(square: Operands, settings: Settings) -> Iterator[Case]:
    size, threads = settings.size, settings.threads
    lba = ab.lba_accumulator(7, 4, bias=10, product_bias=12, chunk=16)
    gradient = np.random.default_rng(5).standard_normal((size, size)).astype(np.float32)
    yield square.case(
        "LBA M7E4 backward, recursive_of",
        square.small,
        lba,
        run=lambda: ab.matmul_backward(
            gradient, *square.small, lba, ste="recursive_of", threads=threads
        ),
        baseline_run=square.emulated(square.small, lba),
        baseline="the emulated forward",
        targets=targets(0.3, 0.3),
    )
    yield square.case(
        "LBA M7E4, 2 threads",
        square.small,
        lba,
        {"threads": 2},
        baseline_run=square.emulated(square.small, lba, threads=1),
        baseline="1 thread",
        targets=targets(1.8, 1.8),
    )
    shapes = (
        ("K = 4 x size", (size // 4, size // 4, 4 * size)),
        ("M = 1", (1, size, size)),
        ("N = 1", (size, 1, size)),
    )
    for name, shape in shapes:
        operands = Operands(*shape, threads)
        yield operands.case(f"LBA M7E4, {name}", operands.small, lba, target_of=(SQUARE, 0.7))
    tiny = Operands(16, 16, 16, threads)
    yield tiny.case("LBA M7E4, 16 x 16 x 16", tiny.small, lba, targets=targets(1 / 6, 1 / 6))
