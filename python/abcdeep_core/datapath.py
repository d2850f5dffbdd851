"""A dot product's arithmetic as one frozen value: `Quantizer` and `Datapath`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from . import _names
from ._fixed_format import FixedFormat
from ._float_format import FloatFormat
from ._format_base import boolean, integer, string
from ._quantizer import stochastic_rule
from .formats import format_from_dict, get_format

if TYPE_CHECKING:
    from .plan import Plan

STEPS = ("chain", "exact_group", "tree", "fused_trunc", "scaled_groups", "two_level")
MERGE_ORDERS = ("forward", "first_then_back", "pairwise")
ORDERS = ("natural", "reverse", "even_then_odd", "pair4")
C_JOINS = ("early", "late", "end")
ARITHMETICS = ("exact", "fp32_mask")
ZERO_RULES = ("ignore", "subnormal_exponent", "emin")


def _saturates(q: Quantizer) -> bool:
    form = q.format
    if isinstance(form, FloatFormat):
        return True
    wraps = form.resolved_overflow(q.overflow).startswith("wrap")
    return not wraps or form.wrap_bits >= form.bits


def _check_integers(q: Quantizer, form: FixedFormat) -> None:
    """Check a format of an integer datapath: multiples of a power of two that int64 holds."""
    shift = -form.fraction_bits
    if shift < 0:
        raise ValueError(
            f"fraction_bits must be -shift <= 0 in an integer datapath, got {form.fraction_bits}"
        )
    if not 2 <= form.bits <= 63:
        raise ValueError(f"bits must be in 2..63 in an integer datapath, got {form.bits}")
    most = 63 if form.signed else 62
    if shift and form.bits + shift > most:
        raise ValueError(
            f"bits + shift must be at most {most} in an integer datapath with signed={form.signed},"
            f" got {form.bits} + {shift}"
        )
    if shift and q.rounding in ("stochastic", "jam"):
        raise ValueError(
            "rounding must be deterministic and keep exact numbers in an integer datapath, "
            f"got {q.rounding!r}"
        )


def _one_of(field: str, value: object, known: tuple[str, ...]) -> str:
    return _names.canonical(field, value, {name: name for name in known})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantizer:
    """A format with the rules that hold where a datapath rounds to it.

    Parameters
    ----------
    format : FloatFormat, FixedFormat, name or dtype
        What is rounded to.
    rounding : str
        Rounding mode. In an integer datapath it acts where the format drops low bits
        (``fraction_bits=-shift``), whatever rounding the format itself names.
    overflow, underflow : str, optional
        Rules out of range; None is the format's own. Datapaths also know ``underflow="off"``: no
        threshold above 2^-126, the smallest normal float32 (LBA's first training stage).
    bits, rule
        Random bits a draw and rule of stochastic rounding, as for `quantize`.

    Raises
    ------
    TypeError, ValueError
        If a field has the wrong type or an unknown name.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.Quantizer(format="fp16", rounding="toward_zero").format.max
    65504.0
    """

    format: FloatFormat | FixedFormat
    rounding: str = "nearest_even"
    overflow: str | None = None
    underflow: str | None = None
    bits: int | None = None
    rule: str = "c"

    def __post_init__(self) -> None:
        form = get_format(self.format)
        object.__setattr__(self, "format", form)
        object.__setattr__(
            self, "rounding", _names.canonical("rounding", self.rounding, _names.ROUNDING)
        )
        stochastic_rule(self.bits, self.rule)
        if self.overflow is not None:
            object.__setattr__(self, "overflow", form.resolved_overflow(self.overflow))
        if isinstance(form, FixedFormat):
            if self.underflow is not None:
                raise ValueError(
                    f"underflow must be None for a fixed-point format, got {self.underflow!r}"
                )
        elif self.underflow is not None and self.underflow != "off":
            object.__setattr__(self, "underflow", form.resolved_underflow(self.underflow))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        data = dataclasses.asdict(self)
        data["format"] = self.format.to_dict()
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the quantiser that `to_dict` described."""
        return cls(**{**data, "format": format_from_dict(data["format"])})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Datapath:
    """How a dot product is computed: every rounding, in which order, of which partial sums.

    The terms, in `order`, are cut into chunks and these into groups; `step` says how a group enters
    the running sum of its chunk, and the chunk sums are merged in `merge_order`. The definition is
    in docs/accumulators.md. Most users need one of the constructors `lba_accumulator`,
    `float_accumulator`, `integer_accumulator` and `exact_accumulator`.

    Parameters
    ----------
    product : Quantizer, optional
        Rounds each product; None keeps it exact.
    accumulator : Quantizer, optional
        Rounds the running sum after each step; None keeps it exact. A FixedFormat, here or in
        product, merge or group_quantizer, makes this an integer datapath; so does an output without
        fraction bits if there is no accumulator.
    step : {"chain", "exact_group", "tree", "fused_trunc", "scaled_groups", "two_level"}
        How a group of products is added. The compiled engine runs chain and exact_group, and tree
        for integers.
    group : int
        Products per step.
    chunk : int
        Terms per partial sum; 0 is one chunk of all terms.
    merge : Quantizer, "same" or "exact"
        Rounds the sum of chunk results; "same" is the accumulator's quantiser.
    merge_order : {"forward", "first_then_back", "pairwise"}
    order : {"natural", "reverse", "even_then_odd", "pair4"} or tuple of int
        Order in which terms are summed.
    c_join : {"early", "late", "end"}
        Where the addend enters.
    output : Quantizer, optional
        Rounds the result.
    arithmetic : {"exact", "fp32_mask"}
        "fp32_mask" truncates binary32 results that were rounded to nearest, as published GPU
        emulations do; for ``rounding="toward_zero"`` only.
    group_quantizer : Quantizer, optional
        Rounds the exact sum of a group; in a tree, its leaves and nodes.
    alignment_bits, zero_rule, exponent_floor, operand_a, operand_b, addend, flush_inputs
        Parameters of the fused steps of matrix units.
    name : str
        A label; it takes no part in equality.

    Raises
    ------
    TypeError, ValueError
        If a field has the wrong type, an unknown name, or contradicts another.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> lba = ab.lba_accumulator()
    >>> lba.chunk, lba.accumulator.format.max
    (16, 63.75)
    >>> ab.Datapath.from_dict(lba.to_dict()) == lba
    True
    """

    product: Quantizer | None = None
    accumulator: Quantizer | None = None
    step: str = "chain"
    group: int = 1
    chunk: int = 0
    merge: Quantizer | Literal["same", "exact"] = "same"
    merge_order: str = "forward"
    order: str | tuple[int, ...] = "natural"
    c_join: str = "early"
    output: Quantizer | None = None
    arithmetic: str = "exact"
    alignment_bits: int | None = None
    zero_rule: str = "ignore"
    exponent_floor: int | None = None
    group_quantizer: Quantizer | None = None
    operand_a: FloatFormat | FixedFormat | None = None
    operand_b: FloatFormat | FixedFormat | None = None
    addend: FloatFormat | FixedFormat | None = None
    flush_inputs: bool = False
    name: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        for field in ("product", "accumulator", "output", "group_quantizer"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, Quantizer):
                raise TypeError(f"{field} must be a Quantizer or None, got {type(value).__name__}")
        if not isinstance(self.merge, Quantizer):
            _one_of("merge", self.merge, ("same", "exact"))
        _one_of("step", self.step, STEPS)
        _one_of("merge_order", self.merge_order, MERGE_ORDERS)
        _one_of("c_join", self.c_join, C_JOINS)
        _one_of("arithmetic", self.arithmetic, ARITHMETICS)
        _one_of("zero_rule", self.zero_rule, ZERO_RULES)
        object.__setattr__(self, "group", integer("group", self.group, 1, 2**62))
        object.__setattr__(self, "chunk", integer("chunk", self.chunk, 0, 2**62))
        for field in ("alignment_bits", "exponent_floor"):
            value = getattr(self, field)
            if value is not None:
                object.__setattr__(self, field, integer(field, value))
        for field in ("operand_a", "operand_b", "addend"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, FloatFormat | FixedFormat):
                raise TypeError(f"{field} must be a format or None, got {type(value).__name__}")
        boolean("flush_inputs", self.flush_inputs)
        string("name", self.name)
        if self.step == "chain" and self.group != 1:
            raise ValueError(f"group must be 1 for step='chain', got {self.group}")
        self._check_order()
        self._check_kinds()

    def _check_order(self) -> None:
        if isinstance(self.order, str):
            _one_of("order", self.order, ORDERS)
            return
        try:
            places = tuple(integer("order", place) for place in self.order)
        except TypeError:
            raise TypeError(
                f"order must be a name or a tuple of integers, got {self.order!r}"
            ) from None
        if sorted(places) != list(range(len(places))):
            raise ValueError(f"order must be a permutation of 0..K-1, got {places}")
        object.__setattr__(self, "order", places)

    def _check_kinds(self) -> None:
        quantizers = self._quantizers()
        kinds = {type(q.format) for q in quantizers}
        if len(kinds) > 1:
            raise ValueError(
                "product, accumulator, merge and group_quantizer must all be float or all be "
                "integer"
            )
        if self.is_integer and self.output is not None:
            quantizers.append(self.output)
        for q in quantizers:
            if isinstance(q.format, FixedFormat):
                _check_integers(q, q.format)
            elif not (self.is_integer or q.format.signed):
                raise ValueError(f"the formats of a datapath must be signed, got {q.format!r}")
        if self.is_integer and self.step == "chain" and self.group_quantizer is not None:
            raise ValueError("group_quantizer must be None for step='chain' of integers")
        if self.arithmetic == "fp32_mask":
            self._check_mask()

    def _quantizers(self) -> list[Quantizer]:
        """Return those of which any makes an integer datapath."""
        all_four = (self.product, self.accumulator, self.merge, self.group_quantizer)
        return [q for q in all_four if isinstance(q, Quantizer)]

    def _check_mask(self) -> None:
        if self.step != "chain":
            raise ValueError(f"arithmetic='fp32_mask' needs step='chain', got {self.step!r}")
        for field, q in (("product", self.product), ("accumulator", self.accumulator)):
            if q is None or isinstance(q.format, FixedFormat) or q.rounding != "toward_zero":
                raise ValueError(
                    f"arithmetic='fp32_mask' needs a float {field} with rounding='toward_zero'"
                )
            if q.format.value_dtype != "float32":
                raise ValueError(
                    f"arithmetic='fp32_mask' needs a {field} format whose values are float32 "
                    f"numbers, got {q.format!r}"
                )

    @functools.cached_property
    def _prepared(self) -> dict[int, Any]:
        """What kernels need of this datapath, by the number of terms (_gemm.compile_datapath)."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def is_integer(self) -> bool:
        """Whether operands and sums are integers."""
        quantizers = self._quantizers()
        if quantizers or self.output is None:
            return any(isinstance(q.format, FixedFormat) for q in quantizers)
        form = self.output.format
        return isinstance(form, FixedFormat) and form.fraction_bits <= 0

    @property
    def saturates_at(self) -> str:
        """Where range rules act: "product", "step", "group", "tile" or "end".

        Of the quantisers that saturate (a float format, and an integer one that does not wrap), the
        accumulator comes first, then product, group, merge and output. Where all wrap, the order is
        the same among those there are.

        Examples
        --------
        >>> import abcdeep_core as ab
        >>> for place in ("product", "step", "tile", "end"):
        ...     print(ab.integer_accumulator(16, "saturate", chunk=8, at=place).saturates_at)
        product
        step
        tile
        end
        """
        merge = self.merge if self.chunk else None
        places = (
            ("step" if self.group == 1 else "group", self.accumulator),
            ("product", self.product),
            ("group", self.group_quantizer),
            ("tile", merge),
            ("end", self.output),
        )
        there = [(place, q) for place, q in places if isinstance(q, Quantizer)]
        saturating = [place for place, q in there if _saturates(q)]
        return next(iter(saturating or [place for place, _ in there]), "end")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data (JSON-ready)."""
        data: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Quantizer | FloatFormat | FixedFormat):
                value = value.to_dict()
            data[field.name] = list(value) if isinstance(value, tuple) else value
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the datapath that `to_dict` described."""
        fields = dict(data)
        for field in ("product", "accumulator", "merge", "output", "group_quantizer"):
            if isinstance(fields.get(field), Mapping):
                fields[field] = Quantizer.from_dict(fields[field])
        for field in ("operand_a", "operand_b", "addend"):
            if isinstance(fields.get(field), Mapping):
                fields[field] = format_from_dict(fields[field])
        if isinstance(fields.get("order"), list):
            fields["order"] = tuple(fields["order"])
        return cls(**fields)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def plan(self, a: Any, b: Any) -> Plan:
        """Return which kernel would compute ``matmul(a, b, self)``, and the condition for it.

        Parameters
        ----------
        a, b : array_like
            As for `matmul`.

        Returns
        -------
        Plan

        Examples
        --------
        >>> import numpy as np
        >>> import abcdeep_core as ab
        >>> ones = np.ones((4, 4), np.int8)
        >>> ab.integer_accumulator(16, "saturate").plan(ones, ones).path
        'integer16'
        """
        from ._matmul import plan_call  # the planner of products imports this module

        return plan_call(self, a, b)
