"""`greedy_order`: an order of summation whose running sums stay as small as the products allow."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from ._arrays import Array
from ._format_base import integer
from ._integer_arrays import integer_array
from .bounds import signed_width


def greedy_order(products: npt.ArrayLike, *, start: SupportsIndex = 0) -> Array:
    """Return the order that adds a positive term while the sum is at most 0, else a negative one.

    Parameters
    ----------
    products : array_like of integers, shape (..., K)
        The terms of dot products, along the last axis.
    start : int
        What the running sums start from: a bias.

    Returns
    -------
    ndarray of int64, shape (..., K)
        The indices of the terms in that order: of each sign as they come, the rest of one sign when
        the other is used up, zeros last.

    Raises
    ------
    TypeError
        If `products` holds anything but integers.
    ValueError
        If it has no axis.

    Notes
    -----
    Every running sum lies in [min(S, s, -p), max(S, s, p)], S the final sum, s the start and p the
    largest magnitude of a product: `greedy_width` bits always suffice, and no order needs fewer
    than S does.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> products = np.array([1500, 1000, -1200, 300, 900, -700, 2000, -1800])
    >>> order = ab.greedy_order(products)
    >>> np.cumsum(products[order]).tolist()
    [1500, 300, -400, 600, -1200, -900, 0, 2000]
    """
    terms = _terms(products)
    first = integer("start", start)
    orders = np.empty(terms.shape, np.int64)
    for index in np.ndindex(terms.shape[:-1]):
        orders[index] = _order(terms[index].tolist(), first)
    return orders


def greedy_width(products: npt.ArrayLike, *, start: SupportsIndex = 0) -> Array:
    """Return the bits of a signed accumulator that the greedy order of `greedy_order` never leaves.

    Parameters
    ----------
    products : array_like of integers, shape (..., K)
        The terms of dot products, along the last axis.
    start : int
        What the running sums start from: a bias.

    Returns
    -------
    ndarray of int64, shape (...)
        The width of [min(S, s, -p), max(S, s, p)], s the start, S it and the sum of the products,
        and p their largest magnitude, in Python integers.

    Raises
    ------
    TypeError, ValueError
        As `greedy_order`.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.greedy_width([1500, 1000, -1200, 300, 900, -700, 2000, -1800])
    array(12)
    """
    terms = _terms(products)
    first = integer("start", start)
    widths = np.empty(terms.shape[:-1], np.int64)
    for index in np.ndindex(widths.shape):
        numbers = terms[index].tolist()
        total, largest = first + sum(numbers), max(map(abs, numbers), default=0)
        widths[index] = signed_width(min(total, first, -largest), max(total, first, largest))
    return widths


def _terms(products: Any) -> Array:
    terms = integer_array("products", products)
    if terms.ndim == 0:
        raise ValueError("products must have at least one axis, got a single number")
    return terms


def _order(numbers: list[int], start: int) -> list[int]:
    positive = [k for k, value in enumerate(numbers) if value > 0][::-1]
    negative = [k for k, value in enumerate(numbers) if value < 0][::-1]
    order, running = [], start
    while positive or negative:
        source = positive if positive and (running <= 0 or not negative) else negative
        order.append(source.pop())
        running += numbers[order[-1]]
    return order + [k for k, value in enumerate(numbers) if value == 0]
