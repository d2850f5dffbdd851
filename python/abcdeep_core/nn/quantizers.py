"""Quantisers of 4-bit and 8-bit training: LUQ, uniform integers, blocks, delayed scales."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import abcdeep_core as ab

from ..block_format import BlockFormat
from ..formats import FloatFormat
from .operand import FloatArray, ScaledArray

# Every product has four streams: operand a, operand b, sums, and this one for what a and b share.
_SHARED_STREAM = 3
_LARGEST_EXPONENT = 126  # of a scale that is a normal float32 number, as is its inverse


def _probe() -> FloatArray:
    """Return what a quantiser is tried on when it is made, so that wrong arguments raise there."""
    return np.zeros((1, 1), np.float32)


@dataclass(frozen=True)
class LuqQuantizer:
    """Logarithmic unbiased quantisation of an output gradient (`ab.luq`), one maximum a tensor.

    Parameters
    ----------
    samples : int
        Number of independent samples, 1 to 32. Step t draws from the calls ``samples * t`` and
        following, so that no two steps share random words.
    smp : {"gemm", "operand"}
        With several samples: "operand" returns their mean; "gemm" the pair (sample 0, mean), of
        which the input gradient sees the first and the weight gradient the second. A product is
        linear in the gradient, so that this is, up to float32 rounding, the mean of `samples`
        weight gradients, one from each sample, and only for `Arithmetic.output_gradient`.
    levels, alpha_rounding, underflow, log_rounding, over_range
        As `ab.luq`.
    eta : float, optional
        Takes the maximum from earlier steps (`ab.HindsightMax`); None takes the tensor's own.

    Raises
    ------
    TypeError, ValueError
        As `ab.luq` and `ab.HindsightMax`; another `smp`.

    Notes
    -----
    "Accurate neural training with 4-bit matrix multiplications at standard formats",
    arXiv 2112.10769.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> ab.nn.LuqQuantizer()(np.float32([64, -32, 0.0, 2]), seed=0)
    array([ 64., -32.,   0.,   2.], dtype=float32)
    """

    samples: int = 1
    smp: str = "gemm"
    levels: int = 7
    alpha_rounding: str | None = None
    underflow: str = "stochastic"
    log_rounding: str = "stochastic"
    over_range: str = "clip"
    eta: float | None = None

    def __post_init__(self) -> None:
        if self.smp not in ("gemm", "operand"):
            raise ValueError(f"smp: expected gemm or operand, got {self.smp!r}")
        if self.eta is not None:
            ab.HindsightMax(self.eta)
        self._draw(_probe(), self.samples, seed=0)

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the names of what it has to know, see `OperandContext`."""
        return () if self.eta is None else ("state",)

    def __call__(
        self,
        x: FloatArray,
        /,
        *,
        seed: int | None = None,
        stream: int = 0,
        call: int = 0,
        state: dict[str, Any] | None = None,
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """Return the quantised tensor, or a pair of them if `smp` says so."""
        words: dict[str, Any] = {"seed": seed, "stream": stream, "call": call * self.samples}
        if self.eta is not None:
            state = {} if state is None else state
            hindsight = state.setdefault("maximum", ab.HindsightMax(self.eta))
            words["max_abs"] = hindsight.update(x)
        mean = self._draw(x, self.samples, **words)
        if self.samples == 1 or self.smp == "operand":
            return mean
        return self._draw(x, 1, **words), mean

    def _draw(self, x: FloatArray, samples: int, **words: Any) -> FloatArray:
        return ab.luq(
            x,
            samples=samples,
            levels=self.levels,
            alpha_rounding=self.alpha_rounding,
            underflow=self.underflow,
            log_rounding=self.log_rounding,
            over_range=self.over_range,
            **words,
        )


@dataclass(frozen=True)
class UniformQuantizer:
    """Round a tensor to evenly spaced values (`ab.quantize_uniform`), by default INT4 with SAWB.

    Parameters
    ----------
    bits, clip, levels, coefficients, rounding
        As `ab.quantize_uniform`.
    signed : bool, optional
        None uses the unsigned range for a tensor without a negative element, such as the output of
        a ReLU.

    Raises
    ------
    TypeError, ValueError
        As `ab.quantize_uniform`.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> quantizer = ab.nn.UniformQuantizer(clip="max_abs")
    >>> quantizer(np.float32([-7, 2.2, 3.8]))
    array([-7.,  2.,  4.], dtype=float32)
    """

    bits: int = 4
    clip: Any = "sawb"
    signed: bool | None = None
    levels: str = "corrected"
    coefficients: str = "luq"
    rounding: str = "nearest_even"

    def __post_init__(self) -> None:
        self(_probe(), seed=0)

    def __call__(
        self, x: FloatArray, /, *, seed: int | None = None, stream: int = 0, call: int = 0
    ) -> FloatArray:
        """Return the rounded tensor, in the shape of x."""
        signed = bool(np.min(x, initial=0) < 0) if self.signed is None else self.signed
        return ab.quantize_uniform(
            x,
            self.bits,
            clip=self.clip,
            signed=signed,
            levels=self.levels,
            coefficients=self.coefficients,
            rounding=self.rounding,
            seed=seed,
            stream=stream,
            call=call,
        )


@dataclass(frozen=True)
class BlockQuantizer:
    """Round a tensor to a block format (`ab.quantize_blocks`) along the axis of the reduction.

    Parameters
    ----------
    format : str or BlockFormat
        One with blocks of several rows takes them from the two axes that a weight has before its
        kernel axes.
    rounding : str, optional
        Of the elements, as `ab.quantize_blocks`.
    rotation : int, optional
        Rotate groups of so many elements along the axis first (`ab.random_hadamard`); the axis is
        filled up with zeros. Only for gradient products, with the same rotation in both operands:
        then the product is that of the operands that are not rotated.
    signs : {"random", "transformer_engine"}
        Of the rotation. The random ones are those of the product's fourth stream, hence the same
        for both operands and new in each step.

    Raises
    ------
    TypeError, ValueError
        As `ab.get_block_format`, `ab.quantize_blocks` and `ab.random_hadamard`.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> ab.nn.BlockQuantizer("mxfp4")(np.float32([6, 2.4, -0.3, 0.2]))
    array([ 6. ,  2. , -0.5,  0. ], dtype=float32)
    """

    format: str | BlockFormat
    rounding: str | None = None
    rotation: int | None = None
    signs: str = "random"

    needs = ("axis",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", ab.get_block_format(self.format))
        if self.signs not in ("random", "transformer_engine"):
            raise ValueError(f"signs: expected random or transformer_engine, got {self.signs!r}")
        self(_probe(), seed=0)

    def __call__(
        self,
        x: FloatArray,
        /,
        *,
        seed: int | None = None,
        stream: int = 0,
        call: int = 0,
        axis: int = -1,
    ) -> FloatArray:
        """Return the rounded values, rotated and filled up if there is a rotation."""
        axis %= x.ndim
        if self.rotation is not None:
            x = self._rotated(x, self.rotation, seed, stream, call, axis)
        fmt = ab.get_block_format(self.format)
        return ab.quantize_blocks(
            x,
            fmt,
            self.rounding,
            axis=axis if fmt.block[0] == 1 else max(axis, 1),
            seed=seed,
            stream=stream,
            call=call,
        ).dequantize()

    def _rotated(
        self, x: FloatArray, group: int, seed: int | None, stream: int, call: int, axis: int
    ) -> FloatArray:
        if missing := -x.shape[axis] % group:
            x = np.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])
        signs: dict[str, Any] = {"signs": self.signs}
        if self.signs == "random":
            signs = {"seed": seed, "stream": stream | _SHARED_STREAM, "call": call}
        return ab.random_hadamard(x, block=group, axis=axis, **signs)


