"""How many exponent bits a gradient needs, how much of it to prune, when its noise is too much."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _names
from ._format_base import integer

# Limits on sigma between 1 | 2 | 3 | ... exponent bits, by the total number of bits.
_PUBLISHED: Mapping[int, tuple[float, ...]] = MappingProxyType(
    {
        3: (0.7,),
        4: (0.5, 1.2),
        5: (0.2, 1.0, 2.4),
        6: (0.3, 0.9, 2.0, 4.9),
        7: (0.3, 0.7, 1.7, 4.0, 9.4),
        8: (0.1, 0.6, 1.4, 3.7, 8.1, 19.3),
    }
)
_LIMITS = MappingProxyType({name: name for name in ("published", "computed")})


def lognormal_format_error(
    exponent_bits: SupportsIndex, mantissa_bits: SupportsIndex, sigma: npt.ArrayLike
) -> Any:
    """Return the expected relative error abs(q - x) / abs(x) of a lognormal x in a float format.

    log2 abs(x) is normal with mean 0 (by a loss scale) and standard deviation sigma. The format
    rounds to nearest, reaches from 2^-E to 2^E with E = 2^(exponent_bits - 1), clips above and has
    zero below.

    Parameters
    ----------
    exponent_bits : int
        1 to 10.
    mantissa_bits : int
        0 to 52.
    sigma : float or array_like of floats
        Standard deviation of log2 abs(x), positive.

    Returns
    -------
    float, or ndarray of float64 of the shape of `sigma`

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.

    Notes
    -----
    The error within the range is taken as 2^-mantissa_bits / (8 ln 2), as if it did not depend on
    the place in a binade; with few mantissa bits the exact one is up to 6 % smaller.

    Source: Chmiel et al., "Neural gradients are near-lognormal: improved quantized and sparse
    training", ICLR 2021 (arXiv 2006.08173).

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> round(ab.lognormal_format_error(4, 3, 3.0), 4)
    0.0277
    """
    largest = 2 ** (integer("exponent_bits", exponent_bits, 1, 10) - 1)
    within = 2.0 ** -integer("mantissa_bits", mantissa_bits, 0, 52) / (8 * math.log(2))
    sigmas = _positive("sigma", sigma)

    def error(s: float) -> float:
        z = largest / s
        outside = math.erfc(z / math.sqrt(2))
        return within * (1 - outside) + outside - _mean_below(s * math.log(2), -z)

    errors = np.array([error(s) for s in sigmas.ravel().tolist()]).reshape(sigmas.shape)
    return errors if sigmas.ndim else float(errors)


def exponent_bit_limits(total_bits: SupportsIndex, limits: str = "published") -> tuple[float, ...]:
    """Return the standard deviations of log2 abs(x) above which one more exponent bit is better.

    Parameters
    ----------
    total_bits : int
        Sign, exponent and mantissa bits, 3 to 8.
    limits : {"published", "computed"}
        The table of the paper, or where the errors of `lognormal_format_error` are equal.

    Returns
    -------
    tuple of float
        total_bits - 2 limits, ascending: between 1 and 2 exponent bits, 2 and 3, ...

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, out of range or unknown.

    Notes
    -----
    Source: Chmiel et al., ICLR 2021 (arXiv 2006.08173). Its limits are lower than those that its
    error formula gives.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.exponent_bit_limits(4)
    (0.5, 1.2)
    >>> [round(limit, 2) for limit in ab.exponent_bit_limits(4, "computed")]
    [0.58, 1.43]
    """
    total = integer("total_bits", total_bits, 3, 8)
    if _names.canonical("limits", limits, _LIMITS) == "published":
        return _PUBLISHED[total]
    return _computed_limits(total)


def select_exponent_bits(
    total_bits: SupportsIndex, sigma: npt.ArrayLike, limits: str = "published"
) -> Any:
    """Return the number of exponent bits for a gradient whose log2 has deviation sigma.

    Parameters
    ----------
    total_bits : int
        Sign, exponent and mantissa bits, 3 to 8.
    sigma : float or array_like of floats
        Standard deviation of log2 abs(x) over the non-zero elements, positive. The format is then
        used with the loss scale 2^-mean(log2 abs(x)).
    limits : {"published", "computed"}
        See `exponent_bit_limits`.

    Returns
    -------
    int, or ndarray of int of the shape of `sigma`
        1 plus the number of limits below sigma: 1 to total_bits - 1. The rest, without the sign, is
        for the mantissa.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type, out of range or unknown.

    Notes
    -----
    Source: Chmiel et al., ICLR 2021 (arXiv 2006.08173).

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.select_exponent_bits(8, 3.0), ab.select_exponent_bits(8, 3.0, "computed")
    (4, 4)
    """
    steps = exponent_bit_limits(total_bits, limits)
    bits = 1 + np.searchsorted(steps, _positive("sigma", sigma), side="left")
    return bits if bits.ndim else int(bits)


def stochastic_pruning_threshold(sparsity: float, sigma: float) -> float:
    """Return the threshold at which stochastic pruning makes this share of a tensor zero.

    Stochastic pruning sets an element with abs(x) < a to sign(x) a with probability abs(x) / a and
    to 0 otherwise, which keeps its mean. abs(x) is lognormal.

    Parameters
    ----------
    sparsity : float
        Share of zeros, between 0 and 1.
    sigma : float
        Standard deviation of ln abs(x) (natural logarithm), positive.

    Returns
    -------
    float
        a in units of e^mu, the median of abs(x).

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range, or the threshold is beyond float64.

    Notes
    -----
    Solved by bisection for ln a. Source: Chmiel et al., ICLR 2021 (arXiv 2006.08173).

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> round(ab.stochastic_pruning_threshold(0.9, 2.0), 2)
    47.66
    """
    share, s = float(_positive("sparsity", sparsity, 0)), float(_positive("sigma", sigma, 0))
    if share >= 1:
        raise ValueError(f"sparsity: expected a share between 0 and 1, got {sparsity!r}")

    def zeros(z: float) -> float:
        """Share of zeros if the threshold is e^(s z)."""
        return math.erfc(-z / math.sqrt(2)) / 2 - _mean_below(s, z)

    most = s / 2 - math.log1p(-share) / s + 1  # zeros(z) >= 1 - mean / threshold
    logarithm = s * _bisect(lambda z: zeros(z) - share, -40.0, most)
    if abs(logarithm) > 700:
        raise ValueError(f"sigma: expected a threshold within float64, got e^{logarithm:.0f}")
    return math.exp(logarithm)


def critical_noise(gradient_norm: float, size: SupportsIndex) -> float:
    """Return the noise at which low-precision gradients should give way to a higher precision.

    Parameters
    ----------
    gradient_norm : float
        Euclidean norm of the exact gradient, not negative.
    size : int
        Number d of its elements.

    Returns
    -------
    float
        norm / sqrt(3 d), the standard deviation of the noise of one element. With it the expected
        decrease of the loss by the best step is 3/4 of that without noise (isotropic Hessian).

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.

    Notes
    -----
    Source: Chmiel et al., "FP4 all the way: fully quantized training of LLMs", arXiv 2505.19115.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.critical_noise(6.0, 12)
    1.0
    """
    count = integer("size", size, 1)
    if gradient_norm == 0:
        return 0.0
    return float(_positive("gradient_norm", gradient_norm, 0)) / math.sqrt(3 * count)


@cache
def _computed_limits(total: int) -> tuple[float, ...]:
    def advantage(exponent_bits: int) -> Callable[[float], float]:
        """How much one more exponent bit lowers the error."""
        mantissa_bits = total - 1 - exponent_bits
        return lambda sigma: float(
            lognormal_format_error(exponent_bits, mantissa_bits, sigma)
            - lognormal_format_error(exponent_bits + 1, mantissa_bits - 1, sigma)
        )

    return tuple(_bisect(advantage(bits), 0.05, 60.0) for bits in range(1, total - 1))


def _bisect(f: Callable[[float], float], low: float, high: float) -> float:
    """Return where f, negative at `low`, becomes positive; to the last bit."""
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return high
        low, high = (middle, high) if f(middle) < 0 else (low, middle)


def _mean_below(s: float, z: float) -> float:
    """Return the mean of exp(s (Z - z)) over Z < z, Z ~ N(0, 1): e^(s^2/2 - s z) Phi(z - s)."""
    u = (s - z) / math.sqrt(2)
    if u < 0:
        return math.exp(s * (s / 2 - z)) * math.erfc(u) / 2
    if u < 25:
        scaled = math.exp(u * u) * math.erfc(u)
    else:  # erfc underflows: its asymptotic series
        t = 1 / (2 * u * u)
        scaled = (1 - t * (1 - 3 * t * (1 - 5 * t))) / (u * math.sqrt(math.pi))
    return math.exp(-z * z / 2) * scaled / 2


def _positive(name: str, value: npt.ArrayLike, ndim: int | None = None) -> npt.NDArray[np.float64]:
    """Return positive, finite numbers as float64; `ndim` 0 demands a single one."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if ndim is not None and array.ndim != ndim:
        raise TypeError(f"{name}: expected a single number, got an array of shape {array.shape}")
    numbers = array.astype(np.float64)
    wrong = ~(np.isfinite(numbers) & (numbers > 0))
    if wrong.any():
        raise ValueError(f"{name}: expected positive numbers, got {numbers[wrong].flat[0]}")
    return numbers
