"""Operands, result and events of one call of the GEMM kernels, checked and handed to them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex, TypeAlias

import ml_dtypes
import numpy as np

from . import _core
from ._arrays import Array, as_array, first_index, is_narrow_float
from ._fixed_format import FixedFormat
from ._float_format import FloatFormat
from ._quantizer import fixed_quantizer, float_quantizer, stochastic_rule
from .datapath import MERGE_ORDERS, Datapath, Quantizer
from .events import COUNTED, Events
from .formats import get_format
from .random import check_address

_INTEGERS = tuple(
    np.dtype(t) for t in (np.int8, np.uint8, np.int16, np.uint16, ml_dtypes.int4, ml_dtypes.uint4)
)
Address: TypeAlias = tuple[SupportsIndex | None, SupportsIndex, SupportsIndex]

# Fields of steps that are not compiled yet; they must have their defaults.
_FUSED_FIELDS = (
    "flush_inputs",
    "group_quantizer",
    "alignment_bits",
    "zero_rule",
    "exponent_floor",
    "operand_a",
    "operand_b",
    "addend",
)
_MOST_PREPARED = 256
_INTEGER_NAMES = "int8, uint8, int16, uint16, int4 or uint4"


def as_operand(name: str, x: Any, datapath: Datapath) -> Array:
    """Return a matrix operand as float32, or an integer as it is; a wrong dtype raises TypeError.

    int4 and uint4 become int8 and uint8.
    """
    array = as_array(name, x)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if datapath.is_integer:
        if array.dtype not in _INTEGERS:
            raise TypeError(
                f"{name} must hold integers ({_INTEGER_NAMES}) for an integer accumulator, "
                f"got {array.dtype}"
            )
        if array.dtype.kind == "V":
            array = array.astype(np.int8 if array.dtype == ml_dtypes.int4 else np.uint8)
        return element_strided(array)
    if is_narrow_float(array.dtype):
        return array.astype(np.float32)
    if array.dtype != np.float32:
        hint = "; convert it explicitly" if array.dtype == np.float64 else ""
        foreign = array.dtype == object and not isinstance(x, np.ndarray)
        got = type(x).__name__ if foreign else array.dtype
        raise TypeError(
            f"{name} must hold float32 or narrower floats for a float accumulator, got {got}{hint}"
        )
    return element_strided(array)


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


def element_strided(array: Array) -> Array:
    """Return `array`, or a copy if its strides are no multiples of its elements."""
    whole = all(stride % array.itemsize == 0 for stride in array.strides)
    return array if array.flags.aligned and whole else np.ascontiguousarray(array)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A datapath as the kernels take it, and what becomes of the result."""

    struct: _core.FloatDatapath | _core.IntegerDatapath
    out_dtype: np.dtype[Any]
    group: int
    chunk: int
    output: Quantizer | None
    random: bool
    nan_format: FloatFormat | None  # a format on the way that has no NaN
    counts_steps: bool = True  # an exact accumulator of integers has none but merges
    calls: _core.FloatCalls | None = None  # of plain matrices, by what the planner knows of them


def _float_struct_quantizer(q: Quantizer) -> _core.Quantizer:
    assert isinstance(q.format, FloatFormat)
    nan_to = None if q.format.has_nan else "zero"  # NaN never gets there, see check_finite
    return float_quantizer(q.format, q.rounding, q.overflow, q.underflow, nan_to, q.bits, q.rule)


def saturates_at_largest(q: Quantizer) -> bool:
    """Return whether a number as large as the largest is an overflow."""
    # LBA: |x| >= R_OF is an overflow (docs/accumulators.md, Events)
    form = q.format
    return isinstance(form, FloatFormat) and form.code0 == "ordinary" and form.specials == "none"


def compile_datapath(datapath: Datapath, terms: int) -> Compiled:
    """Return the struct of `datapath` for sums of `terms` terms; it is kept with the datapath.

    NotImplementedError names what is not compiled.
    """
    prepared = datapath._prepared
    compiled: Compiled | None = prepared.get(terms)
    if compiled is None:
        if len(prepared) >= _MOST_PREPARED:
            prepared.clear()
        compiled = prepared[terms] = _compile(datapath, terms)
    return compiled


