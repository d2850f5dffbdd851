"""Arithmetics of published 4-bit and 8-bit trainings: LUQ, NVFP4, MXFP4, FP8."""

from __future__ import annotations

from ..block_format import BlockFormat
from ..formats import FloatFormat
from .arithmetic import Arithmetic, GemmArithmetic
from .operand import QuantizerLike
from .quantizers import BlockQuantizer, DelayedScaleQuantizer, LuqQuantizer, UniformQuantizer


def luq_arithmetic(
    samples: int = 1,
    *,
    smp: str = "gemm",
    gradient: str = "luq",
    levels: int = 7,
    alpha_rounding: str | None = None,
    underflow: str = "stochastic",
    log_rounding: str = "stochastic",
    over_range: str = "clip",
    eta: float | None = None,
    forward: QuantizerLike = "int4",
    seed: int | None = None,
) -> Arithmetic:
    """Return 4-bit training with logarithmic unbiased quantisation (LUQ).

    Weight and input are rounded to INT4 with SAWB clipping; the output gradient is quantised once,
    to FP4, and both gradient products see the result. They take weight and input as the forward
    product saw them.

    Parameters
    ----------
    samples, smp, levels, alpha_rounding, underflow, log_rounding, over_range, eta
        Of the output gradient, see `LuqQuantizer`. The biased twins of the paper are
        ``log_rounding="nearest", underflow="nearest"`` and ``underflow="zero"``.
    gradient : {"luq", "int4"}
        "int4" has evenly spaced gradients instead, with stochastic rounding and the range of the
        tensor; the arguments above then stay at their defaults.
    forward : optional
        Quantiser of weight and input: "int4" for INT4 with SAWB (`UniformQuantizer`), None for
        float32, or as `GemmArithmetic`.
    seed : int, optional
        Of the stochastic rounding, without which it raises.

    Returns
    -------
    Arithmetic

    Raises
    ------
    TypeError, ValueError
        As `LuqQuantizer`; another `gradient`, or one that contradicts the other arguments.

    Notes
    -----
    "Accurate neural training with 4-bit matrix multiplications at standard formats",
    arXiv 2112.10769.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.nn.luq_arithmetic(2, seed=0).name
    'luq, 2 samples'
    """
    luq = LuqQuantizer(
        samples, smp, levels, alpha_rounding, underflow, log_rounding, over_range, eta
    )
    quantizer: QuantizerLike = luq
    name = "luq" if samples == 1 else f"luq, {samples} samples"
    if gradient == "int4":
        if luq != LuqQuantizer():
            raise ValueError(f"gradient: expected luq with these arguments, got {gradient!r}")
        quantizer = UniformQuantizer(clip="max_abs", signed=True, rounding="stochastic")
        name = "int4"
    elif gradient != "luq":
        raise ValueError(f"gradient: expected luq or int4, got {gradient!r}")
    operand = UniformQuantizer() if forward == "int4" else forward
    return Arithmetic(
        forward=GemmArithmetic(a_quantizer=operand, b_quantizer=operand),
        output_gradient=quantizer,
        seed=seed,
        name=name,
    )


def fnt_arithmetic(weight: QuantizerLike = "int4") -> Arithmetic:
    """Return the arithmetic of fine-tuning after 4-bit training: only the weights are INT4.

    Parameters
    ----------
    weight : optional
        Quantiser of the weight in the forward product, as `luq_arithmetic`. The gradient products
        are float32 and see the quantised weight.

    Returns
    -------
    Arithmetic

    Raises
    ------
    TypeError, ValueError
        As `GemmArithmetic`.

    Notes
    -----
    arXiv 2112.10769, which calls it FNT; its learning rate is `triangle_schedule`.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.nn.fnt_arithmetic().forward.b_quantizer
    UniformQuantizer(bits=4, clip='sawb', signed=None, levels='corrected', coefficients='luq', \
rounding='nearest_even')
    """
    quantizer = UniformQuantizer() if weight == "int4" else weight
    return Arithmetic(forward=GemmArithmetic(b_quantizer=quantizer), name="int4 weights")


