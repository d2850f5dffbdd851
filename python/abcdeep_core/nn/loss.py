"""Softmax cross entropy: the loss of a classifier and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .operand import FloatArray


def softmax_cross_entropy(
    logits: FloatArray, labels: npt.NDArray[np.integer[Any]]
) -> tuple[float, FloatArray]:
    """Return the mean of -log softmax(logits)[label] over the batch, and its gradient.

    The largest logit of each row is subtracted first, so that no exponential overflows. Logits that
    are NaN or +Inf give a NaN loss.

    Parameters
    ----------
    logits : ndarray of float32 or float64, shape (N, classes)
    labels : ndarray of integers, shape (N,)
        Each in [0, classes).

    Returns
    -------
    loss : float
    gradient : ndarray
        Of the loss with respect to the logits, in their shape and dtype.

    Raises
    ------
    TypeError
        Logits that are not float32 or float64, labels that are not integers.
    ValueError
        Shapes that do not match, an empty batch, a label out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> loss, gradient = ab.nn.softmax_cross_entropy(np.float32([[0, 0]]), np.array([1]))
    >>> round(loss, 4), gradient
    (0.6931, array([[ 0.5, -0.5]], dtype=float32))
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.dtype not in (np.float32, np.float64):
        raise TypeError(f"logits: expected float32 or float64, got {logits.dtype}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels: expected integers, got {labels.dtype}")
    if logits.ndim != 2 or 0 in logits.shape:
        raise ValueError(f"logits: expected (N, classes), not empty, got {logits.shape}")
    count, classes = logits.shape
    if labels.shape != (count,):
        raise ValueError(f"labels: expected the shape ({count},), got {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels: expected 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        )
    rows = np.arange(count)
    with np.errstate(invalid="ignore"):  # Inf - Inf: the NaN of the loss tells
        shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    loss = np.mean(np.log(sums[:, 0]) - shifted[rows, labels])
    gradient = exponentials / sums
    gradient[rows, labels] -= 1
    gradient /= count
    return float(loss), gradient
