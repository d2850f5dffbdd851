"""Normalisation layers. They hold no matrix product and compute in the dtype of their input."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .layers import Layer, Parameter, check_dtype, check_input
from .operand import FloatArray


class _Normalization(Layer):
    """y = scale * (x - mean) / sqrt(variance + epsilon) + shift, and its gradient."""

    def __init__(self, shape: tuple[int, ...], epsilon: float, dtype: npt.DTypeLike) -> None:
        self.dtype = check_dtype(dtype)
        if not shape or any(size < 1 for size in shape):
            raise ValueError(f"shape: expected sizes of at least 1, got {shape}")
        if not epsilon > 0:
            raise ValueError(f"epsilon: expected a positive number, got {epsilon}")
        self.scale = Parameter(np.ones(shape, self.dtype), decay=False)
        self.shift = Parameter(np.zeros(shape, self.dtype), decay=False)
        self.epsilon = epsilon

    def parameters(self) -> list[Parameter]:
        """Return scale and shift."""
        return [self.scale, self.shift]

    def _normalize(
        self, x: FloatArray, mean: FloatArray, variance: FloatArray, spread: tuple[int, ...]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return y, the normalised x and 1 / deviation; `spread` broadcasts parameters to x."""
        inverse = 1 / np.sqrt(variance + self.epsilon)
        normalized = (x - mean) * inverse
        y = self.scale.value.reshape(spread) * normalized + self.shift.value.reshape(spread)
        return y, normalized, inverse

    def backward(self, g: FloatArray) -> FloatArray:
        """Return the gradient of the input; sets those of scale and shift."""
        normalized, inverse, spread, statistics_axes, parameter_axes = self._take_saved(g)
        shape = self.scale.value.shape
        self.scale.gradient = (g * normalized).sum(axis=parameter_axes).reshape(shape)
        self.shift.gradient = g.sum(axis=parameter_axes).reshape(shape)
        # Mean and variance depend on every x, hence the two means that are taken off.
        g = g * self.scale.value.reshape(spread)
        along_mean = g.mean(axis=statistics_axes, keepdims=True)
        along_variance = (g * normalized).mean(axis=statistics_axes, keepdims=True)
        gradient: FloatArray = inverse * (g - along_mean - normalized * along_variance)
        return gradient


class BatchNorm(_Normalization):
    """Batch normalisation of (N, C) or (N, C, H, W) over all axes but C (arXiv 1502.03167).

    Training uses the statistics of the batch and averages them into `running_mean` and
    `running_variance` (unbiased); evaluation uses these.

    Parameters
    ----------
    features : int
        C; `scale` and `shift` are (C,).
    momentum : float
        Weight of the new batch in the running statistics.
    epsilon : float
        Added to the variance.
    dtype : float32 or float64
        Of the parameters; float64 is for checking gradients.

    Raises
    ------
    TypeError, ValueError
        Another dtype, numbers out of range; in training, fewer than two values per channel.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> layer = ab.nn.BatchNorm(2, epsilon=1e-12)
    >>> layer.forward(np.float32([[1, 10], [3, 30]]), training=True)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__((features,), epsilon, dtype)
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum: expected a number in (0, 1], got {momentum}")
        self.momentum = momentum
        self.running_mean = np.zeros(features, self.dtype)
        self.running_variance = np.ones(features, self.dtype)

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        """Return the normalised x, (N, C) or (N, C, H, W)."""
        (features,) = self.scale.value.shape
        sizes: tuple[int | str, ...] = ("N", features, "H", "W")
        check_input(self, x, sizes if np.ndim(x) == 4 else sizes[:2], self.dtype)
        axes = (0, 2, 3) if x.ndim == 4 else (0,)
        spread = (1, features, 1, 1) if x.ndim == 4 else (1, features)
        if not training:
            mean, variance = self.running_mean, self.running_variance
            return self._normalize(x, mean.reshape(spread), variance.reshape(spread), spread)[0]
        count = x.size // features
        if count < 2:
            raise ValueError(f"x: expected at least 2 values per channel to train, got {x.shape}")
        mean, variance = x.mean(axis=axes), x.var(axis=axes)
        self.running_mean += self.momentum * (mean - self.running_mean)
        unbiased = variance * (count / (count - 1))
        self.running_variance += self.momentum * (unbiased - self.running_variance)
        y, normalized, inverse = self._normalize(
            x, mean.reshape(spread), variance.reshape(spread), spread
        )
        self._save(y, normalized, inverse, spread, axes, axes)
        return y


class LayerNorm(_Normalization):
    """Layer normalisation over the last axes of each sample (arXiv 1607.06450).

    Parameters
    ----------
    shape : int or tuple of int
        Size of the last axis, or sizes of the last axes; `scale` and `shift` have this shape.
    epsilon : float
        Added to the variance.
    dtype : float32 or float64
        Of the parameters; float64 is for checking gradients.

    Raises
    ------
    TypeError, ValueError
        Another dtype, numbers out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> layer = ab.nn.LayerNorm(2, epsilon=1e-12)
    >>> layer.forward(np.float32([[1, 3], [10, 30]]))
    array([[-1.,  1.],
           [-1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        shape: int | tuple[int, ...],
        *,
        epsilon: float = 1e-5,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__((shape,) if isinstance(shape, int) else tuple(shape), epsilon, dtype)

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        """Return the normalised x, (..., *shape)."""
        shape = self.scale.value.shape
        check_input(self, x, ("...", *shape), self.dtype)
        rows = x.reshape(-1, math.prod(shape))
        last = tuple(range(x.ndim - len(shape), x.ndim))
        first = tuple(range(x.ndim - len(shape)))
        statistics = (*x.shape[: len(first)], *(1 for _ in shape))
        mean, variance = rows.mean(axis=1), rows.var(axis=1)
        y, normalized, inverse = self._normalize(
            x, mean.reshape(statistics), variance.reshape(statistics), shape
        )
        if training:
            self._save(y, normalized, inverse, shape, last, first)
        return y
