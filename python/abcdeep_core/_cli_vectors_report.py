"""The dot products of `abcdeep vectors`, and those that a row of an overflow report names."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy.typing as npt

    from .datapath import Datapath

    Array = npt.NDArray[Any]


class FileError(Exception):
    """What is wrong with a file, in one line that names it."""

    def __init__(self, file: str, reason: object) -> None:
        super().__init__(f"{file}: {reason}")


def printable(text: str) -> str:
    """Return a message without what a name in a file could do to a terminal."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


class Dots(NamedTuple):
    """Operands of dot products, and where they come from."""

    x: Array
    w: Array
    c: Array | None
    x_type: str | None
    w_type: str | None
    datapath: Datapath
    origin: dict[str, Any]
    step: int | None = None  # of the first overflow, where a report says it


def with_options(args: argparse.Namespace, datapath: Datapath) -> Datapath:
    """Return the datapath with the group and the chunk that the command line asks for."""
    group = args.group or datapath.group
    return datapath.replace(
        group=group,
        step="chain" if group == 1 else "exact_group",
        chunk=args.chunk or datapath.chunk,
    )


def from_report(args: argparse.Namespace) -> Dots:
    """Return the dot product that --report and --row name."""
    import numpy as np

    from .rtl.mac_unit import OperandType

    layer, entries, width, report = _row(args.report, args.row, args.acc)
    entry = _member(args.report, entries, str(width), Mapping)
    rows = []
    for side in ("inputs", "weights"):
        values = _member(args.report, entry, side, list)
        if not values or not _are_integers(values):
            raise FileError(args.report, f"{side} of {layer!r} must be integers")
        rows.append(np.array([values], np.int64))
    if rows[0].shape != rows[1].shape:
        raise FileError(args.report, f"inputs and weights of {layer!r} differ in number")
    operands = _member(args.report, _layers(args.report, report)[layer], "operands", Mapping)
    types = [args.x_type, args.w_type]
    for place, side in enumerate(("input_range", "weight_range")):
        limits = operands.get(side)
        if types[place] is None:
            if not _are_integers(limits) or len(limits) != 2:
                raise FileError(args.report, f"{side} of {layer!r} must be two integers")
            try:
                types[place] = str(OperandType.holding(side, *limits))
            except (TypeError, ValueError) as error:
                raise FileError(args.report, error) from None
    bias = entry.get("bias") or 0
    if not isinstance(bias, int) or abs(bias) >= 1 << 63:
        raise FileError(args.report, f"bias of {layer!r} must be an integer")
    origin = {
        "report": args.report,
        "layer": layer,
        "width": width,
        **{key: entry.get(key) for key in ("sample", "coordinate", "channel", "k")},
    }
    return Dots(
        rows[0],
        rows[1],
        np.array([bias]) if bias else None,
        types[0],
        types[1],
        with_options(args, args.acc or _accumulator_of(args.report, report, width)),
        origin,
        k if isinstance(k := entry.get("k"), int) and not (args.group or args.chunk) else None,
    )


def _row(
    path: str, row: str, acc: Datapath | None
) -> tuple[str, Mapping[str, Any], int, Mapping[str, Any]]:
    """Return the layer that a row names, its overflows by width, the width, and the report."""
    try:
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
    except OSError as error:
        raise FileError(path, error.strerror or error) from None
    except (ValueError, RecursionError) as error:
        raise FileError(path, f"expected JSON: {error}") from None
    if isinstance(report, Mapping) and "layers" not in report:
        report = report.get("overflow", report)  # what the example of a transformer writes
    layers = _layers(path, report)
    name, _, digits = row.rpartition(":")
    wanted = int(digits) if row not in layers and name and digits.isdecimal() else None
    layer = row if wanted is None else name
    if layer not in layers:
        known = ", ".join(layers) or "none"
        raise FileError(path, f"there is no layer {layer!r}; its layers are {known}")
    entries = _member(path, layers[layer], "first_overflow", Mapping)
    if not all(width.isdecimal() for width in entries):
        raise FileError(path, f"first_overflow of {layer!r} must be by width")
    width_of_acc = None if acc is None else _width(acc)
    if wanted is not None and width_of_acc not in (None, wanted):
        raise FileError(path, f"row {row!r} and an accumulator of {width_of_acc} bits disagree")
    widths = sorted(map(int, entries))
    width = next((w for w in (wanted, width_of_acc, *widths[-1:]) if w is not None), None)
    if width is None or str(width) not in entries:
        at = "" if width is None else f" at {width} bits"
        found = f"; it does at {', '.join(map(str, widths))}" if widths else ""
        raise FileError(path, f"layer {layer!r} does not overflow{at}{found}")
    return layer, entries, width, report


def _are_integers(values: object) -> bool:
    """Whether JSON gave a list of integers that an operand may be."""
    return isinstance(values, list) and all(
        isinstance(value, int) and abs(value) < 1 << 31 for value in values
    )


def _layers(path: str, report: object) -> dict[str, Mapping[str, Any]]:
    if not isinstance(report, Mapping):
        raise FileError(path, "expected the JSON of an overflow report, got no object")
    layers = _member(path, report, "layers", list)
    if not all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in layers):
        raise FileError(path, "layers must be objects with names")
    return {layer["name"]: layer for layer in layers}


def _member(path: str, parent: Mapping[str, Any], key: str, kind: type[Any]) -> Any:
    value = parent.get(key)
    if not isinstance(value, kind):
        expected = "an object" if kind is Mapping else "a list"
        raise FileError(path, f"{key} must be {expected}, got {type(value).__name__}")
    return value


def _width(datapath: Datapath) -> int:
    from .formats import FixedFormat

    assert datapath.accumulator is not None
    assert isinstance(datapath.accumulator.format, FixedFormat)
    return datapath.accumulator.format.bits


def _accumulator_of(path: str, report: Mapping[str, Any], width: int) -> Datapath:
    """Return the report's accumulator of this width, else one that wraps."""
    from .accumulators import get_accumulator

    settings = _member(path, report, "settings", Mapping)
    kind = "int" if settings.get("signed", True) else "uint"
    named = [
        text
        for text in _member(path, settings, "accumulators", list)
        if isinstance(text, str) and re.fullmatch(rf"{kind}{width}(:.*)?", text)
    ]
    try:
        datapath = get_accumulator(named[0] if named else f"{kind}{width}:wrap")
        group, tile = settings.get("group") or 1, settings.get("tile") or 0
        return datapath.replace(
            group=group,
            step="chain" if group == 1 else "exact_group",
            chunk=tile,
            merge=settings.get("tile_merge", "same"),
        )
    except (TypeError, ValueError) as error:
        raise FileError(path, error) from None
