"""`matmul_backward`: gradients of a matrix product, straight through its narrow accumulator."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core, _names
from ._arrays import Array, as_array, check_out, is_narrow_float
from ._gemm import (
    Address,
    as_addend,
    as_operand,
    batch_offsets,
    check_finite,
    compile_datapath,
    element_strided,
    random_address,
)
from ._matmul import gemm, operand_order, stack_shapes
from ._threads import check_threads
from .accumulators import float_accumulator
from .datapath import Datapath

# The enum of cpp/datapath.hpp; "identity" needs no chain.
_ESTIMATORS = {"recursive_of": 0, "immediate_of": 1, "immediate_diff": 2}
STE = ("identity", *_ESTIMATORS)


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
) -> tuple[Array, Array]:
    """Return both gradients of checked stacks (..., M, N), (..., M, K), (..., K, N).

    `given` names the operands of the caller, for an error message.
    """
    transposed = np.swapaxes(b, -1, -2)
    if ste == "identity":
        grad_a = _product(g, transposed, threads)
        return grad_a, _product(np.swapaxes(a, -1, -2), g, threads)
    compiled = compile_datapath(datapath, a.shape[-1])
    random_address(compiled, address)
    for name, operand in given.items():
        check_finite(name, operand, compiled.nan_format)
    columns = g.shape[-1]
    run = functools.partial(_estimate, datapath, ste, address, threads)
    grad_a = run(a, transposed, g, c, (columns, 1))
    start = None if c is None else np.swapaxes(c, -1, -2)
    grad_b = run(transposed, a, np.swapaxes(g, -1, -2), start, (1, columns))
    return grad_a, np.swapaxes(grad_b, -1, -2)


def _product(a: Array, b: Array, threads: SupportsIndex | None) -> Array:
    """Return a @ b in separate float32 multiplications and additions, in increasing index."""
    shape = (*a.shape[:-1], b.shape[-1])
    separate = float_accumulator("binary32", product="binary32")
    return gemm(a, b, separate, None, shape, False, False, (None, 0, 0), None, threads)[0]


def _estimate(
    datapath: Datapath,
    ste: str,
    address: Address,
    threads: SupportsIndex | None,
    lane: Array,
    other: Array,
    g: Array,
    c: Array | None,
    strides: tuple[int, int],
) -> Array:
    *batch, lane_rows, terms = lane.shape
    out = np.zeros(lane.shape, np.float32)
    compiled = compile_datapath(datapath, terms)
    assert isinstance(compiled.struct, _core.FloatDatapath)
    run = _core.Gradient()
    run.datapath = compiled.struct
    keep = []
    views = [
        (run.set_lane, lane),
        (run.set_other, other),
        (run.set_gradient, g),
        (run.set_out, out),
    ]
    if c is not None:
        views.append((run.set_start, c))
    for set_view, array in views:
        offsets = batch_offsets(array, batch)
        set_view(array, offsets, *(stride // array.itemsize for stride in array.strides[-2:]))
        keep.append(offsets)
    order = operand_order(datapath, terms)
    if order is not None:
        run.set_order(order)
    batches = int(np.prod(batch))
    run.set_sizes(batches, lane_rows, other.shape[-2], terms, _ESTIMATORS[ste])
    run.set_random(*random_address(compiled, address), 0, *strides)
    run.run(check_threads(threads))
    return out


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
