"""Operand quantisers: what happens to a tensor before a matrix product sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

import abcdeep_core as ab

from ..formats import FixedFormat, FloatFormat

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]

# The dtype of each name, and the largest magnitude used: the codes are symmetric about zero.
_INTEGER_OPERANDS = {
    "int4": (ml_dtypes.int4, 7),
    "int8": (np.int8, 127),
    "int16": (np.int16, 32767),
}


@dataclass(frozen=True)
class RandomAddress:
    """Where random words lie: randomness is a function of (seed, stream, call, element index).

    Parameters
    ----------
    seed : int, optional
        None where nothing is drawn.
    stream, call : int
        A layer has its own streams; each of its forward passes is one call.
    """

    seed: int | None = None
    stream: int = 0
    call: int = 0

    def keywords(self, role: int) -> dict[str, Any]:
        """Return keywords for `ab.quantize` or `ab.matmul`: role 0 is a, 1 is b, 2 is the sums."""
        return {"seed": self.seed, "stream": self.stream + role, "call": self.call}


@dataclass(frozen=True, eq=False)
class ScaledArray:
    """A quantised operand that stands for values * scale.

    The matrix product sees `values`; its result is multiplied by the scales of both operands.

    Parameters
    ----------
    values : ndarray of floats or integers
    scale : float32 or float64 scalar
        Its dtype is the dtype of the tensor that was quantised.
    """

    values: npt.NDArray[Any]
    scale: np.floating[Any]

    def dequantize(self) -> FloatArray:
        """Return values * scale in the dtype of the scale, rounded to nearest even."""
        if self.scale == 1 and self.values.dtype == self.scale.dtype:
            return self.values
        return np.asarray(self.values.astype(np.float64) * self.scale, dtype=self.scale.dtype)


@dataclass(frozen=True, eq=False)
class OperandContext:
    """What a quantiser may ask about its operand: it lists field names in its attribute `needs`.

    Parameters
    ----------
    axis : int
        The axis of the tensor along which the matrix product sums.
    training : bool
        Whether the product belongs to a training step.
    state : dict
        Private to one tensor of one layer and kept from call to call. It is empty when the layer
        gets its arithmetic, and an evaluation sees a copy, so that only training moves it.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> class Centred:
    ...     needs = ("axis",)
    ...
    ...     def __call__(self, x, *, seed, stream, call, axis):
    ...         return x - x.mean(axis, keepdims=True)
    >>> gemm = ab.nn.GemmArithmetic(a_quantizer=Centred())
    >>> layer = ab.nn.Linear(2, 1, arithmetic=ab.nn.Arithmetic(forward=gemm), seed=0)
    >>> layer.forward(np.float32([[5, 5]]))
    array([[0.]], dtype=float32)
    """

    axis: int = -1
    training: bool = False
    state: dict[str, Any] = field(default_factory=dict)

    def keywords(self, quantizer: Callable[..., Any]) -> dict[str, Any]:
        """Return the fields that the quantiser needs, by name."""
        return {name: getattr(self, name) for name in getattr(quantizer, "needs", ())}


class OperandQuantizer(Protocol):
    """What a layer calls to quantise an operand: any function with this signature is one.

    ``functools.partial(ab.quantize, fmt="e4m3fn")`` is. A quantiser without randomness ignores the
    keywords. One with an attribute `needs`, a tuple of names, also gets these fields of its
    `OperandContext` as keywords. The result is an array of x's dtype, or a `ScaledArray`.
    """

    def __call__(
        self, x: FloatArray, /, *, seed: int | None, stream: int, call: int, **context: Any
    ) -> FloatArray | ScaledArray:
        """Return the quantised tensor."""
        ...


@dataclass(frozen=True)
class FormatQuantizer:
    """Round a tensor onto the grid of a format, if asked with a per-tensor power-of-two scale.

    Parameters
    ----------
    format : str, FloatFormat or FixedFormat
        Anything that `ab.get_format` takes.
    rounding : str, optional
        As `ab.quantize`; None is nearest_even, or a fixed-point format's own mode.
    overflow : str, optional
        As `ab.quantize`. None saturates in a floating-point format (sat_finite), because one Inf or
        NaN in an operand ends a training; in a fixed-point format it is the format's own rule.
    flex_bias : bool
        Multiply by the largest power of two that keeps max|x| in or below the format's top binade,
        2^ceil(emax - log2 max|x|), and divide by it after rounding.

    Raises
    ------
    ValueError
        An unknown format, or `flex_bias` with a fixed-point format.

    Notes
    -----
    For a format with the standard bias and no special codes emax = 2^(E-1), which makes `flex_bias`
    the rule for operands in the LBA author's code (arXiv 2401.14110).

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> quantizer = ab.nn.FormatQuantizer("e2m1fn", flex_bias=True)
    >>> quantizer(np.float32([0.001, 0.0024])) * 2**11  # the grid 0, 0.5, 1, 1.5, 2, 3, 4, 6
    array([2., 4.], dtype=float32)
    """

    format: str | FloatFormat | FixedFormat
    rounding: str | None = None
    overflow: str | None = None
    flex_bias: bool = False

    def __post_init__(self) -> None:
        resolved = ab.get_format(self.format)
        object.__setattr__(self, "format", resolved)
        if isinstance(resolved, FloatFormat):
            if self.overflow is None:
                object.__setattr__(self, "overflow", "sat_finite")
        elif self.flex_bias:
            raise ValueError(f"flex_bias: expected a FloatFormat, got {resolved!r}")

    def __call__(
        self, x: FloatArray, /, *, seed: int | None = None, stream: int = 0, call: int = 0
    ) -> FloatArray:
        """Return the rounded tensor, in the shape and dtype of x."""
        shift = self._flex_exponent(x) if self.flex_bias else 0
        rounded: FloatArray = ab.quantize(
            np.ldexp(x, shift) if shift else x,
            self.format,
            self.rounding,
            overflow=self.overflow,
            seed=seed,
            stream=stream,
            call=call,
        )
        return np.ldexp(rounded, -shift) if shift else rounded

    def _flex_exponent(self, x: FloatArray) -> int:
        assert isinstance(self.format, FloatFormat)
        largest = np.max(np.abs(x), initial=0.0)
        if largest == 0 or not np.isfinite(largest):
            return 0
        # frexp gives largest = f * 2^e with f in [1/2, 1), so that without any rounding
        # ceil(emax - log2(largest)) = emax - floor(log2(largest)) = emax - (e - 1).
        return self.format.emax - (int(np.frexp(largest)[1]) - 1)


@dataclass(frozen=True)
class SymmetricQuantizer:
    """Round a tensor to signed integers with one scale, max|x| / (2^(bits-1) - 1).

    Every tensor gets its own scale (an activation: every batch). The most negative code is unused.

    Parameters
    ----------
    dtype : {"int4", "int8", "int16"}
        Integer type of the operand.

    Raises
    ------
    ValueError
        Another dtype; when called, a tensor that is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> ab.nn.SymmetricQuantizer("int8")(np.float32([-0.5, 1.0])).values
    array([-64, 127], dtype=int8)
    """

    dtype: str = "int8"

    def __post_init__(self) -> None:
        if self.dtype not in _INTEGER_OPERANDS:
            names = ", ".join(_INTEGER_OPERANDS)
            raise ValueError(f"dtype: expected one of {names}, got {self.dtype!r}")

    def __call__(
        self, x: FloatArray, /, *, seed: int | None = None, stream: int = 0, call: int = 0
    ) -> ScaledArray:
        """Return the codes and their scale."""
        dtype, limit = _INTEGER_OPERANDS[self.dtype]
        largest = np.max(np.abs(x), initial=0.0)
        if not np.isfinite(largest):
            raise ValueError(f"x: expected finite values to scale to {self.dtype}, got {largest}")
        scale = x.dtype.type(largest / limit)
        if scale == 0:  # a tensor of zeros, or so small that its scale underflows
            scale = x.dtype.type(1)
        codes = np.clip(np.rint(x / scale), -limit, limit).astype(dtype)
        return ScaledArray(codes, scale)


QuantizerLike: TypeAlias = (
    str
    | FloatFormat
    | FixedFormat
    | tuple[str | FloatFormat | FixedFormat, str]
    | Callable[..., Any]
    | None
)


_CONTEXT = tuple(entry.name for entry in fields(OperandContext))


def as_quantizer(name: str, quantizer: QuantizerLike) -> Callable[..., Any] | None:
    """Return what the argument `name` means: a format and (format, rounding) become callables."""
    if quantizer is None:
        return None
    if callable(quantizer):
        for needed in getattr(quantizer, "needs", ()):
            if needed not in _CONTEXT:
                raise ValueError(
                    f"{name}: expected needs from {', '.join(_CONTEXT)}, got {needed!r}"
                )
        return quantizer
    if not isinstance(quantizer, tuple):
        return FormatQuantizer(quantizer)
    if len(quantizer) != 2:
        raise ValueError(f"{name}: expected (format, rounding), got {quantizer!r}")
    return FormatQuantizer(*quantizer)


def run_quantizer(
    name: str,
    quantizer: QuantizerLike,
    x: FloatArray,
    words: dict[str, Any],
    context: OperandContext,
) -> Any:
    """Return what the quantiser makes of x, the result unchecked.

    Raises
    ------
    FloatingPointError
        If the quantiser refuses x and x is not finite: the training has diverged.
    """
    function = as_quantizer(name, quantizer)
    if function is None:
        return x
    try:
        return function(x, **words, **context.keywords(function))
    except ValueError as error:
        if np.isfinite(x).all():
            raise
        raise FloatingPointError(f"{name}: expected finite numbers to quantise: {error}") from error


def as_scaled(name: str, quantized: Any, dtype: np.dtype[Any]) -> ScaledArray:
    """Return a quantiser's result as a `ScaledArray`; `dtype` is that of what it was given."""
    if isinstance(quantized, ScaledArray):
        return quantized
    if not isinstance(quantized, np.ndarray):
        kind = type(quantized).__name__
        raise TypeError(f"{name}: expected an array or a ScaledArray as the result, got {kind}")
    return ScaledArray(quantized, dtype.type(1))
