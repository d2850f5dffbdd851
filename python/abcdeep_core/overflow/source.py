"""Where a report's operands come from: layers, and the inputs of any range of samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from .._arrays import Array
from .layer import OverflowLayer

Skipped = tuple[str, str]  # the name of a node, why it is not looked at


@runtime_checkable
class Source(Protocol):
    """A model and its data. What `inputs` returns does not depend on how samples are batched."""

    @property
    def title(self) -> str:
        """What people call it."""
        ...

    @property
    def layers(self) -> Sequence[OverflowLayer]:
        """The layers, each with a name of its own."""
        ...

    @property
    def samples(self) -> int:
        """Number of samples."""
        ...

    @property
    def skipped(self) -> Sequence[Skipped]:
        """Nodes that are not looked at, and why."""
        ...

    def inputs(self, begin: int, end: int) -> Mapping[str, Array]:
        """Return the integer inputs of samples [begin, end) by layer name, samples first."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Layers whose inputs are arrays (or memory maps), each with the samples first.

    Parameters
    ----------
    layers : sequence of OverflowLayer
    arrays : mapping of str to array_like
        The input of every layer by its name.
    title : str

    Raises
    ------
    TypeError, ValueError
        If names do not match, or inputs differ in their number of samples.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> layer = ab.OverflowLayer(name="fc", weight=np.ones((64, 10), np.int8), input_range="u8")
    >>> ab.overflow.ArraySource([layer], {"fc": np.ones((5, 64), np.uint8)}).samples
    5
    """

    layers: Sequence[OverflowLayer]
    arrays: Mapping[str, Any]
    title: str = ""
    skipped: Sequence[Skipped] = ()
    samples: int = dataclasses.field(init=False)
    independent_layers: ClassVar[bool] = True  # inputs of one layer cost no work for the others

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise ValueError(f"layers must have names of their own, got {names}")
        if set(names) != set(self.arrays):
            raise ValueError(
                f"inputs must be those of the layers {sorted(names)}, got {sorted(self.arrays)}"
            )
        counts = {name: _samples(name, x) for name, x in self.arrays.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"inputs must have the same number of samples, got {counts}")
        object.__setattr__(self, "samples", next(iter(counts.values()), 0))

    def inputs(self, begin: int, end: int) -> Mapping[str, Array]:
        """Return the inputs of samples [begin, end)."""
        return {name: x[begin:end] for name, x in self.arrays.items()}


def _samples(name: str, x: Any) -> int:
    shape = getattr(x, "shape", None)
    if not shape:
        raise TypeError(f"{name}: input must be an array with the samples first, got {type(x)}")
    return int(shape[0])
