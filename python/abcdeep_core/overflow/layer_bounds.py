"""The bounds of a layer: those of its weight matrix, group by group."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from .._arrays import Array
from ..bounds import AccumulatorBounds, accumulator_bounds
from .layer import OverflowLayer


def layer_bounds(
    layer: OverflowLayer,
    input_ranges: tuple[Array, Array] | None = None,
    *,
    tiled: bool = False,
) -> AccumulatorBounds:
    """Return the bounds of all channels of a layer, from its ranges, weights and bias.

    Parameters
    ----------
    layer : OverflowLayer
    input_ranges : pair of ndarray of int, shape (groups, K), optional
        Lowest and highest value of each of the K operands of each group, for the bound of that
        name. Without them it is that of ``sign_split``.
    tiled : bool
        Whether sums are cut into tiles: those after the first start from zero, not from the bias.

    Returns
    -------
    AccumulatorBounds
        All channels, in their order.

    Raises
    ------
    TypeError, ValueError
        As `accumulator_bounds`.
    """
    if tiled and layer.bias is not None:
        plain = layer_bounds(dataclasses.replace(layer, bias=None), input_ranges)
        return layer_bounds(layer, input_ranges).union(plain)
    size = layer.channels // layer.groups
    parts = [
        accumulator_bounds(
            layer.matrix(group),
            layer.input_range,
            w_range=layer.weight_range,
            bias=None if layer.bias is None else layer.bias[group * size : (group + 1) * size],
            input_ranges=None
            if input_ranges is None
            else (input_ranges[0][group], input_ranges[1][group]),
        )
        for group in range(layer.groups)
    ]
    return AccumulatorBounds.concatenate(parts)


def observed_ranges(layer: OverflowLayer, x: npt.ArrayLike) -> tuple[Array, Array]:
    """Return the lowest and the highest value of each operand in an input, each (groups, K).

    Raises
    ------
    TypeError, ValueError
        If `x` is no input of the layer, or holds no dot product.
    """
    rows = [layer.rows(layer.check_input(x), group) for group in range(layer.groups)]
    if not len(rows[0]):
        raise ValueError(f"{layer.name}: input must hold at least one sample, got none")
    lowest = np.stack([group.min(axis=0) for group in rows])
    return lowest, np.stack([group.max(axis=0) for group in rows])
