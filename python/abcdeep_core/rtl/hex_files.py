"""Memory files of hexadecimal words, as ``$readmemh`` reads them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._format_base import boolean, integer


def write_hex(
    path: str | os.PathLike[str],
    values: npt.ArrayLike,
    bits: int,
    lanes: int = 1,
    msb_first: bool = False,
) -> None:
    """Write integers as hexadecimal memory words, one a line.

    A word holds `lanes` values of `bits` bits, two's complement; it is written in lower case,
    without 0x, with zeros above it up to a multiple of 4 bits.

    Parameters
    ----------
    path : path
        The file.
    values : array_like of int
        Any shape, taken in C order; their number is a multiple of `lanes`.
    bits : int
        Bits of a value, 1 to 64; each value is in -2^(bits-1)..2^bits-1.
    lanes : int
        Values in a word.
    msb_first : bool
        Value 0 of a word is in the most significant bits; by default in the least significant.

    Returns
    -------
    None

    Raises
    ------
    TypeError
        If `values` are no integers, or a number is of another type.
    ValueError
        If a value does not fit, or the number of values is no multiple of `lanes`.

    See Also
    --------
    read_hex

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import abcdeep_core as ab
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "x.hex")
    ...     ab.rtl.write_hex(path, [1, -1, 2, -128], 8, lanes=2)
    ...     path.read_text().split()
    ['ff01', '8002']
    """
    numbers = integers("values", values)
    bits = integer("bits", bits, 1, 64)
    fit("values", numbers, -(1 << (bits - 1)), (1 << bits) - 1)
    write_words(path, pack(numbers.reshape(-1).tolist(), bits, lanes, msb_first), bits * lanes)


def read_hex(
    path: str | os.PathLike[str],
    bits: int,
    lanes: int = 1,
    msb_first: bool = False,
    *,
    signed: bool = True,
) -> npt.NDArray[Any]:
    """Return the integers of a file that `write_hex` wrote.

    Parameters
    ----------
    path, bits, lanes, msb_first
        As for `write_hex`.
    signed : bool
        Whether the values are two's complement.

    Returns
    -------
    ndarray of int64, or uint64 for unsigned values of 64 bits
        One dimension: `lanes` values a line.

    Raises
    ------
    TypeError
        If a number is of another type.
    ValueError
        If a line is no word of ``bits * lanes`` bits; the message names it.
    OSError
        If the file cannot be read.

    Notes
    -----
    Empty lines and ``//`` comments are skipped and underscores ignored, as ``$readmemh`` does.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import abcdeep_core as ab
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "x.hex")
    ...     ab.rtl.write_hex(path, [1, -1, 2, -8], 4, lanes=2)
    ...     ab.rtl.read_hex(path, 4, lanes=2).tolist(), ab.rtl.read_hex(path, 8).tolist()
    ([1, -1, 2, -8], [-15, -126])
    """
    bits = integer("bits", bits, 1, 64)
    lanes = integer("lanes", lanes, 1)
    boolean("signed", signed)
    boolean("msb_first", msb_first)
    mask, half = (1 << bits) - 1, 1 << (bits - 1)
    values = []
    for word in read_words(path, bits * lanes):
        places = range(lanes - 1, -1, -1) if msb_first else range(lanes)
        for place in places:
            value = (word >> (place * bits)) & mask
            values.append(value - (mask + 1) if signed and value >= half else value)
    return np.array(values, np.int64 if signed or bits < 64 else np.uint64)


def pack(values: Sequence[int], bits: int, lanes: int, msb_first: bool) -> list[int]:
    """Return the words of `lanes` values each."""
    lanes = integer("lanes", lanes, 1)
    boolean("msb_first", msb_first)
    if len(values) % lanes:
        raise ValueError(f"values must be a multiple of lanes={lanes} in number, got {len(values)}")
    mask = (1 << bits) - 1
    words = []
    for first in range(0, len(values), lanes):
        word = 0
        group = values[first : first + lanes]
        for value in group if msb_first else reversed(group):
            word = word << bits | value & mask
        words.append(word)
    return words


def write_words(path: str | os.PathLike[str], words: Iterable[int], bits: int) -> None:
    """Write words of `bits` bits, one a line."""
    digits = hex_digits(bits)
    Path(path).write_text("".join(f"{word:0{digits}x}\n" for word in words), encoding="ascii")


def read_words(path: str | os.PathLike[str], bits: int) -> list[int]:
    """Return the words of a file; ValueError names a line that is none of `bits` bits."""
    words = []
    lines = Path(path).read_text(encoding="ascii", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        text = line.partition("//")[0].strip().replace("_", "")
        if not text:
            continue
        good = all(digit in "0123456789abcdefABCDEF" for digit in text)
        if not good or int(text, 16) >> bits:
            raise ValueError(f"line {number} must be a hexadecimal word of {bits} bits, got {line}")
        words.append(int(text, 16))
    return words


def hex_digits(bits: int) -> int:
    """Return how many hexadecimal digits hold `bits` bits."""
    return -(-bits // 4)


def integers(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return an integer array; TypeError for another kind."""
    array = np.asarray(values)
    if array.size == 0 and not isinstance(values, np.ndarray):
        return array.astype(np.int64)
    if array.dtype.name in ("int4", "uint4", "int2", "uint2"):  # of ml_dtypes, whose kind is "V"
        return array.astype(np.int16)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got {array.dtype}")
    return array


def fit(name: str, values: npt.NDArray[Any], lowest: int, highest: int, what: str = "") -> None:
    """Raise ValueError with the first value outside lowest..highest."""
    if not values.size or (int(values.min()) >= lowest and int(values.max()) <= highest):
        return
    for index, value in np.ndenumerate(values):
        if not lowest <= int(value) <= highest:
            kind = f" ({what})" if what else ""
            place = f" at {list(index)}" if index else ""
            raise ValueError(
                f"{name} must be in {lowest}..{highest}{kind}, got {int(value)}{place}"
            )
