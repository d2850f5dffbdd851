"""`matmul_backward`: gradients of a matrix product, straight through its narrow accumulator."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core, _names
from ._arrays import Array, as_array, check_out, is_narrow_float
from ._float_format import FloatFormat
from ._gemm import (
    Address,
    Compiled,
    as_addend,
    as_operand,
    batch_offsets,
    check_finite,
    compile_datapath,
    element_strided,
    random_address,
)
from ._matmul import gemm, operand_order, plan_gemm, stack_shapes
from ._threads import check_threads
from .accumulators import float_accumulator
from .datapath import Datapath, Quantizer

# The enum of cpp/datapath.hpp; "identity" needs no chain.
_ESTIMATORS = {"recursive_of": 0, "immediate_of": 1, "immediate_diff": 2}
STE = ("identity", *_ESTIMATORS)
_MOST_TERMS = 1 << 16  # of chains packed whole


def matmul_backward(
    g: npt.ArrayLike,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    datapath: Datapath,
    *,
    ste: str = "identity",
    c: npt.ArrayLike | None = None,
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    out: tuple[Array, Array] | None = None,
    threads: SupportsIndex | None = None,
) -> tuple[Array, Array]:
    """Return the gradients of a loss with respect to `a` and `b` of ``matmul(a, b, datapath)``.

    The chain of every dot product is computed again, and a term passes its gradient on only where
    the straight-through estimator lets it. Memory is that of the operands and results.

    Parameters
    ----------
    g : array_like of float32 or narrower, shape of the product
        Gradient of the loss with respect to the product.
    a, b : array_like
        The operands of the product, of a float datapath.
    datapath : Datapath
        The datapath of the product; with another `ste` than "identity" its step must be a chain.
    ste : {"identity", "recursive_of", "immediate_of", "immediate_diff"}
        Which terms pass: all; those with no overflow in their own and every later step of the
        chunk; those with no overflow in their own; those that changed the running sum. A chunk's
        terms also need its merge (recursive: and all later merges) not to overflow.
    c, seed, stream, call
        Those of the product: the chain is recomputed with the same start and random words.
    out : tuple of two ndarrays, optional
        Arrays for the two gradients, float32.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    grad_a, grad_b : ndarray of float32
        With the shapes of `a` and `b`: multiplications and additions are separate float32
        operations to nearest even, in increasing index of the reduction.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As `matmul`; also for an integer datapath, an unknown `ste`, or a `g` of another shape.

    Notes
    -----
    Source: arXiv 2401.14110 (fine-grained straight-through estimators); the definition, with what
    the paper leaves open, is in docs/accumulators.md.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> a, b = np.float32([[7.5, 7.5, 7.5, 1]]), np.float32([[4], [4], [4], [1]])
    >>> one = np.ones((1, 1), np.float32)
    >>> ab.matmul_backward(one, a, b, ab.lba_accumulator(), ste="immediate_of")[0]
    array([[0., 0., 0., 1.]], dtype=float32)
    """
    check_estimator(ste, datapath)
    left, right = as_operand("a", a, datapath), as_operand("b", b, datapath)
    shape, stack_a, stack_b = stack_shapes(left, right)
    gradient = as_gradient(g, shape)
    start = None if c is None else as_addend(c, datapath, shape)
    check_out_pair(out, left.shape, right.shape)
    if start is not None:
        check_finite("c", start, compile_datapath(datapath, stack_a.shape[-1]).nan_format)
    stack_shape = (*stack_a.shape[:-1], stack_b.shape[-1])
    grads = backward_stacks(
        gradient.reshape(stack_shape),
        stack_a,
        stack_b,
        datapath,
        ste,
        None if start is None else start.reshape(stack_shape),
        (seed, stream, call),
        threads,
        given={"a": left, "b": right},
    )
    results = []
    for i, (grad, operand) in enumerate(zip(grads, (left, right), strict=True)):
        summed = _sum_broadcast(grad, operand.shape if operand.ndim > 1 else None).reshape(
            operand.shape
        )
        if out is not None:
            np.copyto(out[i], summed)
            summed = out[i]
        results.append(summed)
    return results[0], results[1]


def check_out_pair(
    out: tuple[Array, Array] | None, shape_a: tuple[int, ...], shape_b: tuple[int, ...]
) -> None:
    """Raise unless `out` can take two gradients of these shapes."""
    if out is None:
        return
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError(f"out must be a tuple of two arrays, got {type(out).__name__}")
    for target, shape in zip(out, (shape_a, shape_b), strict=True):
        check_out(target, shape, np.dtype(np.float32))


def check_estimator(ste: str, datapath: Datapath) -> None:
    """Raise unless `ste` names an estimator that `datapath` has."""
    if not isinstance(datapath, Datapath):
        raise TypeError(f"datapath must be a Datapath, got {type(datapath).__name__}")
    _names.canonical("ste", ste, {name: name for name in STE})
    if datapath.is_integer:
        raise TypeError("gradients need a float datapath, got an integer one")
    if ste == "identity":
        return
    if datapath.step != "chain" or datapath.accumulator is None:
        raise NotImplementedError(f"ste={ste!r} needs step='chain' with a rounded accumulator")
    if datapath.merge_order == "pairwise":
        raise NotImplementedError(f"ste={ste!r} with merge_order='pairwise' is not compiled yet")


def as_gradient(g: Any, shape: tuple[int, ...]) -> Array:
    """Return `g` as float32 of the product's shape."""
    gradient = as_array("g", g)
    if is_narrow_float(gradient.dtype) or gradient.dtype.newbyteorder("=") == np.float32:
        gradient = element_strided(gradient.astype(np.float32, copy=False))
    if gradient.dtype != np.float32:
        raise TypeError(f"g must hold float32 or narrower floats, got {gradient.dtype}")
    if gradient.shape != shape:
        raise ValueError(f"g must have the shape of the product, {shape}, got {gradient.shape}")
    return gradient


