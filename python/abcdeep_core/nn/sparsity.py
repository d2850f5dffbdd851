"""N:M sparsity of operands: magnitude, transposable and unbiased masks, chains of quantisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import abcdeep_core as ab

from .._format_base import integer
from .operand import (
    FloatArray,
    OperandContext,
    QuantizerLike,
    ScaledArray,
    as_quantizer,
    as_scaled,
    run_quantizer,
)

Mask = npt.NDArray[np.bool_]

# The streams of a layer's products are below this; those of a chain's later members are above.
_CHAIN_STREAMS = 1 << 24
_LARGEST_CHAIN = 1 << 8  # a stream has 32 bits


@dataclass(frozen=True)
class MagnitudeMask:
    """Keep the n largest of every m elements along the axis of the reduction, zeros elsewhere.

    Meant for weights, and as the biased twin of `UnbiasedMask` for gradients. The gradient of the
    operand is that of the dense one (straight-through), so that a weight which is zero in the
    products is trained on and may come back.

    Parameters
    ----------
    n, m : int
        As `ab.nm_mask`. A last group that is shorter than m keeps its n largest too.
    every : int
        Choose the mask anew in every so many training steps. An evaluation computes with the mask
        of the next training step. More than 1 is for tensors that keep their shape.
    quantizer : optional
        What else happens to the operand, as `GemmArithmetic` takes it. It rounds the whole tensor,
        whose statistics (a clip, a scale) are thus those of the dense one; the mask is that of the
        tensor before, and sets what it does not keep to zero.

    Raises
    ------
    TypeError, ValueError
        As `ab.nm_mask`; `every` below 1; when called, a tensor that is not finite, or of another
        shape than that of a mask which it should keep.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> ab.nn.MagnitudeMask(2, 4)(np.float32([3, -1, 2, 0.5]))
    array([3., 0., 2., 0.], dtype=float32)
    """

    n: int = 2
    m: int = 4
    every: int = 1
    quantizer: QuantizerLike = None

    needs = ("axis", "training", "state")

    def __post_init__(self) -> None:
        integer("every", self.every, 1)
        object.__setattr__(self, "quantizer", as_quantizer("quantizer", self.quantizer))
        self._choose(_probe(self.m), -1)

    def fits(self, shape: Sequence[int]) -> bool:
        """Return whether a weight of this shape gets a mask; the others stay dense."""
        return len(shape) > 0

    def __call__(
        self,
        x: FloatArray,
        /,
        *,
        seed: int | None = None,
        stream: int = 0,
        call: int = 0,
        axis: int = -1,
        training: bool = False,
        state: dict[str, Any] | None = None,
    ) -> FloatArray | ScaledArray:
        """Return the masked tensor, in the shape of x."""
        state = {} if state is None else state
        mask = self._mask(x, axis, state)
        context = OperandContext(axis, training, state.setdefault("quantizer", {}))
        words = {"seed": seed, "stream": stream, "call": call}
        rounded = run_quantizer("quantizer", self.quantizer, x, words, context)
        scaled = as_scaled("quantizer", rounded, x.dtype)
        if mask is None:
            return scaled if isinstance(rounded, ScaledArray) else scaled.values
        if scaled.values.shape != mask.shape:
            raise ValueError(
                f"quantizer: expected the shape {mask.shape} as the result, got"
                f" {scaled.values.shape}"
            )
        values = np.where(mask, scaled.values, scaled.values.dtype.type(0))
        return ScaledArray(values, scaled.scale) if isinstance(rounded, ScaledArray) else values

    def _mask(self, x: FloatArray, axis: int, state: dict[str, Any]) -> Mask | None:
        steps = state.get("steps", 0)
        state["steps"] = steps + 1
        if steps % self.every == 0:
            state["mask"] = self._choose(x, axis) if self.fits(x.shape) else None
        mask: Mask | None = state["mask"]
        if mask is not None and mask.shape != x.shape:
            raise ValueError(
                f"every: expected 1 for a tensor whose shape changes, from {mask.shape} to"
                f" {x.shape}, got {self.every}"
            )
        return mask

    def _choose(self, x: FloatArray, axis: int) -> Mask:
        mask: Mask = ab.nm_mask(x, self.n, self.m, axis, remainder="pad")
        return mask


@dataclass(frozen=True)
class TransposableMask(MagnitudeMask):
    """Keep n elements in every row and column of every m x m block of a weight.

    As operand of the forward product it is N:M along the inputs, and the input gradient, which sees
    the same weight, has it N:M along the outputs.

    The blocks lie on the first two axes: inputs and outputs of `Linear`, outputs and inputs of
    `Conv2d`, there for each tap of the kernel. In a convolution with groups the outputs of a group
    have to be a multiple of m, too, for no block to reach into the next group. **A weight with a
    size that is no multiple of m stays dense**: `fits` tells, and `weight_masks` for a whole model.

    Parameters
    ----------
    n, m, every, quantizer
        As `MagnitudeMask`.
    method : {"exact", "heavy_first", "light_first"}
        As `ab.transposable_mask`.

    Raises
    ------
    TypeError, ValueError
        As `MagnitudeMask` and `ab.transposable_mask`.

    Notes
    -----
    "Accelerated sparse neural training: a provable and efficient method to find N:M transposable
    masks", arXiv 2102.08124.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> quantizer = ab.nn.TransposableMask(1, 2)
    >>> quantizer(np.float32([[3, 2], [2, 0]]))
    array([[0., 2.],
           [2., 0.]], dtype=float32)
    >>> quantizer.fits((784, 256)), quantizer.fits((1, 8, 3, 3))
    (True, False)
    """

    method: str = "exact"

    def fits(self, shape: Sequence[int]) -> bool:
        """Return whether a weight of this shape gets a mask; the others stay dense."""
        return len(shape) > 1 and shape[0] % self.m == 0 and shape[1] % self.m == 0

    def _choose(self, x: FloatArray, axis: int) -> Mask:
        last = np.moveaxis(x, (0, 1), (-2, -1))
        mask: Mask = ab.transposable_mask(last, self.n, self.m, method=self.method)
        return np.ascontiguousarray(np.moveaxis(mask, (-2, -1), (0, 1)))


@dataclass(frozen=True)
class UnbiasedMask:
    """Keep n of every m elements along the axis of the reduction, unbiased (`ab.nm_unbiased`).

    Meant for the output gradient in the product of the weight gradient, which sums over samples:
    what is kept is scaled up, so that the mean over the random masks is the dense gradient. The
    axis is filled up with zeros to a multiple of m.

    Parameters
    ----------
    n, m : int
    method : {"exact", "approx"}
        The least variance that is possible, or the published approximation for 2:4.
    probability_bits : int, optional
        As `ab.nm_unbiased`.

    Raises
    ------
    TypeError, ValueError
        As `ab.nm_unbiased`.
    FloatingPointError
        When called, if a survivor is scaled beyond the largest number: the training has diverged.

    Notes
    -----
    "Minimum variance unbiased N:M sparsity for the neural gradients", arXiv 2203.10991.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> y = ab.nn.UnbiasedMask(1, 2)(np.float32([3, -1]), seed=0)
    >>> int(np.count_nonzero(y)), float(np.abs(y).max())
    (1, 4.0)
    """

    n: int = 2
    m: int = 4
    method: str = "exact"
    probability_bits: int | None = None

    needs = ("axis",)

    def __post_init__(self) -> None:
        self._estimate(_probe(self.m), -1, seed=0)

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
        """Return the scaled survivors, zeros elsewhere, in the shape of x."""
        try:
            return self._estimate(x, axis, seed=seed, stream=stream, call=call)
        except ValueError as error:
            if seed is None or not np.isfinite(x).all():
                raise
            # All else has been checked: a survivor is too large for its probability.
            raise FloatingPointError(f"expected a gradient that can be scaled: {error}") from error

    def _estimate(self, x: FloatArray, axis: int, **words: Any) -> FloatArray:
        pruned: FloatArray = ab.nm_unbiased(
            x,
            self.n,
            self.m,
            axis,
            method=self.method,
            probability_bits=self.probability_bits,
            remainder="pad",
            **words,
        )
        return pruned


@dataclass(frozen=True)
class QuantizerChain:
    """Quantisers one after the other; each gets what the one before it made.

    Every member has random words and a state of its own. A chain of unbiased quantisers is
    unbiased, in any order: the mean of each one's result is what it was given.

    Parameters
    ----------
    quantizers : sequence
        Each as `GemmArithmetic` takes it. A chain in a chain is the chain of all their members.
        Only the last one may return a pair, as `LuqQuantizer` may.

    Raises
    ------
    TypeError, ValueError
        What is not a quantiser, more than 256, a rotation that is not the first.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> chain = ab.nn.QuantizerChain([ab.nn.MagnitudeMask(1, 2), "e2m1fn"])
    >>> chain(np.float32([5.2, 0.1, 0.7, -2.4]))
    array([ 6.,  0.,  0., -2.], dtype=float32)
    """

    quantizers: Sequence[QuantizerLike]

    def __post_init__(self) -> None:
        members: list[Callable[..., Any]] = []
        for index, given in enumerate(self.quantizers):
            quantizer = as_quantizer(f"quantizers[{index}]", given)
            if isinstance(quantizer, QuantizerChain):
                members += quantizer.members
            elif quantizer is not None:
                members.append(quantizer)
        integer("quantizers: their number", len(members), 0, _LARGEST_CHAIN)
        # The operands of a product are rotated alike only if their signs are of the same stream.
        for index, member in enumerate(members):
            if index and getattr(member, "rotation", None) is not None:
                raise ValueError(
                    f"quantizers: expected a rotation as the first one only, got it as number"
                    f" {index + 1}"
                )
        object.__setattr__(self, "quantizers", tuple(members))

    @property
    def members(self) -> tuple[Callable[..., Any], ...]:
        """Return the quantisers, as callables."""
        return tuple(quantizer for quantizer in self.quantizers if callable(quantizer))

    needs = ("axis", "training", "state")

    def __call__(
        self,
        x: FloatArray,
        /,
        *,
        seed: int | None = None,
        stream: int = 0,
        call: int = 0,
        axis: int = -1,
        training: bool = False,
        state: dict[Any, Any] | None = None,
    ) -> Any:
        """Return what the last quantiser makes of what the others made."""
        state = {} if state is None else state
        result: Any = x
        for index, quantizer in enumerate(self.members):
            given = as_scaled(f"quantizers[{index - 1}]", result, x.dtype).dequantize()
            words = {"seed": seed, "stream": stream + index * _CHAIN_STREAMS, "call": call}
            context = OperandContext(axis, training, state.setdefault(index, {}))
            result = run_quantizer(f"quantizers[{index}]", quantizer, given, words, context)
        return result


def _probe(m: int) -> FloatArray:
    """Return one block of zeros, on which a mask is tried when it is made."""
    size = integer("m", m, 1, 32)
    return np.zeros((size, size), np.float32)
