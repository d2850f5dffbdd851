"""Arrays from the .npy and .npz files that commands are given."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

SUFFIXES = (".npy", ".npz")
SINGLE = ""  # the name of the one array of a .npy file


def load(file: IO[bytes]) -> Any:
    """Return what `numpy.load` reads from an open file, without objects.

    Raises
    ------
    OSError, ValueError, EOFError, zipfile.BadZipFile
        If the file cannot be read, or holds no arrays of numbers.
    """
    import numpy as np

    try:
        return np.load(file, allow_pickle=False)
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        raise ValueError("expected arrays of numbers, as .npy or .npz files hold them") from None


def read_arrays(path: str) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a file by name.

    Raises
    ------
    OSError, ValueError, EOFError, zipfile.BadZipFile
        If the file cannot be read, or is not what its name says.
    """
    import numpy as np

    with open(path, "rb") as file:  # np.load leaves a file open that it cannot read
        loaded = load(file)
        if isinstance(loaded, np.ndarray):
            if Path(path).suffix != ".npy":
                raise ValueError("expected several arrays, got one, as .npy files hold it")
            return {SINGLE: loaded}
        if Path(path).suffix != ".npz":
            raise ValueError("expected one array, got several, as .npz files hold them")
        with loaded:
            arrays = {name: _member(loaded, name) for name in loaded.files}
    for name, x in arrays.items():
        if not isinstance(x, np.ndarray):
            raise ValueError(f"expected arrays only, got a member {name} that is none")
    return arrays


def _member(archive: Any, name: str) -> Any:
    try:
        return archive[name]
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        raise ValueError(f"expected arrays of numbers, got objects in {name}") from None
