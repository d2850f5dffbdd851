"""Arithmetic: how a layer computes its three matrix products (operand quantisers and datapaths)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

import abcdeep_core as ab

from .operand import (
    FloatArray,
    OperandContext,
    QuantizerLike,
    RandomAddress,
    ScaledArray,
    SymmetricQuantizer,
    as_quantizer,
    as_scaled,
    run_quantizer,
)

if TYPE_CHECKING:
    from ..datapath import Datapath
    from ..events import Events

EventsChoice: TypeAlias = bool | Literal["overflow"]

_STE_VARIANTS = ("identity", "recursive_of", "immediate_of", "immediate_diff")
_OPERANDS = ("forward", "original")
_OF_GRADIENTS = ("input_gradient", "weight_gradient", "output_gradient", "gradient_operands")


@dataclass(frozen=True, kw_only=True)
class GemmArithmetic:
    """The arithmetic of one matrix product a @ b.

    Parameters
    ----------
    datapath : Datapath, optional
        How products and sums are rounded. None is NumPy's own `matmul` (BLAS).
    a_quantizer, b_quantizer : optional
        What happens to each operand first: None, a format (a name or a value), a pair
        (format, rounding), or a callable as `OperandQuantizer` describes.

    Raises
    ------
    TypeError, ValueError
        A field that is none of these.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> gemm = ab.nn.GemmArithmetic(a_quantizer=("e5m2", "toward_zero"))
    >>> gemm.a_quantizer.rounding
    'toward_zero'
    """

    datapath: Datapath | None = None
    a_quantizer: QuantizerLike = None
    b_quantizer: QuantizerLike = None

    def __post_init__(self) -> None:
        if self.datapath is not None and not isinstance(self.datapath, ab.Datapath):
            kind = type(self.datapath).__name__
            raise TypeError(
                f"datapath: expected a Datapath (ab.get_accumulator reads a text), got {kind}"
            )
        for name in ("a_quantizer", "b_quantizer"):
            object.__setattr__(self, name, as_quantizer(name, getattr(self, name)))

    def quantize(
        self,
        a: FloatArray | ScaledArray,
        b: FloatArray | ScaledArray,
        random: RandomAddress,
        contexts: tuple[OperandContext, OperandContext] | None = None,
    ) -> tuple[ScaledArray, ScaledArray]:
        """Return both operands as the matrix product sees them."""
        a_context, b_context = contexts or (OperandContext(), OperandContext())
        return (
            _quantize("a_quantizer", self.a_quantizer, a, random.keywords(role=0), a_context),
            _quantize("b_quantizer", self.b_quantizer, b, random.keywords(role=1), b_context),
        )

    def matmul(
        self, a: ScaledArray, b: ScaledArray, random: RandomAddress, events: EventsChoice = False
    ) -> tuple[FloatArray, Events | None]:
        """Return the product of quantised operands, rescaled to their dtype, and its events."""
        if self.datapath is None:
            return np.matmul(a.dequantize(), b.dequantize()), None
        return self.emulate(ab.matmul, a, b, random, events)

    def emulate(
        self,
        function: Callable[..., Any],
        a: ScaledArray,
        b: ScaledArray,
        random: RandomAddress,
        events: EventsChoice = False,
        **options: Any,
    ) -> tuple[FloatArray, Events | None]:
        """Run `ab.matmul` or `ab.conv2d` on the operands' values and rescale the result."""
        words = random.keywords(role=2)
        result = function(a.values, b.values, self.datapath, events=events, **words, **options)
        values, counted = result if events else (result, None)
        return ScaledArray(values, a.scale * b.scale).dequantize(), counted