def _compile(datapath: Datapath, terms: int) -> Compiled:
    is_integer = datapath.is_integer
    if datapath.step not in ("chain", "exact_group") and not (
        is_integer and datapath.step == "tree"
    ):
        raise NotImplementedError(f"step={datapath.step!r} is not compiled yet")
    if datapath.c_join != "early":
        raise NotImplementedError(f"c_join={datapath.c_join!r} is not compiled yet")
    plain = Datapath()
    for field in _FUSED_FIELDS:
        value = getattr(datapath, field)
        known = is_integer and field == "group_quantizer"
        if value != getattr(plain, field) and not known:
            raise NotImplementedError(f"{field}={value!r} is not compiled yet")
    chunk = datapath.chunk if 0 < datapath.chunk < terms else 0
    if is_integer:
        return _compile_integer(datapath, chunk)
    accumulator, output, merge = datapath.accumulator, datapath.output, datapath.merge
    group, is_exact = datapath.group, accumulator is None
    exact_chunks = False
    if output is not None:
        _check_output(output)
    if accumulator is None:
        # The exact sum of a chunk enters the sum of the chunks as one group.
        exact_chunks = bool(chunk) and isinstance(merge, Quantizer)
        if datapath.chunk and isinstance(merge, Quantizer) and datapath.merge_order != "forward":
            raise NotImplementedError(
                f"merge_order={datapath.merge_order!r} of exact sums is not compiled yet"
            )
        if isinstance(merge, Quantizer) and exact_chunks:
            accumulator, group = merge, chunk
        else:
            accumulator, output = output or Quantizer(format=get_format("binary32")), None
            group = max(terms, 1)
        merge, chunk = "same", 0
    merge_quantizer = merge if isinstance(merge, Quantizer) else accumulator
    sums = [accumulator, merge_quantizer]
    quantizers = [*sums, *filter(None, (datapath.product,))]
    for q in quantizers:
        _check_engine_range(q)
    for q in sums:
        _check_random_bits(q)
    d = _core.FloatDatapath()
    d.accumulator = _float_struct_quantizer(accumulator)
    d.merge = _float_struct_quantizer(merge_quantizer)
    d.product_exact = datapath.product is None
    if datapath.product is not None:
        d.product = _float_struct_quantizer(datapath.product)
        d.product_overflow_at_largest = saturates_at_largest(datapath.product)
    d.accumulator_overflow_at_largest = saturates_at_largest(accumulator)
    d.merge_overflow_at_largest = saturates_at_largest(merge_quantizer)
    d.group, d.chunk = group, chunk
    d.merge_exact = merge == "exact"
    d.merge_order = MERGE_ORDERS.index(datapath.merge_order)
    d.float32_steps = datapath.arithmetic == "fp32_mask"
    d.exact_start, d.exact_chunks = is_exact and terms > 0, exact_chunks
    d.merge_to_odd = output is not None
    merges = bool(datapath.chunk) and not (d.merge_exact or is_exact)
    _check_nan_has_a_place(d, sums, merges, output)
    # The dtype does not depend on the number of terms: a merge counts even if there is one chunk.
    used = sums if datapath.chunk else sums[:1]
    dtype = max((q.format.value_dtype for q in used), key=lambda t: t.itemsize)
    random = any(q.rounding == "stochastic" for q in quantizers)
    repeatable = not random and output is None and datapath.order == "natural"
    return Compiled(
        struct=d,
        out_dtype=np.dtype(np.float64) if output is not None else dtype,
        group=group,
        chunk=chunk,
        output=output,
        random=random,
        calls=_core.FloatCalls() if repeatable and dtype == np.float32 else None,
        nan_format=next(
            (
                q.format
                for q in filter(None, (*quantizers, output))
                if isinstance(q.format, FloatFormat) and not q.format.has_nan
            ),
            None,
        ),
    )


def _check_engine_range(q: Quantizer) -> None:
    """Raise unless float64 holds what a format needs: its values, and two bits more."""
    form = q.format
    assert isinstance(form, FloatFormat)
    if form.mantissa_bits > 50:
        raise ValueError(
            f"mantissa_bits must be at most 50 to be emulated exactly, got {form.mantissa_bits}"
        )
    lowest = form.emin - (form.mantissa_bits if form.code0 == "subnormal" else 0)
    if lowest < -1022 or form.value_dtype.itemsize > 8:  # value_dtype raises above float64's range
        raise ValueError(f"every value must be a normal float64 number, got {form!r}")


def _check_nan_has_a_place(
    d: _core.FloatDatapath, sums: list[Quantizer], merges: bool, output: Quantizer | None
) -> None:
    """Raise if NaN may come up, from finite operands, where a format has no NaN."""

    def gives(q: _core.Quantizer, test: Callable[[float], bool], infinite: bool = False) -> bool:
        values = (*q.overflow_value, *(q.infinity_value if infinite else ()))
        return any(test(value) for value in values)

    def check(name: str, q: Quantizer) -> None:
        assert isinstance(q.format, FloatFormat)
        if nan and not q.format.has_nan:
            raise ValueError(
                f"{name} {q.format.name or q.format!r} has no NaN, which what enters it may "
                "overflow to; choose overflow='sat_finite' there"
            )

    nan = not d.product_exact and gives(d.product, math.isnan)
    inf = not d.product_exact and gives(d.product, math.isinf)
    pairwise = d.merge_order == MERGE_ORDERS.index("pairwise")
    stages = [("accumulator", sums[0], d.accumulator, d.group > 1)]
    if merges:
        stages.append(("merge", sums[1], d.merge, pairwise))
    for name, q, struct, pairs in stages:
        # Inf meets -Inf in a group or a pair, or in a sum that can be infinite itself
        nan = nan or (inf and (pairs or gives(struct, math.isinf, True)))
        check(name, q)
        nan = nan or gives(struct, math.isnan, inf)
        inf = gives(struct, math.isinf, inf)
    if output is not None:
        nan = nan or (inf and d.merge_exact)
        check("output", output)


