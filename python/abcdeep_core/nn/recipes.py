"""Arithmetics of published trainings: LUQ, NVFP4, MXFP4, FP8, N:M sparsity."""

from __future__ import annotations

import dataclasses

from ..block_format import BlockFormat
from ..formats import FloatFormat
from .arithmetic import Arithmetic, GemmArithmetic
from .operand import QuantizerLike
from .quantizers import BlockQuantizer, DelayedScaleQuantizer, LuqQuantizer, UniformQuantizer
from .sparsity import MagnitudeMask, QuantizerChain, TransposableMask, UnbiasedMask


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


def nm_arithmetic(
    n: int = 2,
    m: int = 4,
    *,
    weight: str | None = "transposable",
    gradient: str | None = "unbiased",
    every: int = 1,
    method: str = "exact",
    base: Arithmetic | None = None,
    seed: int | None = None,
) -> Arithmetic:
    """Return training with at most n of every m elements of weights and output gradients.

    ===============  ================================  ======================================
    product          sparse operand                    along
    ===============  ================================  ======================================
    forward          weight                            inputs
    input gradient   the same weight                   outputs, if the mask is transposable
    weight gradient  output gradient, for it alone     samples
    ===============  ================================  ======================================

    The gradient of a bias, and the input gradient, see the output gradient with all its elements.
    The update of a weight is dense.

    Parameters
    ----------
    n, m : int
        At most n elements of m. Two calls, the first one the `base` of the second, give weights and
        gradients patterns of their own.
    weight : {"transposable", "magnitude"}, optional
        `TransposableMask`, with which weights whose sizes are no multiples of m stay dense (see
        `weight_masks`), or `MagnitudeMask`. None leaves the weights as they are.
    gradient : {"unbiased", "approx", "magnitude"}, optional
        `UnbiasedMask`, exact or by the approximation for 2:4, or `MagnitudeMask`, which is biased.
        None leaves the output gradient as it is.
    every : int
        Training steps between two choices of the weights' masks.
    method : {"exact", "heavy_first", "light_first"}
        Of the transposable masks.
    base : Arithmetic, optional
        What else is done; float32 by default. Its quantiser of the weight rounds the dense weight,
        which is then masked; the output gradient is masked after `base.output_gradient` and before
        the quantiser of the weight gradient. All unbiased ones together are unbiased.
    seed : int, optional
        Of the unbiased masks, without which they raise, and of what is random in `base`; that of
        `base` by default.

    Returns
    -------
    Arithmetic

    Raises
    ------
    TypeError, ValueError
        As `MagnitudeMask`, `TransposableMask` and `UnbiasedMask`; another `weight` or `gradient`;
        a `base` that rotates an operand which is to be sparse, or whose gradient products start
        from original operands when the mask is not transposable.

    Notes
    -----
    Which product has which mask: arXiv 2203.10991; one weight for two products: arXiv 2102.08124.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.nn.nm_arithmetic(2, 4, base=ab.nn.luq_arithmetic(), seed=0).name
    '2:4 weights (transposable), 2:4 gradients (unbiased), luq'
    >>> both = ab.nn.nm_arithmetic(1, 2, weight=None, base=ab.nn.nm_arithmetic(gradient=None))
    >>> both.name
    '1:2 gradients (unbiased), 2:4 weights (transposable)'
    """
    base = Arithmetic() if base is None else base
    changes: dict[str, GemmArithmetic] = {}
    names: list[str] = []
    if weight is not None:
        names.append(f"{n}:{m} weights ({weight})")
        products = ["forward"]
        if base.gradient_operands == "original":
            if weight != "transposable":
                raise ValueError(
                    "weight: expected transposable or None for a base whose gradient products"
                    f" start from original operands, got {weight!r}"
                )
            products.append("input_gradient")
        for name in products:
            gemm: GemmArithmetic = getattr(base, name)
            _refuse_rotation(f"base.{name}.b_quantizer", gemm.b_quantizer)
            mask = _weight_mask(weight, n, m, every, method, gemm.b_quantizer)
            changes[name] = dataclasses.replace(gemm, b_quantizer=mask)
    if gradient is not None:
        names.append(f"{n}:{m} gradients ({gradient})")
        gemm = base.weight_gradient
        _refuse_rotation("base.weight_gradient.b_quantizer", gemm.b_quantizer)
        members = [_gradient_mask(gradient, n, m), gemm.b_quantizer]
        chain = members[0] if members[1] is None else QuantizerChain(members)
        changes["weight_gradient"] = dataclasses.replace(gemm, b_quantizer=chain)
    return dataclasses.replace(
        base,
        forward=changes.get("forward", base.forward),
        input_gradient=changes.get("input_gradient", base.input_gradient),
        weight_gradient=changes.get("weight_gradient", base.weight_gradient),
        seed=base.seed if seed is None else seed,
        name=", ".join(filter(None, [*names, base.name])),
    )


def _weight_mask(
    kind: str, n: int, m: int, every: int, method: str, quantizer: QuantizerLike
) -> MagnitudeMask:
    if kind == "transposable":
        return TransposableMask(n, m, every, quantizer, method)
    if kind == "magnitude":
        return MagnitudeMask(n, m, every, quantizer)
    raise ValueError(f"weight: expected transposable, magnitude or None, got {kind!r}")


def _gradient_mask(kind: str, n: int, m: int) -> UnbiasedMask | MagnitudeMask:
    if kind in ("unbiased", "approx"):
        return UnbiasedMask(n, m, "exact" if kind == "unbiased" else "approx")
    if kind == "magnitude":
        return MagnitudeMask(n, m)
    raise ValueError(f"gradient: expected unbiased, approx, magnitude or None, got {kind!r}")


def _refuse_rotation(name: str, quantizer: QuantizerLike) -> None:
    if isinstance(quantizer, BlockQuantizer) and quantizer.rotation is not None:
        raise ValueError(
            f"{name}: expected no rotation, which would fill the zeros of a mask, got"
            f" rotation={quantizer.rotation}"
        )
