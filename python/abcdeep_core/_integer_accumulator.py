"""Integer accumulators: `integer_accumulator`, and their names as text."""

from __future__ import annotations

import re
from typing import Any, Literal

from . import _names
from ._fixed_format import FixedFormat
from ._format_base import boolean, integer
from .datapath import Datapath, Quantizer

PLACES = ("product", "step", "group", "tile", "end")

Merge = Quantizer | Literal["same", "exact"]


def integer_accumulator(
    bits: int,
    overflow: str = "wrap",
    *,
    signed: bool = True,
    wrap_bits: int = 0,
    group: int = 1,
    chunk: int = 0,
    merge: Literal["same", "exact"] | Datapath = "same",
    shift: int = 0,
    rounding: str = "TRN",
    at: Literal["product", "step", "group", "tile", "end"] | None = None,
    tree: bool = False,
    product: FixedFormat | Quantizer | None = None,
    group_quantizer: FixedFormat | Quantizer | None = None,
    output: FixedFormat | Quantizer | None = None,
) -> Datapath:
    """Return an integer accumulator of `bits` bits.

    Parameters
    ----------
    bits : int
        Width, 2 to 63; of a shifted accumulator, `bits`, `shift` and the sign that an unsigned one
        lacks are 63 together at most.
    overflow : {"wrap", "saturate", "saturate_zero", "saturate_symmetric", "wrap_sign_magnitude"}
        What happens out of range, after every step; or the ap_fixed name in capitals.
    signed : bool
        Two's complement, or unsigned.
    wrap_bits : int
        Saturated bits of the wrapping modes (docs/formats.md).
    group : int
        Products per step (lanes of a SIMD instruction): summed exactly before the overflow rule.
    chunk : int
        Terms per partial sum (a tile), 0 for all.
    merge : {"same", "exact"} or Datapath
        How chunk sums are added.
    shift : int
        Low bits that the register drops: it holds multiples of 2^shift, and results are these
        multiples (not the register's quotient).
    rounding : str
        What becomes of the dropped bits, before the overflow rule: one of the modes RND, RND_ZERO,
        RND_MIN_INF, RND_INF, RND_CONV, TRN, TRN_ZERO of ap_fixed or any other deterministic one.
    at : {"product", "step", "group", "tile", "end"}, optional
        Where the limit of `bits` bits stands; everything else is exact. Default: after every step
        ("step", or "group" if a step has several products). "product": each product; "tile": where
        chunk sums are added; "end": the result only.
    tree : bool
        Add the products of a group by recursive halves, in adders that `group_quantizer` limits;
        by default they are as wide as the accumulator.
    product, group_quantizer, output : FixedFormat or Quantizer, optional
        Further limits: of each product, of the exact sum of a group (of each adder in a tree), of
        the result. A format stands for its own rounding and overflow modes.

    Returns
    -------
    Datapath

    Raises
    ------
    TypeError, ValueError
        As `Datapath`, `Quantizer` and `FixedFormat` do, and for arguments that contradict `at`.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.full((1, 8), 100, np.int8)
    >>> int(ab.matmul(x, x.T, ab.integer_accumulator(16, "saturate"))[0, 0])
    32767

    A register that drops four bits of each sum reaches sixteen times as far:

    >>> int(ab.matmul(x, x.T, ab.integer_accumulator(16, "saturate", shift=4))[0, 0])
    80000
    """
    form = FixedFormat(
        bits=bits,
        fraction_bits=-integer("shift", shift, 0, 61),
        signed=signed,
        rounding=rounding,
        overflow=overflow,
        wrap_bits=wrap_bits,
    )
    limit = Quantizer(format=form, rounding=form.rounding)
    fields: dict[str, Any] = {
        "product": _quantizer("product", product),
        "group_quantizer": _quantizer("group_quantizer", group_quantizer),
        "output": _quantizer("output", output),
        "merge": merge_quantizer(merge),
    }
    boolean("tree", tree)
    _check_place(at, group, chunk, tree, fields)
    if at in ("product", "end"):
        fields["output" if at == "end" else "product"] = limit
    elif at == "tile":
        fields["merge"] = limit
        fields["output"] = fields["output"] or limit  # the sum of a single tile is not merged
    else:
        fields["accumulator"] = limit
        if tree and group_quantizer is None:
            fields["group_quantizer"] = limit
    step = "tree" if tree else "exact_group"
    if group == 1 and not tree and group_quantizer is None:
        step = "chain"
    name = ":".join(
        (
            f"int{bits}" if signed else f"uint{bits}",
            *((f"s{shift}", form.rounding) if shift else ()),
            *(("tree",) if tree else ()),
            *((at,) if at in ("product", "tile", "end") else ()),
        )
    )
    return Datapath(step=step, group=group, chunk=chunk, name=name, **fields)


