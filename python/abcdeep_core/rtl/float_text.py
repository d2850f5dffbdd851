"""Text files of binary32 words: hexadecimal inputs and binary outputs of tensor-core models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import as_float32_array

_WIDTHS = {"hex": 8, "binary": 32}


def write_float_text(
    path: str | os.PathLike[str], values: npt.ArrayLike, notation: str = "hex"
) -> None:
    """Write float32 numbers as words of text, one a line.

    The MATLAB models of tensor cores read their inputs as 8 hexadecimal digits and write their
    outputs as 32 binary ones.

    Parameters
    ----------
    path : path
        The file.
    values : array_like of float32, or of narrower floats
        Any shape, taken in C order.
    notation : {"hex", "binary"}
        8 hexadecimal digits in lower case, or 32 characters 0 and 1; the sign is first.

    Returns
    -------
    None

    Raises
    ------
    TypeError
        If `values` are of another type, float64 too.
    ValueError
        If `notation` is unknown.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.txt")
    ...     ab.rtl.write_float_text(path, np.float32([1.5, -0.0]))
    ...     path.read_text().split()
    ['3fc00000', '80000000']
    """
    array = as_float32_array("values", values)
    width, spec = _width(notation), "x" if notation == "hex" else "b"
    words = np.ascontiguousarray(array).reshape(-1).view(np.uint32).tolist()
    text = "".join(f"{word:0{width}{spec}}\n" for word in words)
    Path(path).write_text(text, encoding="ascii")


def read_float_text(path: str | os.PathLike[str], notation: str = "hex") -> npt.NDArray[Any]:
    """Return the float32 numbers of a file as `write_float_text` writes it.

    Parameters
    ----------
    path : path
        The file.
    notation : {"hex", "binary"}
        As for `write_float_text`.

    Returns
    -------
    ndarray of float32
        One dimension, bit for bit what the file holds.

    Raises
    ------
    ValueError
        If `notation` is unknown, or a line is no such word; the message names it.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import abcdeep_core as ab
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "d.txt")
    ...     _ = path.write_text("11000000000000000000000000000000")
    ...     ab.rtl.read_float_text(path, "binary")
    array([-2.], dtype=float32)
    """
    width = _width(notation)
    digits = "01" if notation == "binary" else "0123456789abcdefABCDEF"
    words = []
    lines = Path(path).read_text(encoding="ascii", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if len(text) != width or not all(digit in digits for digit in text):
            raise ValueError(f"line {number} must be {width} {notation} digits, got {line!r}")
        words.append(int(text, 2 if notation == "binary" else 16))
    return np.array(words, np.uint32).view(np.float32)


def _width(notation: str) -> int:
    if notation not in _WIDTHS:
        raise ValueError(f"notation must be 'hex' or 'binary', got {notation!r}")
    return _WIDTHS[notation]
