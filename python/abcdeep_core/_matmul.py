"""`matmul`: matrix products through any datapath the compiled engine knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, check_out, deliver, is_plain
from ._block_operands import Operand, matrix_operands
from ._gemm import (
    Address,
    Compiled,
    EventRecorder,
    as_addend,
    as_operand,
    batch_offsets,
    check_finite,
    compile_datapath,
    random_address,
)
from ._masked_operands import mask_operands
from ._plan_events import plan_integer_events
from ._plan_float import look_at, plan_float
from ._plan_integer import plan_integer
from ._quantize import quantize
from ._threads import check_threads
from .block_array import BlockArray
from .datapath import Datapath
from .events import Events
from .plan import Plan, Tile

_FLOAT32 = np.dtype(np.float32)
EventLevel = Literal[False, True, "overflow"]


@overload
def matmul(
    a: Operand,
    b: Operand,
    datapath: Datapath,
    *,
    c: npt.ArrayLike | None = None,
    a_mask: npt.ArrayLike | None = None,
    b_mask: npt.ArrayLike | None = None,
    events: Literal[False] = False,
    per_output: bool = False,
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> Array: ...


@overload
def matmul(
    a: Operand,
    b: Operand,
    datapath: Datapath,
    *,
    c: npt.ArrayLike | None = None,
    a_mask: npt.ArrayLike | None = None,
    b_mask: npt.ArrayLike | None = None,
    events: Literal[True, "overflow"],
    per_output: bool = False,
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> tuple[Array, Events]: ...


def matmul(
    a: Operand,
    b: Operand,
    datapath: Datapath,
    *,
    c: npt.ArrayLike | None = None,
    a_mask: npt.ArrayLike | None = None,
    b_mask: npt.ArrayLike | None = None,
    events: EventLevel = False,
    per_output: bool = False,
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> Array | tuple[Array, Events]:
    """Return the matrix product a @ b, every dot product computed by `datapath`.

    Parameters
    ----------
    a : array_like or BlockArray, shape (..., M, K) or (K,)
        float32 or a narrower float (widened exactly) for a float datapath; int8, uint8, int16,
        uint16, int4 or uint4 for an integer one. A BlockArray stands for its exact values element *
        scale; the result is multiplied once by the exact product of the tensor scales, in float64,
        and rounded to its own dtype.
    b : array_like or BlockArray, shape (..., K, N) or (K,)
        As `a`; the dtypes may differ.
    datapath : Datapath
        See `lba_accumulator`, `float_accumulator`, `integer_accumulator`, `exact_accumulator`.
    c : array_like, optional
        Start value of the sums, broadcast to the result; rounded with the accumulator's quantiser
        (to nearest even if that is stochastic).
    a_mask, b_mask : array_like of bool, optional
        Which elements of an operand take part, for example from `nm_mask`; broadcast to its shape.
        The terms of the others are zeros, which raise no event but count for groups and chunks as
        those of a dense operand; the merge of a chunk is a step whatever its terms. The other
        operand must be finite.
    events : {False, True, "overflow"}
        Also count numerical events; "overflow" only those of range.
    per_output : bool
        Events as arrays of the result's shape.
    seed, stream, call : int
        Address of the random words of stochastic rounding (docs/accumulators.md).
    out : ndarray, optional
        Array for the result, of its shape and dtype. It must not overlap `a` or `b`.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray, or (ndarray, Events) if `events`
        float32 (float64 if the last format needs it), or int32 (int64 if the values of the last
        integer format need more than 32 bits, or sums are exact). A zero result is +0.

    Raises
    ------
    TypeError
        If operands have the wrong dtype for the datapath, or a mask is not bool.
    ValueError
        If shapes do not match; an operand is not finite and a format of the datapath has no NaN;
        rounding is stochastic without seed; a format is too wide for exact emulation; a BlockArray
        has values that are no float32 numbers, or a tensor scale that is not of the rows of `a` or
        the columns of `b`, or one other than 1 together with `c`.
    NotImplementedError
        If the datapath has a step that is not compiled yet; the text names it.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> a = np.float32([[1, 2**-13]])
    >>> b = np.float32([[1], [-(2**-13)]])
    >>> ab.matmul(a, b, ab.lba_accumulator(underflow=False))
    array([[0.99609375]], dtype=float32)

    2:4 sparse weights and a 12-bit accumulator:

    >>> w = np.float32([[3, -1, 2, 0.5]])
    >>> x = np.ones((4, 1), np.float32)
    >>> ab.matmul(w, x, ab.lba_accumulator(), a_mask=ab.nm_mask(w, 2, 4))
    array([[5.]], dtype=float32)
    """
    if not isinstance(datapath, Datapath):
        raise TypeError(f"datapath must be a Datapath, got {type(datapath).__name__}")
    plain = c is None and a_mask is None and b_mask is None and events is False
    if plain and seed is None and stream == call == 0:
        done = _repeat_plan(a, b, datapath, out, threads)
        if done is not None:
            return done
    scale = None
    if isinstance(a, BlockArray) or isinstance(b, BlockArray):
        a, b, scale = matrix_operands(a, b, c)
    left, right = as_operand("a", a, datapath), as_operand("b", b, datapath)
    left, right = mask_operands((left, right), ("a", "b"), (a_mask, b_mask))
    given = {"a": left, "b": right}
    shape, left, right = stack_shapes(left, right)
    start = None if c is None else as_addend(c, datapath, shape)
    if start is not None:
        check_finite("c", start, compile_datapath(datapath, left.shape[-1]).nan_format)
    result, seen = gemm(
        left,
        right,
        datapath,
        start,
        shape,
        events,
        per_output,
        (seed, stream, call),
        out,
        threads,
        given=given,
        masked=(a_mask is not None, b_mask is not None),
    )
    if scale is not None:
        result = scale.apply(result, out)
    return (result, seen) if seen is not None else result


def _repeat_plan(
    a: Any, b: Any, datapath: Datapath, out: Array | None, threads: SupportsIndex | None
) -> Array | None:
    """Return the product of two float32 matrices whose like have been planned before, or None."""
    if not (type(a) is type(b) is np.ndarray and a.ndim == b.ndim == 2):
        return None
    compiled = datapath._prepared.get(b.shape[0])
    if compiled is None or compiled.calls is None or not (a.dtype is b.dtype is _FLOAT32):
        return None
    if not (a.flags.aligned and b.flags.aligned):
        return None
    workers = 0 if threads is None else check_threads(threads)
    if out is None:
        out = np.empty((a.shape[0], b.shape[1]), _FLOAT32)
    elif (
        type(out) is not np.ndarray
        or out.dtype is not _FLOAT32
        or out.ndim != 2
        or not out.flags.carray
    ):
        return None
    return out if compiled.calls.run(a, b, out, workers) else None


def plan_call(datapath: Datapath, a: Operand, b: Operand) -> Plan:
    """Return the plan of ``matmul(a, b, datapath)``."""
    a, b, _ = matrix_operands(a, b, None)
    left, right = as_operand("a", a, datapath), as_operand("b", b, datapath)
    _, left, right = stack_shapes(left, right)
    compiled = compile_datapath(datapath, left.shape[-1])
    return plan_gemm(datapath, compiled, left, right, False, 0, 0, {"a": left, "b": right})[0]


def event_level(events: EventLevel) -> int:
    """Return 0, 1 or 2 for False, "overflow" and True."""
    if events is False or events is True:
        return 2 * int(events)
    if events != "overflow":
        raise ValueError(f"events must be False, True or 'overflow', got {events!r}")
    return 1


def stack_shapes(a: Array, b: Array) -> tuple[tuple[int, ...], Array, Array]:
    """Return the result's shape, and the operands as stacks of matrices with the same batch."""
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"a and b must have at least one dimension, got {a.ndim} and {b.ndim}")
    matrix_a = a[None, :] if a.ndim == 1 else a
    matrix_b = b[:, None] if b.ndim == 1 else b
    if matrix_a.shape[-1] != matrix_b.shape[-2]:
        raise ValueError(
            f"the last dimension of a must be the second-last of b, got {a.shape} and {b.shape}"
        )
    try:
        batch = np.broadcast_shapes(matrix_a.shape[:-2], matrix_b.shape[:-2])
    except ValueError:
        raise ValueError(f"batch dimensions must broadcast, got {a.shape} and {b.shape}") from None
    rows = () if a.ndim == 1 else (a.shape[-2],)
    columns = () if b.ndim == 1 else (b.shape[-1],)
    return (
        (*batch, *rows, *columns),
        np.broadcast_to(matrix_a, (*batch, *matrix_a.shape[-2:])),
        np.broadcast_to(matrix_b, (*batch, *matrix_b.shape[-2:])),
    )


