"""Fashion-MNIST from a folder of idx files, as the Debian package installs them."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .accumulator_study import Data

DEBIAN_FOLDER = "/usr/share/datasets/fashion-mnist"
_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_UNSIGNED_BYTES = 8  # the type code of idx


def read_idx(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Return the array of unsigned bytes in an idx file, plain or compressed with gzip.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    ndarray of uint8

    Raises
    ------
    ValueError
        If it is not such a file, or is cut off.
    OSError
        If it cannot be read.

    Notes
    -----
    Two zero bytes, a type code, the number of axes, their sizes as big-endian 32-bit words, then
    the elements (http://yann.lecun.com/exdb/mnist).

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from abcdeep_core.examples.fashion_mnist import read_idx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "labels-idx1-ubyte")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    ...     read_idx(path)
    array([7, 8, 9], dtype=uint8)
    """
    raw = Path(path).read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"path: expected a whole gzip file, {path} is not: {error}") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _UNSIGNED_BYTES:
        raise ValueError(f"path: expected an idx file of unsigned bytes, {path} begins {raw[:4]!r}")
    axes = raw[3]
    start = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", raw[4:start]) if len(raw) >= start else (0,)
    values = np.frombuffer(raw, np.uint8, offset=min(start, len(raw)))
    if len(raw) < start or values.size != np.prod(shape, dtype=np.int64):
        raise ValueError(f"path: expected {shape} elements, {path} holds {values.size}")
    return values.reshape(shape)


def load_fashion_mnist(folder: str | os.PathLike[str] = DEBIAN_FOLDER) -> tuple[Data, Data]:
    """Return the 60000 training and 10000 test images with their labels.

    Parameters
    ----------
    folder : path-like
        Holds the four files of the data set, compressed (``.gz``) or not.

    Returns
    -------
    data, test : pair of ndarray
        Images (N, 1, 28, 28), float32, shifted and scaled to mean 0 and deviation 1 over the
        training data; labels (N,), int64 in 0 to 9.

    Raises
    ------
    FileNotFoundError
        If files are missing; the text says how to get them.
    ValueError
        If the files are not what their names say.
    """
    arrays = [read_idx(_find(Path(folder), name)) for name in _NAMES]
    for images, labels in (arrays[:2], arrays[2:]):
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise ValueError(
                f"folder: expected images (N, 28, 28) and labels (N,) in {folder}, got"
                f" {images.shape} and {labels.shape}"
            )
    mean, deviation = float(arrays[0].mean()), float(arrays[0].std()) or 1.0

    def pair(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> Data:
        scaled = (images[:, np.newaxis].astype(np.float32) - mean) / np.float32(deviation)
        return scaled.astype(np.float32), labels.astype(np.int64)

    return pair(arrays[0], arrays[1]), pair(arrays[2], arrays[3])


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no {name}.gz in {folder}: expected a folder with the four idx files of Fashion-MNIST."
        " On Debian and Ubuntu `apt-get install dataset-fashion-mnist` puts them into"
        f" {DEBIAN_FOLDER}; elsewhere fetch them from https://github.com/zalandoresearch/"
        "fashion-mnist and give their folder with --data"
    )
