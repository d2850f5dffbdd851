"""What NumPy computes in functions of sparsity does not depend on the caller's float state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from test_float_environment import STATES, float_state

TINY = np.float32([[1, 2, 3, 5], [9, 2, 4, 1], [7, 7, 1, 0], [3, 8, 2, 2]]) * np.float32(1e-40)


CHANNELS = np.hstack([TINY, 2 * TINY])
BESIDE = np.full((4, 3), 1e30, np.float32)
MASK = ab.nm_mask(TINY, 2, 4)


def certificate(w: Any) -> Any:
    mask, proof = ab.transposable_mask(w, 2, 4, return_certificate=True)
    proof.check(w, mask)
    return mask, proof.kept, proof.bound, proof.exponents


CALLS: dict[str, Callable[[], Any]] = {
    "nm_mask": lambda: ab.nm_mask(TINY, 2, 4),
    "nm_unbiased": lambda: ab.nm_unbiased(TINY, 2, 4, seed=1),
    "transposable_mask": lambda: certificate(TINY),
    "magnitude_mask": lambda: ab.magnitude_mask(TINY, keep=5),
    "magnitude_mask, rows": lambda: ab.magnitude_mask(TINY, keep=2, axis=1),
    "magnitude_mask, blocks": lambda: ab.magnitude_mask(TINY, keep=2, block=(2, 2)),
    "channel_permutation": lambda: ab.channel_permutation(CHANNELS),
    "nm_soft_threshold": lambda: ab.nm_soft_threshold(TINY, 2, 4),
    "masked operands": lambda: ab.matmul(
        TINY, BESIDE, ab.exact_accumulator(), a_mask=MASK, events=True
    ),
}  # fmt: skip


def as_bytes(result: Any) -> Any:
    if isinstance(result, tuple):
        return [as_bytes(part) for part in result]
    return result.tobytes() if isinstance(result, np.ndarray) else result


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", CALLS)
def test_the_state_of_the_caller_does_not_matter(name: str, state: Any) -> None:
    expected = as_bytes(CALLS[name]())
    with float_state(*state):
        result = CALLS[name]()
    assert as_bytes(result) == expected
