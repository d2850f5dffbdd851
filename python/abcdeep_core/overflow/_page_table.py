"""The table of all layers on an overflow page: its columns, cells and their explanations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from . import _charts
from ._summary import (
    DASH,
    TIMES,
    Data,
    accumulator,
    accumulator_names,
    clean,
    data_width,
    decibels,
    drawable,
    finite,
    integer_widths,
    number,
    overflow_rate,
    percent,
    shorten,
    width_text,
    worst_first,
    wrong_rate,
)

Value = float | str | None

BOUNDS = {
    "data_type": (
        "data type",
        "Safe for any weights and inputs of the operand types: K times the extreme product.",
    ),
    "l1": (
        "l1 norm",
        "Safe for these weights and any input: the sum of |w| times the largest |x| of the type.",
    ),
    "sign_split": (
        "sign split",
        "Safe for these weights and any input, and tight: positive and negative weights are summed"
        " apart. Where the inputs' range holds zero it covers every partial sum in every order.",
    ),
    "input_ranges": (
        "input ranges",
        "As the sign split, with the range that each input has on the data in place of its type's.",
    ),
}
DATA_WIDTHS = {
    "given": ("given", "Holds every partial sum of the data in the given order of the terms."),
    "final": ("final", "Holds the final sums of the data: less is never enough."),
    "any_order": ("any", "Holds every partial sum of the data, whatever the order of the terms."),
    "greedy": (
        "greedy",
        "Holds every partial sum where terms are added in the greedy order: a positive term while"
        " the sum is at most zero, else a negative one.",
    ),
}
FITS = {
    "int32": ("32", "The width that the data need in the given order is at most 32 bits."),
    "acc48": ("48", "The width that the data need in the given order is at most 48 bits."),
    "acc58": ("58", "The width that the data need in the given order is at most 58 bits."),
    "DSP48E1": ("48E1", "Signed operands of at most 18 and 25 bits, the data need at most 48."),
    "DSP48E2": ("48E2", "Signed operands of at most 18 and 27 bits, the data need at most 48."),
    "DSP58": ("DSP58", "Signed operands of at most 24 and 27 bits, the data need at most 58."),
}


@dataclass(frozen=True)
class Cell:
    """Text of a cell and the value that it is sorted by; `mark` is a style."""

    text: str
    value: Value = None
    mark: str = ""
    link: str = ""
    svg: str = ""
    words: str = ""

    @property
    def sorted_by(self) -> str:
        """The value as the script reads it, "" where it reads the text."""
        if self.value is None or str(self.value) == self.text:
            return ""
        return "Infinity" if self.value == math.inf else str(self.value)


@dataclass(frozen=True)
class Column:
    """A column: the key that the address sorts by, its group, heading, meaning and cells."""

    key: str
    group: str
    title: str
    meaning: str
    cell: Callable[[Data], Cell] = field(repr=False)
    kind: str = "number"


@dataclass(frozen=True)
class Row:
    """A layer's cells, one a column."""

    anchor: str
    cells: Sequence[Cell]


def anchor(place: int) -> str:
    """Return the id of the layer at a place of the report."""
    return f"layer-{place + 1}"


def title(layer: Data) -> str:
    """Return the name of a layer as the page shows it."""
    return clean(layer["name"]) or "(no name)"


def operands(layer: Data) -> tuple[str, str]:
    """Return the types of input and weight in words, their ranges where they have no label."""
    kinds = layer["operands"]
    return (
        clean(kinds.get("input") or _range(kinds.get("input_range"))),
        clean(kinds.get("weight") or _range(kinds.get("weight_range"))),
    )


def _range(ends: Sequence[int] | None) -> str:
    return DASH if not ends else f"[{ends[0]}, {ends[1]}]"


def groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Return each group of neighbouring columns with how many they are."""
    found: list[tuple[str, int]] = []
    for column in columns:
        if found and found[-1][0] == column.group:
            found[-1] = (column.group, found[-1][1] + 1)
        else:
            found.append((column.group, 1))
    return found


def _bits(table: str, key: str) -> Callable[[Data], Cell]:
    def cell(layer: Data) -> Cell:
        bits = data_width(layer, key) if table == "data_widths" else layer[table].get(key)
        return Cell(width_text(bits), bits)

    return cell


def _rate(width: int) -> Callable[[Data], Cell]:
    def cell(layer: Data) -> Cell:
        rate = overflow_rate(layer, width)
        return Cell(percent(rate), rate, "bad" if rate else "")

    return cell


def _wrong(name: str) -> Callable[[Data], Cell]:
    def cell(layer: Data) -> Cell:
        rate = wrong_rate(layer, name)
        return Cell(percent(rate), rate)

    return cell


def _noise(name: str) -> Callable[[Data], Cell]:
    def cell(layer: Data) -> Cell:
        entry = accumulator(layer, name)
        text = decibels(layer, name)
        if text == "exact":
            return Cell(text, math.inf)
        return Cell(text, entry["sqnr_db"] if entry and finite(entry["sqnr_db"]) else None)

    return cell


def _fit(key: str) -> Callable[[Data], Cell]:
    def cell(layer: Data) -> Cell:
        fits = layer["fits"].get(key)
        if fits is None:
            return Cell(DASH)
        return Cell(
            "✓" if fits else "✗",
            int(fits),
            "yes" if fits else "no",
            words="fits" if fits else "does not fit",
        )

    return cell


def _scale(layers: Sequence[Data], limit: int | None) -> tuple[int, int]:
    """Return the ends of the common scale of widths."""
    known = [
        width
        for layer in layers
        for width in (
            *layer["bounds"].values(),
            *(data_width(layer, order) for order in DATA_WIDTHS),
            limit,
        )
        if drawable(width)
    ]
    return (min(known), max(known)) if known else (1, 32)


def columns_of(report: Data) -> list[Column]:
    """Return the columns of a report's table."""
    layers = report["layers"]
    widths = integer_widths(report)
    limit = next(iter(widths), None)
    low, high = _scale(layers, limit)
    places = {id(layer): place for place, layer in enumerate(layers)}

    def name(layer: Data) -> Cell:
        text = title(layer)
        return Cell(text, text, link=anchor(places[id(layer)]))

    def ruler(layer: Data) -> Cell:
        known = dict(layer["bounds"])
        known |= {order: data_width(layer, order) for order in DATA_WIDTHS}
        known = {name: bits for name, bits in known.items() if drawable(bits)}
        return Cell("", data_width(layer, "given"), svg=_charts.ruler(low, high, known, limit))

    def types(layer: Data) -> Cell:
        text = f" {TIMES} ".join(operands(layer))
        return Cell(text, text)

    columns = [
        Column("name", "", "layer", "", name, "name"),
        Column("bits", "", f"{low} to {high} bits", "", ruler, "scale"),
        Column(
            "k",
            "",
            "K",
            "Terms of one dot product.",
            lambda layer: Cell(number(layer["terms"]), layer["terms"]),
        ),
        Column(
            "n",
            "",
            "N",
            "Output channels.",
            lambda layer: Cell(number(layer["channels"]), layer["channels"]),
        ),
        Column("operands", "", "operands", "Types of input and weight.", types, "text"),
    ]
    signed = report["settings"].get("signed", True)
    safe = "safe bits" if signed else "safe bits, signed"
    columns += [
        Column(key, safe, title, meaning, _bits("bounds", key))
        for key, (title, meaning) in BOUNDS.items()
    ]
    columns += [
        Column(key, "bits on the data", title, meaning, _bits("data_widths", key))
        for key, (title, meaning) in DATA_WIDTHS.items()
    ]
    for index, (width, kind) in enumerate(widths.items()):
        columns.append(
            Column(
                "rate" if index == 0 else f"rate-{width}",
                "overflow",
                kind,
                f"Share of outputs with a partial sum that {width} bits do not hold.",
                _rate(width),
            )
        )
    for full in accumulator_names(report):
        columns += [
            Column(
                f"wrong-{full}",
                shorten(clean(full), 40),
                "wrong",
                "Share of outputs that differ from the exact sum.",
                _wrong(full),
            ),
            Column(
                f"sqnr-{full}",
                shorten(clean(full), 40),
                "SQNR",
                "Signal-to-quantisation-noise ratio of the outputs in dB.",
                _noise(full),
            ),
        ]
    keys = dict.fromkeys(key for layer in layers for key in layer["fits"])
    columns += [
        Column(f"fits-{key}", "fits", *FITS.get(key, (clean(key), "")), _fit(key), "fit")
        for key in sorted(keys, key=lambda key: list(FITS).index(key) if key in FITS else len(FITS))
    ]
    return columns


def rows_of(report: Data, columns: Sequence[Column]) -> list[Row]:
    """Return the rows of a report's table, the worst layer first."""
    return [
        Row(anchor(place), [column.cell(layer) for column in columns])
        for place, layer in worst_first(report)
    ]


def terms() -> list[tuple[str, str]]:
    """Return the words of the page and what they mean."""
    return [
        *((f"safe bits, {title}", meaning) for title, meaning in BOUNDS.values()),
        *((f"bits on the data, {title}", meaning) for title, meaning in DATA_WIDTHS.values()),
        (
            "persistent overflow",
            "The exact final sum does not fit: no order of the terms helps.",
        ),
        (
            "transient overflow",
            "The final sum fits, a partial sum on the way does not. Wrapping undoes it;"
            " saturation makes the output wrong.",
        ),
        ("wrong", "Share of outputs that differ from the exact sum."),
        (
            "SQNR",
            "Signal-to-quantisation-noise ratio: power of the exact outputs over that of their"
            " errors, in dB. Twice the error costs 6 dB.",
        ),
        (
            "limits act at",
            "Where an accumulator wraps or clamps: at each product, step, group of"
            " products, tile of the reduction, or only at the end.",
        ),
        *((f"fits {title}", meaning) for title, meaning in FITS.values()),
        (
            "order",
            "given: the terms as the model has them (natural in Python and JSON); best: each dot"
            " product in its greedy order (greedy).",
        ),
        (
            "k",
            "The step of a dot product, from 0 on: k=2 is the third. A step adds a product, or a"
            " group of them; a merge of tiles in the same accumulator is a step too; k=-1 is the"
            " bias.",
        ),
        ("counting", "Samples, coordinates, channels and steps count from 0."),
    ]
