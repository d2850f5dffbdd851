"""2:4 packing and channel permutations by the letter: Python integers, one group at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np

# What idx0 | idx1 << 2 is for each pair of positions kept.
NIBBLES = {(a, b): a | b << 2 for a, b in itertools.combinations(range(4), 2)}

# The pair for fewer than two non-zeros: none, then one at 0, 1, 2, 3. None is the code 0000.
FEWER: dict[str, list[tuple[int, int] | None]] = {
    "torch": [(2, 3), (0, 2), (1, 2), (2, 3), (2, 3)],
    "cutedsl": [(2, 3), (0, 3), (1, 3), (2, 3), (2, 3)],
    "2by4": [(2, 3), (0, 3), (1, 3), (2, 3), (2, 3)],
    "sm90": [None, (0, 3), (1, 3), (2, 3), (0, 3)],
}
CONVENTIONS = tuple(FEWER)

# name: dtype, elements of a group, bytes of a word of metadata
FORMATS: dict[str, tuple[Any, int, int]] = {
    "float16": (np.float16, 4, 2),
    "bfloat16": (ml_dtypes.bfloat16, 4, 2),
    "float32": (np.float32, 2, 2),
    "int8": (np.int8, 4, 4),
    "float8_e4m3fn": (ml_dtypes.float8_e4m3fn, 4, 4),
    "float8_e5m2": (ml_dtypes.float8_e5m2, 4, 4),
    "int4": (ml_dtypes.int4, 8, 4),
    "float4_e2m1fn": (ml_dtypes.float4_e2m1fn, 8, 4),
}


def columns_per_word(name: str) -> int:
    _, group, word = FORMATS[name]
    return group * 2 * word


def bit_patterns(array: np.ndarray) -> np.ndarray:
    return array.view(np.dtype(f"u{array.dtype.itemsize}"))


def is_non_zero(name: str, bits: int) -> bool:
    """Whether a bit pattern is a number other than 0 and -0."""
    sign = {"float16": 1 << 15, "bfloat16": 1 << 15, "float32": 1 << 31, "float4_e2m1fn": 8}
    sign |= {"float8_e4m3fn": 128, "float8_e5m2": 128}
    width = {"int4": 15, "float4_e2m1fn": 15}.get(name, ~0)
    return bits & width & ~sign.get(name, 0) != 0


def pack_group(
    name: str, bits: Sequence[int], kept: Sequence[bool], convention: str
) -> tuple[int, list[int]]:
    """Return the code of a group and the bit patterns to store, or raise if too many are kept."""
    units = {"float32": 2, "int4": 4, "float4_e2m1fn": 4}.get(name, 4)
    size = len(bits) // units
    chunks = [list(bits[i * size : (i + 1) * size]) for i in range(units)]
    positions = [i for i in range(units) if any(kept[i * size : (i + 1) * size])]
    if len(positions) > units // 2:
        raise ValueError("too many")
    if name == "float32":  # two halves each; an empty pair: the last, for sm90 the first
        position = positions[0] if positions else (0 if convention == "sm90" else 1)
        return (0b0100, 0b1110)[position], chunks[position]
    pair: tuple[int, int] | None
    if len(positions) == 2:
        pair = (positions[0], positions[1])
    else:
        pair = FEWER[convention][positions[0] + 1 if positions else 0]
    if pair is None:
        return 0, chunks[0] + chunks[0]
    return NIBBLES[pair], chunks[pair[0]] + chunks[pair[1]]


def word_position(rows: int, row: int, column: int, word_bytes: int) -> int:
    """Return the word of layout sm80 at (row, column), words in units of their own size."""
    if word_bytes == 4:
        return (
            (column // 2) * 2 * rows
            + (row // 16) * 32
            + 4 * (row % 8)
            + 2 * (column % 2)
            + (row // 8) % 2
        )
    wide = (
        (column // 2) * rows + (row // 32) * 32 + 4 * (row % 8) + 2 * ((row // 16) % 2) + column % 2
    )
    return 2 * wide + (row // 8) % 2


def pack(
    name: str,
    x: np.ndarray,
    kept: np.ndarray | None,
    convention: str = "torch",
    layout: str = "rowmajor",
) -> tuple[np.ndarray, np.ndarray]:
    """Return values and metadata of a matrix; unkept elements become +0 if there is a mask."""
    dtype, group, word_bytes = FORMATS[name]
    rows, columns = x.shape
    bits = bit_patterns(np.ascontiguousarray(x))
    words = columns // columns_per_word(name)
    values = np.zeros((rows, columns // 2), bits.dtype)
    metadata = [[0] * words for _ in range(rows)]
    for row in range(rows):
        stored: list[int] = []
        for g in range(columns // group):
            part = [int(b) for b in bits[row, g * group : (g + 1) * group]]
            if kept is None:
                keep = [is_non_zero(name, b) for b in part]
            else:
                keep = [bool(k) for k in kept[row, g * group : (g + 1) * group]]
                part = [b if k else 0 for b, k in zip(part, keep, strict=True)]
            code, pieces = pack_group(name, part, keep, convention)
            metadata[row][g // (2 * word_bytes)] |= code << (4 * (g % (2 * word_bytes)))
            stored += pieces
        values[row] = stored
    flat = [0] * (rows * words)
    for row in range(rows):
        for column in range(words):
            at = row * words + column
            if layout == "sm80":
                at = word_position(rows, row, column, word_bytes)
            flat[at] = metadata[row][column]
    words_of = np.array(flat, np.dtype(f"u{word_bytes}")).reshape(rows, words)
    return values.view(dtype), words_of


def kept_magnitude(w: np.ndarray, order: Sequence[int], n: int, m: int) -> Fraction:
    """Return the exact sum of the n largest magnitudes of each m channels in this order."""
    total = Fraction(0)
    for row in w.reshape(-1, w.shape[-1]):
        magnitudes = [abs(Fraction(float(row[c]))) for c in order]
        for start in range(0, len(order), m):
            total += sum(sorted(magnitudes[start : start + m])[m - n :], Fraction(0))
    return total


def splits(channels: tuple[int, ...], m: int) -> list[list[int]]:
    """Return every way to put channels into groups of m, one order each."""
    if not channels:
        return [[]]
    first, rest = channels[0], channels[1:]
    found = []
    for others in itertools.combinations(rest, m - 1):
        left = tuple(c for c in rest if c not in others)
        found += [[first, *others, *tail] for tail in splits(left, m)]
    return found


def best_kept(w: np.ndarray, n: int, m: int) -> Fraction:
    """Return the largest magnitude that any order of the channels keeps."""
    orders = splits(tuple(range(w.shape[-1])), m)
    return max(kept_magnitude(w, order, n, m) for order in orders)
