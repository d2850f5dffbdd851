"""Words of 4 bits, two a byte: the even index in the low half."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np

from ._arrays import Array
from ._format_base import integer


def pack_nibbles(codes: Array, axis: int) -> Array:
    """Return words of 4 bits two a byte along `axis`."""
    rows: Array = np.moveaxis(codes, axis, -1).view(np.uint8)
    if codes.dtype == np.int8:
        rows = rows & 15
    if rows.shape[-1] % 2:
        rows = np.concatenate([rows, np.zeros((*rows.shape[:-1], 1), np.uint8)], axis=-1)
    pairs = np.ascontiguousarray(rows).view("<u2")
    packed = (pairs | pairs >> 4).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(packed, -1, axis))


def unpack_nibbles(codes: Array, axis: int, size: SupportsIndex | None) -> Array:
    """Return the words of `pack_nibbles`, `size` along `axis`: by default both of each byte."""
    rows = np.moveaxis(codes, axis, -1)
    most = 2 * rows.shape[-1]
    count = most if size is None else integer("size", size)
    if count not in (most, max(most - 1, 0)):
        raise ValueError(
            f"size must be {max(most - 1, 0)} or {most} for {rows.shape[-1]} bytes, got {count}"
        )
    pairs = rows.astype("<u2", order="C")
    words: Array = ((pairs | pairs << 4) & 0x0F0F).view(np.uint8)
    return np.ascontiguousarray(np.moveaxis(words[..., :count], -1, axis))
