"""The data of a model: arrays, or the .npy and .npz files they lie in."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from .._arrays import Array, as_array

Data: TypeAlias = Any  # a path, an array, or a mapping of names to arrays


class ArrayFile:
    """The array of a .npy file, mapped into memory when it is first looked at.

    Where it is pickled, only the path travels.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._array: Array | None = None
        self.shape, self.dtype = self.array.shape, self.array.dtype

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None}

    @property
    def array(self) -> Array:
        """The memory map."""
        if self._array is None:
            self._array = load_arrays(self.path)
        return self._array

    def __getitem__(self, index: slice) -> Array:
        return np.array(self.array[index])


def load_arrays(path: str | os.PathLike[str]) -> Any:
    """Return what np.load returns, a .npy mapped into memory.

    Raises
    ------
    ValueError
        Another or a damaged file.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = _one_line(error)
        raise ValueError(f"{path}: expected a .npy or .npz file of numbers: {reason}") from None


def read_npz(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return the arrays of an .npz file by name.

    Raises
    ------
    ValueError
        Another or a damaged file.
    """
    archive = load_arrays(path)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"{path}: expected an .npz archive, got a single array")
    arrays = {}
    with archive:
        for name in archive.files:
            try:
                arrays[name] = archive[name]
            except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
                raise ValueError(f"{path}: array {name!r}: {_one_line(error)}") from None
    return arrays


def read_data(data: Data) -> tuple[str, Mapping[str, Any]]:
    """Return a label for messages and the arrays of the data; a single array has the name "".

    Each has shape and dtype, and gives samples by slices.

    Raises
    ------
    TypeError, ValueError
        Something else than a path, an array, or a mapping; a damaged file.
    """
    if isinstance(data, (str, os.PathLike)):
        path = Path(data)
        if path.suffix == ".npz":
            return str(path), read_npz(path)
        if isinstance(load_arrays(path), np.lib.npyio.NpzFile):
            return str(path), read_npz(path)
        return str(path), {"": ArrayFile(path)}
    if isinstance(data, Mapping):
        return "data", {name: as_array(f"data[{name!r}]", x) for name, x in data.items()}
    return "data", {"": as_array("data", data)}


def count_samples(label: str, arrays: Mapping[str, Any]) -> int:
    """Return the number of samples, the first size of every array.

    Raises
    ------
    ValueError
        Arrays without an axis or of different lengths; no samples.
    """
    for name, x in arrays.items():
        if not x.shape:
            raise ValueError(f"{label}: {name or 'array'}: expected samples along axis 0, got ()")
    counts = {name: int(x.shape[0]) for name, x in arrays.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"{label}: expected the same number of samples everywhere, got {counts}")
    samples = next(iter(counts.values()))
    if not samples:
        raise ValueError(f"{label}: expected at least one sample, got none")
    return samples


def _one_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