def backward_stacks(
    g: Array,
    a: Array,
    b: Array,
    datapath: Datapath,
    ste: str,
    c: Array | None,
    address: Address,
    threads: SupportsIndex | None,
    given: Mapping[str, Array],
    path: str | None = None,
) -> tuple[Array, Array]:
    """Return both gradients of checked stacks (..., M, N), (..., M, K), (..., K, N).

    `given` names the operands of the caller, for an error message. `path` forces the general engine
    ("lanes"), or demands another path of `_plan`.
    """
    transposed = np.swapaxes(b, -1, -2)
    compiled = None
    if ste != "identity":
        compiled = compile_datapath(datapath, a.shape[-1])
        random_address(compiled, address)
        for name, operand in given.items():
            check_finite(name, operand, compiled.nan_format)
    plan, tile = _plan(datapath, compiled, a, b, ste, c, threads, path)
    if plan == "products":
        grad_a = _product(g, transposed, threads)
        return grad_a, _product(np.swapaxes(a, -1, -2), g, threads)
    assert compiled is not None
    columns = g.shape[-1]
    build = functools.partial(_Gradient, datapath, compiled, ste, address)
    start = None if c is None else np.swapaxes(c, -1, -2)
    first = build(a, transposed, g, c, (columns, 1))
    second = build(transposed, a, np.swapaxes(g, -1, -2), start, (1, columns))
    workers = check_threads(threads)
    if tile is not None:
        _core.gradients_truncate(first.run, second.run, tile, workers)
    else:
        first.run.run(workers)
        second.run.run(workers)
    return first.out, np.swapaxes(second.out, -1, -2)


def _plan(
    datapath: Datapath,
    compiled: Compiled | None,
    a: Array,
    b: Array,
    ste: str,
    c: Array | None,
    threads: SupportsIndex | None,
    path: str | None,
) -> tuple[str, _core.FloatTile | None]:
    """Return what computes the gradients, and the parameters of fast chains.

    It is "products", where every term passes, "truncate", or "lanes", the general engine.
    """
    plan, tile = "lanes", None
    if compiled is None:
        plan = "products"
    elif path != "lanes":
        if ste != "immediate_diff" and _all_in_range(datapath, compiled, a, b, c):
            plan = "products"
        if plan != "products" or path == "truncate":
            plan, tile = _plan_chains(datapath, compiled, a, b, c is not None, threads)
    if path is not None and plan != path:
        raise ValueError(f"path={path!r} is not possible, but {plan!r}")
    return plan, tile


def _plan_chains(
    datapath: Datapath,
    compiled: Compiled,
    a: Array,
    b: Array,
    has_addend: bool,
    threads: SupportsIndex | None,
) -> tuple[str, _core.FloatTile | None]:
    workers = check_threads(threads)
    plan, tile = plan_gemm(datapath, compiled, a, b, has_addend, 0, workers, {})
    if plan.path != "truncate" or a.shape[-1] > _MOST_TERMS:
        return "lanes", None
    assert isinstance(tile, _core.FloatTile)
    assert isinstance(compiled.struct, _core.FloatDatapath)
    # Scaled numbers past the largest, where that is no overflow itself, must be float32 numbers.
    limits = [
        (tile.sum_limit, tile.sum_scale, compiled.struct.accumulator_overflow_at_largest),
        (
            tile.product_limit,
            tile.scale_a + tile.scale_b,
            tile.product_exact or compiled.struct.product_overflow_at_largest,
        ),
    ]
    fits = all(reached or math.ldexp(limit, scale) < 2.0**127 for limit, scale, reached in limits)
    return ("truncate", tile) if fits else ("lanes", None)


