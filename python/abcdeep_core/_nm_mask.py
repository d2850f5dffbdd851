"""`nm_mask`: the n largest magnitudes of every m neighbours."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, as_array, check_out, deliver, is_plain
from ._format_base import boolean
from ._names import canonical
from ._nm_groups import Groups, as_scores, check_pattern, refuse_nonfinite
from ._threads import check_threads

_OUTPUT = {name: name for name in ("mask", "values", "indices")}


def nm_mask(
    x: npt.ArrayLike,
    n: SupportsIndex,
    m: SupportsIndex,
    axis: SupportsIndex = -1,
    *,
    remainder: str = "error",
    nonzero_only: bool = False,
    output: str = "mask",
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> Array:
    """Keep the `n` elements of largest magnitude in every group of `m` along `axis`.

    Of all N:M patterns this one has the smallest squared error. It is biased: what is small is
    always dropped. `nm_unbiased` is the unbiased counterpart for gradients.

    Parameters
    ----------
    x : array_like of floats, or integers of at most 16 bits
        Weights, or scores of any other kind; magnitudes are ranked. Finite.
    n, m : int
        1 <= n <= m <= 32.
    axis : int
        Axis along which the groups lie: that over which a matrix product sums. A convolution's
        weights (O, I, kH, kW) have groups of input channels with ``axis=1``.
    remainder : {"error", "pad"}
        Where `m` does not divide the length of the axis: raise, or fill the last group up with
        zeros at its end, which are not part of the result.
    nonzero_only : bool
        Never keep zeros. By default every full group keeps exactly `n`.
    output : {"mask", "values", "indices"}
        What is returned.
    out : ndarray, optional
        Array for the result, of its shape and dtype. With ``output="values"`` it may be `x` itself.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray
        "mask": bool, of the shape of `x`. "values": `x` where kept, else +0, in its dtype.
        "indices": uint8, positions within each group in increasing order; the axis of the groups
        comes last but one, that of the `n` positions last.

    Raises
    ------
    TypeError
        If `x` holds neither floats nor narrow integers, or for "values" has a dtype without zero;
        an argument is of the wrong type.
    ValueError
        If `x` is not finite, or `n`, `m`, `axis` or a name is out of range; for "indices" if a
        group has no `n` elements to keep.

    Notes
    -----
    Elements of the same magnitude rank by their index, +0 and -0 alike. Source of the 2:4 pattern:
    Mishra et al., "Accelerating sparse deep neural networks", arXiv:2104.08378.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.float32([[3, -1, 2, 0.5, 1, -1, 1, 1]])
    >>> ab.nm_mask(x, 2, 4).astype(int)
    array([[1, 0, 1, 0, 1, 1, 0, 0]])
    >>> ab.nm_mask(x, 2, 4, output="values")
    array([[ 3.,  0.,  2.,  0.,  1., -1.,  0.,  0.]], dtype=float32)
    >>> ab.nm_mask(x, 2, 4, output="indices")
    array([[[0, 2],
            [0, 1]]], dtype=uint8)
    """
    n, m = check_pattern(n, m)
    given = as_array("x", x)
    scores = as_scores("x", given)
    groups = Groups.along(scores.shape, axis, m, remainder)
    kind = canonical("output", output, _OUTPUT)
    only = boolean("nonzero_only", nonzero_only)
    if kind == "indices":
        _check_every_group_keeps(n, groups, only)
    shape = (*groups.words_shape, n) if kind == "indices" else given.shape
    dtype = {"mask": np.dtype(np.bool_), "values": given.dtype, "indices": np.dtype(np.uint8)}[kind]
    if kind == "values" and np.zeros((), given.dtype) != 0:
        raise TypeError(f"x: expected a dtype that has a zero for 'values', got {given.dtype}")
    if out is not None:
        check_out(out, shape, dtype)
    direct = kind == "mask" and out is not None and is_plain(out)
    direct = direct and not np.may_share_memory(scores, out)
    mask = out if direct and out is not None else np.empty(given.shape, np.bool_)
    flags = 0
    source = np.ascontiguousarray(scores)
    number = check_threads(threads)
    if source.size:
        flags = _core.nm_mask(
            source.reshape(-1), mask.reshape(-1), *groups.sizes, n, m, only, number
        )
    if flags & _core.nm_not_finite:
        refuse_nonfinite("x", scores)
    result: Any = mask
    if kind == "values":
        result = np.where(mask, given, np.zeros((), given.dtype))
    elif kind == "indices":
        result = _indices(mask, groups, n)
    return deliver(result, out)


def _check_every_group_keeps(n: int, groups: Groups, nonzero_only: bool) -> None:
    if nonzero_only:
        raise ValueError("nonzero_only: expected False for output='indices', got True")
    last = groups.shape[groups.axis] - (groups.count - 1) * groups.m
    if groups.count and last < n:
        raise ValueError(
            f"x: expected at least n={n} elements in the last group for output='indices', "
            f"got {last}"
        )


def _indices(mask: Array, groups: Groups, n: int) -> Array:
    lines = np.moveaxis(mask, groups.axis, -1)
    positions = np.nonzero(lines)[-1] % groups.m
    return positions.astype(np.uint8).reshape(*groups.words_shape, n)
