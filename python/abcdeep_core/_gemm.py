"""Operands, result and events of one call of the GEMM kernels, checked and handed to them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from . import _core
from ._arrays import Array, as_array, first_index, is_narrow_float
from ._fixed_format import FixedFormat
from ._float_format import FloatFormat
from ._quantizer import fixed_quantizer, float_quantizer
from .datapath import MERGE_ORDERS, Datapath, Quantizer
from .events import COUNTED, Events
from .formats import get_format

_INTEGERS = tuple(
    np.dtype(t) for t in (np.int8, np.uint8, np.int16, np.uint16, ml_dtypes.int4, ml_dtypes.uint4)
)
_INTEGER_NAMES = "int8, uint8, int16, uint16, int4 or uint4"


def as_operand(name: str, x: Any, datapath: Datapath) -> Array:
    """Return a matrix operand as float32 or int32, exactly; a wrong dtype raises TypeError."""
    array = as_array(name, x)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if datapath.is_integer:
        if array.dtype not in _INTEGERS:
            raise TypeError(
                f"{name} must hold integers ({_INTEGER_NAMES}) for an integer accumulator, "
                f"got {array.dtype}"
            )
        return array.astype(np.int32)
    if is_narrow_float(array.dtype):
        return array.astype(np.float32)
    if array.dtype != np.float32:
        hint = "; convert it explicitly" if array.dtype == np.float64 else ""
        raise TypeError(
            f"{name} must hold float32 or narrower floats for a float accumulator, "
            f"got {array.dtype}{hint}"
        )
    return _element_strided(array)


def as_addend(c: Any, datapath: Datapath, shape: tuple[int, ...]) -> Array:
    """Return `c` as float64 or int64 broadcast to the result's shape."""
    array = as_array("c", c)
    if datapath.is_integer:
        if array.dtype.kind not in "iu" and array.dtype not in _INTEGERS:
            raise TypeError(f"c must hold integers for an integer accumulator, got {array.dtype}")
        if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise ValueError(f"c must fit int64, got {array.max()}")
        wide = array.astype(np.int64)
    else:
        if not (array.dtype in (np.float32, np.float64) or is_narrow_float(array.dtype)):
            raise TypeError(f"c must hold floats for a float accumulator, got {array.dtype}")
        wide = array.astype(np.float64)
    try:
        return np.broadcast_to(wide, shape)
    except ValueError:
        raise ValueError(
            f"c must broadcast to the result's shape {shape}, got {wide.shape}"
        ) from None