def nvfp4_arithmetic(
    *,
    rounding: str = "split",
    forward: str | BlockFormat = "nvfp4",
    gradient: str | BlockFormat = "nvfp4_up",
    weight: str | BlockFormat | None = None,
    rotation: int | None = 16,
    seed: int | None = None,
) -> Arithmetic:
    """Return training with all six operands in NVFP4.

    ===================  ================================  ====================================
    product              operand a                         operand b
    ===================  ================================  ====================================
    forward              input, nearest                    weight, nearest
    input gradient       output gradient, stochastic       weight, nearest
    weight gradient      input, rotated, stochastic        output gradient, rotated, stochastic
    ===================  ================================  ====================================

    Each product quantises the original tensors, in blocks along its own reduction axis.

    Parameters
    ----------
    rounding : {"split", "nearest_even"}
        "split" is the table; "nearest_even" rounds all of it to nearest, as a biased twin.
    forward, gradient : str or BlockFormat
        Block format of the operands that are rounded to nearest, and of those that are rounded
        stochastically. The default for the latter has its block scales rounded up, without which
        the largest elements are cut and stochastic rounding is biased.
    weight : str or BlockFormat, optional
        Of the weight, by default `forward`; with "nvfp4_2d" forward and backward pass see the same
        weight.
    rotation : int, optional
        Block of the Hadamard rotation, see `BlockQuantizer`; None for none. With 16 the signs are
        those of Transformer Engine, else random.
    seed : int, optional
        Of the stochastic rounding.

    Returns
    -------
    Arithmetic

    Raises
    ------
    TypeError, ValueError
        As `BlockQuantizer`; another `rounding`.

    Notes
    -----
    Where which rounding goes: "FP4 all the way", arXiv 2505.19115. Rotation and 16 x 16 weights:
    "Pretraining large language models with NVFP4", arXiv 2509.25149.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.nn.nvfp4_arithmetic(seed=0).input_gradient.a_quantizer.rounding
    'stochastic'
    """
    return _block_arithmetic("nvfp4", rounding, forward, gradient, weight, rotation, seed)


def mxfp4_arithmetic(
    *,
    rounding: str = "split",
    forward: str | BlockFormat = "mxfp4",
    gradient: str | BlockFormat = "mxfp4_ceil",
    weight: str | BlockFormat | None = None,
    rotation: int | None = 16,
    seed: int | None = None,
) -> Arithmetic:
    """Return training with all six operands in MXFP4, as `nvfp4_arithmetic`.

    Parameters
    ----------
    rounding, forward, gradient, weight, rotation, seed
        As `nvfp4_arithmetic`. The scale of `gradient` is the power of two above, with which
        nothing is cut.

    Returns
    -------
    Arithmetic

    Raises
    ------
    TypeError, ValueError
        As `nvfp4_arithmetic`.

    Notes
    -----
    The scale rule of the gradients is that of arXiv 2502.20853.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.nn.mxfp4_arithmetic(rounding="nearest_even").name
    'mxfp4, nearest_even'
    """
    return _block_arithmetic("mxfp4", rounding, forward, gradient, weight, rotation, seed)


def _block_arithmetic(
    name: str,
    rounding: str,
    forward: str | BlockFormat,
    gradient: str | BlockFormat,
    weight: str | BlockFormat | None,
    rotation: int | None,
    seed: int | None,
) -> Arithmetic:
    if rounding not in ("split", "nearest_even"):
        raise ValueError(f"rounding: expected split or nearest_even, got {rounding!r}")
    signs = "transformer_engine" if rotation == 16 else "random"
    nearest, kernel = BlockQuantizer(forward), BlockQuantizer(forward if weight is None else weight)
    if rounding == "split":
        delta = BlockQuantizer(gradient, "stochastic")
        rotated = BlockQuantizer(gradient, "stochastic", rotation, signs)
    else:
        delta, rotated = nearest, BlockQuantizer(forward, None, rotation, signs)
    return Arithmetic(
        forward=GemmArithmetic(a_quantizer=nearest, b_quantizer=kernel),
        input_gradient=GemmArithmetic(a_quantizer=delta, b_quantizer=kernel),
        weight_gradient=GemmArithmetic(a_quantizer=rotated, b_quantizer=rotated),
        gradient_operands="original",
        seed=seed,
        name=f"{name}, {rounding}",
    )


def fp8_arithmetic(
    *,
    forward: str | FloatFormat = "e4m3fn",
    gradient: str | FloatFormat = "e5m2",
    rounding: str = "stochastic",
    history: int = 16,
    seed: int | None = None,
) -> Arithmetic:
    """Return FP8 training with delayed power-of-two scales, one a tensor.

    Parameters
    ----------
    forward, gradient : str or FloatFormat
        Format of weight and input, rounded to nearest even, and of the output gradient, which is
        quantised once for both gradient products.
    rounding : str
        Of the output gradient.
    history : int
        Steps whose maxima decide the scale, see `DelayedScaleQuantizer`.
    seed : int, optional
        Of the stochastic rounding.

    Returns
    -------
    Arithmetic

    Raises
    ------
    TypeError, ValueError
        As `DelayedScaleQuantizer`.

    Notes
    -----
    "Scaling FP8 training to trillion-token LLMs", arXiv 2409.12517.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.nn.fp8_arithmetic(seed=0).output_gradient.history
    16
    """
    operand = DelayedScaleQuantizer(forward, history=history)
    return Arithmetic(
        forward=GemmArithmetic(a_quantizer=operand, b_quantizer=operand),
        output_gradient=DelayedScaleQuantizer(gradient, rounding, history),
        seed=seed,
        name="fp8",
    )
