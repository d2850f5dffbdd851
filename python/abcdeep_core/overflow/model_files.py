"""`load_model`: the source of a report from a model file and a data file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ._captured import CapturedSource
from ._data_files import Data
from ._npz_model import load_npz
from .quantization import ZERO_POINTS, Quantization

_SUFFIXES = (".npz", ".onnx")


def load_model(
    path: str | os.PathLike[str],
    data: Data,
    *,
    quantise: str | None = None,
    per_channel: bool = True,
    affine: bool = False,
    zero_point: str = "subtract",
    calibration_samples: int = 256,
) -> CapturedSource:
    """Return the layers of a model file and their integer inputs on data.

    Parameters
    ----------
    path : path
        A .npz file of weights or an .onnx file (extra ``[onnx]``).
    data : path, ndarray, or mapping of str to ndarray
        A .npy file with the model's only input, a .npz file with several by name, or arrays;
        samples first. A .npy file is mapped into memory, so it may be larger than that.
    quantise : str, optional
        ``"int8"``, or ``"w4a8"`` for weights of 4 bits and inputs of 8: makes integers of float
        layers. Layers whose operands are integers are taken as they are.
    per_channel : bool
        Whether each output channel of a quantised weight has a scale of its own.
    affine : bool
        Whether quantised inputs are unsigned with a zero point; else signed and symmetric.
    zero_point : {"subtract", "fold"}
        Operands are code - zero_point, or the codes themselves with -zero_point * sum(weights) in
        the bias and the zero point in padding taps. A zero point of weights is always subtracted.
    calibration_samples : int
        How many of the first samples give the range of quantised inputs; later values saturate.

    Returns
    -------
    CapturedSource
        A `Source`; `skipped` names what is not analysed and why.

    Raises
    ------
    ImportError
        An .onnx file without the extra ``[onnx]``.
    OSError
        A file that cannot be opened.
    ValueError
        A damaged or unsupported file, float layers without `quantise`, data that do not fit the
        model or are not finite. The message names the file, and the layer or node.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "model.npz"
    ...     np.savez(path, fc=np.float32([[0.5, -1], [0.25, 1]]))
    ...     source = ab.overflow.load_model(path, np.float32([[2, -1]]), quantise="int8")
    >>> source.layers[0].weight
    array([[ 127, -127],
           [  64,  127]], dtype=int8)
    >>> source.inputs(0, 1)
    {'fc': array([[127, -64]], dtype=int8)}
    """
    if zero_point not in ZERO_POINTS:
        raise ValueError(f"zero_point: expected 'subtract' or 'fold', got {zero_point!r}")
    quantization = None
    if quantise is not None:
        settings: dict[str, Any] = {"per_channel": per_channel, "affine": affine}
        settings["calibration_samples"] = calibration_samples
        quantization = Quantization.from_name(quantise, **settings)
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise ValueError(f"{path}: expected a model in a .npz or .onnx file")
    if suffix == ".onnx":
        from .onnx_model import load_onnx as load
    else:
        load = load_npz
    name = os.fspath(path)
    if not Path(path).exists():
        raise FileNotFoundError(f"{name}: no such file")
    try:
        return load(name, data, quantization, zero_point)
    except (TypeError, ValueError) as error:
        message = str(error)
        if message.startswith((name, str(data) if isinstance(data, (str, os.PathLike)) else name)):
            raise ValueError(message) from None
        raise ValueError(f"{name}: {message}") from error