def _element_strided(array: Array) -> Array:
    whole = all(stride % array.itemsize == 0 for stride in array.strides)
    return array if array.flags.aligned and whole else np.ascontiguousarray(array)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A datapath as the kernels take it, and what becomes of the result."""

    struct: _core.FloatDatapath | _core.IntegerDatapath
    out_dtype: np.dtype[Any]
    group: int
    chunk: int
    merges: bool  # chunk results are merged by counted steps
    output: Quantizer | None
    random: bool
    nan_format: FloatFormat | None  # a format on the way that has no NaN


def _float_struct_quantizer(q: Quantizer) -> _core.Quantizer:
    assert isinstance(q.format, FloatFormat)
    nan_to = None if q.format.has_nan else "zero"  # NaN never gets there, see check_finite
    return float_quantizer(q.format, q.rounding, q.overflow, q.underflow, nan_to, q.bits, q.rule)


def _saturates_at_largest(q: Quantizer) -> bool:
    # LBA: |x| >= R_OF is an overflow (docs/accumulators.md, Events)
    form = q.format
    return isinstance(form, FloatFormat) and form.code0 == "ordinary" and form.specials == "none"


@functools.lru_cache(maxsize=256)
def compile_datapath(datapath: Datapath, terms: int) -> Compiled:
    """Return the struct of `datapath` for sums of `terms` terms; NotImplementedError names what is not compiled."""
    if datapath.step not in ("chain", "exact_group"):
        raise NotImplementedError(f"step={datapath.step!r} is not compiled yet")
    if datapath.c_join != "early":
        raise NotImplementedError(f"c_join={datapath.c_join!r} is not compiled yet")
    if datapath.flush_inputs or datapath.group_quantizer is not None:
        raise NotImplementedError("flush_inputs and group_quantizer are not compiled yet")
    chunk = datapath.chunk if 0 < datapath.chunk < terms else 0
    if datapath.is_integer:
        return _compile_integer(datapath, chunk)
    accumulator, group = datapath.accumulator, datapath.group
    output, merge = datapath.output, datapath.merge
    if accumulator is None:
        # An exact sum of a chunk enters the next sum as one group.
        group, exact_chunk = chunk or max(terms, 1), chunk
        chunk = 0
        if isinstance(merge, Quantizer) and exact_chunk:
            accumulator = merge
        else:
            group = max(terms, 1)
            accumulator = output or Quantizer(format=get_format("binary32"))
            output = None
        merge = "same"
    merge_quantizer = merge if isinstance(merge, Quantizer) else accumulator
    quantizers = [accumulator, merge_quantizer, *filter(None, (datapath.product,))]
    d = _core.FloatDatapath()
    d.accumulator = _float_struct_quantizer(accumulator)
    d.merge = _float_struct_quantizer(merge_quantizer)
    d.product_exact = datapath.product is None
    if datapath.product is not None:
        d.product = _float_struct_quantizer(datapath.product)
        d.product_overflow_at_largest = _saturates_at_largest(datapath.product)
    d.accumulator_overflow_at_largest = _saturates_at_largest(accumulator)
    d.merge_overflow_at_largest = _saturates_at_largest(merge_quantizer)
    d.group, d.chunk = group, chunk
    d.merge_exact = merge == "exact"
    d.merge_order = MERGE_ORDERS.index(datapath.merge_order)
    d.float32_steps = datapath.arithmetic == "fp32_mask"
    for q in quantizers:
        _check_engine_range(q)
    last = merge_quantizer if chunk else accumulator
    dtype = (output or last).format.value_dtype
    return Compiled(
        struct=d,
        out_dtype=np.dtype(np.float64) if output is not None else dtype,
        group=group,
        chunk=chunk,
        merges=merge != "exact",
        output=output,
        random=any(q.rounding == "stochastic" for q in quantizers),
        nan_format=next(
            (
                q.format
                for q in quantizers
                if isinstance(q.format, FloatFormat) and not q.format.has_nan
            ),
            None,
        ),
    )


def _check_engine_range(q: Quantizer) -> None:
    form = q.format
    assert isinstance(form, FloatFormat)
    if form.mantissa_bits > 50:
        raise ValueError(
            f"mantissa_bits must be at most 50 to be emulated exactly, got {form.mantissa_bits}"
        )
    form.value_dtype  # raises where float64 does not hold the values


def _compile_integer(datapath: Datapath, chunk: int) -> Compiled:
    accumulator = datapath.accumulator
    assert accumulator is not None and isinstance(accumulator.format, FixedFormat)
    merge = datapath.merge if isinstance(datapath.merge, Quantizer) else accumulator
    d = _core.IntegerDatapath()

    def struct(q: Quantizer) -> _core.FixedQuantizer:
        assert isinstance(q.format, FixedFormat)
        return fixed_quantizer(q.format, "toward_zero", q.overflow)

    d.accumulator, d.merge = struct(accumulator), struct(merge)
    d.product_exact = datapath.product is None
    if datapath.product is not None:
        d.product = struct(datapath.product)
    d.group, d.chunk = datapath.group, chunk
    d.merge_exact = datapath.merge == "exact"
    d.merge_order = MERGE_ORDERS.index(datapath.merge_order)
    if datapath.output is not None:
        raise NotImplementedError("output of an integer datapath is not compiled yet")
    bits = max(q.format.bits + (not q.format.signed) for q in (accumulator, merge))  # type: ignore[union-attr]
    narrow = bits <= 32 and not (chunk and d.merge_exact)
    return Compiled(
        struct=d,
        out_dtype=np.dtype(np.int32 if narrow else np.int64),
        group=datapath.group,
        chunk=chunk,
        merges=not d.merge_exact,
        output=None,
        random=False,
        nan_format=None,
    )


def check_finite(name: str, array: Array, form: FloatFormat | None) -> None:
    """Raise where an operand holds NaN or Inf and a format on the way has no NaN."""
    if form is None:
        return
    bad = ~np.isfinite(array)
    if bad.any():
        at = first_index(bad)
        raise ValueError(
            f"{name} must be finite: {form.name or form!r} has no NaN, "
            f"got {array.reshape(-1)[int(np.argmax(bad))]} at {at}"
        )


def batch_offsets(array: Array, batch_shape: Sequence[int]) -> Array:
    """Return where each matrix of a (broadcast) stack starts, in elements."""
    offsets = np.zeros(tuple(batch_shape), np.int64)
    for axis, (size, stride) in enumerate(zip(batch_shape, array.strides[:-2], strict=True)):
        shape = [1] * len(batch_shape)
        shape[axis] = size
        offsets += (np.arange(size) * (stride // array.itemsize)).reshape(shape)
    return offsets.reshape(-1)


def steps_per_output(compiled: Compiled, terms: int) -> int:
    """Return the number of steps of one dot product, merges included."""
    if not terms:
        return 0
    chunk = compiled.chunk or terms
    whole, rest = divmod(terms, chunk)
    steps = whole * -(-chunk // compiled.group) + -(-rest // compiled.group)
    chunks = whole + (rest > 0)
    return steps + (chunks if chunks > 1 and compiled.merges else 0)


class EventRecorder:
    """Collects the events of one or more kernel calls that fill one result."""

    def __init__(
        self, level: int, per_output: bool, compiled: Compiled, terms: int, outputs: int
    ) -> None:
        self.level = level
        self._steps = steps_per_output(compiled, terms)
        self._terms = terms
        self._is_integer = isinstance(compiled.struct, _core.IntegerDatapath)
        self.counts = np.zeros((len(COUNTED), outputs), np.int64) if per_output else None
        self.extremes = np.zeros((2, outputs)) if per_output else None

    def total(self, totals: tuple[list[int], float, float], outputs: int) -> Events:
        """Return the events of a call that computed `outputs` outputs."""
        counts, low, high = totals
        return Events(
            terms=outputs * self._terms,
            steps=outputs * self._steps,
            outputs=outputs,
            min_partial=low,
            max_partial=high,
            **dict(zip(COUNTED, counts, strict=True)),
        )

    def table(self, shape: tuple[int, ...]) -> Events:
        """Return the events of every output, as arrays of `shape`."""
        assert self.counts is not None and self.extremes is not None
        fields: dict[str, Any] = {
            name: plane.reshape(shape) for name, plane in zip(COUNTED, self.counts, strict=True)
        }
        return Events(
            terms=np.full(shape, self._terms, np.int64),
            steps=np.full(shape, self._steps, np.int64),
            outputs=np.ones(shape, np.int64),
            min_partial=self.extremes[0].reshape(shape),
            max_partial=self.extremes[1].reshape(shape),
            **fields,
        )
