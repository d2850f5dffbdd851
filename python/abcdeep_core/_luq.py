"""`luq` and `luq_encode`: logarithmic unbiased quantisation, to float values or 4-bit codes."""

from __future__ import annotations

import dataclasses
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import (
    Array,
    as_float32_array,
    check_out,
    deliver,
    explicit_words,
    first_index,
    is_plain,
)
from ._format_base import integer
from ._maxima import (
    INFINITY_BITS,
    Axis,
    UIntArray,
    largest_magnitudes,
    maxima_along,
    segments,
    sorted_axes,
)
from ._names import canonical
from ._quantize import encode
from ._threads import check_threads
from .random import check_address

_HIGHEST_POWER_BITS = 0x7F000000  # 2^127
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_LIFTED = np.uint32(1 << 31)  # cpp/luq.hpp: the number is alpha * 2^64
_LEVELS = (7, 8, 5)
_MAX_SAMPLES = 1 << 20
_RANDOM = (0xFFFFFFFF, 0)  # bits of the random word to keep, and to set: cpp/luq.hpp
# Words that make the comparison with a random word a deterministic rule.
_BELOW = {"stochastic": _RANDOM, "nearest": (0, 0x7FFFFFFF), "zero": (0, 0xFFFFFFFF)}
_ABOVE = {"stochastic": _RANDOM, "nearest": (0, 0x3FFFFF << 9)}
_OVER_RANGE = {"clip": "clip", "grow": "grow"}
_ALPHA_ROUNDING = {"power_of_two": "power_of_two"}


