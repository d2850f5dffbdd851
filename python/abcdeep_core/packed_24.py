"""Packed24: a 2:4 sparse array as its kept values and the metadata that says where they are."""

from __future__ import annotations

import dataclasses
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, check_out, deliver, first_index, is_plain
from ._block_packing import pack_nibbles
from ._packing_rules import (
    PackingRule,
    check_convention,
    check_layout,
    check_shape,
    reordered_words,
    rule_of,
)
from ._threads import check_threads


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Packed24:
    """A 2:4 sparse array: half of its elements, and 4 bits for each group that say which half.

    NumPy's functions take it for the dense array. docs/packing.md has the definition.

    Parameters
    ----------
    values : ndarray, shape (..., rows, K / 2)
        The elements kept, two of each group of four; float32: one of two; int4, float4_e2m1fn: two
        pairs of four pairs. Elements of 4 bits are stored one a byte, as ml_dtypes does.
    metadata : ndarray of uint16 or uint32, shape (..., rows, words)
        Words of 4 (uint16) or 8 (uint32) codes, one a group: idx0 | idx1 << 2, the first group in
        the lowest bits. uint16 for float16, bfloat16 and float32, else uint32.
    layout : {"rowmajor", "sm80"}
        Order of the words of each matrix. "sm80" is CUTLASS's reordered metadata, in C order of
        this shape.
    convention : {"torch", "cutedsl", "2by4", "sm90"}
        Which codes groups with fewer than two non-zeros have. Only "sm90" allows the code 0, for a
        group of zeros.

    Raises
    ------
    TypeError
        If a field has the wrong type or dtype.
    ValueError
        If shapes do not belong together or to the layout, or a code is not legal.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> packed = ab.Packed24(values=np.float16([[1, 2, 3, 4, 5, 6, 7, 8]]),
    ...                      metadata=np.uint16([[0x9E84]]))
    >>> packed.dense()[0, :8], packed.shape
    (array([1., 2., 0., 0., 3., 0., 4., 0.], dtype=float16), (1, 16))
    >>> float(np.sum(packed)), packed.nbytes
    (36.0, 18)
    """

    values: Array
    metadata: npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
    layout: str = "rowmajor"
    convention: str = "torch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layout", check_layout(self.layout))
        object.__setattr__(self, "convention", check_convention(self.convention))
        self._check(0)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense array."""
        return (*self.values.shape[:-1], 2 * self.values.shape[-1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the elements."""
        return self.values.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.values.ndim

    @property
    def size(self) -> int:
        """Number of elements of the dense array."""
        return 2 * self.values.size

    @property
    def nbytes(self) -> int:
        """Bytes of values and metadata, elements of 4 bits two a byte."""
        return self.values.size * rule_of("values", self.dtype).bits // 8 + self.metadata.nbytes

    def value_bytes(self) -> npt.NDArray[np.uint8]:
        """Return the values as the bytes hardware reads, shape (..., rows, bytes of a row).

        Two elements of 4 bits share a byte, the first in the low half.
        """
        values = np.ascontiguousarray(self.values)
        if rule_of("values", self.dtype).bits == 4:
            return pack_nibbles(values.view(np.uint8) & np.uint8(15), -1)
        return values.view(np.uint8)

    def dense(self) -> Array:
        """Return the dense array, with +0 where nothing is kept."""
        return unpack_24(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return the dense array to NumPy's functions."""
        if copy is False:
            raise ValueError("a Packed24 becomes a dense array by a copy only, got copy=False")
        dense = self.dense()
        return dense if dtype is None else dense.astype(dtype, copy=False)

    def _check(self, threads: int) -> PackingRule:
        """Return what the dtype fixes; raise if the arrays do not belong together as they are."""
        for field in ("values", "metadata"):
            array = getattr(self, field)
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{field} must be a NumPy array, got {type(array).__name__}")
        rule = rule_of("values", self.values.dtype)
        for field, dtype in (("values", rule.dtype), ("metadata", rule.word_dtype)):
            if getattr(self, field).dtype != dtype:
                raise TypeError(
                    f"{field} must have dtype {dtype}, got {getattr(self, field).dtype}"
                )
        if self.values.ndim < 2:
            raise ValueError(f"values must have shape (..., rows, K / 2), got {self.values.shape}")
        check_shape("values", self.shape, rule, self.layout)
        expected = (*self.shape[:-1], self.shape[-1] // rule.word_columns)
        if self.metadata.shape != expected:
            raise ValueError(f"metadata must have shape {expected}, got {self.metadata.shape}")
        self._check_codes(rule, threads)
        return rule

    def _check_codes(self, rule: PackingRule, threads: int) -> None:
        """Raise ValueError if a code is not legal."""
        metadata = np.ascontiguousarray(self.metadata)
        legal = rule.legal_codes(self.convention)
        if not _core.check_24(metadata.reshape(-1).view(np.uint8), legal, threads):
            wrong = legal[metadata.view(np.uint8)] != 0
            word = wrong.reshape(*metadata.shape, rule.word_bytes).any(axis=-1)
            raise ValueError(
                f"metadata must hold legal codes of groups, got the word "
                f"{int(metadata[word][0]):#x} at {first_index(word)}"
            )
        if self.convention != "sm90" or rule.test_bytes == 4:
            return
        if self.layout == "sm80":
            rows, words = metadata.shape[-2:]
            at = reordered_words(rows, words, rule.word_bytes)
            flat = metadata.reshape(*metadata.shape[:-2], -1)
            metadata = np.ascontiguousarray(flat[..., at])
        codes = metadata.view(np.uint8)[..., None] >> np.array([0, 4], np.uint8) & 15
        groups = (*self.shape[:-1], self.shape[-1] // rule.group)
        kept = rule.non_zeros(np.ascontiguousarray(self.values))
        some = kept.reshape(*groups, rule.group // 2).any(axis=-1)
        wrong = (codes.reshape(groups) == 0) & some
        if wrong.any():
            raise ValueError(
                f"values must be 0 in a group of code 0, got another in group {first_index(wrong)}"
            )


def unpack_24(
    packed: Packed24, *, out: Array | None = None, threads: SupportsIndex | None = None
) -> Array:
    """Return the dense array of a packed one, bit for bit, with +0 where nothing is kept.

    Parameters
    ----------
    packed : Packed24
        Values and metadata.
    out : ndarray, optional
        Array for the result, of the shape and dtype of `packed`.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray, shape and dtype of `packed`

    Raises
    ------
    TypeError
        If `packed` is no Packed24, or an argument is of the wrong type.
    ValueError
        If values and metadata have been changed so that they do not belong together, or to codes
        that are not legal; `out` has another shape or is read-only.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.int8([[0, 1, 0, -2, 3, 4, 0, 0] * 4])
    >>> packed = ab.pack_24(x)
    >>> packed.values[0, :4]
    array([ 1, -2,  3,  4], dtype=int8)
    >>> bool((ab.unpack_24(packed) == x).all())
    True
    """
    if not isinstance(packed, Packed24):
        raise TypeError(f"packed must be a Packed24, got {type(packed).__name__}")
    count = check_threads(threads)
    rule = packed._check(count)  # the arrays may have been written to, or reshaped in place
    if out is not None:
        check_out(out, packed.shape, packed.dtype)
    values = np.ascontiguousarray(packed.values)
    metadata = np.ascontiguousarray(packed.metadata)
    shares = out is not None and any(np.may_share_memory(out, a) for a in (values, metadata))
    direct = out is not None and is_plain(out) and not shares
    target = out if direct and out is not None else np.empty(packed.shape, packed.dtype)
    if target.size:
        rows, columns = packed.shape[-2:]
        _core.unpack_24(
            flat_bytes(values),
            flat_bytes(metadata),
            flat_bytes(target),
            rule.core(packed.layout),
            rows,
            columns * rule.dtype.itemsize,
            count,
        )
    return deliver(target, out)


def flat_bytes(array: Array) -> npt.NDArray[np.uint8]:
    """Return a view of the bytes of a contiguous array."""
    return array.reshape(-1).view(np.uint8)
