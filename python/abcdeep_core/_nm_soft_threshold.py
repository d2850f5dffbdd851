"""`nm_soft_threshold`: continuous n:m pruning, which shrinks what it keeps, and its scale."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, as_float_array
from ._hadamard import check_axis
from ._nm_groups import check_pattern, refuse_nonfinite


def nm_soft_threshold(
    w: npt.ArrayLike, n: SupportsIndex = 2, m: SupportsIndex = 4, axis: SupportsIndex = -1
) -> tuple[Array, float]:
    """Prune groups of m elements to n at most, continuously: sign(w) * (abs(w) - t) above t.

    t is the (m - n)-th smallest magnitude of the group, for n = m zero. Unlike a mask, whose values
    jump where the order of two magnitudes changes, the result is a continuous function of `w`.

    Parameters
    ----------
    w : array_like of float
        Finite. float32 and float64 keep their dtype, narrower floats give float32.
    n, m : int
        At most n of every m elements are kept, 1 <= n <= m <= 32.
    axis : int
        Axis along which the groups lie; m divides its length.

    Returns
    -------
    values : ndarray of float32 or float64, shape of `w`
        abs(w) - t is one subtraction, rounded to nearest even; +0 where nothing is left.
    beta : float
        The scale <w, values> / <values, values> under which beta * values is nearest to `w`, from
        float64 sums; 1 if all values are zero. Computed once, then frozen, in the source.

    Raises
    ------
    TypeError
        If `w` holds no floats or an argument is of the wrong type.
    ValueError
        If `w` holds NaN or an infinity, a number is out of range, or m does not divide the axis.

    Notes
    -----
    Hu et al., "S-STE: Continuous Pruning Function for Efficient 2:4 Sparse Pre-Training", NeurIPS
    2024.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> values, beta = ab.nm_soft_threshold(np.float32([[4, -1, 2, -3]]))
    >>> values, beta
    (array([[ 2.,  0.,  0., -1.]], dtype=float32), 2.2)
    """
    array = as_float_array("w", w)
    most, group = check_pattern(n, m)
    where = check_axis(axis, array.ndim)
    if array.shape[where] % group:
        raise ValueError(
            f"w: expected a multiple of m={group} elements along axis {where}, "
            f"got {array.shape[where]}"
        )
    if not np.isfinite(array).all():
        refuse_nonfinite("w", array)
    lines = np.moveaxis(array, where, -1)
    groups = np.ascontiguousarray(lines).reshape(*lines.shape[:-1], lines.shape[-1] // group, group)
    with _core.NearestEnvironment(), np.errstate(all="ignore"):
        magnitudes = np.abs(groups)
        threshold = np.zeros((), array.dtype)
        if most < group:
            threshold = np.sort(magnitudes, axis=-1)[..., group - most - 1, None]
        left = magnitudes - threshold
        # + 0: what is shrunk to nothing has no sign.
        soft = np.where(left > 0, np.copysign(left, groups), 0).astype(array.dtype)
        values = np.moveaxis(soft.reshape(lines.shape), -1, where)
        wide, wide_soft = groups.astype(np.float64).ravel(), soft.astype(np.float64).ravel()
        # The sums are scaled by powers of two, so that no square leaves the range.
        scale = int(np.frexp(np.abs(wide).max(initial=0))[1])
        soft_scale = int(np.frexp(np.abs(wide_soft).max(initial=0))[1])
        wide, wide_soft = np.ldexp(wide, -scale), np.ldexp(wide_soft, -soft_scale)
        square = float((wide_soft * wide_soft).sum())
        product = float((wide * wide_soft).sum())
        beta = float(np.ldexp(product / square, scale - soft_scale)) if square else 1.0
    return np.ascontiguousarray(values), beta
