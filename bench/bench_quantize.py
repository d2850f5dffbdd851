"""Rounding, encoding and decoding, beside copies of as many bytes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

import abcdeep_core as ab

from .measure import Case, Run, Settings, targets


def copy_of(read_and_written: int) -> Run:
    """Return a np.copyto that reads and writes this many bytes together."""
    source = np.ones(read_and_written // 2, np.uint8)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source)


def torch_cast(x: np.ndarray, name: str) -> Run | None:
    if find_spec("torch") is None:
        return None
    torch: Any = import_module("torch")
    torch.set_num_threads(1)
    tensor, dtype = torch.from_numpy(x), getattr(torch, name)
    return lambda: tensor.to(dtype)


def data(elements: int, kind: str) -> np.ndarray:
    """Return float32 numbers: "normal" near 1, "wide" over the formats' whole exponent range."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal(elements).astype(np.float32)
    if kind == "wide":
        x *= np.exp2(rng.uniform(-20, 20, elements)).astype(np.float32)
    return x


def cases(settings: Settings) -> Iterator[Case]:
    n, threads = settings.elements, settings.threads
    x, out = data(n, "normal"), np.empty(n, np.float32)
    m7e4 = ab.lba_format(7, 4, 10)
    finite = np.clip(x, m7e4.min, m7e4.max)

    def quantize(x: np.ndarray, *args: Any, **options: Any) -> Run:
        return lambda: ab.quantize(x, *args, out=out, threads=threads, **options)

    same_bytes: dict[str, Any] = {
        "work": n,
        "unit": "element",
        "baseline_run": copy_of(8 * n),
        "baseline": "np.copyto",
    }
    goal, stochastic_goal = targets(0.7, 0.5), targets(0.35, 0.15)
    for name, fmt in (("e4m3fn", "e4m3fn"), ("M7E4", m7e4)):
        yield Case(
            name=f"quantize {name}, nearest_even",
            run=quantize(finite, fmt),
            targets=goal,
            **same_bytes,
        )
        yield Case(
            name=f"quantize {name}, stochastic, 8 bits",
            run=quantize(finite, fmt, "stochastic", seed=1, bits=8),
            targets=stochastic_goal,
            **same_bytes,
        )
    yield Case(
        name="quantize M7E4, toward_zero", run=quantize(finite, m7e4, "toward_zero"), **same_bytes
    )
    yield Case(
        name="quantize fixed 8.4, nearest_even",
        run=quantize(x, ab.FixedFormat(bits=8, fraction_bits=4, rounding="RND_CONV")),
        **same_bytes,
    )
    yield from code_cases(n, threads)


def code_cases(n: int, threads: int) -> Iterator[Case]:
    code_goal = targets(0.5, 0.3)
    codes, decoded = np.empty(n, np.uint8), np.empty(n, np.float32)
    for name in ("e4m3fn", "e5m2", "e2m1"):
        for kind in ("normal", "wide"):
            x = data(n, kind)

            def encode(x: np.ndarray = x, name: str = name) -> object:
                return ab.encode(x, name, out=codes, threads=threads)

            yield Case(
                name=f"encode {name}, {kind} data",
                work=n,
                unit="element",
                run=encode,
                baseline_run=copy_of(5 * n),
                baseline="np.copyto",
                targets=code_goal,
            )
            cast = torch_cast(x, {"e4m3fn": "float8_e4m3fn", "e5m2": "float8_e5m2"}.get(name, ""))
            if cast is not None and name != "e2m1":
                yield Case(
                    name=f"encode {name}, {kind} data, against torch",
                    work=n,
                    unit="element",
                    run=encode,
                    baseline_run=cast,
                    baseline="torch float8 cast, 1 thread",
                    targets=targets(1, 1),
                )
        words = ab.encode(data(n, "normal"), name)

        def decode(words: np.ndarray = words, name: str = name) -> object:
            return ab.decode(words, name, out=decoded, threads=threads)

        yield Case(
            name=f"decode {name}",
            work=n,
            unit="element",
            run=decode,
            baseline_run=copy_of(5 * n),
            baseline="np.copyto",
            targets=code_goal,
        )
