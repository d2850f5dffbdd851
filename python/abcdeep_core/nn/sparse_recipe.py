"""The arithmetic of training with N:M sparsity, on top of any other arithmetic."""

from __future__ import annotations

import dataclasses

from .arithmetic import Arithmetic, GemmArithmetic
from .operand import QuantizerLike
from .quantizers import BlockQuantizer
from .sparsity import MagnitudeMask, QuantizerChain, TransposableMask, UnbiasedMask


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
        Training steps between two choices of the weights' masks. Where the gradient products start
        from original operands, the input gradient counts its own: a training forward pass without
        its backward pass would let the two masks drift apart.
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
        a `base` that rotates an operand which is to be sparse, has a mask on the weight already, or
        whose gradient products start from original operands when the mask is not transposable.

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
            _refuse(f"base.{name}.b_quantizer", gemm.b_quantizer, masks=True)
            mask = _weight_mask(weight, n, m, every, method, gemm.b_quantizer)
            changes[name] = dataclasses.replace(gemm, b_quantizer=mask)
    if gradient is not None:
        names.append(f"{n}:{m} gradients ({gradient})")
        gemm = base.weight_gradient
        _refuse("base.weight_gradient.b_quantizer", gemm.b_quantizer, masks=False)
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


def _refuse(name: str, quantizer: QuantizerLike, masks: bool) -> None:
    """Raise where a rotation is in what a mask is added to, or, if `masks`, another mask is."""
    if isinstance(quantizer, QuantizerChain):
        for member in quantizer.members:
            _refuse(name, member, masks)
    elif isinstance(quantizer, MagnitudeMask):
        if masks:
            raise ValueError(f"{name}: expected no mask beside that of nm_arithmetic, got another")
        _refuse(name, quantizer.quantizer, masks)
    elif isinstance(quantizer, BlockQuantizer) and quantizer.rotation is not None:
        raise ValueError(
            f"{name}: expected no rotation, which would fill the zeros of a mask, got"
            f" rotation={quantizer.rotation}"
        )