def _all_in_range(
    datapath: Datapath, compiled: Compiled, a: Array, b: Array, c: Array | None
) -> bool:
    """Whether no product, sum or merge of any order of the terms can reach its largest value."""
    if not a.size or not b.size:
        return True
    accumulator, product = datapath.accumulator, datapath.product
    assert accumulator is not None
    merge = datapath.merge if isinstance(datapath.merge, Quantizer) else accumulator
    # Each rounding lets a number grow by less than its last bit, if not toward zero.
    growth, smallest, limits = 0.0, 0.0, []
    for q in (accumulator, merge, product):
        if q is None:
            continue
        assert isinstance(q.format, FloatFormat)
        limits.append(min(q.format.max, -q.format.min, 2.0**127))
        if q.rounding != "toward_zero" or datapath.arithmetic == "fp32_mask":
            growth = max(growth, 2.0 ** -min(q.format.mantissa_bits, 23))
            smallest = max(smallest, 2.0 ** max(q.format.emin, -126))
    terms = a.shape[-1]
    chunk = compiled.chunk or terms
    grown = math.log1p(growth) * (chunk + -(-terms // chunk) + 2)
    if not grown < 64:
        return False
    # The caller's processor may take subnormal numbers for zero, and round as it likes.
    subnormal, slack = 2.0**-126, 1 + 2.0**-20
    if product is not None:
        largest = (_largest(a) + subnormal) * (_largest(b) + subnormal) * slack
        if not (largest + smallest) * (1 + growth) < limits[-1]:
            return False
    # By Cauchy-Schwarz, |a| |b| bounds any partial sum of a dot product.
    norms = [
        np.sqrt(np.einsum(subscripts, x, x, dtype=np.float64).max(axis=-1)) + terms * subnormal
        for subscripts, x in (("...mk,...mk->...m", a), ("...kn,...kn->...n", b))
    ]
    with np.errstate(over="ignore", invalid="ignore"):
        total = float((norms[0] * norms[1]).max()) * slack
    total += 0.0 if c is None else _largest(c) * slack
    most = (total + smallest * (3 * terms + 2)) * math.exp(grown) * slack
    return bool(most < min(limits[:2]))


def _largest(x: Array) -> float:
    return max(float(x.max()), -float(x.min()))


def _product(a: Array, b: Array, threads: SupportsIndex | None) -> Array:
    """Return a @ b in separate float32 multiplications and additions, in increasing index."""
    shape = (*a.shape[:-1], b.shape[-1])
    separate = float_accumulator("binary32", product="binary32")
    return gemm(a, b, separate, None, shape, False, False, (None, 0, 0), None, threads)[0]


class _Gradient:
    """The gradient of one operand, `lane`, as the kernels take it."""

    def __init__(
        self,
        datapath: Datapath,
        compiled: Compiled,
        ste: str,
        address: Address,
        lane: Array,
        other: Array,
        g: Array,
        c: Array | None,
        strides: tuple[int, int],
    ) -> None:
        *batch, lane_rows, terms = lane.shape
        self.out = np.zeros(lane.shape, np.float32)
        assert isinstance(compiled.struct, _core.FloatDatapath)
        run = self.run = _core.Gradient()
        run.datapath = compiled.struct
        self._keep = [lane, other, g]
        views = [
            (run.set_lane, lane),
            (run.set_other, other),
            (run.set_gradient, g),
            (run.set_out, self.out),
        ]
        if c is not None:
            views.append((run.set_start, c))
            self._keep.append(c)
        for set_view, array in views:
            offsets = batch_offsets(array, batch)
            set_view(array, offsets, *(stride // array.itemsize for stride in array.strides[-2:]))
            self._keep.append(offsets)
        order = operand_order(datapath, terms)
        if order is not None:
            run.set_order(order)
            self._keep.append(order)
        batches = int(np.prod(batch))
        run.set_sizes(batches, lane_rows, other.shape[-2], terms, _ESTIMATORS[ste])
        run.set_random(*random_address(compiled, address), 0, *strides)


def _sum_broadcast(grad: Array, shape: tuple[int, ...] | None) -> Array:
    """Return `grad` summed over the batch axes along which an operand was repeated, in order."""
    batch = () if shape is None else shape[:-2]
    extra = grad.ndim - 2 - len(batch)
    for axis in range(grad.ndim - 2):
        repeated = axis < extra or batch[axis - extra] == 1
        if repeated and grad.shape[axis] != 1:
            slices = np.moveaxis(grad, axis, 0)
            total = functools.reduce(np.add, slices, np.zeros(slices.shape[1:], grad.dtype))
            grad = np.expand_dims(total, axis)
    return grad
