"""`sawb_clip`, `quantize_uniform` and `encode_uniform`: integers with one scale, and their clip."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _core, _names
from ._arrays import Array, as_float32_array, check_out, first_index
from ._float_format import FloatFormat
from ._format_base import boolean, integer
from ._maxima import Axis, sorted_axes
from ._quantize import quantize
from ._sums import sum_rows

Clip: TypeAlias = str | float | tuple[str, float]

# c1 and c2 by the number of levels; 3 and 15 are the rows for grids of 2 and 4 bits with a zero.
_IBM: Mapping[int, tuple[float, float]] = MappingProxyType(
    {
        3: (2.6, 1.71),
        4: (3.12, 2.064),
        8: (7.509, 6.892),
        15: (12.035, 12.03),
        16: (12.68, 12.80),
        32: (17.74, 18.64),
        127: (28.24, 30.81),
        255: (31.76, 35.04),
    }
)
_COEFFICIENTS = {"luq": MappingProxyType({**_IBM, 16: (12.1, 12.2)}), "ibm": _IBM}
_ROWS = {2: 4, 3: 8, 4: 16, 5: 32, 7: 127, 8: 255}  # levels of the row for a width in bits

_CLIPS = MappingProxyType({name: name for name in ("sawb", "max_abs", "percentile")})
_SETS = MappingProxyType({name: name for name in _COEFFICIENTS})
_LEVELS = MappingProxyType(
    {name: name for name in ("corrected", "reference", "reference_activations")}
)
_SMALLEST, _LARGEST = (
    float(v) for v in (np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max)
)


def sawb_clip(
    x: npt.ArrayLike,
    *,
    levels: SupportsIndex = 16,
    coefficients: str = "luq",
    axis: Axis = None,
) -> Any:
    """Return the SAWB clip, c1 * sqrt(mean x^2) - c2 * mean|x|: near the least squared error.

    Parameters
    ----------
    x : array_like of float32 or a narrower float, any shape
        float16 and the floats of ml_dtypes are widened exactly.
    levels : {3, 4, 8, 15, 16, 32, 127, 255}
        Number of levels of the grid from -clip to clip that c1 and c2 were fitted for.
    coefficients : {"luq", "ibm"}
        Published set: "luq" is that of the code of LUQ, "ibm" that of IBM's model optimiser. They
        differ for 16 levels only: (12.1, 12.2) and (12.68, 12.80).
    axis : int or tuple of int, optional
        Axes over which the means are taken, as in NumPy. Default: all.

    Returns
    -------
    float, or ndarray of float64
        The clip; with `axis`, an array in which these axes have size 1. Where the formula is not
        positive it is max|x|, and for an empty `x` 0.

    Raises
    ------
    TypeError
        If `x` is float64 (convert it explicitly) or holds no floats; an argument of another type.
    ValueError
        If `x` is not finite; unknown levels, coefficients or axes.

    Notes
    -----
    Everything is float64, rounded to nearest even. A sum is taken in C order of the reduced axes,
    over blocks of 65,536 elements and then over these sums, each time by halves: the upper half is
    added to the lower one, element by element, until one number is left (of an odd number of
    elements the middle one waits). So strides, the machine and the caller's floating-point state
    cannot change it.

    Source: Choi et al., "Accurate and efficient 2-bit quantized neural networks", MLSys 2019; LUQ,
    arXiv 2112.10769.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    >>> round(ab.sawb_clip(x), 2), round(ab.sawb_clip(x, coefficients="ibm"), 2)
    (2.37, 2.47)
    """
    count = integer("levels", levels)
    table = _COEFFICIENTS[_names.canonical("coefficients", coefficients, _SETS)]
    if count not in table:
        raise ValueError(f"levels: expected one of {', '.join(map(str, table))}, got {count}")
    array = _finite_float32(x)
    rows, shape = _rows(array, axis)
    with _core.NearestEnvironment():
        clip = _sawb(rows, *table[count])
    return float(clip[0]) if axis is None else clip.reshape(shape)


def quantize_uniform(
    x: npt.ArrayLike,
    bits: SupportsIndex = 4,
    *,
    clip: Clip = "sawb",
    signed: bool = True,
    levels: str = "corrected",
    coefficients: str = "luq",
    axis: Axis = None,
    rounding: str = "nearest_even",
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    random_bits: npt.ArrayLike | None = None,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> Array:
    """Round to multiples of one scale, clipped: scale * round(clamp(x / scale, Qn, Qp)).

    Parameters
    ----------
    x : array_like of float32 or a narrower float, any shape
        float16 and the floats of ml_dtypes are widened exactly.
    bits : int
        Width of the codes, 2 to 8.
    clip : "sawb", "max_abs", ("percentile", p) or a positive number
        Where the grid ends: the SAWB clip (`sawb_clip`, with the row of the width), the largest
        magnitude, the smallest magnitude that at least p percent of the magnitudes do not exceed,
        or a given one.
    signed : bool
        Whether codes have a sign. Without one, negative elements become 0.
    levels : {"corrected", "reference", "reference_activations"}
        Range of the codes, for 4 bits: "corrected" [-7, 7]; "reference" [-8, 8], 17 levels, and
        "reference_activations" [-8, 15], 24 levels, as published code has them for weights and for
        activations; [0, 15] in each without a sign. The last two need at most 7 bits with a sign.
    coefficients : {"luq", "ibm"}
        Set of `sawb_clip`.
    axis : int or tuple of int, optional
        Axes that share one scale, as in NumPy: ``axis=1`` gives each row of a matrix its own.
        Default: all.
    rounding : str
        Any rounding of `quantize`.
    seed, stream, call, random_bits, out, threads
        As in `quantize`; "stochastic" is its exact rule, 32 bits an element.

    Returns
    -------
    ndarray of float32, shape of `x`

    Raises
    ------
    TypeError
        If `x` is float64 (convert it explicitly) or holds no floats; an argument of another type.
    ValueError
        If `x` is not finite; a value out of range, an unknown name; SAWB with 6 bits, for which no
        coefficients are published; a scale beyond float32; stochastic without seed or random_bits.

    Notes
    -----
    scale = 2a / (Qp - Qn) with the clip a; without a sign, 2a / Qp for SAWB (whose range is then
    [0, 2a]) and a / Qp for the others. It is a float64 division rounded to float32; 2^-149 if that
    is 0, and 1 if a is 0. The division by it and the multiplication are one float32 operation each;
    a product beyond float32 is its largest value. A zero is +0.

    Source: LUQ, arXiv 2112.10769, the forward pass. Its straight-through gradient is the identity.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> ab.quantize_uniform(np.float32([-7, -2.5, 0.4, 3.6]), clip="max_abs").tolist()
    [-7.0, -2.0, 0.0, 4.0]
    """
    array = _finite_float32(x)
    scaled, scale, form = _scaled(array, bits, clip, signed, levels, coefficients, axis)
    if out is not None:
        check_out(out, array.shape, np.dtype(np.float32))
    quantize(
        scaled, form, rounding, seed=seed, stream=stream, call=call, random_bits=random_bits,
        out=scaled, threads=threads,
    )  # fmt: skip
    result = scaled if out is None else out
    with _core.NearestEnvironment(), np.errstate(over="ignore", under="ignore"):
        scaled += np.float32(0)  # an integer has no -0
        np.multiply(scaled, scale, out=result)
    if float(scale.max(initial=0)) * form.max > _LARGEST:
        np.clip(result, -_LARGEST, _LARGEST, out=result)
    return result if out is not None or array.ndim else result[()]


def encode_uniform(
    x: npt.ArrayLike,
    bits: SupportsIndex = 4,
    *,
    clip: Clip = "sawb",
    signed: bool = True,
    levels: str = "corrected",
    coefficients: str = "luq",
    axis: Axis = None,
    rounding: str = "nearest_even",
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    random_bits: npt.ArrayLike | None = None,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> tuple[Array, Any]:
    """Return the codes and the scale of `quantize_uniform`, which is their product.

    The parameters and errors are those of `quantize_uniform`, except that `out` is for the codes.

    Parameters
    ----------
    out : ndarray of int8 or uint8, optional
        Array for the codes, of the shape of `x`.

    Returns
    -------
    codes : ndarray of int8, or of uint8 with ``signed=False``, shape of `x`
    scale : float32, or ndarray of float32
        With `axis`, an array in which these axes have size 1.

    Raises
    ------
    TypeError, ValueError
        As `quantize_uniform`.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> codes, scale = ab.encode_uniform(np.float32([[1, 2], [3, -14]]), clip="max_abs", axis=1)
    >>> codes.tolist(), scale.tolist()
    ([[3, 7], [2, -7]], [[0.2857142984867096], [2.0]])
    """
    array = _finite_float32(x)
    scaled, scale, form = _scaled(array, bits, clip, signed, levels, coefficients, axis)
    dtype = np.dtype(np.int8 if signed else np.uint8)
    if out is not None:
        check_out(out, array.shape, dtype)
    quantize(
        scaled, form, rounding, seed=seed, stream=stream, call=call, random_bits=random_bits,
        out=scaled, threads=threads,
    )  # fmt: skip
    codes = np.empty(array.shape, dtype) if out is None else out
    np.copyto(codes, scaled, casting="unsafe")
    if axis is None:
        scale = scale.reshape(())[()]
    return codes if out is not None or array.ndim else codes[()], scale


def code_range(bits: int, signed: bool, levels: str) -> tuple[int, int]:
    """Return Qn and Qp."""
    if not signed:
        return 0, (1 << bits) - 1
    if levels == "corrected":
        return 1 - (1 << (bits - 1)), (1 << (bits - 1)) - 1
    if bits > 7:
        raise ValueError(f"bits: expected 2 to 7 for levels={levels!r} with a sign, got {bits}")
    return -(1 << (bits - 1)), 1 << (bits - 1) if levels == "reference" else (1 << bits) - 1


def _scaled(
    array: Array,
    bits: SupportsIndex,
    clip: Clip,
    signed: bool,
    levels: str,
    coefficients: str,
    axis: Axis,
) -> tuple[Array, Array, FloatFormat]:
    """Return clamp(x / scale, Qn, Qp), the scale, and a format whose values are the integers."""
    width, signed = integer("bits", bits, 2, 8), boolean("signed", signed)
    low, high = code_range(width, signed, _names.canonical("levels", levels, _LEVELS))
    table = _COEFFICIENTS[_names.canonical("coefficients", coefficients, _SETS)]
    rows, shape = _rows(array, axis)
    doubled = 1 if not signed and clip != "sawb" else 2
    with _core.NearestEnvironment(), np.errstate(over="ignore", under="ignore"):
        limits = _limits(rows, clip, table, width, 3 if high == 1 else _ROWS.get(width))
        scale = (doubled * limits / (high - low)).astype(np.float32)
        scale[scale == 0] = _SMALLEST
        scale[limits == 0] = 1
        if not np.isfinite(scale).all():
            largest = float(limits.max())
            raise ValueError(f"clip: expected a scale that float32 holds, got a clip of {largest}")
        scale = scale.reshape(shape)
        scaled = np.asarray(np.divide(array, scale, order="C")).reshape(array.shape)
        np.clip(scaled, low, high, out=scaled)
    # One binade above the subnormals: a uniform grid, with step 1 for this bias.
    mantissa_bits = high.bit_length() - 1
    form = FloatFormat(
        exponent_bits=1, mantissa_bits=mantissa_bits, bias=1 - mantissa_bits, specials="none"
    )
    return scaled, scale, form


def _limits(
    rows: Array,
    clip: Clip,
    table: Mapping[int, tuple[float, float]],
    bits: int,
    levels: int | None,
) -> npt.NDArray[np.float64]:
    """Return the clip of every row."""
    if isinstance(clip, tuple):
        if len(clip) != 2 or clip[0] != "percentile":
            raise ValueError(f"clip: expected ('percentile', p), got {clip!r}")
        return _percentile(rows, _positive("clip", clip[1], 100))
    if not isinstance(clip, str):
        return np.full(len(rows), _positive("clip", clip, math.inf))
    name = _names.canonical("clip", clip, _CLIPS)
    if name == "percentile":
        raise ValueError("clip: expected ('percentile', p), got 'percentile' alone")
    if name == "max_abs":
        return _largest(rows)
    if levels is None:
        raise ValueError(
            f"clip: expected another one than 'sawb' for {bits} bits, which has no published "
            "coefficients"
        )
    return _sawb(rows, *table[levels])


def _finite_float32(x: npt.ArrayLike) -> Array:
    array = as_float32_array("x", x)
    finite = np.isfinite(array)
    if not finite.all():
        raise ValueError(f"x must be finite, got {array[~finite][0]} at {first_index(~finite)}")
    return array


def _rows(x: Array, axis: Axis) -> tuple[Array, tuple[int, ...]]:
    """Return `x` as rows over the reduced axes, in C order, and the shape of their reductions."""
    if axis is None:
        return np.ascontiguousarray(x).reshape(1, -1), (1,) * x.ndim
    reduced = sorted_axes(axis, x.ndim)
    kept = [a for a in range(x.ndim) if a not in reduced]
    moved = x.transpose(*kept, *reduced)
    shape = tuple(1 if a in reduced else size for a, size in enumerate(x.shape))
    size = math.prod(x.shape[a] for a in reduced)
    return np.ascontiguousarray(moved).reshape(math.prod(shape), size), shape


def _largest(rows: Array) -> npt.NDArray[np.float64]:
    largest: Array = np.max(np.abs(rows), axis=1, initial=0)
    return largest.astype(np.float64)


def _sawb(rows: Array, c1: float, c2: float) -> npt.NDArray[np.float64]:
    size = max(rows.shape[1], 1)
    mean_square, mean = sum_rows(rows, rows) / size, sum_rows(np.abs(rows)) / size
    clip = c1 * np.sqrt(mean_square) - c2 * mean
    return np.where(clip > 0, clip, _largest(rows))


def _percentile(rows: Array, p: float) -> npt.NDArray[np.float64]:
    size = rows.shape[1]
    if size == 0:
        return np.zeros(len(rows))
    rank = max(math.ceil(Fraction(p) * size / 100), 1) - 1
    return np.partition(np.abs(rows), rank, axis=1)[:, rank].astype(np.float64)


def _positive(name: str, value: object, most: float) -> float:
    """Return `value` as a float in (0, most]."""
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, int | float | np.integer | np.floating
    ):
        raise TypeError(f"{name}: expected a name or a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (0 < number <= most and math.isfinite(number)):
        expected = "a positive number" if most == math.inf else f"a percentage in (0, {most:g}]"
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return number
