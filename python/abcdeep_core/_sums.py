"""Float64 sums in one fixed order, so that strides and the machine cannot change them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Array

_BLOCK = 1 << 16  # elements summed at a time: they stay in the cache


def sum_rows(*factors: Array) -> npt.NDArray[np.float64]:
    """Return the sum of every row of the product of matrices of floats of one shape.

    Blocks of 65,536 columns are summed, then these sums, each time by halves.
    """
    rows, columns = factors[0].shape
    starts = range(0, max(columns, 1), _BLOCK)
    sums = np.empty((rows, len(starts)))
    for i, start in enumerate(starts):
        terms = factors[0][:, start : start + _BLOCK].astype(np.float64)
        for factor in factors[1:]:
            terms *= factor[:, start : start + _BLOCK]
        sums[:, i] = _by_halves(terms)
    return _by_halves(sums)


def _by_halves(terms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Add the upper half of every row to the lower one until one number is left."""
    size = terms.shape[1]
    if size == 0:
        return np.zeros(len(terms))
    while size > 1:
        half = (size + 1) // 2
        terms[:, : size - half] += terms[:, half:size]
        size = half
    return terms[:, 0]
