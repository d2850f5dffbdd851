"""Published rules for accumulator widths, each with what it assumes, in exact integers."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from ._arrays import Array
from ._fixed_format import FixedFormat
from ._format_base import boolean, integer
from ._integer_arrays import weight_matrix
from ._operand_types import OperandType, Range, operand_range, type_of_range
from .bounds import accumulator_bounds, signed_width
from .formats import Format, FormatLike, get_format

# Operand bits (the multiplier's narrow and wide port) and accumulator bits of DSP slices.
DSP_LIMITS = {"DSP48E1": (18, 25, 48), "DSP48E2": (18, 27, 48), "DSP58": (24, 27, 58)}


def data_type_width(
    terms: SupportsIndex,
    x: OperandType,
    w: OperandType,
    *,
    bias: OperandType = (0, 0),
    closed_form: bool = False,
) -> int:
    """Return the bits of a signed accumulator that no dot product of these operand types overflows.

    Parameters
    ----------
    terms : int
        K, the number of products.
    x, w : str, dtype or pair of int
        Types of the operands: ``"u8"``, ``"s4"``, ``np.int8``, or (lowest, highest).
    bias : str, dtype or pair of int
        Type of what the accumulator starts from; by default 0.
    closed_form : bool
        The published formula P = ceil(t + log2(1 + 2^-t) + 1), t = log2 K + N + W - 1 - s_x, of an
        input of N bits (s_x = 1 if signed, else 0) and a signed weight of W bits: the narrowest
        types that hold `x` and `w`. It is the integer form with 2^N or 2^(N-1) and 2^(W-1) for the
        magnitudes: of whole types the same for a signed input, and up to 1 bit wider for an
        unsigned one (2 bits if it has 1 bit). The largest magnitude of `bias` is added to 2^t.

    Returns
    -------
    int
        The integer form: the width of the bias plus 0 to K times the extreme products. Sound for
        every running sum of any such operands in any order, and attained by some.

    Raises
    ------
    TypeError, ValueError
        If `terms` is no integer or negative, or an operand is no integer type or range.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.data_type_width(1024, "u8", "s4")
    22
    >>> ab.data_type_width(64, "u8", "s8"), ab.data_type_width(64, "u8", "s8", closed_form=True)
    (22, 23)
    """
    count = integer("terms", terms, 0)
    x_range, w_range = operand_range("x", x), operand_range("w", w)
    first, last = operand_range("bias", bias)
    if boolean("closed_form", closed_form):
        largest = count << (_magnitude_bits(x_range) + signed_width(*w_range) - 1)
        return (largest + max(-first, last)).bit_length() + 1
    products = [a * b for a in x_range for b in w_range]
    return signed_width(first + count * min(0, *products), last + count * max(0, *products))


def l1_width(l1: SupportsIndex, x: OperandType) -> int:
    """Return the bits of a signed accumulator for a channel of which only its l1 norm is known.

    Parameters
    ----------
    l1 : int
        Sum of the magnitudes of the channel's integer weights.
    x : str, dtype or pair of int
        Type of the inputs; of a pair, the narrowest type that holds it.

    Returns
    -------
    int
        The closed form of A2Q, P = ceil(t + log2(1 + 2^-t) + 1), t = log2(l1) + N - s_x, which is
        exact in integers: 1 + bit_length(l1 * 2^(N - s_x)). Sound for every running sum in any
        order. `accumulator_bounds` has the same bound with the largest magnitude of an input in
        place of 2^(N - s_x): up to 1 bit narrower for an unsigned input.

    Raises
    ------
    TypeError, ValueError
        If `l1` is no integer or negative, or `x` no integer type or range.

    Notes
    -----
    Source: arXiv:2308.13504.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.l1_width(127, "u8"), ab.l1_width(128, "u8")
    (16, 17)
    """
    return (integer("l1", l1, 0) << _magnitude_bits(operand_range("x", x))).bit_length() + 1


def l1_cap(bits: SupportsIndex, x: OperandType, *, zero_sum: bool = False) -> Fraction:
    """Return the largest l1 norm of a channel for which a signed accumulator cannot overflow.

    Parameters
    ----------
    bits : int
        P, the width of the accumulator; 2 or more.
    x : str, dtype or pair of int
        Type of the inputs.
    zero_sum : bool
        False: (2^(P-1) - 1) * 2^(s_x - N), sound for every channel (A2Q). True: (2^P - 2) /
        (x_max - x_min), about twice as much, sound only for channels whose integer weights sum to
        exactly 0 (A2Q+; per tile the soft threshold of AXE): a constraint for training, not a check
        of given weights. `zero_sum_widths` checks.

    Returns
    -------
    fractions.Fraction
        For integer weights, its floor.

    Raises
    ------
    TypeError, ValueError
        If `bits` is no integer or below 2, or `x` no integer type or range; with `zero_sum`, if the
        range of `x` does not hold 0 or holds nothing else.

    Notes
    -----
    Sources: arXiv:2308.13504 and, zero-sum, arXiv:2401.10432. Rounding weights can raise the norm
    of a channel, or change its sum: only rounding toward zero keeps a norm below its cap.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.l1_cap(16, "u8"), ab.l1_cap(16, "s8"), ab.l1_cap(16, "u8", zero_sum=True)
    (Fraction(32767, 256), Fraction(32767, 128), Fraction(65534, 255))
    """
    width = integer("bits", bits, 2, 1 << 16)
    x_range = operand_range("x", x)
    if not boolean("zero_sum", zero_sum):
        return Fraction((1 << (width - 1)) - 1, 1 << _magnitude_bits(x_range))
    return Fraction((1 << width) - 2, _zero_sum_span(x_range))


def zero_sum_widths(w: npt.ArrayLike, x: OperandType) -> Array:
    """Return the bits of a signed accumulator for channels whose weights sum to 0 (A2Q+).

    Parameters
    ----------
    w : array_like of integers, shape (K, N) or (K,)
        Weights, a column an output channel.
    x : str, dtype or pair of int
        Type of the inputs, which must hold 0.

    Returns
    -------
    ndarray of int64, shape (N,)
        The smallest P with sum abs(w) <= (2^P - 2) / (x_max - x_min), for each channel: sound for
        every running sum in any order, and equal to the exact sign split of `accumulator_bounds`.

    Raises
    ------
    TypeError
        If `w` holds anything but integers.
    ValueError
        If the weights of a channel do not sum to 0: for those the rule is unsound. If the range of
        `x` does not hold 0, or holds nothing else.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> ab.zero_sum_widths(np.int8([[100, 3], [-60, -1], [-40, -2]]), "u8")
    array([16, 11])
    >>> ab.zero_sum_widths(np.int8([[100, 3], [-60, -1], [-40, -1]]), "u8")
    Traceback (most recent call last):
    ...
    ValueError: w: expected channels whose weights sum to 0, got the sum 1 in channel 1
    """
    span = _zero_sum_span(operand_range("x", x))
    # with x in [0, 1] the sign split is the sums of the positive and of the negative weights
    sums = accumulator_bounds(w, (0, 1)).sign_split
    widths = []
    for n, (negative, positive) in enumerate(zip(sums.lo.tolist(), sums.hi.tolist(), strict=True)):
        if positive + negative:
            raise ValueError(
                "w: expected channels whose weights sum to 0, got the sum "
                f"{positive + negative} in channel {n}"
            )
        widths.append(((positive - negative) * span + 1).bit_length())
    return np.array(widths, np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TileWidths:
    """Widths of the two accumulators of a sum in tiles.

    Attributes
    ----------
    tile : int
        Terms per tile; the last may be short.
    inner : ndarray of int64, shape (N,)
        Bits of the signed accumulator that sums the terms of a tile: the exact sign split of the
        widest tile of each channel.
    outer : ndarray of int64, shape (N,)
        Bits of the signed accumulator of the tiles' sums by the rule inner + ceil(log2(K / tile)),
        which holds for any tiles of that inner width.
    outer_exact : ndarray of int64, shape (N,)
        The same by the exact sign split of the whole channel; never more than `outer`.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> ab.tile_widths(np.full((100, 1), 7, np.int8), "u4", 16)
    TileWidths(tile=16, inner=array([12]), outer=array([15]), outer_exact=array([15]))
    """

    tile: int
    inner: Array
    outer: Array
    outer_exact: Array


def tile_widths(w: npt.ArrayLike, x: OperandType, tile: SupportsIndex) -> TileWidths:
    """Return safe widths of the accumulator inside tiles of terms and of the one that sums tiles.

    Parameters
    ----------
    w : array_like of integers, shape (K, N) or (K,)
        Weights, a column an output channel.
    x : str, dtype or pair of int
        Type of the inputs.
    tile : int
        T, terms per tile: 0..T-1, T..2T-1, and so on.

    Returns
    -------
    TileWidths

    Raises
    ------
    TypeError, ValueError
        As `accumulator_bounds`; if `tile` is no positive integer.

    Notes
    -----
    Source of the outer rule: Colbert et al., "Accumulator-Aware Post-Training Quantization for
    Large Language Models" (AXE), arXiv:2409.17092. Its training threshold for a tile is
    ``l1_cap(bits, x, zero_sum=True)``.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> w = np.random.default_rng(0).integers(-8, 8, (1024, 2)).astype(np.int8)
    >>> widths = ab.tile_widths(w, "u8", 128)
    >>> widths.inner.tolist(), widths.outer.tolist(), widths.outer_exact.tolist()
    ([18, 18], [21, 21], [21, 21])
    """
    size = integer("tile", tile, 1)
    weights = weight_matrix(w)
    whole = accumulator_bounds(weights, x)
    inner = np.ones(whole.channels, np.int64)
    for begin in range(0, whole.terms, size):
        sums = accumulator_bounds(weights[begin : begin + size], x).sign_split
        inner = np.maximum(inner, sums.widths)
    tiles = -(-whole.terms // size)
    return TileWidths(
        tile=size,
        inner=inner,
        outer=inner + max(tiles - 1, 0).bit_length(),
        outer_exact=whole.sign_split.widths,
    )


def kulisch_width(a: FormatLike, b: FormatLike | None = None, terms: SupportsIndex = 1) -> int:
    """Return the bits of a fixed-point accumulator that sums products of two formats exactly.

    Parameters
    ----------
    a, b : FloatFormat, FixedFormat, name or dtype
        Formats of the operands; `b` is `a` by default.
    terms : int
        K, the number of products.

    Returns
    -------
    int
        1 + bit_length(K * (Ma / La) * (Mb / Lb)), signed: M is the largest finite magnitude, L the
        unit of the format, of which every value is a multiple: its smallest subnormal, or what that
        would be in a format without.

    Raises
    ------
    TypeError, ValueError
        As `get_format`; if `terms` is no integer or negative.

    Notes
    -----
    Sound for every running sum of K products of finite operands, whose unit is La * Lb. Source:
    Kulisch, "Computer Arithmetic and Validity" (2008), the complete register.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> [ab.kulisch_width(name, terms=4096) for name in ("e2m1", "e4m3fn", "e5m2", "fp16", "bf16")]
    [21, 49, 77, 93, 535]
    >>> ab.kulisch_width("e4m3fn", "e5m2", 32)
    56
    """
    count = integer("terms", terms, 0)
    first = get_format(a)
    second = first if b is None else get_format(b)
    return 1 + (count * _units(first) * _units(second)).bit_length()


def fixed_accumulator_format(
    terms: SupportsIndex, x: FixedFormat, w: FixedFormat, *, bias: bool = False
) -> FixedFormat:
    """Return the accumulator that the rule of hls4ml gives a sum of fixed-point products.

    Parameters
    ----------
    terms : int
        n, the number of products; 1 or more.
    x, w : FixedFormat
        Formats of the operands.
    bias : bool
        Whether a bias is added: one more integer bit.

    Returns
    -------
    FixedFormat
        W = W_w + W_x + ceil(log2 n) bits, I = I_w + I_x + ceil(log2 n) of them integer bits, each
        one more with a bias; signed if an operand is.

    Raises
    ------
    TypeError, ValueError
        If `terms` is no integer or below 1, an operand is no FixedFormat, or the result has more
        than 64 bits.

    Notes
    -----
    Sound for the exact sum of any such products, and conservative. With a bias it is sound if the
    bias has at most as many integer bits as the sum without it, no finer fraction, and no sign
    where the sum has none.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> x, w = ab.FixedFormat(bits=8, fraction_bits=4), ab.FixedFormat(bits=6, fraction_bits=5)
    >>> ab.fixed_accumulator_format(100, x, w, bias=True)
    FixedFormat(bits=22, fraction_bits=9)
    """
    growth = (integer("terms", terms, 1) - 1).bit_length() + boolean("bias", bias)
    for name, form in (("x", x), ("w", w)):
        if not isinstance(form, FixedFormat):
            raise TypeError(f"{name} must be a FixedFormat, got {form!r}")
    return FixedFormat(
        bits=x.bits + w.bits + growth,
        fraction_bits=x.fraction_bits + w.fraction_bits,
        signed=x.signed or w.signed,
    )


def dsp_fits(x: OperandType, w: OperandType, accumulator_bits: SupportsIndex) -> dict[str, bool]:
    """Return in which registers and DSP slices a multiply-accumulate fits.

    Parameters
    ----------
    x, w : str, dtype or pair of int
        Types of the operands. A slice multiplies signed numbers: an unsigned operand needs one bit
        more, and either operand may go to the wide port.
    accumulator_bits : int
        Width of the signed accumulator.

    Returns
    -------
    dict of str to bool
        "int32", "acc48" and "acc58": the accumulator alone in 32, 48 and 58 bits. "DSP48E1" (ports
        of 18 and 25 bits, accumulator of 48), "DSP48E2" (18, 27, 48), "DSP58" (24, 27, 58):
        operands and accumulator in one slice.

    Raises
    ------
    TypeError, ValueError
        If an operand is no integer type or range, or `accumulator_bits` no positive integer.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> [name for name, fits in ab.dsp_fits("u8", "s8", 50).items() if fits]
    ['acc58', 'DSP58']
    """
    bits = integer("accumulator_bits", accumulator_bits, 1)
    ports = sorted(signed_width(*operand_range(name, type_))
                   for name, type_ in (("x", x), ("w", w)))  # fmt: skip
    fits = {"int32": bits <= 32, "acc48": bits <= 48, "acc58": bits <= 58}
    for name, (narrow, wide, accumulator) in DSP_LIMITS.items():
        fits[name] = ports[0] <= narrow and ports[1] <= wide and bits <= accumulator
    return fits


def _magnitude_bits(x_range: Range) -> int:
    """Return N - s_x of the narrowest type that holds a range: its numbers reach 2^(N - s_x)."""
    bits, signed = type_of_range(x_range)
    return bits - signed


def _zero_sum_span(x_range: Range) -> int:
    lowest, highest = x_range
    if not lowest <= 0 <= highest or lowest == highest:
        raise ValueError(f"x: expected a range with 0 and another number, got {lowest}..{highest}")
    return highest - lowest


def _units(form: Format) -> int:
    """Return the largest magnitude of a format as a multiple of its unit."""
    if isinstance(form, FixedFormat):
        return max(-form.min_code, form.max_code)
    significand, exponent = form.significand_exponent(form.max_index)
    return significand << (exponent - (form.emin - form.mantissa_bits))