def _check_place(
    at: str | None, group: int, chunk: int, tree: bool, fields: dict[str, Any]
) -> None:
    if at is not None:
        _names.canonical("at", at, {name: name for name in PLACES})
    if tree and group < 2:
        raise ValueError(f"group must be at least 2 for tree=True, got {group}")
    if at == "step" and group != 1:
        raise ValueError(f"group must be 1 for at='step', got {group}")
    if at == "group" and group < 2:
        raise ValueError(f"group must be at least 2 for at='group', got {group}")
    if at == "tile" and chunk == 0:
        raise ValueError("chunk must be at least 1 for at='tile', got 0")
    if at == "tile" and fields["merge"] != "same":
        raise ValueError(f"merge must be 'same' for at='tile', got {fields['merge']!r}")
    taken = {"product": "product", "end": "output"}.get(at or "")
    if taken is not None and fields[taken] is not None:
        raise ValueError(f"{taken} must be None for at={at!r}, got {fields[taken]!r}")


def _quantizer(argument: str, given: FixedFormat | Quantizer | None) -> Quantizer | None:
    if isinstance(given, FixedFormat):
        return Quantizer(format=given, rounding=given.rounding)
    if given is None or isinstance(given, Quantizer):
        return given
    raise TypeError(f"{argument} must be a FixedFormat or a Quantizer, got {given!r}")


def merge_quantizer(merge: Literal["same", "exact"] | Datapath) -> Merge:
    """Return the `merge` of a datapath; another datapath stands for its accumulator."""
    if not isinstance(merge, Datapath):
        return merge
    return merge.accumulator if merge.accumulator is not None else "exact"


_TEXT = re.compile(r"(u?)int(\d+)((?::\w+)*)")
_NUMBERS = {"g": "group", "t": "chunk", "s": "shift", "n": "wrap_bits"}
_FORM = (
    "int<bits> or uint<bits> with an overflow mode, g<group>, t<tile>, s<shift> and its rounding "
    "mode, n<saturated bits>, tree, exact (merge), or a place: " + ", ".join(PLACES)
)


def integer_from_text(text: str) -> Datapath | None:
    """Return the accumulator of a text like ``int16:saturate:g4``; None if it does not start so.

    ValueError if one of its fields is unknown or given twice.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    values: dict[str, Any] = {"signed": not match[1]}
    for field in match[3].split(":")[1:]:
        argument, value = _argument(text, field)
        if argument in values:
            raise ValueError(f"accumulator {text!r}: {argument} is given twice, by {field!r}")
        values[argument] = value
    return integer_accumulator(int(match[2]), **values)


def _argument(text: str, field: str) -> tuple[str, Any]:
    """Return the argument of `integer_accumulator` that a field of a text gives, and its value."""
    if field[0] in _NUMBERS and field[1:].isdigit():
        return _NUMBERS[field[0]], int(field[1:])
    if field in PLACES:
        return "at", field
    if field == "tree":
        return "tree", True
    if field == "exact":
        return "merge", "exact"
    for argument, known in (("overflow", _names.FIXED_OVERFLOW), ("rounding", _names.ROUNDING)):
        names = {name.lower(): canonical for name, canonical in known.items()}
        if field.lower() in names:
            return argument, names[field.lower()]
    raise ValueError(f"accumulator {text!r}: expected {_FORM}, got {field!r}")
