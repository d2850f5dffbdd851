"""How a bundle's memory words hold operands and expected outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from .hex_files import hex_digits, pack
from .mac_unit import MacUnit

_INDEX_DIGITS = 8


@dataclasses.dataclass(frozen=True)
class Layout:
    """The memory words of `dots` dot products of a unit; `lanes` operands a word.

    A word of expected.hex is, from its most significant digit on: 8 digits, the first step with
    overflow (0 if there is none); 1 digit, the sticky flag; the result in whole digits.
    """

    unit: MacUnit
    dots: int
    lanes: int
    msb_first: bool

    def __post_init__(self) -> None:
        if self.lanes < 1 or self.lanes % self.unit.group:
            raise ValueError(
                f"lanes must be a multiple of the group, {self.unit.group}, got {self.lanes}"
            )

    @property
    def slots(self) -> int:
        """Steps of a memory word."""
        return self.lanes // self.unit.group

    @property
    def words(self) -> int:
        """Memory words of a dot product."""
        return -(-self.unit.steps // self.slots)

    @property
    def result_digits(self) -> int:
        """Hexadecimal digits of the result."""
        return hex_digits(self.unit.result.bits)

    @property
    def flag_bit(self) -> int:
        """Place of the sticky flag in an expected word."""
        return 4 * self.result_digits

    @property
    def index_bit(self) -> int:
        """Lowest place of the step in an expected word."""
        return self.flag_bit + 4

    @property
    def expected_bits(self) -> int:
        """Bits of an expected word."""
        return self.index_bit + 4 * _INDEX_DIGITS

    def operand_words(self, rows: Iterable[Sequence[int]], bits: int) -> list[int]:
        """Return the memory words of rows of operands; a short group or word ends with zeros."""
        unit, words = self.unit, []
        length = unit.chunk or unit.terms
        for row in rows:
            padded: list[int] = []
            for begin in range(0, unit.terms, length):
                padded += row[begin : min(begin + length, unit.terms)]
                padded += [0] * (-len(padded) % unit.group)
            padded += [0] * (-len(padded) % self.lanes)
            words += pack(padded, bits, self.lanes, self.msb_first)
        return words

    def expected_words(
        self, results: Iterable[int], flags: Iterable[bool], steps: Iterable[int]
    ) -> list[int]:
        """Return the words of expected.hex; a step of -1 is none."""
        mask = (1 << self.unit.result.bits) - 1
        return [
            max(step, 0) << self.index_bit | int(flag) << self.flag_bit | result & mask
            for result, flag, step in zip(results, flags, steps, strict=True)
        ]


def only_if(condition: bool, text: str) -> str:
    """Return `text`, the part of a source that only some units have, or nothing."""
    return text if condition else ""
