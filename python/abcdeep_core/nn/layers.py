"""What a layer is, the layers without weights, and the sequence of layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .arithmetic import Arithmetic
from .operand import FloatArray


@dataclass(eq=False)
class Parameter:
    """A trained array and the gradient that the latest backward pass left for it.

    Parameters
    ----------
    value : ndarray of float32 or float64
        Updated in place by the optimiser.
    decay : bool
        Whether weight decay applies. Biases and normalisation parameters are left out.
    """

    value: FloatArray
    decay: bool = True
    gradient: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self.gradient = np.zeros_like(self.value)


class Layer:
    """A differentiable function of one array, float32 (or float64 throughout).

    A subclass writes `forward` and `backward`. What a backward pass needs is kept by a training
    forward pass with `_save`, and taken back, once, with `_take_saved`.
    """

    index: int = 0
    """Position among the layers of the model, from which a layer's random streams follow."""

    saved: tuple[tuple[int, ...], np.dtype[Any], tuple[Any, ...]] | None = None

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        """Return the output; with ``training=True`` also keep what `backward` needs.

        Parameters
        ----------
        x : ndarray of float32 or float64
        training : bool
            Whether a backward pass follows.

        Raises
        ------
        TypeError, ValueError
            A dtype or shape that the layer does not take.
        """
        raise NotImplementedError

    def backward(self, g: FloatArray) -> FloatArray:
        """Return the gradient of the input and set the gradients of the parameters.

        Parameters
        ----------
        g : ndarray
            Gradient of the output, in its shape and dtype.

        Raises
        ------
        RuntimeError
            If no training forward pass came before.
        """
        raise NotImplementedError

    def parameters(self) -> list[Parameter]:
        """Return the trained parameters, in a fixed order."""
        return []

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw the weights, if there are any that have not been drawn."""

    def leaves(self) -> Iterator[Layer]:
        """Yield the layers that a container holds, in the order of the forward pass, or itself."""
        yield self

    def set_arithmetic(self, arithmetic: Arithmetic) -> None:
        """Use `arithmetic` in every matrix product from now on."""

    def with_arithmetic(self, arithmetic: Arithmetic) -> Self:
        """Return an independent copy, with weights of its own, that computes with `arithmetic`."""
        model = copy.deepcopy(self)
        model.set_arithmetic(arithmetic)
        return model

    def _save(self, output: FloatArray, *saved: Any) -> None:
        self.saved = (output.shape, output.dtype, saved)

    def _take_saved(self, g: FloatArray) -> tuple[Any, ...]:
        if self.saved is None:
            name = type(self).__name__
            raise RuntimeError(f"{name}: expected forward(x, training=True) before each backward")
        shape, dtype, saved = self.saved
        self.saved = None
        if not isinstance(g, np.ndarray) or g.dtype != dtype:
            raise TypeError(f"g: expected an array of {dtype} as the output, got {_kind(g)}")
        if g.shape != shape:
            raise ValueError(f"g: expected the shape {shape} of the output, got {g.shape}")
        return saved


def _kind(x: Any) -> str:
    return f"{x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__


def check_input(
    layer: Layer,
    x: FloatArray,
    shape: tuple[int | str, ...],
    dtype: np.dtype[Any] | None = None,
) -> None:
    """Raise unless x is a float array of this shape: a string is any size, "..." any sizes."""
    name = type(layer).__name__
    if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float64):
        raise TypeError(f"x: {name} expected an array of float32 or float64, got {_kind(x)}")
    if dtype is not None and x.dtype != dtype:
        raise TypeError(f"x: {name} expected {dtype}, the dtype of its parameters, got {x.dtype}")
    given, expected = x.shape, shape
    if shape[0] == "...":
        expected = shape[1:]
        given = x.shape[max(x.ndim - len(expected), 0) :]
    if len(given) != len(expected) or any(
        isinstance(size, int) and size != found for size, found in zip(expected, given, strict=True)
    ):
        sizes = ", ".join(str(size) for size in shape)
        raise ValueError(f"x: {name} expected the shape ({sizes}), got {x.shape}")


def check_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return the dtype of a layer's parameters."""
    resolved = np.dtype(dtype)
    if resolved not in (np.float32, np.float64):
        raise TypeError(f"dtype: expected float32 or float64, got {resolved}")
    return resolved


class ReLU(Layer):
    """max(x, 0), with gradient 0 at 0.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> ab.nn.ReLU().forward(np.float32([-1, 2]))
    array([0., 2.], dtype=float32)
    """

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        """Return max(x, 0), in any shape."""
        check_input(self, x, ("...",))
        y: FloatArray = np.maximum(x, 0)
        if training:
            self._save(y, x > 0)
        return y

    def backward(self, g: FloatArray) -> FloatArray:
        """Return the gradient of the input."""
        (positive,) = self._take_saved(g)
        gradient: FloatArray = g * positive
        return gradient


class Flatten(Layer):
    """(N, ...) to (N, product of the other sizes)."""

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        """Return x with all axes but the first made one."""
        check_input(self, x, ("...", "D"))
        y = x.reshape(len(x), math.prod(x.shape[1:]))
        if training:
            self._save(y, x.shape)
        return y

    def backward(self, g: FloatArray) -> FloatArray:
        """Return the gradient of the input."""
        (shape,) = self._take_saved(g)
        return g.reshape(shape)


class Sequential(Layer):
    """Layers applied one after the other; itself a layer.

    Parameters
    ----------
    *layers : Layer
        In the order of the forward pass.
    seed : int, optional
        Draws the weights that have not been drawn, those of layer i from the generator of
        (seed, i).

    Raises
    ------
    TypeError
        Something that is not a layer.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> model = ab.nn.Sequential(
    ...     ab.nn.Linear(64, 32), ab.nn.ReLU(), ab.nn.Linear(32, 10), seed=0
    ... )
    >>> model.forward(np.ones((5, 64), np.float32)).shape
    (5, 10)
    """

    def __init__(self, *layers: Layer, seed: int | None = None) -> None:
        for layer in layers:
            if not isinstance(layer, Layer):
                raise TypeError(f"layers: expected Layer objects, got {type(layer).__name__}")
        self.layers = list(layers)
        for index, leaf in enumerate(self.leaves()):
            leaf.index = index
            if seed is not None:
                leaf.initialize(np.random.default_rng([seed, index]))

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        """Return the output of the last layer."""
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def backward(self, g: FloatArray) -> FloatArray:
        """Return the gradient of the input of the first layer."""
        for layer in reversed(self.layers):
            g = layer.backward(g)
        return g

    def parameters(self) -> list[Parameter]:
        """Return the parameters of all layers."""
        return [parameter for layer in self.layers for parameter in layer.parameters()]

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw the weights that have not been drawn, in the order of the layers."""
        for layer in self.layers:
            layer.initialize(rng)

    def leaves(self) -> Iterator[Layer]:
        """Yield the layers, those of nested containers in their place."""
        for layer in self.layers:
            yield from layer.leaves()

    def set_arithmetic(self, arithmetic: Arithmetic) -> None:
        """Use `arithmetic` in every matrix product of every layer from now on."""
        for layer in self.layers:
            layer.set_arithmetic(arithmetic)
