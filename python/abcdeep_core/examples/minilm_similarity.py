"""How far the similarities of sentences move when the arithmetic of their model changes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .minilm import Array

Float64Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Similarities of sentences against those of a reference.

    Attributes
    ----------
    pearson, spearman : float or None
        Correlation of the similarities of all pairs of different sentences, and of their ranks;
        None if all of one side are the same number.
    mean_difference : float
        Mean of the absolute differences of the similarities.
    neighbour_changed : float
        Share of the sentences whose nearest other sentence is another one than in the reference.
    paraphrase_missed : float
        Share of the sentences whose nearest other sentence is not their paraphrase.
    """

    pearson: float | None
    spearman: float | None
    mean_difference: float
    neighbour_changed: float
    paraphrase_missed: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return dataclasses.asdict(self)


def compare(vectors: Array, reference: Array) -> Agreement:
    """Return how the cosine similarities of unit vectors agree with those of a reference.

    Parameters
    ----------
    vectors, reference : ndarray, shape (sentences, hidden)
        Rows 2i and 2i + 1 belong to paraphrases; at least two pairs.

    Returns
    -------
    Agreement

    Examples
    --------
    >>> import numpy as np
    >>> from abcdeep_core.examples.minilm_similarity import compare
    >>> unit = np.float32([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]])
    >>> found = compare(unit[:, ::-1], unit)
    >>> found.mean_difference, found.neighbour_changed, found.paraphrase_missed
    (0.0, 0.0, 0.5)
    """
    found, expected = (_similarities(rows) for rows in (vectors, reference))
    above = np.triu_indices(len(found), k=1)
    one, other = found[above], expected[above]
    nearest = [_nearest(similarities) for similarities in (found, expected)]
    paraphrase = np.arange(len(found)) ^ 1
    return Agreement(
        pearson=_correlation(one, other),
        spearman=_correlation(_ranks(one), _ranks(other)),
        mean_difference=float(np.abs(one - other).mean()),
        neighbour_changed=float((nearest[0] != nearest[1]).mean()),
        paraphrase_missed=float((nearest[0] != paraphrase).mean()),
    )


def _similarities(vectors: Array) -> Float64Array:
    wide = vectors.astype(np.float64)
    return wide @ wide.T


def _nearest(similarities: Float64Array) -> npt.NDArray[np.int64]:
    others = similarities.copy()
    np.fill_diagonal(others, -math.inf)
    return np.asarray(others.argmax(axis=1))


def _correlation(x: Float64Array, y: Float64Array) -> float | None:
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else None


def _ranks(x: Float64Array) -> Float64Array:
    """Return the rank of every element, equal ones with the mean of theirs."""
    _, group, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group].astype(np.float64)
