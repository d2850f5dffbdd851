"""Quantisation of a layer's operands to integers: scales, zero points, and biases."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from ._integer_codes import (
    as_finite,
    integer_type,
    nearest_even_quotient,
    symmetric_scale,
    type_label,
)

IntegerArray: TypeAlias = npt.NDArray[np.integer[Any]]
Range: TypeAlias = tuple[int, int]

_NAMES = re.compile(r"(?:int(?P<both>\d+)|w(?P<weight>\d+)a(?P<input>\d+))\Z")
ZERO_POINTS = ("subtract", "fold")


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How a float model becomes integers.

    Parameters
    ----------
    input_bits, weight_bits : int
        2 to 16.
    per_channel : bool
        Whether each output channel of a weight has a scale of its own.
    affine : bool
        Whether inputs are unsigned with a zero point; else signed and symmetric. Weights are
        always symmetric, in [-(2^(b-1) - 1), 2^(b-1) - 1].
    calibration_samples : int
        How many of the first samples give the range of an input. Later values beyond it saturate.

    Raises
    ------
    ValueError
        Bits or samples out of range.

    Examples
    --------
    >>> from abcdeep_core.overflow import quantization
    >>> quantization.Quantization.from_name("w4a8").weight_bits
    4
    """

    input_bits: int = 8
    weight_bits: int = 8
    per_channel: bool = True
    affine: bool = False
    calibration_samples: int = 256

    def __post_init__(self) -> None:
        for name in ("input_bits", "weight_bits"):
            if not 2 <= getattr(self, name) <= 16:
                raise ValueError(f"{name}: expected 2 to 16, got {getattr(self, name)}")
        if self.calibration_samples < 1:
            raise ValueError(
                f"calibration_samples: expected at least 1, got {self.calibration_samples}"
            )

    @classmethod
    def from_name(cls, name: str, **settings: Any) -> Self:
        """Return the quantisation of a name: ``"int8"``, or ``"w4a8"`` for 4-bit weights.

        Parameters
        ----------
        name : str
            ``int`` and the bits of inputs and weights, or ``w``, ``a`` and the bits of each.
        **settings
            The other parameters of the class.

        Raises
        ------
        ValueError
            Another name, or bits out of range.
        """
        match = _NAMES.match(name) if isinstance(name, str) else None
        if match is None:
            raise ValueError(f"quantise: expected 'int8', 'w4a8' or the like, got {name!r}")
        both = match["both"]
        input_bits, weight_bits = int(both or match["input"]), int(both or match["weight"])
        return cls(input_bits=input_bits, weight_bits=weight_bits, **settings)


