"""2:4 packing and back beside copies of the dense array, and beside plain NumPy."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

import abcdeep_core as ab

from .measure import Case, Run, Settings, targets

DTYPES: dict[str, Any] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "int8": np.int8,
}


def cases(settings: Settings) -> Iterator[Case]:
    side = 4096 if settings.elements >= 1 << 20 else 128
    threads = settings.threads
    for name, dtype in DTYPES.items():
        x = two_of_four(side, dtype)
        out, mask = np.empty_like(x), np.asarray(x != 0)
        packed = ab.pack_24(x)
        reordered = ab.pack_24(x, layout="sm80")
        aims = targets(0.3, 0.2) if name in ("float32", "float16", "bfloat16") else {}

        pack = functools.partial(ab.pack_24, threads=threads)
        unpack = functools.partial(ab.unpack_24, out=out, threads=threads)
        runs: dict[str, Run] = {
            f"pack_24 {name}": functools.partial(pack, x),
            f"pack_24 {name}, mask": functools.partial(pack, x, mask),
            f"pack_24 {name}, sm80": functools.partial(pack, x, layout="sm80"),
            f"unpack_24 {name}": functools.partial(unpack, packed),
            f"unpack_24 {name}, sm80": functools.partial(unpack, reordered),
        }
        for case, run in runs.items():
            yield Case(
                name=case,
                work=x.size,
                unit="element",
                run=run,
                baseline_run=functools.partial(np.copyto, out, x),
                baseline="np.copyto",
                targets=aims if case == f"pack_24 {name}" else {},
            )
        if name == "float16":
            yield Case(
                name=f"pack_24 {name}, against NumPy",
                work=x.size,
                unit="element",
                run=runs[f"pack_24 {name}"],
                baseline_run=functools.partial(plain_pack, x),
                baseline="plain NumPy",
            )
            yield Case(
                name=f"unpack_24 {name}, against NumPy",
                work=x.size,
                unit="element",
                run=runs[f"unpack_24 {name}"],
                baseline_run=functools.partial(plain_unpack, packed.values, packed.metadata),
                baseline="plain NumPy",
            )
    rows, channels = (256, 256) if settings.elements >= 1 << 20 else (16, 32)
    w = np.random.default_rng(8).standard_normal((rows, channels)).astype(np.float32)
    for method in ("swap", "stripe"):
        yield Case(
            name=f"channel_permutation, {method}",
            work=w.size,
            unit="element",
            run=functools.partial(ab.channel_permutation, w, method=method, threads=threads),
            baseline_run=lambda: np.sort(np.abs(w).reshape(rows, -1, 4), axis=-1),
            baseline="one sort of all groups",
            shape=f"{rows} {channels}",
        )


def two_of_four(side: int, dtype: Any) -> Any:
    """Return a square matrix with two non-zeros in each four elements; one of two for float32."""
    rng = np.random.default_rng(7)
    group = 2 if dtype is np.float32 else 4
    ranks = rng.random((side * side // group, group), np.float32).argsort(axis=1)
    x = rng.integers(1, 100, ranks.shape).astype(dtype)
    x[ranks >= group // 2] = 0
    return x.reshape(side, side)


def plain_pack(x: Any) -> tuple[Any, Any]:
    """Pack 16-bit elements with exactly two non-zeros in each four."""
    kept = (x != 0).reshape(-1, 4)
    values = x.reshape(-1, 4)[kept].reshape(x.shape[0], -1)
    places = np.nonzero(kept)[1].astype(np.uint16).reshape(-1, 2)
    codes = (places[:, 0] | places[:, 1] << 2).reshape(-1, 4)
    words = codes[:, 0] | codes[:, 1] << 4 | codes[:, 2] << 8 | codes[:, 3] << 12
    return values, words.reshape(x.shape[0], -1)


def plain_unpack(values: Any, words: Any) -> Any:
    codes = (words[..., None] >> np.array([0, 4, 8, 12], np.uint16) & 15).reshape(-1)
    dense = np.zeros((codes.size, 4), values.dtype)
    pairs, group = values.reshape(-1, 2), np.arange(codes.size)
    dense[group, codes & 3] = pairs[:, 0]
    dense[group, codes >> 2] = pairs[:, 1]
    return dense.reshape(values.shape[0], -1)
