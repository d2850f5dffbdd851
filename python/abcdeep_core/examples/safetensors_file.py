"""Reads a safetensors file: named arrays behind a header of JSON, checked before any use."""

from __future__ import annotations

import json
import math
import os
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import ml_dtypes
import numpy as np
import numpy.typing as npt

Tensors: TypeAlias = dict[str, npt.NDArray[Any]]

# The names that the format gives to element types; its data are little-endian.
_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype("<u1"),
    "I8": np.dtype("<i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000  # the format's own limit


class _Entry(NamedTuple):
    """Where one array lies among the data."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


def read_safetensors(path: str | os.PathLike[str]) -> Tensors:
    """Return the arrays of a safetensors file by name.

    The file is the length of the header (8 bytes, little-endian), the header (JSON: element type,
    shape and place of every array), and the data of all arrays without gaps.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    dict of str to ndarray
        Read-only views into one copy of the file, in the order of their data.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a safetensors file, is cut off, or has an element type NumPy does not know; the
        text names the file and, where it is about one, the array.

    Examples
    --------
    >>> import json, tempfile, pathlib
    >>> from abcdeep_core.examples.safetensors_file import read_safetensors
    >>> header = json.dumps({"w": {"dtype": "I8", "shape": [2, 1], "data_offsets": [0, 2]}})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "tiny.safetensors")
    ...     written = path.write_bytes(
    ...         len(header).to_bytes(8, "little") + header.encode() + bytes([1, 255])
    ...     )
    ...     read_safetensors(path)["w"].tolist()
    [[1], [-1]]
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        begin = _header_end(content)
        entries = _entries(content[_LENGTH_BYTES:begin], len(content) - begin)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
    return {
        entry.name: np.frombuffer(
            content, entry.dtype, count=math.prod(entry.shape), offset=begin + entry.begin
        ).reshape(entry.shape)
        for entry in entries
    }


def _header_end(content: bytes) -> int:
    """Return where the data begin."""
    if len(content) < _LENGTH_BYTES:
        raise ValueError(
            f"expected the 8 bytes of a safetensors header's length, got {len(content)}"
        )
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    present = len(content) - _LENGTH_BYTES
    if length > min(present, _LONGEST_HEADER):
        raise ValueError(
            f"expected a safetensors header of {length} bytes, got {present} bytes"
            if length <= _LONGEST_HEADER
            else f"not a safetensors file: a header of {length} bytes"
        )
    return _LENGTH_BYTES + length


def _entries(header: bytes, data_bytes: int) -> list[_Entry]:
    """Return the arrays that a header lists, in the order of their data; they fill the data."""
    try:
        fields = json.loads(header)
    except (ValueError, RecursionError):  # of the JSON or of its UTF-8
        raise ValueError("the safetensors header is not JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("the safetensors header is not a JSON object")
    entries = [
        _entry(name, value, data_bytes) for name, value in fields.items() if name != "__metadata__"
    ]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    position = 0
    for entry in entries:
        if entry.begin != position:
            raise ValueError(
                f"array {entry.name!r} begins at byte {entry.begin} of the data, expected"
                f" {position}"
            )
        position = entry.end
    if position != data_bytes:
        raise ValueError(f"the arrays have {position} bytes, the file has {data_bytes} of data")
    return entries


def _entry(name: str, value: Any, data_bytes: int) -> _Entry:
    if not isinstance(value, dict):
        raise ValueError(f"array {name!r}: expected an object in the header, got {value!r}")
    kind, shape = value.get("dtype"), value.get("shape")
    offsets = value.get("data_offsets")
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise ValueError(f"array {name!r}: expected one of {', '.join(_DTYPES)}, got {kind!r}")
    if not _are_sizes(shape):
        raise ValueError(f"array {name!r}: expected a shape, got {shape!r}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"array {name!r}: expected two data_offsets, got {offsets!r}")
    begin, end = offsets
    dtype = _DTYPES[kind]
    needed = math.prod(shape) * dtype.itemsize
    if end > data_bytes or end - begin != needed:
        raise ValueError(
            f"array {name!r}: expected {needed} bytes within the {data_bytes} of the file,"
            f" got bytes {begin} to {end}"
        )
    return _Entry(name, dtype, tuple(shape), begin, end)


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)
