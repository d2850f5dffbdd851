"""The one check of every function's `threads=` argument."""

from __future__ import annotations

import operator
from typing import SupportsIndex

MAX_THREADS = 1024


def check_threads(threads: SupportsIndex | None) -> int:
    """Return `threads` for the compiled functions, where 0 stands for the default."""
    if threads is None:
        return 0
    try:
        count = operator.index(threads)
    except TypeError:
        raise TypeError(
            f"threads: expected an integer or None, got {type(threads).__name__}"
        ) from None
    if not 1 <= count <= MAX_THREADS:
        raise ValueError(f"threads: expected 1 to {MAX_THREADS}, got {count}")
    return count