def luq(
    x: npt.ArrayLike,
    *,
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    levels: SupportsIndex = 7,
    max_abs: npt.ArrayLike | None = None,
    axis: Axis = None,
    samples: SupportsIndex = 1,
    alpha_rounding: str | None = None,
    underflow: str = "stochastic",
    log_rounding: str = "stochastic",
    over_range: str = "clip",
    random_bits: npt.ArrayLike | None = None,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> Array:
    """Round every element of `x` at random to 0 or +-alpha * 2^k, without bias.

    The magnitudes are alpha * 2^k for k = 0 .. `levels` - 1, the largest of which is the maximum m:
    alpha = m / 2^(levels - 1). An element between two of them, or between 0 and alpha, becomes
    one of its two neighbours with the probabilities that make the mean the element itself.

    Parameters
    ----------
    x : array_like of float32 or a narrower float, any shape
        Finite. Narrower floats are widened exactly.
    seed, stream, call : int
        Address of the random words: 64, 32 and 32 bits. Element i (C order) uses word i, whatever
        the strides, the threads or the instruction set; sample s those of ``call + s``.
    levels : {7, 8, 5}
        Non-zero magnitudes of each sign. 7 is the most that 4 bits hold, with 8 the 17 values need
        a fifth bit (the authors' code), 5 is the printed formula read literally.
    max_abs : array_like of float32, optional
        m, finite and >= 0, instead of the maximum of abs(x): one number, or an array that
        broadcasts to the maxima along `axis` (kept as dimensions of size 1). A Python number is
        rounded to float32. 0 makes every element it is for 0.
    axis : int or tuple of int, optional
        NumPy's reduction axes: those over which a maximum is taken. Default: all of them.
    samples : int
        Number of independent samples, 1 to 2^20. The result is their mean, which has 1 / samples of
        the variance and is no longer one of the levels: with the sum in units of alpha, an exact
        integer, it is float32(float64(sum) * float64(alpha) / samples).
    alpha_rounding : {None, "power_of_two"}
        "power_of_two": alpha = 2^(ceil(log2 m) - (levels - 1)), which clips nothing.
    underflow : {"stochastic", "nearest", "zero"}
        Magnitudes below alpha: at random to 0 or alpha, to the nearer one (alpha / 2 goes up), or
        to 0.
    log_rounding : {"stochastic", "nearest"}
        Other magnitudes; "nearest" is round to nearest power: 1.5 * 2^k and above go up.
    over_range : {"clip", "grow"}
        Magnitudes above m, with `max_abs`: clip to the highest level, or go on with levels above.
    random_bits : array_like of uint32, shape of `x`, or ``(samples, *x.shape)``, optional
        Explicit random words instead of a seed.
    out : ndarray of float32, optional
        Array for the result, of the shape of `x`; it may be `x` itself.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray of float32, shape of `x`

    Raises
    ------
    TypeError
        If `x` is float64 or holds no floats, or an argument is of the wrong type.
    ValueError
        If `x` holds NaN or an infinity; a name or number is none of those above; something is
        stochastic without seed or random_bits; with ``over_range="grow"`` if a result, or abs(x) /
        alpha, is above the float32 numbers; with "power_of_two" if the highest level is.

    Notes
    -----
    Chmiel et al., "Accurate Neural Training with 4-bit Matrix Multiplications at Standard Formats",
    arXiv:2112.10769. The definition, bit by bit, is in docs/luq.md. A scaling by alpha below 2^-126
    rounds to nearest even.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.float32([64, -40, 24, 3, 0.5])
    >>> ab.luq(x, seed=1)
    array([ 64., -32.,  16.,   2.,   0.], dtype=float32)
    >>> ab.luq(x, underflow="nearest", log_rounding="nearest")
    array([ 64., -32.,  32.,   4.,   1.], dtype=float32)
    >>> mean = np.mean([ab.luq(x, seed=1, call=call) for call in range(4000)], axis=0)
    >>> bool((np.abs(mean - x) < 0.02 * np.abs(x) + 0.05).all())
    True
    """
    count = integer("samples", samples, 1, _MAX_SAMPLES)
    grow = canonical("over_range", over_range, _OVER_RANGE) == "grow"
    job = _prepare(
        x, seed, stream, call, levels, max_abs, axis, count, alpha_rounding,
        underflow, log_rounding, random_bits, threads,
    )  # fmt: skip
    if out is not None:
        check_out(out, job.x.shape, np.dtype(np.float32))
    grow = grow and max_abs is not None
    direct = out is not None and is_plain(out) and not grow  # a call that fails leaves `out` alone
    target = out if direct and out is not None else np.empty(job.x.shape, np.float32)
    job.run(target, grow)
    if grow and int(largest_magnitudes(target.reshape(1, -1), job.threads)[0]) >= INFINITY_BITS:
        at = first_index(np.isinf(target))
        raise ValueError(
            f"max_abs: expected levels within float32, got too small a number for x {at}"
        )
    return deliver(target, out)


def luq_encode(
    x: npt.ArrayLike,
    *,
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    levels: SupportsIndex = 7,
    max_abs: npt.ArrayLike | None = None,
    axis: Axis = None,
    alpha_rounding: str | None = None,
    underflow: str = "stochastic",
    log_rounding: str = "stochastic",
    random_bits: npt.ArrayLike | None = None,
    threads: SupportsIndex | None = None,
) -> tuple[Array, Array]:
    """Return the result of `luq` as 4-bit codes of the format e3m0, and alpha.

    Parameters
    ----------
    x, seed, stream, call, max_abs, axis, alpha_rounding, underflow, log_rounding, threads
        As for `luq`.
    levels : {7, 5}
        Non-zero magnitudes of each sign.
    random_bits : array_like of uint32, shape of `x`, optional
        Explicit random words instead of a seed.

    Returns
    -------
    codes : ndarray of uint8, shape of `x`
        The sign in bit 3; below it 0 for zero, else k + 1 for alpha * 2^k. 8 is never produced.
    alpha : float32, or ndarray of float32 with the reduced axes of size 1
        ``decode(codes, "e3m0") * alpha`` is the result of `luq`, bit for bit where alpha is a
        normal number.

    Raises
    ------
    TypeError, ValueError
        As `luq`; ValueError for ``levels=8``, which has no 4-bit code.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> codes, alpha = ab.luq_encode(np.float32([64, -40, 24, 3, 0.5]), seed=1)
    >>> codes, float(alpha)
    (array([ 7, 14,  5,  2,  0], dtype=uint8), 1.0)
    >>> ab.decode(codes, "e3m0") * alpha
    array([ 64., -32.,  16.,   2.,   0.], dtype=float32)
    """
    if _level_count(levels) == 8:
        raise ValueError("levels: expected 7 or 5, which have a 4-bit code, got 8")
    job = _prepare(
        x, seed, stream, call, levels, max_abs, axis, 1, alpha_rounding,
        underflow, log_rounding, random_bits, threads,
    )  # fmt: skip
    codes = np.empty(job.x.shape, np.uint8)
    job.run(codes, grow=False)
    alpha = job.alpha()
    return deliver(codes, None), alpha


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Job:
    """A checked call: what the kernel needs but the output."""

    x: Array  # float32, C-contiguous
    alphas: UIntArray  # as the kernel has them, of the shape of the maxima
    axes: tuple[int, ...]
    levels: int
    samples: int
    below: tuple[int, int]
    above: tuple[int, int]
    address: tuple[int, int, int]
    words: Array | None
    threads: int

    def run(self, target: Array, grow: bool) -> None:
        """Write float32 values or uint8 codes into `target`, C-contiguous and of the shape of x."""
        source, words = self.x, self.words
        if np.may_share_memory(source, target) and source.ctypes.data != target.ctypes.data:
            source = source.copy()
        if words is not None and np.may_share_memory(words, target):
            words = words.copy()
        alphas, inner = segments(self.alphas, self.x.shape, self.axes)
        if self.x.size:
            _core.luq(
                source.reshape(-1), target.reshape(-1), alphas, inner, self.levels, self.samples,
                grow, self.below, self.above, *self.address, words, self.threads,
            )  # fmt: skip

    def alpha(self) -> Array:
        """Return alpha in float32, rounded to nearest even where it is subnormal."""
        normal = (self.alphas & _MAGNITUDE).view(np.float32).astype(np.float64)
        exact = np.where(self.alphas >= _LIFTED, normal * 2.0**-64, normal)
        # NumPy's cast flushes subnormals if the caller's thread does; the kernel never does.
        rounded = np.asarray(encode(exact, "binary32"), np.uint32).view(np.float32)
        scalar = len(self.axes) == self.x.ndim
        return rounded.reshape(-1)[0] if scalar else rounded


def _prepare(
    x: npt.ArrayLike,
    seed: SupportsIndex | None,
    stream: SupportsIndex,
    call: SupportsIndex,
    levels: SupportsIndex,
    max_abs: npt.ArrayLike | None,
    axis: Axis,
    samples: int,
    alpha_rounding: str | None,
    underflow: str,
    log_rounding: str,
    random_bits: npt.ArrayLike | None,
    threads: SupportsIndex | None,
) -> _Job:
    array = as_float32_array("x", x)
    array = np.asarray(array, order="C")
    count = _level_count(levels)
    power_of_two = alpha_rounding is not None
    if power_of_two:
        canonical("alpha_rounding", alpha_rounding, _ALPHA_ROUNDING)
    below = _BELOW[canonical("underflow", underflow, {name: name for name in _BELOW})]
    above = _ABOVE[canonical("log_rounding", log_rounding, {name: name for name in _ABOVE})]
    words = None
    if _RANDOM in (below, above):
        if random_bits is not None:
            shape = array.shape if samples == 1 else (samples, *array.shape)
            given = explicit_words("random_bits", random_bits, shape)
            words = np.ascontiguousarray(given).reshape(-1)
        elif seed is None:
            raise ValueError("stochastic rounding needs seed= or random_bits=, got neither")
    address = check_address(seed, stream, call)
    if address[2] + samples > 1 << 32:
        raise ValueError(
            f"call: expected call + samples <= 2**32, got {address[2]} and {samples} samples"
        )
    number = check_threads(threads)
    axes = sorted_axes(axis, array.ndim)
    maxima = maxima_along(array, axes, max_abs, number)
    if power_of_two and maxima.size and int(maxima.max()) > _HIGHEST_POWER_BITS:
        raise ValueError(
            "alpha_rounding: expected None for a maximum above 2**127, whose highest level is "
            "no float32 number, got 'power_of_two'"
        )
    alphas = np.empty(maxima.shape, np.uint32)
    _core.luq_alphas(maxima.reshape(-1), alphas.reshape(-1), count, power_of_two)
    return _Job(
        x=array, alphas=alphas, axes=axes, levels=count, samples=samples, below=below, above=above,
        address=address, words=words, threads=number,
    )  # fmt: skip


def _level_count(levels: SupportsIndex) -> int:
    number = integer("levels", levels)
    if number not in _LEVELS:
        raise ValueError(f"levels: expected 7, 8 or 5, got {number}")
    return number