def _quantize(
    name: str,
    quantizer: QuantizerLike,
    x: FloatArray | ScaledArray,
    words: dict[str, Any],
    context: OperandContext,
) -> ScaledArray:
    if isinstance(x, ScaledArray):
        if quantizer is None:
            return x
        x = x.dequantize()
    return as_scaled(name, run_quantizer(name, quantizer, x, words, context), x.dtype)


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """How a layer computes: a `GemmArithmetic` for each of its three matrix products.

    =================  ===============  ===============  =====================================
    product            operand a        operand b        reduction axis
    =================  ===============  ===============  =====================================
    `forward`          input            weight           inputs; (I, kH, kW) of a convolution
    `input_gradient`   output gradient  weight           outputs; (O, kH, kW)
    `weight_gradient`  input            output gradient  samples; (N, out_height, out_width)
    =================  ===============  ===============  =====================================

    The gradient products start from the operands that the forward product saw and apply their own
    quantisers to these; the gradient passes a forward quantiser unchanged. A bias is added in
    float32 after the accumulation, outside the datapath; its gradient is the float32 sum of the
    output gradient as it arrives.

    Parameters
    ----------
    forward, input_gradient, weight_gradient : GemmArithmetic
        By default float32 BLAS.
    output_gradient : optional
        A quantiser, as `GemmArithmetic` takes, of the output gradient. It runs once, and both
        gradient products see its result (through their own quantisers, where they have some). It
        may return a pair, for the input gradient and for the weight gradient. The axis that it may
        ask for is that of the input gradient.
    gradient_operands : {"forward", "original"}
        What the gradient products start from: input and weight as the forward product saw them, or
        as they were before its quantisers.
    ste : {"identity", "recursive_of", "immediate_of", "immediate_diff"}
        The straight-through estimator. "identity" is the ordinary gradient, by the two gradient
        products. The others know which terms of the forward accumulation were lost
        (`ab.matmul_backward`): they need a forward datapath and leave the two gradient products
        at their default.
    seed : int, optional
        Of all stochastic rounding. A layer adds a stream of its own for each product and operand
        and counts its calls, so that no two tensors share random words.
    name : str
        For tables and messages.

    Raises
    ------
    ValueError
        An unknown `ste`, or one that contradicts the other fields.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> fp8 = ab.nn.Arithmetic(
    ...     forward=ab.nn.GemmArithmetic(a_quantizer="e4m3fn", b_quantizer="e4m3fn"),
    ...     input_gradient=ab.nn.GemmArithmetic(a_quantizer=("e5m2", "stochastic")),
    ...     seed=7,
    ... )
    >>> fp8.weight_gradient == ab.nn.GemmArithmetic()
    True
    """

    forward: GemmArithmetic = GemmArithmetic()
    input_gradient: GemmArithmetic = GemmArithmetic()
    weight_gradient: GemmArithmetic = GemmArithmetic()
    output_gradient: QuantizerLike = None
    gradient_operands: str = "forward"
    ste: str = "identity"
    seed: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        quantizer = as_quantizer("output_gradient", self.output_gradient)
        object.__setattr__(self, "output_gradient", quantizer)
        for name, choices in (("gradient_operands", _OPERANDS), ("ste", _STE_VARIANTS)):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
        if self.ste == "identity":
            return
        if self.forward.datapath is None:
            raise ValueError(f"forward: expected a datapath for ste={self.ste!r}, got None")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _OF_GRADIENTS and value != field.default:
                raise ValueError(
                    f"{field.name}: expected the default with ste={self.ste!r}, whose gradients"
                    f" are float32 sums, got {value!r}"
                )

    def quantize_output_gradient(
        self, g: FloatArray, random: RandomAddress, context: OperandContext
    ) -> tuple[ScaledArray, ScaledArray]:
        """Return the output gradient as the input gradient and the weight gradient start from it.

        Both are one object unless the quantiser returns a pair.
        """
        name, words = "output_gradient", random.keywords(role=0)
        quantized = run_quantizer(name, self.output_gradient, g, words, context)
        if isinstance(quantized, tuple) and len(quantized) == 2:
            return as_scaled(name, quantized[0], g.dtype), as_scaled(name, quantized[1], g.dtype)
        both = as_scaled(name, quantized, g.dtype)
        return both, both


