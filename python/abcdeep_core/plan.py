"""Which kernel computes a product, and the condition that permits it."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Plan:
    """The kernel that would compute a product.

    Parameters
    ----------
    path : str
        "native", "truncate", "nearest" and "odd" (float32 lanes), "odd64" (float64 lanes), "dot8",
        "dot16" and "integer" (32-bit lanes of four, two or one product), "integer16" (16-bit
        lanes), or "lanes", the general engine (float64 or 64-bit lanes).
    reason : str
        The condition that permits the path; for "lanes", what kept the others out.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> bytes_ = np.ones((4, 4), np.int8)
    >>> ab.integer_accumulator(40).plan(bytes_, bytes_)
    Plan(path='lanes', reason='integer: 40 bits do not fit 32-bit lanes')
    """

    path: str
    reason: str


class PathError(Exception):
    """Says why a fast path does not apply."""


def need(condition: bool, otherwise: str) -> None:
    """Raise PathError(otherwise) unless `condition`."""
    if not condition:
        raise PathError(otherwise)


Tile = Any  # a FloatTile or an IntegerTile