@dataclass(frozen=True, kw_only=True)
class InputQuantizer:
    """Codes of an input: code = x / scale + zero_point, to nearest even, saturated.

    Parameters
    ----------
    lowest, highest : int
        Range of the codes.
    scale : float, optional
        None for an input that is integers already.
    zero_point : int
        The code of the real 0, within the range.
    fold : bool
        Whether the operand is the code itself, the bias taking the zero point; else the operand is
        code - zero_point.

    Raises
    ------
    ValueError
        A scale that is not positive, a zero point that is not a code.

    Examples
    --------
    >>> import numpy as np
    >>> from abcdeep_core.overflow import quantization
    >>> quantizer = quantization.InputQuantizer.calibrated(-1.0, 4.1, 8, affine=True)
    >>> quantizer.zero_point, quantizer.operand_range
    (50, (-50, 205))
    >>> quantizer.operand("x", np.float32([-1, 0, 0.5, 9]))
    array([-50,   0,  25, 205], dtype=int16)
    """

    lowest: int
    highest: int
    scale: float | None = None
    zero_point: int = 0
    fold: bool = False

    def __post_init__(self) -> None:
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale: expected a positive number, got {self.scale}")
        if not self.lowest <= self.zero_point <= self.highest:
            raise ValueError(
                f"zero_point: expected a number in [{self.lowest}, {self.highest}], got"
                f" {self.zero_point}"
            )

    @classmethod
    def calibrated(
        cls, lowest: float, highest: float, bits: int, *, affine: bool, fold: bool = False
    ) -> Self:
        """Return the quantiser for the range [lowest, highest] of real values.

        Symmetric: scale = max(-lowest, highest) / (2^(bits-1) - 1). Affine: scale = (max(highest,
        0) - min(lowest, 0)) / (2^bits - 1), zero point nearest to -min(lowest, 0) / scale. The
        scale is the float32 nearest to that, 1 if it is 0.

        Parameters
        ----------
        lowest, highest : float
            Smallest and largest value seen.
        bits : int
            Of a code.
        affine, fold : bool
            As the classes' parameters of these names.

        Raises
        ------
        ValueError
            Values beyond float32.
        """
        if not affine:
            largest_code = 2 ** (bits - 1) - 1
            scale = symmetric_scale("input", max(-lowest, highest), largest_code)
            return cls(lowest=-largest_code, highest=largest_code, scale=scale)
        lowest, highest, largest_code = min(lowest, 0.0), max(highest, 0.0), 2**bits - 1
        scale = symmetric_scale("input", highest - lowest, largest_code)
        zero_point = min(round(Fraction(-lowest) / Fraction(scale)), largest_code)
        return cls(lowest=0, highest=largest_code, scale=scale, zero_point=zero_point, fold=fold)

    @property
    def offset(self) -> int:
        """What is subtracted from a code to make the operand."""
        return 0 if self.fold else self.zero_point

    @property
    def operand_range(self) -> Range:
        """Smallest and largest operand."""
        return self.lowest - self.offset, self.highest - self.offset

    @property
    def padding(self) -> int:
        """The operand of the real 0."""
        return self.zero_point - self.offset

    @property
    def label(self) -> str:
        """Name of the operand's type."""
        return type_label(self.lowest, self.highest, self.offset)

    def operand(self, name: str, x: npt.NDArray[Any]) -> IntegerArray:
        """Return the integer operands of an input: floats are quantised, integers are codes.

        Parameters
        ----------
        name : str
            Of the input, for messages.
        x : ndarray of floats or integers
            Any shape.

        Raises
        ------
        TypeError
            Floats without a scale, or another dtype.
        ValueError
            NaN or infinity; codes outside the range.
        """
        dtype = integer_type(*self.operand_range)
        if x.dtype.kind in "iu" or x.dtype.name in ("int2", "uint2", "int4", "uint4"):
            code = x.astype(np.int64) if x.dtype.kind not in "iu" else x
            if code.size and (code.min() < self.lowest or code.max() > self.highest):
                raise ValueError(
                    f"{name}: expected integers in [{self.lowest}, {self.highest}], got"
                    f" {code.min()} to {code.max()}"
                )
            if not self.offset:
                return code.astype(dtype)
            return (code.astype(np.int32) - self.offset).astype(dtype)
        if self.scale is None:
            raise TypeError(f"{name}: expected integers, as the input has no scale, got {x.dtype}")
        quotient = nearest_even_quotient(as_finite(name, x), self.scale)
        shift = self.zero_point
        code = np.clip(quotient + shift, self.lowest, self.highest)
        return (code - self.offset).astype(dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedWeight:
    """Integer weights and what they mean: real = scale * value.

    Parameters
    ----------
    values : ndarray of int8, uint8, int16 or uint16
        The operands, any zero point subtracted.
    range : (int, int)
        Smallest and largest operand that their type holds.
    label : str
        Name of the type.
    scale : float, ndarray of float64 (channels,), or None
        For the tensor or for each output channel; None if unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from abcdeep_core.overflow import quantization
    >>> quantization.quantize_weight("w", np.float32([[1, -2], [0.5, 1]]), 4, 1).scale
    array([0.14285715, 0.2857143 ])
    """

    values: IntegerArray
    range: Range
    label: str
    scale: float | npt.NDArray[np.float64] | None = None


def quantize_weight(
    name: str, weight: npt.ArrayLike, bits: int = 8, channel_axis: int | None = None
) -> QuantizedWeight:
    """Return symmetric integer weights in [-(2^(bits-1) - 1), 2^(bits-1) - 1].

    Parameters
    ----------
    name : str
        Of the weight, for messages.
    weight : array_like of float
        Any shape.
    bits : int
        2 to 16.
    channel_axis : int, optional
        The axis along which each index has its own scale; None for one scale.

    Returns
    -------
    QuantizedWeight
        int8 up to 8 bits, else int16. The scale is the float32 nearest to the largest magnitude
        over 2^(bits-1) - 1, and 1 where all weights are zero.

    Raises
    ------
    TypeError, ValueError
        Something else than finite floats.

    Examples
    --------
    >>> import numpy as np
    >>> from abcdeep_core.overflow import quantization
    >>> quantization.quantize_weight("w", np.float32([[7, -14], [2, 3]]), 4, 1).values
    array([[ 7, -7],
           [ 2,  2]], dtype=int8)
    """
    wide = as_finite(name, weight)
    highest = 2 ** (bits - 1) - 1
    scale: float | npt.NDArray[np.float64]
    if channel_axis is None:
        scale = symmetric_scale(name, float(np.abs(wide).max(initial=0)), highest)
        factor: float | npt.NDArray[np.float64] = scale
    else:
        others = tuple(axis for axis in range(wide.ndim) if axis != channel_axis)
        largest = np.abs(wide).max(axis=others, initial=0)
        scale = np.array([symmetric_scale(name, float(value), highest) for value in largest])
        factor = np.expand_dims(scale, others)
    values = np.clip(nearest_even_quotient(wide, factor), -highest, highest)
    return QuantizedWeight(
        values=values.astype(integer_type(-highest, highest)),
        range=(-highest, highest),
        label=type_label(-highest, highest),
        scale=scale,
    )


def quantize_bias(
    name: str,
    bias: npt.ArrayLike,
    input_scale: float,
    weight_scale: float | npt.NDArray[np.float64],
) -> npt.NDArray[np.int64]:
    """Return a bias in units of the accumulator: bias / (input_scale * weight_scale), exactly.

    Parameters
    ----------
    name : str
        Of the bias, for messages.
    bias : array_like of float (N,)
        In real units.
    input_scale : float
        Of the input.
    weight_scale : float or ndarray (N,)
        Of the weight.

    Returns
    -------
    ndarray of int64 (N,)
        Rounded to nearest even.

    Raises
    ------
    TypeError, ValueError
        Something else than finite floats; a result of 2^62 or more.

    Examples
    --------
    >>> from abcdeep_core.overflow import quantization
    >>> quantization.quantize_bias("b", [1.0, -0.75], 0.5, 0.5)
    array([ 4, -3])
    """
    real = as_finite(name, bias)
    scales = np.broadcast_to(np.asarray(weight_scale, np.float64), real.shape)
    units = [
        round(Fraction(float(value)) / (Fraction(input_scale) * Fraction(float(scale))))
        for value, scale in zip(real, scales, strict=True)
    ]
    if any(abs(value) >= 2**62 for value in units):
        raise ValueError(f"{name}: expected a bias of less than 2^62 accumulator units")
    return np.array(units, np.int64)