def float32_arithmetic() -> Arithmetic:
    """Return the reference: NumPy's own matrix products, in the dtype of the model.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.nn.float32_arithmetic().name
    'float32'
    """
    return Arithmetic(name="float32")


def lba_arithmetic(
    mantissa_bits: int = 7,
    exponent_bits: int = 4,
    bias: int | None = None,
    product_bias: int | None = None,
    chunk: int = 16,
    *,
    rounding: str = "toward_zero",
    underflow: bool = True,
    arithmetic: str = "exact",
    ste: str = "identity",
    operand: QuantizerLike = None,
    seed: int | None = None,
) -> Arithmetic:
    """Return low bit-width accumulators in the forward products, float32 in the gradients.

    Parameters
    ----------
    mantissa_bits, exponent_bits, chunk, rounding, underflow, arithmetic
        As `ab.lba_accumulator`. The paper trains with ``underflow=False`` until convergence, then
        with ``underflow=True``.
    bias, product_bias : int, optional
        Exponent biases of accumulator and product. Default: that of the text form
        (`ab.get_accumulator`), and 2 more for the product.
    ste : str
        Straight-through estimator of the backward pass, see `Arithmetic`.
    operand : optional
        Quantiser of input and weight in the forward product, see `GemmArithmetic`.
    seed : int, optional
        For stochastic rounding.

    Raises
    ------
    ValueError
        As `ab.lba_accumulator` and `Arithmetic`.

    Notes
    -----
    "Towards Cheaper Inference in Deep Networks with Lower Bit-Width Accumulators",
    arXiv 2401.14110.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.nn.lba_arithmetic(4, 3, ste="immediate_of").name
    'm4e3'
    """
    if bias is None:
        bias = _default_bias(mantissa_bits, exponent_bits)
    datapath = ab.lba_accumulator(
        mantissa_bits,
        exponent_bits,
        bias,
        bias + 2 if product_bias is None else product_bias,
        chunk,
        rounding=rounding,
        underflow=underflow,
        arithmetic=arithmetic,
    )
    return Arithmetic(
        forward=GemmArithmetic(datapath=datapath, a_quantizer=operand, b_quantizer=operand),
        ste=ste,
        seed=seed,
        name=f"m{mantissa_bits}e{exponent_bits}",
    )


def _default_bias(mantissa_bits: int, exponent_bits: int) -> int:
    quantizer = ab.get_accumulator(f"m{mantissa_bits}e{exponent_bits}").accumulator
    assert quantizer is not None
    assert isinstance(quantizer.format, ab.FloatFormat)
    return quantizer.format.bias


def integer_arithmetic(
    bits: int, overflow: str = "wrap", *, operand: str = "int8", group: int = 1, chunk: int = 0
) -> Arithmetic:
    """Return integer operands and accumulators in the forward products, meant for evaluation.

    Input and weight become integers with one scale each (`SymmetricQuantizer`), the products are
    summed in an integer accumulator, and the sum is scaled back to float32. The gradients are
    those of the float32 product of the rounded operands.

    Parameters
    ----------
    bits, overflow, group, chunk
        As `ab.integer_accumulator`.
    operand : {"int4", "int8", "int16"}
        Integer type of both operands.

    Raises
    ------
    ValueError
        As `ab.integer_accumulator` and `SymmetricQuantizer`.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.nn.integer_arithmetic(16, "saturate").name
    'int16:saturate'
    """
    quantizer = SymmetricQuantizer(operand)
    datapath = ab.integer_accumulator(bits, overflow, group=group, chunk=chunk)
    return Arithmetic(
        forward=GemmArithmetic(datapath=datapath, a_quantizer=quantizer, b_quantizer=quantizer),
        name=f"int{bits}:{overflow}",
    )
