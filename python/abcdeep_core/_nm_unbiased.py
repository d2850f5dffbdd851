"""`nm_unbiased`: N:M sparsity of minimum variance among all that is unbiased."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import (
    Array,
    as_float_array,
    check_out,
    deliver,
    explicit_words,
    first_index,
    is_plain,
)
from ._format_base import boolean, integer
from ._names import canonical
from ._nm_groups import Groups, check_pattern, refuse_nonfinite
from ._threads import check_threads
from .random import check_address

_METHOD = {"exact": "exact", "approx": "approx"}


def nm_unbiased(
    x: npt.ArrayLike,
    n: SupportsIndex,
    m: SupportsIndex,
    axis: SupportsIndex = -1,
    *,
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    method: str = "exact",
    probability_bits: SupportsIndex | None = None,
    remainder: str = "error",
    random_bits: npt.ArrayLike | None = None,
    return_mask: bool = False,
    return_probabilities: bool = False,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> Any:
    """Keep `n` elements of every `m` at random, scaled so that the mean is `x`.

    Element a is kept with probability p and becomes a / p. The probabilities are those of minimum
    variance, p = min(1, c * abs(a)) with c such that they sum to `n`; exactly `n` elements of a
    group are kept (all that are not zero if these are fewer).

    Parameters
    ----------
    x : array_like of float32, float64 or a narrower float
        Finite. Narrower floats are widened exactly, to float32.
    n, m : int
        1 <= n <= m <= 32.
    axis : int
        Axis along which the groups lie, the one over which a matrix product sums: for the weight
        gradient the tokens or samples.
    seed, stream, call : int
        Address of the random words: 64, 32 and 32 bits. Group number B, counted in C order with
        `axis` moved to the end, uses the 16-bit draw B of `random_bits`.
    method : {"exact", "approx"}
        "approx" is the published estimator for 2:4 that draws one element after the other, with
        more variance; its group B uses the words 2 B and 2 B + 1.
    probability_bits : {16, 30}, optional
        Probabilities are multiples of 2^-16 (the default for float32) or 2^-30 (for float64 the
        only choice; a group then uses the top bits of word B).
    remainder : {"error", "pad"}
        As `nm_mask`.
    random_bits : array_like of uint32, optional
        Explicit random words instead of a seed, one a group: the shape of `x` without `axis`,
        followed by the number of groups along it. The top `probability_bits` bits are used. For
        "approx" two a group, along one more axis at the end.
    return_mask, return_probabilities : bool
        Also return which elements are kept, and with which probability each is.
    out : ndarray, optional
        Array for the result, of its shape and dtype; it may be `x` itself.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    y : ndarray of float32, or float64 if `x` is
    mask : ndarray of bool, shape of `x`, if `return_mask`
    probabilities : ndarray, shape of `x`, if `return_probabilities`
        float32 for 16 bits, else float64; exact multiples of 2^-probability_bits for "exact".

    Raises
    ------
    TypeError
        If `x` holds no floats, or an argument is of the wrong type.
    ValueError
        If `x` is not finite; there is neither seed nor random_bits; a number or name is out of
        range; "approx" is asked for another pattern than 2:4, or for a group whose small elements
        vanish beside its large ones in float64; a result is beyond the largest number of its dtype.

    Notes
    -----
    The estimator and its optimality: Chmiel et al., "Minimum variance unbiased N:M sparsity for the
    neural gradients", arXiv:2203.10991, whose closed forms are for 1:2 and 2:4. The definition for
    any n and m, bit by bit, is in docs/nm.md: the mean over all 2^probability_bits draws is x up to
    the last rounding of y.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.float32([3, -1, 2, 0.5])
    >>> ab.nm_unbiased(x, 2, 4, seed=1)
    array([ 3.2500412, -3.2499876,  0.       ,  0.       ], dtype=float32)
    >>> y, p = ab.nm_unbiased(x, 2, 4, seed=1, return_probabilities=True)
    >>> (p * 2**16).astype(int)
    array([60494, 20165, 40330, 10083])
    >>> mean = np.mean([ab.nm_unbiased(x, 2, 4, seed=1, call=call) for call in range(4000)], axis=0)
    >>> bool((np.abs(mean - x) < 0.1).all())
    True
    """
    n, m = check_pattern(n, m)
    two_draws = canonical("method", method, _METHOD) == "approx"
    if two_draws and (n, m) != (2, 4):
        raise ValueError(f"method: 'approx' expects the pattern 2:4, got {n}:{m}")
    array = as_float_array("x", x)
    bits = _probability_bits(probability_bits, array.dtype == np.float64, two_draws)
    groups = Groups.along(array.shape, axis, m, remainder)
    with_mask = boolean("return_mask", return_mask)
    with_probabilities = boolean("return_probabilities", return_probabilities)
    words = None
    if random_bits is not None:
        shape = (*groups.words_shape, 2) if two_draws else groups.words_shape
        words = np.ascontiguousarray(explicit_words("random_bits", random_bits, shape)).reshape(-1)
    elif seed is None:
        raise ValueError("random sparsity needs seed= or random_bits=, got neither")
    address = check_address(seed, stream, call)
    number = check_threads(threads)
    if out is not None:
        check_out(out, array.shape, array.dtype)
    source = np.ascontiguousarray(array)
    # A call that fails leaves `x` alone.
    direct = out is not None and is_plain(out) and not np.may_share_memory(out, source)
    direct = direct and (words is None or not np.may_share_memory(words, out))
    y = out if direct and out is not None else np.empty(array.shape, array.dtype)
    wide = two_draws or bits == 30
    mask = np.empty(array.shape, np.bool_) if with_mask else None
    probabilities = None
    if with_probabilities:
        probabilities = np.empty(array.shape, np.float64 if wide else np.float32)
    flags = 0
    if source.size:
        flags = _core.nm_unbiased(
            source.reshape(-1), y.reshape(-1),
            None if mask is None else mask.reshape(-1),
            None if probabilities is None else probabilities.reshape(-1),
            *groups.sizes, n, m, bits, two_draws, *address, words, number,
        )  # fmt: skip
    if flags & _core.nm_not_finite:
        refuse_nonfinite("x", array)
    if flags & _core.nm_too_wide:
        raise ValueError(
            "x: expected no element below 2^-1000 times the largest of its group for "
            "method='approx', got a group of three or more that has one"
        )
    if flags & _core.nm_overflow:
        raise ValueError(
            f"x: expected results within {array.dtype}, got an element too large for its "
            f"probability at {first_index(np.isinf(y))}"
        )
    results = [deliver(y, out), mask, probabilities]
    wanted = tuple(result for result in results if result is not None)
    return wanted if len(wanted) > 1 else wanted[0]


def _probability_bits(given: SupportsIndex | None, wide: bool, two_draws: bool) -> int:
    if given is None:
        return 30 if wide else 16
    bits = integer("probability_bits", given)
    if bits not in (16, 30):
        raise ValueError(f"probability_bits: expected 16 or 30, got {bits}")
    if two_draws:
        raise ValueError(f"probability_bits: expected None for method='approx', got {bits}")
    if wide and bits == 16:
        raise ValueError("probability_bits: expected 30 for float64, got 16")
    return bits
