"""The variance that a float accumulator retains: simulated bit for bit, and by formula."""

from __future__ import annotations

import math
from typing import SupportsIndex

import numpy as np

from ._float_format import FloatFormat
from ._format_base import integer
from ._matmul import matmul
from .accumulators import float_accumulator

_EXPONENT_BITS = 7  # within float32, and too many for a sum of normal numbers to leave
_LARGEST_BLOCK = 1 << 22  # operands drawn at a time


def variance_retention(
    mantissa_bits: SupportsIndex,
    terms: SupportsIndex,
    *,
    product_mantissa_bits: SupportsIndex = 5,
    rounding: str = "nearest_even",
    chunk: SupportsIndex = 0,
    rows: SupportsIndex = 2000,
    seed: SupportsIndex = 0,
) -> float:
    """Return how much of the variance of long sums a float accumulator retains, by simulation.

    Sums of `terms` normal numbers, rounded to the mantissa of the products, are computed by the
    bit-exact engine in an accumulator of `mantissa_bits` and compared with the exact sums.

    Parameters
    ----------
    mantissa_bits : int
        Stored mantissa bits of the accumulator, 1 to 21.
    terms : int
        n, the length of the sums; 1 or more.
    product_mantissa_bits : int
        Stored mantissa bits of the products, 1 to 21.
    rounding : str
        Rounding mode of both, any deterministic one of `float_accumulator`.
    chunk : int
        Terms per partial sum; 0 sums all in one chain.
    rows : int
        Sums that are simulated.
    seed : int
        Of NumPy's generator, which draws the terms.

    Returns
    -------
    float
        The sum of the squares of the results, over that of the exact sums of the same terms before
        any rounding. 1: nothing is lost; toward 0: the sums stall, or are truncated away.

    Raises
    ------
    TypeError, ValueError
        If a number is no integer or out of range; of `rounding`, as `float_accumulator`.

    Notes
    -----
    A statistical estimate for independent terms with mean zero, not a bound.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> for rounding in ("nearest_even", "toward_zero"):
    ...     print(rounding, round(ab.variance_retention(7, 1024, rounding=rounding, rows=500), 1))
    nearest_even 1.0
    toward_zero 0.2
    """
    length = integer("terms", terms, 1)
    count = integer("rows", rows, 1)
    generator = np.random.default_rng(integer("seed", seed, 0))
    datapath = float_accumulator(
        _format("mantissa_bits", mantissa_bits),
        product=_format("product_mantissa_bits", product_mantissa_bits),
        rounding=rounding,
        chunk=integer("chunk", chunk, 0),
    )
    ones = np.ones((length, 1), np.float32)
    retained, exact = [], []
    block = max(_LARGEST_BLOCK // length, 1)
    for begin in range(0, count, block):
        shape = (min(block, count - begin), length)
        x = generator.standard_normal(shape, dtype=np.float32)
        retained += [float(value) ** 2 for value in matmul(x, ones, datapath)[:, 0]]
        exact += [math.fsum(row) ** 2 for row in x.tolist()]
    return math.fsum(retained) / math.fsum(exact)


def _format(name: str, mantissa_bits: SupportsIndex) -> FloatFormat:
    bits = integer(name, mantissa_bits, 1, 21)
    return FloatFormat(exponent_bits=_EXPONENT_BITS, mantissa_bits=bits)


def variance_retention_formula(
    mantissa_bits: SupportsIndex,
    terms: SupportsIndex,
    *,
    product_mantissa_bits: SupportsIndex = 5,
    chunk: SupportsIndex = 0,
) -> float:
    """Return the variance retention ratio by its published formula, which assumes no bias.

    Parameters
    ----------
    mantissa_bits, terms, product_mantissa_bits, chunk : int
        As for `variance_retention`: m, n, m_p and n1.

    Returns
    -------
    float
        VRR(m, m_p, n); with chunks VRR(m, m_p, n1) * VRR(m, min(m, m_p + log2 n1), n / n1).

    Raises
    ------
    TypeError, ValueError
        If a number is no integer or out of range.

    Notes
    -----
    For reference only. The formula models rounding without bias: it must not size an accumulator
    that truncates, which retains far less (`variance_retention` with ``rounding="toward_zero"``).
    The usual criterion is n (1 - VRR) < 4. Source: Sakr et al., "Accumulation Bit-Width Scaling For
    Ultra-Low Precision Training Of Deep Networks", arXiv:1901.06588.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> [round(ab.variance_retention_formula(m, 1024), 3) for m in (5, 6, 7, 8)]
    [0.709, 0.945, 0.998, 1.0]
    """
    m = integer("mantissa_bits", mantissa_bits, 1, 64)
    n = integer("terms", terms, 1)
    m_p = integer("product_mantissa_bits", product_mantissa_bits, 1, 64)
    n1 = integer("chunk", chunk, 0)
    if not n1 or n1 >= n:
        return _ratio(m, m_p, n)
    grown = min(m, m_p + round(math.log2(n1)))
    return _ratio(m, m_p, n1) * _ratio(m, grown, -(-n // n1))


def _tail(x: float) -> float:
    """Return 2 Q(x), the probability that a standard normal number is beyond x on either side."""
    return math.erfc(x / math.sqrt(2))


def _alpha(m: int, m_p: int, stage: int) -> float:
    total = sum((1 << j) * ((1 << j) - 1) * ((2 << j) - 1) for j in range(1, stage))
    return math.ldexp(total, m - 3 * m_p) / 3


def _ratio(m: int, m_p: int, n: int) -> float:
    alpha = _alpha(m, m_p, m_p + 1)
    weights, retained = [], []
    for i in range(2, n):
        if i > alpha:
            q = _tail(math.ldexp(1, m) / math.sqrt(i))
            q *= 1 - _tail(math.ldexp(1, m) / math.sqrt(i - 1))
            weights.append(q)
            retained.append((i - alpha) * q)
    for stage in range(2, m_p + 1):
        left = n - _alpha(m, m_p, stage)
        if left > 0:
            q = _tail(math.ldexp(1, m - m_p + stage - 1) / math.sqrt(n))
            q *= 1 - _tail(math.ldexp(1, m - m_p + stage) / math.sqrt(n))
            q = math.ldexp(q, m - m_p + stage)
            weights.append(q)
            retained.append(left * q)
    full = 1 - _tail(math.ldexp(1, m - m_p + 1) / math.sqrt(n))
    weights.append(full)
    retained.append(n * full)
    return math.fsum(retained) / (n * math.fsum(weights))