def gemm(
    a: Array,
    b: Array,
    datapath: Datapath,
    c: Array | None,
    shape: tuple[int, ...],
    events: EventLevel,
    per_output: bool,
    address: Address,
    out: Array | None,
    threads: SupportsIndex | None,
    path: str | None = None,
    given: Mapping[str, Array] | None = None,
    masked: tuple[bool, bool] = (False, False),
) -> tuple[Array, Events | None]:
    """Run checked stacks of matrices (..., M, K) and (..., K, N) through the kernels.

    `path` forces the general engine ("lanes"), or demands another path of `plan_gemm`. `given`
    names the arrays of the caller, for an error message. `masked` says whose zeros are skipped
    terms, which raise no event.
    """
    *batch, rows, terms = a.shape
    columns = b.shape[-1]
    compiled = compile_datapath(datapath, terms)
    level = event_level(events)
    seed, stream, call = random_address(compiled, address)
    workers = check_threads(threads)
    given = {"a": a, "b": b} if given is None else given
    if per_output and level:
        path = "lanes"
    plan, tile = plan_gemm(datapath, compiled, a, b, c is not None, level, workers, given, path)
    outputs = int(np.prod(batch)) * rows * columns
    dtype = compiled.out_dtype
    final = np.dtype(np.float32) if compiled.output is None else compiled.output.format.value_dtype
    if out is not None:
        check_out(out, shape, dtype if compiled.output is None else final)
    direct = out is not None and is_plain(out) and compiled.output is None
    target = out if direct and out is not None else np.empty(shape, dtype)
    if any(np.may_share_memory(target, operand) for operand in (a, b) if target.size):
        target = np.empty(shape, dtype)

    run = _core.IntegerGemm() if datapath.is_integer else _core.FloatGemm()
    run.datapath = compiled.struct
    if isinstance(run.datapath, _core.FloatDatapath):
        run.datapath.a_is_masked, run.datapath.b_is_masked = masked
    keep = [_set_operand(run.set_a, a), _set_operand(run.set_b, b)]
    if c is not None:
        keep.append(_set_operand(run.set_c, c.reshape(*batch, rows, columns)))
    run.set_output(target, int(np.prod(batch)), rows, columns, terms)
    order = operand_order(datapath, terms)
    if order is not None:
        run.set_order(order)
    run.set_random(seed, stream, call, 0)
    recorder = EventRecorder(level, per_output and level > 0, compiled, terms, outputs)
    run.set_events(level, recorder.counts, recorder.extremes)
    if tile is None:
        run.run_lanes(workers)
    else:
        getattr(run, f"run_{plan.path}")(tile, workers)
    seen = None
    if level:
        seen = recorder.table(shape) if per_output else recorder.total(run.totals(), outputs)
        # Only the general engine tells a skipped term from another zero, which is an overflow where
        # the sum is the largest number of a format that saturates there.
        if (
            any(masked)
            and tile is not None
            and isinstance(compiled.struct, _core.FloatDatapath)
            and compiled.struct.accumulator_overflow_at_largest
            and seen.accumulator_overflow
        ):
            return gemm(
                a, b, datapath, c, shape, events, per_output, address, out, threads,
                "lanes", given, masked,
            )  # fmt: skip
    if compiled.output is not None:
        q = compiled.output
        target = quantize(
            target,
            q.format,
            q.rounding,
            overflow=q.overflow,
            underflow=q.underflow,
            threads=threads,
        ).astype(final, copy=False)
        target += 0  # -0 becomes +0
    return deliver(target, out), seen


