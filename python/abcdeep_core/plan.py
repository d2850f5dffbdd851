"""Which kernel computes a product, and the condition that permits it."""

from __future__ import annotations

import dataclasses
from typing import Any

# Counted in docs/performance.md, "What bounds the speed"; `lanes` by its order of magnitude.
_RELATIVE_SPEED = {
    "native": 1.0,
    "truncate": 0.5,
    "nearest": 0.2,
    "odd": 0.25,
    "odd64": 0.1,
    "dot8": 4.0,
    "dot16": 2.0,
    "integer16": 2.0,
    "integer": 0.5,
    "lanes": 0.01,
}


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

    @property
    def relative_speed(self) -> float:
        """Expected speed beside a float32 product on vectors of the same width, roughly.

        From the operations of a step; the data (limits to check, products that need no rounding)
        and random bits change it by up to a factor of three.
        """
        return _RELATIVE_SPEED[self.path]


class PathError(Exception):
    """Says why a fast path does not apply."""


def need(condition: bool, otherwise: str) -> None:
    """Raise PathError(otherwise) unless `condition`."""
    if not condition:
        raise PathError(otherwise)


Tile = Any  # a FloatTile or an IntegerTile
