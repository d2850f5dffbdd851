"""The accumulator GEMM, beside NumPy's float32 matmul and an in-process Eigen GEMM."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

import abcdeep_core as ab
from abcdeep_core import _core
from abcdeep_core._gemm import as_operand, compile_datapath
from abcdeep_core._matmul import plan_gemm

from .measure import Case, Run, Settings, targets

# Multiplications and all vector operations of one step, and the terms in it, by instruction set:
# docs/performance.md, "What bounds the speed". Four pipes, two of which multiply.
Step = tuple[float, float, int]
ELEMENT_BYTES = {"integer16": 2, "odd64": 8}
BASELINE = 0.93 * 16  # multiply-accumulates a cycle of an AVX2 float32 product
CEILING_TERMS = 20_000

SQUARE = "LBA M7E4, data that cannot overflow"
LBA = ab.lba_accumulator(7, 4, bias=10, product_bias=12, chunk=16)
LONGEST = 2.0  # seconds of one call, above which a case takes half the size

Pair = tuple[np.ndarray, np.ndarray]


class Operands:
    """Operands of one shape, and the float32 products they are measured beside."""

    def __init__(self, m: int, n: int, k: int, threads: int) -> None:
        self.shape, self.threads = (m, n, k), threads
        rng = np.random.default_rng(m + n + k)
        # |a| |b| K below 60: no sum reaches M7E4's largest number, 63.75.
        bound = math.sqrt(60 / k)
        self.small = self._pair(lambda shape: rng.uniform(-bound, bound, shape))
        self.large = self._pair(lambda shape: rng.standard_normal(shape) * 4)
        self.int8 = (
            rng.integers(-128, 128, (m, k), np.int8),
            rng.integers(-128, 128, (k, n), np.int8),
        )
        # Four significand bits and few exponents: exact products in M7, none below 2^-12.
        self.e4m3 = self._pair(
            lambda shape: np.ldexp(
                rng.integers(8, 16, shape) * rng.choice([-1.0, 1.0], shape),
                rng.integers(-9, -5, shape),
            )
        )
        self.out = np.empty((m, n), np.float32)

    def _pair(self, draw: Callable[[tuple[int, int]], Any]) -> Pair:
        m, n, k = self.shape
        return draw((m, k)).astype(np.float32), draw((k, n)).astype(np.float32)

    def numpy(self) -> object:
        return np.matmul(*self.small, out=self.out)

    def eigen(self) -> None:
        _core.matmul_float32(*self.small, self.out, self.threads)

    def emulated(self, pair: Pair, datapath: ab.Datapath, **options: Any) -> Run:
        matmul: Any = ab.matmul
        return partial(matmul, *pair, datapath, **({"threads": self.threads} | options))

    def ceiling(self, pair: Pair, datapath: ab.Datapath, step: Mapping[str, Step]) -> Any:
        """Return the fields of a case that say how fast its steps alone are."""
        isa = ab.isa_info()["selected"]
        if isa not in step:
            return {}
        a, b = (as_operand("ab"[i], x, datapath) for i, x in enumerate(pair))
        compiled = compile_datapath(datapath, a.shape[1])
        plan, tile = plan_gemm(datapath, compiled, a, b, False, 0, 0, {})
        gemm: Any = _core.IntegerGemm() if datapath.is_integer else _core.FloatGemm()
        vector = {"x86-64-v4": 64, "x86-64-v3": 32}[isa]
        element = ELEMENT_BYTES.get(plan.path, 4)
        rows, columns = vector // 8, 2 * vector // element
        out = np.empty((rows, columns), np.int32 if datapath.is_integer else np.float32)
        gemm.set_output(out, 1, rows, columns, CEILING_TERMS)
        expected = {
            name: bytes_ / element * terms / max(multiplies / 2, operations / 4) / BASELINE
            for (name, (multiplies, operations, terms)), bytes_ in zip(
                sorted(step.items()), (32, 64), strict=True
            )
        }
        return {
            "ceiling_run": lambda: (getattr(gemm, f"run_{plan.path}")(tile, 1), out),
            "ceiling_work": rows * columns * CEILING_TERMS,
            "ceiling": expected,
        }

    def case(
        self,
        name: str,
        pair: Pair,
        datapath: ab.Datapath,
        options: Any = None,
        step: Mapping[str, Step] | None = None,
        **fields: Any,
    ) -> Case:
        m, n, k = self.shape
        if step is not None:
            fields |= self.ceiling(pair, datapath, step)
        defaults: dict[str, Any] = {
            "baseline_run": self.numpy,
            "baseline": "NumPy float32 matmul",
            "yardstick_run": self.eigen,
            "path": datapath.plan(*pair).path,
            "run": self.emulated(pair, datapath, **(options or {})),
            "shape": f"{m}x{n}x{k}",
        }
        return Case(name=name, work=m * n * k, unit="MAC", **(defaults | fields))


@dataclasses.dataclass(frozen=True)
class Squares:
    """Square operands of the size asked for, and of half of it for what would take too long."""

    full: Operands
    half: Operands

    def affordable(self, build: Callable[[Operands], Case]) -> Case:
        case = build(self.half)
        start = time.perf_counter()
        case.run()
        seconds = 8 * (time.perf_counter() - start)
        return build(self.full) if seconds < LONGEST else case

    def case(self, name: str, kind: str, *args: Any, **fields: Any) -> Case:
        return self.affordable(lambda o: o.case(name, getattr(o, kind), *args, **fields))


def cases(settings: Settings) -> Iterator[Case]:
    size, threads = settings.size, settings.threads
    half = max(1, size // 2)
    square = Squares(Operands(size, size, size, threads), Operands(half, half, half, threads))
    yield from float_cases(square)
    yield from integer_cases(square)
    yield from event_cases(square)
    yield from backward_cases(square)
    yield from shape_cases(square.full, size, threads)


def steps(avx512: Step, avx2: Step) -> dict[str, Step]:
    return {"x86-64-v4": avx512, "x86-64-v3": avx2}


def float_cases(square: Squares) -> Iterator[Case]:
    yield square.case(
        SQUARE, "small", LBA, step=steps((2, 4, 1), (2, 4, 1)), targets=targets(0.7, 0.35)
    )
    yield square.case(
        "LBA M7E4, exact products (E4M3 operands)",
        "e4m3",
        LBA,
        step=steps((1, 2, 1), (1, 2, 1)),
        targets=targets(1.3, 0.65),
    )
    yield square.case(
        "LBA M7E4, data that overflow",
        "large",
        LBA,
        step=steps((2, 6, 1), (2, 8, 1)),
        targets=targets(0.45, 0.2),
    )
    mask = ab.lba_accumulator(7, 4, arithmetic="fp32_mask")
    yield square.case("LBA M7E4, fp32_mask", "small", mask)
    yield square.case(
        "float accumulator fp16, nearest_even, rounded products",
        "small",
        ab.float_accumulator("fp16", product="fp16"),
        step=steps((4, 11, 1), (4, 11, 1)),
        targets=targets(0.25, 0.15),
    )
    yield square.case(
        "float accumulator E8M21, nearest_even, exact products",
        "small",
        ab.float_accumulator(ab.FloatFormat(exponent_bits=8, mantissa_bits=21)),
        step=steps((2, 8, 1), (2, 12, 1)),
        targets=targets(0.15, 0.06),
    )
    for bits in (8, 16):
        yield square.case(
            f"float accumulator fp16, stochastic, {bits} bits",
            "small",
            ab.float_accumulator("fp16", rounding="stochastic", bits=bits),
            {"seed": 1},
            targets=targets(0.05, 0.02),
        )


def integer_cases(square: Squares) -> Iterator[Case]:
    features = ab.isa_info()["features"]
    vnni = features.get("avx512_vnni") or features.get("avx_vnni")
    for bits in (16, 32):
        yield square.case(
            f"integer wrap, int8, P = {bits}",
            "int8",
            ab.integer_accumulator(bits),
            step=steps((1, 1, 4) if vnni else (1, 2, 2), (1, 2, 2)),
            targets=targets(5.0 if vnni else 1.5, 1.5),
        )
    for bits, goal in ((16, targets(1.8, 0.9)), (12, targets(1.3, 0.6))):
        yield square.case(
            f"integer saturate, int8, P = {bits}",
            "int8",
            ab.integer_accumulator(bits, "saturate"),
            step=steps(*[(1, 2 if bits == 16 else 3, 1)] * 2),
            targets=goal,
        )
    yield square.case(
        "integer saturate, int8, P = 24, group 4",
        "int8",
        ab.integer_accumulator(24, "saturate", group=4),
        targets=targets(0.8, 0.4),
    )


def event_cases(square: Squares) -> Iterator[Case]:
    # Shares of the speed without events; the wrapping accumulator's, of the saturating one's.
    saturate, wrap = ab.integer_accumulator(16, "saturate"), ab.integer_accumulator(16)

    def build(name: str, kind: str, datapath: ab.Datapath, events: Any, goal: float) -> Case:
        reference = saturate if datapath is wrap else datapath
        return square.affordable(
            lambda operands: operands.case(
                f"{name}, events={events!r}",
                getattr(operands, kind),
                datapath,
                {"events": events},
                path="",
                baseline_run=operands.emulated(getattr(operands, kind), reference),
                baseline="saturate, no events" if datapath is wrap else "without events",
                targets=targets(goal, goal),
            )
        )

    for events, goal in (("overflow", 0.5), (True, 0.2)):
        yield build("LBA M7E4", "small", LBA, events, goal)
        yield build("integer saturate", "int8", saturate, events, goal)
        yield build("integer wrap", "int8", wrap, events, goal)


def backward_cases(square: Squares) -> Iterator[Case]:
    def build(name: str, kind: str, operands: Operands) -> Case:
        m, n, _ = operands.shape
        gradient = np.random.default_rng(5).standard_normal((m, n)).astype(np.float32)
        pair: Pair = getattr(operands, kind)
        backward = partial(
            ab.matmul_backward, gradient, *pair, LBA, ste="recursive_of", threads=operands.threads
        )
        return operands.case(
            f"LBA M7E4 backward, recursive_of{name}",
            pair,
            LBA,
            run=backward,
            baseline_run=operands.emulated(pair, LBA),
            baseline="the emulated forward",
            path="",
            targets=targets(0.3, 0.3),
        )

    yield square.affordable(partial(build, "", "small"))
    yield square.affordable(partial(build, ", data that overflow", "large"))


def shape_cases(square: Operands, size: int, threads: int) -> Iterator[Case]:
    yield square.case(
        "LBA M7E4, 2 threads",
        square.small,
        LBA,
        {"threads": 2},
        baseline_run=square.emulated(square.small, LBA, threads=1),
        baseline="1 thread",
        targets=targets(1.8, 1.8),
    )
    quarter = max(1, size // 4)
    for name, shape in (
        ("K = 4 x size", (quarter, quarter, 4 * size)),
        ("M = 1", (1, size, size)),
        ("N = 1", (size, 1, size)),
    ):
        operands = Operands(*shape, threads)
        yield operands.case(f"LBA M7E4, {name}", operands.small, LBA, target_of=(SQUARE, 0.7))
    tiny = Operands(16, 16, 16, threads)
    yield tiny.case("LBA M7E4, 16 x 16 x 16", tiny.small, LBA, targets=targets(1 / 6, 1 / 6))