def plan_gemm(
    datapath: Datapath,
    compiled: Compiled,
    a: Array,
    b: Array,
    has_addend: bool,
    level: int,
    threads: int,
    given: Mapping[str, Array],
    path: str | None = None,
) -> tuple[Plan, Tile | None]:
    """Return the kernel that would run, and its parameters; checks that operands are finite."""
    tile: Tile | None
    if datapath.is_integer:
        if level:
            plan, tile = plan_integer_events(datapath, compiled.chunk, a, b, has_addend)
        else:
            plan, tile = plan_integer(datapath, compiled.chunk, a, b, has_addend, path)
    else:
        summaries = [_summary(operand, threads) for operand in (a, b)]
        operands = look_at(summaries)
        if not operands.finite:
            for name, operand in given.items():
                check_finite(name, operand, compiled.nan_format)
        plan, tile = plan_float(datapath, compiled.chunk, a.shape[-1], operands, has_addend, level)
        if compiled.calls is not None and tile is not None and not has_addend and not level:
            compiled.calls.add(summaries[0], summaries[1], plan.path, tile)
    if path == "lanes":
        plan, tile = Plan("lanes", "forced"), None
    elif path is not None and path != plan.path:
        raise ValueError(f"path={path!r} is not possible: {plan.reason}")
    return plan, tile


def _summary(operand: Array, threads: int) -> tuple[int, int, int]:
    if operand.size == 0:
        return 0, 0xFFFFFFFF, 0
    rows, columns = operand.shape[-2:]
    row, column = (stride // operand.itemsize for stride in operand.strides[-2:])
    offsets = batch_offsets(operand, operand.shape[:-2])
    return _core.summarise(operand, offsets, row, column, rows, columns, threads)


def _set_operand(set_operand: Any, array: Array) -> tuple[Array, Array]:
    offsets = batch_offsets(array, array.shape[:-2])
    rows, columns = (stride // array.itemsize for stride in array.strides[-2:])
    set_operand(array, offsets, rows, columns)
    return array, offsets


def operand_order(datapath: Datapath, terms: int) -> Array | None:
    """Return the operand index of each place in the sum; None is the natural order."""
    k = np.arange(terms)
    if isinstance(datapath.order, tuple):
        if len(datapath.order) != terms:
            raise ValueError(f"order has {len(datapath.order)} places, the sums have {terms} terms")
        return np.array(datapath.order, np.int64)
    if datapath.order == "reverse":
        return np.ascontiguousarray(k[::-1])
    if datapath.order == "even_then_odd":
        return np.concatenate([k[0::2], k[1::2]])
    if datapath.order == "pair4":
        return np.concatenate([k[k % 4 < 2], k[k % 4 >= 2]])
    return None