def _check_random_bits(q: Quantizer) -> None:
    """Raise unless a sum rounded to odd in float64 holds the bits that a random word decides on."""
    if q.rounding != "stochastic":
        return
    rule, bits = stochastic_rule(q.bits, q.rule)
    assert isinstance(q.format, FloatFormat)
    most = (51 if rule == "a" else 50) - q.format.mantissa_bits
    if bits > most:
        raise ValueError(
            f"bits must be at most {most} for stochastic sums of {q.format.mantissa_bits} mantissa "
            f"bits, got {bits}"
        )


def _check_output(q: Quantizer) -> None:
    if not isinstance(q.format, FloatFormat):
        raise NotImplementedError(f"output={q.format!r} of a float datapath is not compiled yet")
    if q.rounding == "stochastic":
        raise NotImplementedError("output with rounding='stochastic' is not compiled yet")
    _check_engine_range(q)


# The quantiser of an exact sum: 64 bits, which no sum of products leaves.
_EXACT = FixedFormat(bits=64, fraction_bits=0)


def _compile_integer(datapath: Datapath, chunk: int) -> Compiled:
    accumulator, output = datapath.accumulator, datapath.output
    merge = accumulator if datapath.merge == "same" else datapath.merge
    if output is not None and not isinstance(output.format, FixedFormat):
        raise NotImplementedError(
            f"output={output.format!r} of an integer datapath is not compiled yet"
        )

    def struct(q: Quantizer | str | None) -> _core.FixedQuantizer:
        if not isinstance(q, Quantizer):
            return fixed_quantizer(_EXACT)
        assert isinstance(q.format, FixedFormat)
        shifts = q.format.fraction_bits < 0
        return fixed_quantizer(q.format, q.rounding if shifts else "toward_zero", q.overflow)

    d = _core.IntegerDatapath()
    d.product, d.accumulator, d.merge = struct(datapath.product), struct(accumulator), struct(merge)
    d.node, d.output = struct(datapath.group_quantizer), struct(output)
    d.product_exact, d.output_exact = datapath.product is None, output is None
    d.tree, d.node_exact = datapath.step == "tree", datapath.group_quantizer is None
    d.group, d.chunk = datapath.group, chunk
    d.merge_exact = not isinstance(merge, Quantizer)
    d.merge_order = MERGE_ORDERS.index(datapath.merge_order)
    # The dtype does not depend on the number of terms: a merge counts even if there is one chunk.
    last = [accumulator]
    if isinstance(merge, Quantizer):
        last.append(merge)
    elif datapath.chunk:
        last.append(None)
    if output is not None:
        last = [output]
    return Compiled(
        struct=d,
        out_dtype=np.dtype(np.int32 if all(map(_fits_int32, last)) else np.int64),
        group=datapath.group,
        chunk=chunk,
        output=None,
        random=False,
        nan_format=None,
        counts_steps=accumulator is not None,
    )


def _fits_int32(q: Quantizer | None) -> bool:
    if q is None:
        return False
    form = q.format
    assert isinstance(form, FixedFormat)
    return form.bits + (not form.signed) - form.fraction_bits <= 32


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


def random_address(compiled: Compiled, address: Address) -> tuple[int, int, int]:
    """Return seed, stream and call of the random words, checked."""
    seed, stream, call = address
    if compiled.random and seed is None:
        raise ValueError("a stochastic accumulator needs seed=, got None")
    checked = check_address(seed, stream, call)
    # Three calls of words: products, sums, merges.
    if compiled.random and 3 * checked[2] + 2 >= 1 << 32:
        raise ValueError(f"call must be below 2**32 // 3 for stochastic rounding, got {checked[2]}")
    return checked


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
    steps *= compiled.counts_steps
    chunks = whole + (rest > 0)
    if chunks == 1 or compiled.struct.merge_exact:
        return steps
    # by halves there is no zero to add the first chunk to
    return steps + chunks - (compiled.struct.merge_order == MERGE_ORDERS.index("pairwise"))


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
        assert self.counts is not None
        assert self.extremes is not None
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
