"""Matrix products of a sentence model in other arithmetics: narrow floats, and int8 operands."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import abcdeep_core as ab

from .minilm import Array, SentenceModel

LARGEST = 127  # of the integers: int8, symmetric


@dataclasses.dataclass(frozen=True)
class FloatProducts:
    """Products of float32 operands through an accumulator, for `SentenceModel.encode`.

    Parameters
    ----------
    datapath : Datapath
        Of floats.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> from abcdeep_core.examples.minilm_products import FloatProducts
    >>> product = FloatProducts(ab.get_accumulator("m4e3"))
    >>> product("layer0.query", np.float32([[1, 1]]), np.float32([[2], [1 / 64]])).tolist()
    [[2.0]]
    """

    datapath: ab.Datapath

    def __call__(self, name: str, x: Array, w: Array) -> Array:
        """Return x @ w."""
        return np.asarray(ab.matmul(x, np.ascontiguousarray(w), self.datapath), np.float32)


class EventProducts:
    """`FloatProducts` that also count numerical events, over all calls.

    Parameters
    ----------
    datapath : Datapath
        Of floats.
    """

    def __init__(self, datapath: ab.Datapath) -> None:
        self.datapath = datapath
        self.events: ab.Events | None = None

    def __call__(self, name: str, x: Array, w: Array) -> Array:
        """Return x @ w."""
        y, found = ab.matmul(x, np.ascontiguousarray(w), self.datapath, events=True)
        self.events = found if self.events is None else self.events + found
        return np.asarray(y, np.float32)

    def share(self, event: str, unit: str) -> float:
        """Return how often an event happened, of the number of ``"terms"`` or ``"steps"``."""
        counts = {} if self.events is None else self.events.to_dict()
        return float(counts[event] / counts[unit]) if counts.get(unit) else 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Int8Layer:
    """A linear layer with int8 operands: real numbers are scale times integer.

    Attributes
    ----------
    weight : ndarray of int8, shape (K, N)
        Within +-127, one scale an output channel.
    weight_scale : ndarray of float32, shape (N,)
    input_scale : float32
        One for all activations; those beyond the range are clipped to +-127.
    """

    weight: npt.NDArray[np.int8]
    weight_scale: Array
    input_scale: np.float32

    @classmethod
    def quantize(cls, weight: Array, largest_input: float) -> Int8Layer:
        """Return the layer of a float32 weight (K, N) and the largest magnitude of its inputs."""
        largest = np.abs(weight).max(axis=0)
        scale = np.asarray(np.where(largest > 0, largest, 1) / LARGEST, np.float32)
        input_scale = np.float32((largest_input or 1) / LARGEST)
        return cls(_integers(weight / scale), scale, input_scale)

    def integers(self, x: Array) -> npt.NDArray[np.int8]:
        """Return activations as integers: divided by the scale, to nearest even, clipped."""
        return _integers(x / self.input_scale)


def _integers(x: Array) -> npt.NDArray[np.int8]:
    return np.clip(np.rint(x), -LARGEST, LARGEST).astype(np.int8, order="C")


@dataclasses.dataclass(frozen=True, eq=False)
class Int8Products:
    """Products of int8 operands through an accumulator, for `SentenceModel.encode`.

    Parameters
    ----------
    layers : mapping of str to Int8Layer
    datapath : Datapath
        Of integers; sums are scaled back to float32.
    inputs : dict, optional
        Receives the integer activations (tokens, K) of every layer.
    """

    layers: Mapping[str, Int8Layer]
    datapath: ab.Datapath
    inputs: dict[str, npt.NDArray[np.int8]] | None = None

    def __call__(self, name: str, x: Array, w: Array) -> Array:
        """Return x @ w; `w` itself is not used."""
        layer = self.layers[name]
        integers = layer.integers(x)
        if self.inputs is not None:
            self.inputs[name] = integers
        sums = ab.matmul(integers, layer.weight, self.datapath)
        return np.asarray(sums * (layer.weight_scale * layer.input_scale), np.float32)


def calibrate(model: SentenceModel, sentences: Sequence[str]) -> dict[str, Int8Layer]:
    """Return every linear layer with int8 operands.

    Parameters
    ----------
    model : SentenceModel
    sentences : sequence of str
        The largest magnitude of the inputs of a layer for these sentences, in float32, becomes 127.

    Returns
    -------
    dict of str to Int8Layer
        In the order in which the layers run.
    """
    largest: dict[str, float] = {}

    def product(name: str, x: Array, w: Array) -> Array:
        largest[name] = float(np.abs(x).max())
        return x @ w

    model.encode(sentences, product)
    return {name: Int8Layer.quantize(model.weight(name), top) for name, top in largest.items()}


def overflow_source(
    model: SentenceModel, layers: Mapping[str, Int8Layer], sentences: Sequence[str]
) -> ab.overflow.ArraySource:
    """Return the layers with their integer inputs, for `abcdeep_core.overflow_report`.

    Parameters
    ----------
    model : SentenceModel
    layers : mapping of str to Int8Layer
        From `calibrate`.
    sentences : sequence of str
        Run with exact sums; a sample of the report is one token of these.

    Returns
    -------
    ArraySource
    """
    inputs: dict[str, npt.NDArray[Any]] = {}
    model.encode(sentences, Int8Products(layers, ab.get_accumulator("int32:wrap"), inputs))
    described = [
        ab.OverflowLayer(
            name=name,
            weight=layer.weight,
            input_range=(-LARGEST, LARGEST),
            weight_range=(-LARGEST, LARGEST),
            input_type="s8",
            weight_type="s8",
            input_scale=float(layer.input_scale),
            weight_scale=layer.weight_scale,
        )
        for name, layer in layers.items()
    ]
    return ab.overflow.ArraySource(described, inputs)
