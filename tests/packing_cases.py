"""Arrays for the tests of 2:4 packing, and one comparison with the oracle."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import abcdeep_core as ab
import oracle_pack_24 as oracle


def bits_of(array: np.ndarray) -> np.ndarray:
    return array.view(np.dtype(f"u{array.dtype.itemsize}"))


def same(got: Any, expected: Any) -> None:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert np.array_equal(bits_of(got), bits_of(expected))


def sparse(
    name: str, shape: tuple[int, ...], seed: int = 0, most: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return random bit patterns, zero but for at most 2 of 4 units, and where they are kept."""
    rng = np.random.default_rng(seed)
    dtype, group, _ = oracle.FORMATS[name]
    wholes = 2 if name == "float32" else 4
    count = int(np.prod(shape)) // group
    kept = np.zeros((count, wholes), bool)
    ranks = rng.random((count, wholes)).argsort(axis=1)
    counts = rng.integers(0, (most or wholes // 2) + 1, count)
    kept[ranks < counts[:, None]] = True
    kept = np.repeat(kept, group // wholes, axis=1).reshape(shape)
    size = np.dtype(dtype).itemsize
    words = rng.integers(0, 1 << (8 * size), shape, dtype=f"u{size}")
    if name in ("int4", "float4_e2m1fn"):
        words &= 15
        if name == "int4":
            words = (words ^ 8) - np.uint8(8)
    return np.where(kept, words, 0).astype(words.dtype).view(dtype), kept


def without_negative_zeros(name: str, x: np.ndarray) -> np.ndarray:
    """Return `x` with +0 for -0, which packing does not keep."""
    bits = bits_of(x)
    found, inverse = np.unique(bits, return_inverse=True)
    kept = np.array([oracle.is_non_zero(name, int(word)) for word in found], bool)
    return np.where(kept[inverse].reshape(x.shape), bits, 0).astype(bits.dtype).view(x.dtype)


@functools.cache
def expected(
    name: str, x: bytes, shape: tuple[int, int], kept: bytes | None, convention: str, layout: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the oracle packs, once for every instruction set."""
    array = np.frombuffer(x, oracle.FORMATS[name][0]).reshape(shape)
    mask = None if kept is None else np.frombuffer(kept, bool).reshape(array.shape)
    return oracle.pack(name, array, mask, convention, layout)


def check(name: str, x: np.ndarray, kept: np.ndarray | None = None, **options: Any) -> ab.Packed24:
    """Pack one matrix, compare with the oracle and unpack it again."""
    packed = ab.pack_24(x, kept, **options)
    values, metadata = expected(
        name,
        x.tobytes(),
        (x.shape[0], x.shape[1]),
        None if kept is None else kept.tobytes(),
        options.get("convention", "torch"),
        options.get("layout", "rowmajor"),
    )
    same(packed.values, values)
    same(packed.metadata, metadata)
    assert (packed.shape, packed.dtype) == (x.shape, x.dtype)
    dense = packed.dense()
    if kept is not None:
        same(dense, np.where(kept, bits_of(x), 0).astype(bits_of(x).dtype).view(x.dtype))
    else:
        same(without_negative_zeros(name, dense), without_negative_zeros(name, x))
    return packed
