"""Which weights of a model a mask keeps, and the decay of the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .layers import Layer
from .linear import FORWARD, gemm_layers
from .sparsity import Mask


def weight_masks(model: Layer) -> list[Mask | None]:
    """Return the mask of each weight in the forward product of the latest training step.

    Parameters
    ----------
    model : Layer

    Returns
    -------
    list of (ndarray of bool, or None)
        One for each layer with a matrix product, in their order; in the shape of the weight. None
        where the weight is dense, or has not been trained with its arithmetic.

    Raises
    ------
    AttributeError
        Something that is not a layer.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> model = ab.nn.Sequential(ab.nn.Linear(8, 4), ab.nn.ReLU(), ab.nn.Linear(4, 3), seed=0)
    >>> model.set_arithmetic(ab.nn.nm_arithmetic(2, 4, seed=0))
    >>> _ = model.forward(np.ones((1, 8), np.float32), training=True)
    >>> [None if mask is None else float(mask.mean()) for mask in ab.nn.weight_masks(model)]
    [0.5, None]
    """
    return [
        _find_mask(layer.quantizer_states.get((FORWARD, 1), {})) for layer in gemm_layers(model)
    ]


@dataclass(frozen=True)
class MaskedDecay:
    """Weight decay of what a mask leaves out, by way of the gradient: ``before_update`` of `train`.

    Where a weight is masked in the forward product, `rate` times the weight is added to its
    gradient, so that masks settle: what is not used shrinks, and comes back only if its gradient
    outweighs that.

    Parameters
    ----------
    rate : float
        Of the decay, at least 0.

    Raises
    ------
    ValueError
        A negative rate, NaN or infinity.

    Notes
    -----
    "Accelerating transformer pre-training with 2:4 sparsity" (FST), arXiv 2404.01847, with a
    transposable mask that is kept for 40 steps.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> model = ab.nn.Sequential(ab.nn.Linear(4, 1), seed=0)
    >>> model.set_arithmetic(ab.nn.nm_arithmetic(2, 4, weight="magnitude", seed=0))
    >>> model.layers[0].weight.value = np.float32([[4], [1], [-2], [3]])
    >>> _ = model.forward(np.ones((1, 4), np.float32), training=True)
    >>> ab.nn.MaskedDecay(0.5)(model)
    >>> model.layers[0].weight.gradient.ravel()
    array([ 0. ,  0.5, -1. ,  0. ], dtype=float32)
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate < math.inf:
            raise ValueError(f"rate: expected a finite number of at least 0, got {self.rate!r}")

    def __call__(self, model: Layer, /) -> None:
        """Add the decay to the gradients of the masked weights of `model`."""
        for layer, mask in zip(gemm_layers(model), weight_masks(model), strict=True):
            if mask is not None:
                weight = layer.weight
                unused = np.where(mask, weight.value.dtype.type(0), weight.value)
                weight.gradient = weight.gradient + weight.value.dtype.type(self.rate) * unused


def _find_mask(state: dict[Any, Any]) -> Mask | None:
    """Return the mask in the state of a quantiser or of a chain's members."""
    if "mask" in state:
        mask: Mask | None = state["mask"]
        return mask
    found = [_find_mask(inner) for inner in state.values() if isinstance(inner, dict)]
    return next((mask for mask in found if mask is not None), None)
