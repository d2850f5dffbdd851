"""2:4 packing as data: what each dtype, convention and layout means, and the checks they need."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array
from ._names import canonical, nearest

# For each pattern of kept units (bit = unit) idx0 | idx1 << 2; patterns of more than two have none.
_PAIRS = {0b0011: 0b0100, 0b0101: 0b1000, 0b1001: 0b1100, 0b0110: 0b1001, 0b1010: 0b1101}
_PAIRS[0b1100] = 0b1110
_FEWER = {
    "torch": {0b0000: 0b1110, 0b0001: 0b1000, 0b0010: 0b1001, 0b0100: 0b1110, 0b1000: 0b1110},
    "cutedsl": {0b0000: 0b1110, 0b0001: 0b1100, 0b0010: 0b1101, 0b0100: 0b1110, 0b1000: 0b1110},
    "sm90": {0b0000: 0b0000, 0b0001: 0b1100, 0b0010: 0b1101, 0b0100: 0b1110, 0b1000: 0b1100},
}
# A float32 is two halves, kept together; sm90 codes an empty pair like one whose first is kept.
_HALVES = {0b0011: 0b0100, 0b1100: 0b1110}
_NO_HALVES = {"torch": 0b1110, "cutedsl": 0b1110, "sm90": 0b0100}

CONVENTIONS: Mapping[str, str] = MappingProxyType(
    {"torch": "torch", "cutedsl": "cutedsl", "2by4": "cutedsl", "sm90": "sm90"}
)
LAYOUTS: Mapping[str, str] = MappingProxyType({"rowmajor": "rowmajor", "sm80": "sm80"})


@dataclasses.dataclass(frozen=True)
class PackingRule:
    """How arrays of one dtype are packed.

    unit_bytes: the bytes that two bits of metadata count, four units a group. test_bytes: what is
    kept as a whole. magnitude: the bits of an element that make it non-zero.
    """

    dtype: np.dtype[Any]
    unit_bytes: int
    test_bytes: int
    word_bytes: int
    magnitude: int
    bits: int

    @property
    def word_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint16 if self.word_bytes == 2 else np.uint32)

    @property
    def group(self) -> int:
        """Elements of a group of four units."""
        return 4 * self.unit_bytes // self.dtype.itemsize

    @property
    def whole(self) -> int:
        """Elements that are kept as a whole."""
        return self.test_bytes // self.dtype.itemsize

    @property
    def most(self) -> int:
        """How many of these wholes a group keeps at most."""
        return self.group // self.whole // 2

    @property
    def word_columns(self) -> int:
        """Dense columns of one word of metadata."""
        return 2 * self.word_bytes * self.group

    @property
    def row_multiple(self) -> int:
        """What divides the rows of a matrix in the layout sm80."""
        return 32 if self.word_bytes == 2 else 16

    def core(self, layout: str) -> _core.Packing:
        size = self.dtype.itemsize
        magnitude = sum(self.magnitude << shift for shift in range(0, 32, 8 * size))
        return _core.Packing(
            self.unit_bytes, size, self.test_bytes, self.word_bytes, magnitude, layout == "sm80"
        )

    def kept_wholes(self, kept: Array) -> Array:
        """Return, for a mask of elements, the wholes of each group: (..., groups, wholes)."""
        groups = kept.shape[-1] // self.group
        return np.asarray(kept.reshape(*kept.shape[:-1], groups, -1, self.whole).any(axis=-1))

    def non_zeros(self, x: Array) -> npt.NDArray[np.bool_]:
        """Return where elements have one of the bits that make them non-zero."""
        bits = np.dtype(f"u{self.dtype.itemsize}")
        return np.asarray((x.view(bits) & bits.type(self.magnitude)) != 0)

    def codes_of_kept(self, convention: str) -> npt.NDArray[np.uint16]:
        """Return the code byte for the kept units of two groups, as the kernel takes it."""
        return _codes_of_kept(convention, self.test_bytes == 4)

    def legal_codes(self, convention: str) -> npt.NDArray[np.uint16]:
        """Return the fault for each byte of metadata that is not legal, else 0."""
        return _legal_codes(convention == "sm90", self.test_bytes == 4)


def _rule(dtype: Any, unit: int, test: int, word: int, magnitude: int, bits: int) -> PackingRule:
    return PackingRule(np.dtype(dtype), unit, test, word, magnitude, bits)


RULES: Mapping[str, PackingRule] = MappingProxyType(
    {
        "float16": _rule(np.float16, 2, 2, 2, 0x7FFF, 16),
        "bfloat16": _rule(ml_dtypes.bfloat16, 2, 2, 2, 0x7FFF, 16),
        "float32": _rule(np.float32, 2, 4, 2, 0x7FFFFFFF, 32),
        "int8": _rule(np.int8, 1, 1, 4, 0xFF, 8),
        "float8_e4m3fn": _rule(ml_dtypes.float8_e4m3fn, 1, 1, 4, 0x7F, 8),
        "float8_e5m2": _rule(ml_dtypes.float8_e5m2, 1, 1, 4, 0x7F, 8),
        "int4": _rule(ml_dtypes.int4, 2, 2, 4, 0x0F, 4),
        "float4_e2m1fn": _rule(ml_dtypes.float4_e2m1fn, 2, 2, 4, 0x07, 4),
    }
)
_BY_DTYPE = {rule.dtype: rule for rule in RULES.values()}


def rule_of(name: str, dtype: Any) -> PackingRule:
    """Return the rule of a dtype or its name, or raise an error that names the argument."""
    if isinstance(dtype, str) and dtype in RULES:
        return RULES[dtype]
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        if isinstance(dtype, str):
            raise ValueError(f"unknown {name} {dtype!r}; {nearest(dtype, RULES)}") from None
        raise TypeError(f"{name} must be one of {', '.join(RULES)}, got {dtype!r}") from None
    if wanted.newbyteorder("=") not in _BY_DTYPE:
        raise TypeError(f"{name} must be one of {', '.join(RULES)}, got {wanted}")
    return _BY_DTYPE[wanted.newbyteorder("=")]


def check_convention(convention: str) -> str:
    return canonical("convention", convention, CONVENTIONS)


def check_layout(layout: str) -> str:
    return canonical("layout", layout, LAYOUTS)


def check_shape(name: str, shape: tuple[int, ...], rule: PackingRule, layout: str) -> None:
    """Raise ValueError if no matrix of this dense shape has this layout."""
    if len(shape) < 2:
        raise ValueError(f"{name} must have at least two dimensions, got shape {shape}")
    rows, columns = shape[-2:]
    if columns % rule.word_columns:
        raise ValueError(
            f"{name}: expected a multiple of {rule.word_columns} columns for {rule.dtype}, "
            f"got {columns}"
        )
    if layout != "sm80":
        return
    if rows % rule.row_multiple:
        raise ValueError(
            f"{name}: layout 'sm80' expects a multiple of {rule.row_multiple} rows for "
            f"{rule.dtype}, got {rows}"
        )
    if columns % (2 * rule.word_columns):
        raise ValueError(
            f"{name}: layout 'sm80' expects a multiple of {2 * rule.word_columns} columns for "
            f"{rule.dtype}, got {columns}"
        )


def reordered_words(rows: int, words: int, word_bytes: int) -> npt.NDArray[np.int64]:
    """Return where layout sm80 has each word of a matrix of `rows` times `words` words."""
    row = np.arange(rows, dtype=np.int64)[:, None]
    column = np.arange(words, dtype=np.int64)
    pair, odd, lane = column // 2, column % 2, 4 * (row % 8)
    if word_bytes == 2:
        wide = pair * rows + row // 32 * 32 + lane + 2 * (row // 16 % 2) + odd
        return np.asarray(2 * wide + row // 8 % 2)
    return np.asarray(pair * 2 * rows + row // 16 * 32 + lane + 2 * odd + row // 8 % 2)


@functools.cache
def _codes_of_kept(convention: str, halves: bool) -> npt.NDArray[np.uint16]:
    codes = {**_PAIRS, **_FEWER[convention]}
    if halves:
        codes = {**_HALVES, 0: _NO_HALVES[convention]}
    return _of_two_groups([codes.get(pattern) for pattern in range(16)])


@functools.cache
def _legal_codes(empty: bool, halves: bool) -> npt.NDArray[np.uint16]:
    legal = set(_HALVES.values()) if halves else set(_PAIRS.values()) | ({0} if empty else set())
    return _of_two_groups([0 if code in legal else None for code in range(16)])


def _of_two_groups(codes: list[int | None]) -> npt.NDArray[np.uint16]:
    """Return the byte of two 4-bit codes for each pair of groups, or a fault."""
    one = np.array([_core.packing_fault if code is None else code for code in codes])
    low, high = np.tile(one, 16), np.repeat(one, 16)
    fault = (low | high) & _core.packing_fault
    table: npt.NDArray[np.uint16] = (fault | (low & 15) | (high & 15) << 4).astype(np.uint16)
    table.flags.writeable = False
    return table