@dataclass(frozen=True)
class DelayedScaleQuantizer:
    """Round to a narrow float after a power-of-two scale taken from the maxima of earlier steps.

    The scale is 2^floor(log2(largest value of the format / amax)), with amax the largest magnitude
    of the tensor in the latest `history` training steps, this one not included; the first step uses
    its own. Larger values saturate. An amax of zero means the scale 1, and the exponent of the
    scale is at most 126 in magnitude.

    Parameters
    ----------
    format : str or FloatFormat
    rounding : str, optional
        As `ab.quantize`.
    history : int
        How many steps are remembered, at least 1.

    Raises
    ------
    TypeError, ValueError
        Not a floating-point format, an unknown rounding, a history below 1; when called, a tensor
        that is not finite.

    Notes
    -----
    "Scaling FP8 training to trillion-token LLMs", arXiv 2409.12517.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> ab.nn.DelayedScaleQuantizer("e5m2")(np.float32([1, -0.3])).values.tolist()
    [32768.0, -10240.0]
    """

    format: str | FloatFormat
    rounding: str | None = None
    history: int = 16

    needs = ("state",)

    def __post_init__(self) -> None:
        resolved = ab.get_format(self.format)
        if not isinstance(resolved, FloatFormat):
            raise TypeError(f"format: expected a FloatFormat, got {resolved!r}")
        object.__setattr__(self, "format", resolved)
        if self.history < 1:
            raise ValueError(f"history: expected at least 1, got {self.history}")
        self(_probe(), seed=0)

    def __call__(
        self,
        x: FloatArray,
        /,
        *,
        seed: int | None = None,
        stream: int = 0,
        call: int = 0,
        state: dict[str, Any] | None = None,
    ) -> ScaledArray:
        """Return the scaled values on the grid, with the inverse of the scale."""
        largest = float(np.max(np.abs(x), initial=0))
        if not math.isfinite(largest):
            raise ValueError(f"x: expected finite values to scale, got {largest}")
        maxima: list[float] = [] if state is None else state.setdefault("maxima", [])
        exponent = self._exponent(max(maxima, default=largest))
        maxima.append(largest)
        del maxima[: -self.history]
        with np.errstate(over="ignore"):  # an Inf saturates
            scaled = np.ldexp(x, exponent)
        values = ab.quantize(
            scaled,
            self.format,
            self.rounding,
            overflow="sat_finite",
            seed=seed,
            stream=stream,
            call=call,
        )
        return ScaledArray(values, np.ldexp(x.dtype.type(1), -exponent))

    def _exponent(self, largest: float) -> int:
        if largest == 0:
            return 0
        assert isinstance(self.format, FloatFormat)
        # largest = f * 2^e with f in [1/2, 1): the floor of the logarithm without rounding.
        (top, top_exponent), (f, e) = math.frexp(float(self.format.max)), math.frexp(largest)
        exponent = top_exponent - e - (top < f)
        return max(-_LARGEST_EXPONENT, min(exponent, _LARGEST_EXPONENT))
