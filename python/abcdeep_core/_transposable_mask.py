"""`transposable_mask`: N kept in every row and every column of M x M blocks."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import (
    Array,
    check_out,
    deliver,
    is_plain,
)
from ._format_base import boolean
from ._names import canonical
from ._nm_groups import as_scores, check_pattern, refuse_nonfinite
from ._threads import check_threads
from .transposable_certificate import TransposableCertificate, certify

_METHODS: Mapping[str, str] = MappingProxyType(
    {name: name for name in ("exact", "heavy_first", "light_first")}
)
_METHOD_NUMBERS = {name: number for number, name in enumerate(_METHODS)}  # the kernel's order


@overload
def transposable_mask(
    w: npt.ArrayLike,
    n: SupportsIndex,
    m: SupportsIndex,
    *,
    method: str = ...,
    return_certificate: Literal[False] = ...,
    out: Array | None = ...,
    threads: SupportsIndex | None = ...,
) -> Array: ...


@overload
def transposable_mask(
    w: npt.ArrayLike,
    n: SupportsIndex,
    m: SupportsIndex,
    *,
    method: str = ...,
    return_certificate: Literal[True],
    out: Array | None = ...,
    threads: SupportsIndex | None = ...,
) -> tuple[Array, TransposableCertificate]: ...


def transposable_mask(
    w: npt.ArrayLike,
    n: SupportsIndex,
    m: SupportsIndex,
    *,
    method: str = "exact",
    return_certificate: bool = False,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> Array | tuple[Array, TransposableCertificate]:
    """Choose what to keep so that every row and column of each m x m block keeps n elements.

    One mask then serves a weight in the forward pass and its transpose in the backward pass. The
    exact method keeps the largest sum of magnitudes that such a mask can keep.

    Parameters
    ----------
    w : array_like of float32, float64 or narrower floats, or of integers of at most 16 bits
        Shape (..., R, C). The last two axes are cut into blocks; R and C are multiples of `m`.
        Only magnitudes count.
    n, m : int
        1 <= n <= m <= 32.
    method : {"exact", "heavy_first", "light_first"}
        ``"heavy_first"`` goes from the heaviest element to the lightest and keeps what row and
        column still have room for; it may keep fewer than `n`. ``"light_first"`` goes from the
        lightest on and prunes where the row or the column still lacks zeros: it prunes less than
        twice the weight that the exact method does, but may also keep fewer than `n`.
    return_certificate : bool
        Also return the proof that the exact mask is the best one.
    out : ndarray of bool, optional
        Array for the mask, of the shape of `w`.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    mask : ndarray of bool, shape of `w`
    certificate : TransposableCertificate
        Only if `return_certificate` is true.

    Raises
    ------
    TypeError
        If `w` holds neither floats nor integers of at most 16 bits, or an argument is of the wrong
        type.
    ValueError
        If `w` has fewer than two axes, its last two are not multiples of `m`, or it holds NaN or
        infinities; `n`, `m` or `method` is none of the above; a certificate is asked of a greedy
        method.

    Notes
    -----
    Transposable masks and the 2-approximation that ``"light_first"`` is: arXiv 2102.08124. For 2:4
    the exact mask is the first in lexicographic order of the 90 patterns with the largest sum in
    float64; for any other n and m it maximises the sum of floor(abs(w) * 2^(40 - E)), E being the
    exponent of the block's largest magnitude (docs/transposable_masks.md).

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> w = np.float32([[9, -8, 1, 0], [7, 6, 2, 3], [1, 5, 4, 4], [-2, 1, 8, 9]])
    >>> mask = ab.transposable_mask(w, 2, 4)
    >>> mask.astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 0, 0],
           [0, 0, 1, 1],
           [0, 0, 1, 1]])
    >>> w = np.random.default_rng(1).standard_normal((64, 128)).astype(np.float32)
    >>> mask, certificate = ab.transposable_mask(w, 4, 8, return_certificate=True)
    >>> set(mask.reshape(8, 8, 16, 8).sum(axis=1).ravel().tolist())
    {4}
    >>> certificate.check(w, mask)
    >>> int(certificate.gap.max())
    0
    """
    array = as_scores("w", w)
    kept, size = check_pattern(n, m)
    name = canonical("method", method, _METHODS)
    if boolean("return_certificate", return_certificate) and name != "exact":
        raise ValueError(f"return_certificate: expected method 'exact', got {name!r}")
    if array.ndim < 2 or array.shape[-1] % size or array.shape[-2] % size:
        raise ValueError(
            f"w: expected last two axes that are multiples of m={size}, got shape {array.shape}"
        )
    if out is not None:
        check_out(out, array.shape, np.dtype(np.bool_))
    count = check_threads(threads)
    source = np.ascontiguousarray(array)
    fits = out is not None and is_plain(out) and not np.may_share_memory(out, source)
    target = out if out is not None and fits else np.empty(array.shape, np.bool_)
    blocks = (*array.shape[:-2], array.shape[-2] // size, array.shape[-1] // size)
    duals = [np.zeros((*blocks, size), np.int64) for _ in range(2 if return_certificate else 0)]
    if array.size and not _fill(source, target, duals, kept, size, name, count):
        refuse_nonfinite("w", array)
    mask = deliver(target, out)
    return (mask, certify(source, target, kept, *duals)) if return_certificate else mask


def _fill(
    source: Array, target: Array, duals: list[Array], n: int, m: int, method: str, threads: int
) -> bool:
    """Write the mask and the dual variables; return whether all weights are finite."""
    if n == m:
        target[...] = True
        return bool(np.isfinite(source).all())
    rows = target.view(np.uint8).reshape(-1, target.shape[-1])
    u, v = (dual.reshape(-1) for dual in duals) if duals else (None, None)
    number = _METHOD_NUMBERS[method]
    search = (n, m, method) == (2, 4, "exact")
    if search and duals:
        # The pattern search has no dual variables: those are of the solver's own mask.
        _core.transposable(source, np.empty_like(rows), n, m, number, False, u, v, threads)
        u = v = None
    return _core.transposable(source, rows, n, m, number, search, u, v, threads)
