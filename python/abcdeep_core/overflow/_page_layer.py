"""The section of one layer on an overflow page: plots, tables and sentences."""

from __future__ import annotations

import heapq
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import _charts
from ._page_table import BOUNDS, DATA_WIDTHS, anchor, operands, title
from ._summary import (
    DASH,
    TIMES,
    WIDTHS_NAMED,
    Data,
    accumulator_range,
    clean,
    data_width,
    decibels,
    drawable,
    factor,
    integer_widths,
    number,
    overflowed,
    percent,
    share,
    shorten,
    width_text,
)

WORST_CHANNELS = 10
_FIRST_OVERFLOWS = 6
_EVENTS = {
    # Field of Events -> (words, what it is a share of).
    "accumulator_overflow": ("accumulator overflows", "steps"),
    "product_overflow": ("product overflows", "terms"),
    "product_underflow": ("product underflows", "terms"),
    "accumulator_underflow": ("accumulator underflows", "steps"),
    "swamped": ("swamped: the term changed nothing", "steps"),
    "rounded": ("rounded: bits of the term were lost", "steps"),
    "absorbed": ("absorbed: the sum so far was lost", "steps"),
    "nonfinite": ("infinities and NaNs made", "steps"),
}


@dataclass(frozen=True)
class Figure:
    """An SVG, its heading, and what to read from it."""

    title: str
    svg: str
    caption: str
    key: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Table:
    """Headings and rows of text; the first `texts` columns are words, the others numbers."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    note: str = ""


@dataclass(frozen=True)
class Diagnostics:
    """What a float accumulator lost in a layer."""

    name: str
    facts: Sequence[tuple[str, str]]
    figure: Figure | None


@dataclass(frozen=True)
class Section:
    """Everything that the page says about one layer."""

    anchor: str
    name: str
    heading: str
    facts: Sequence[tuple[str, str]]
    finding: str
    first: Sequence[tuple[str, str]]
    commands: Sequence[str]
    figures: Sequence[Figure]
    tables: Sequence[Table]
    diagnostics: Sequence[Diagnostics]


def section_of(report: Data, place: int) -> Section:
    """Return the section of the layer at a place of the report."""
    layer = report["layers"][place]
    widths = integer_widths(report)
    signed = bool(report["settings"].get("signed", True))
    identity = anchor(place)
    name = title(layer)
    figures = [
        _rates(identity, layer, widths),
        _sums(identity, layer, widths, signed),
        _channels(identity, layer),
    ]
    tables = [_accumulators(layer), _worst_channels(layer, widths)]
    return Section(
        anchor=identity,
        name=name,
        heading=shorten(name, 120),
        facts=_facts(layer),
        finding=_finding(layer, widths),
        first=_first_overflows(report, layer, widths, signed),
        commands=_commands(layer, widths),
        figures=[figure for figure in figures if figure],
        tables=[table for table in tables if table],
        diagnostics=[
            _diagnostics(f"{identity}-float-{index}", entry)
            for index, entry in enumerate(layer["accumulators"])
            if entry.get("events")
        ],
    )


def _facts(layer: Data) -> list[tuple[str, str]]:
    input_type, weight_type = operands(layer)
    kinds = layer["operands"]
    facts = [
        ("kind", clean(layer["kind"])),
        ("K, terms", number(layer["terms"])),
        ("N, channels", number(layer["channels"])),
        ("outputs counted", number(layer["outputs"])),
        ("input", _with_range(input_type, kinds.get("input_range"))),
        ("weight", _with_range(weight_type, kinds.get("weight_range"))),
    ]
    if layer["outputs"] and (seen := kinds.get("observed_input_range")):
        facts.append(("input on the data", f"{seen[0]} to {seen[1]}"))
    if sums := layer.get("partial_sums"):
        facts.append(("partial sums", f"{sums['smallest']} to {sums['largest']}"))
    return facts


def _with_range(label: str, ends: Sequence[int] | None) -> str:
    return label if not ends or label.startswith("[") else f"{label}, {ends[0]} to {ends[1]}"


def _finding(layer: Data, widths: Mapping[int, str]) -> str:
    given, safe = data_width(layer, "given"), layer["bounds"].get("sign_split")
    parts = []
    for width, kind in list(widths.items())[:WIDTHS_NAMED]:
        count = overflowed(layer, width)
        if count is None or not layer["outputs"]:
            continue
        rate = percent(share(count, layer["outputs"]))
        parts.append(
            f"{number(count)} outputs ({rate}) overflow {kind}"
            if count
            else f"no output overflows {kind}"
        )
    line = ", ".join(parts) or "nothing was counted"
    ends = []
    if given is not None:
        need = f"need {given} bits" if drawable(given) else "fit no width"
        ends.append(f"the data {need}")
    if safe is not None:
        ends.append(f"{safe} bits are safe for any input")
    text = "; ".join([line, ", ".join(ends)]) if ends else line
    return text[0].upper() + text[1:] + "."


def _first_overflows(
    report: Data, layer: Data, widths: Mapping[int, str], signed: bool
) -> list[tuple[str, str]]:
    found = layer.get("first_overflow") or {}
    return [
        (widths.get(width, f"int{width}"), _first(report, layer, found[str(width)], width, signed))
        for width in sorted(int(key) for key in found)
        if not widths or width in widths
    ][:_FIRST_OVERFLOWS]


def _first(report: Data, layer: Data, event: Data, width: int, signed: bool) -> str:
    low, high = accumulator_range(width, signed)
    settings = report["settings"]
    coordinate = ", ".join(map(str, event["coordinate"]))
    where = f"sample {event['sample']}, output ({coordinate})"
    value, before, x, w = (event[key] for key in ("value", "before", "input", "weight"))
    side = f" > {high}" if value > high else f" < {low}" if value < low else ""
    if event["k"] < 0:
        return f"{where}: the bias is {value}{side}"
    where += f", k={event['k']}"
    if not settings.get("tile"):
        where += f" of 0 to {-(-layer['terms'] // (settings.get('group') or 1)) - 1}"
    if event["term"] < 0:
        return f"{where}: {before} becomes {value}{side} as a tile is added"
    if event["term"] != event["k"]:
        where += f", operand {event['term']}"
    product = f"{factor(x)} {TIMES} {factor(w)}"
    if before + x * w == value:
        return f"{where}: {before} + {product} = {value}{side}"
    return f"{where}: {before} becomes {value}{side}, last product {product}"


def _commands(layer: Data, widths: Mapping[int, str]) -> list[str]:
    """Return command lines that export the first overflow of the layer at each width."""
    found = layer.get("first_overflow") or {}
    chosen = [width for width in widths if str(width) in found]
    return [
        f"abcdeep vectors --report report.json --row {row} -o vectors"
        for row in (
            shlex.quote(clean(f"{layer['name']}:{width}")) for width in chosen[:WIDTHS_NAMED]
        )
    ]


def _marks(layer: Data) -> list[_charts.Mark]:
    rows = (
        ("final sums of the data", data_width(layer, "final")),
        ("data, given order", data_width(layer, "given")),
        ("data, any order", data_width(layer, "any_order")),
        *((BOUNDS[key][0], layer["bounds"].get(key)) for key in reversed(BOUNDS)),
    )
    return [_charts.Mark(name, bits) for name, bits in rows if bits is not None and drawable(bits)]


def _rates(identity: str, layer: Data, widths: Mapping[int, str]) -> Figure | None:
    curve = layer["curve"]
    if not layer["outputs"] or not curve["widths"]:
        return None
    svg = _charts.rate_curve(
        f"{identity}-rate",
        _charts.Rates(curve["widths"], curve["persistent"], curve["transient"], layer["outputs"]),
        [_charts.Mark(name, bits) for bits, name in widths.items()],
        _marks(layer),
    )
    return Figure(
        "Overflow rate against width",
        svg,
        "Below zero's line: the widths that the data need and that the bounds prove.",
        (("persistent", "persistent"), ("transient", "transient")),
    )


def _sums(identity: str, layer: Data, widths: Mapping[int, str], signed: bool) -> Figure | None:
    sums = layer.get("partial_sums")
    if not sums or not any((*sums["negative"], *sums["positive"])):
        return None
    limits, caption = None, "Counts on a log axis."
    if widths:
        bits, name = next(iter(widths.items()))
        limits = (bits - 1, bits - 1, name) if signed else (0, bits, name)
        caption = f"Counts on a log axis; between the dashed lines {name} holds the sum."
    svg = _charts.partial_sums(
        f"{identity}-sums",
        _charts.PartialSums(sums["bits"], sums["negative"], sums["positive"]),
        limits,
    )
    key = (("inside", "held"), ("outside", "outside")) if limits else ()
    return Figure("Partial sums", svg, caption, key)


def _channels(identity: str, layer: Data) -> Figure | None:
    series = {
        "inside": _known((layer.get("channel_data_widths") or {}).get("given"))
        if layer["outputs"]
        else [],
        "proved": _known((layer.get("channel_bounds") or {}).get("sign_split")),
    }
    series = {style: widths for style, widths in series.items() if widths}
    if not series:
        return None
    names = {"inside": "data, given order", "proved": "sign split bound"}
    return Figure(
        "Channels",
        _charts.channels(f"{identity}-channels", series),
        f"How many of the {number(layer['channels'])} channels need each width.",
        tuple((style, names[style]) for style in series),
    )


def _known(widths: Sequence[int | None] | None) -> list[int]:
    return [width for width in widths or () if width is not None and drawable(width)]


def _accumulators(layer: Data) -> Table | None:
    rows = []
    for entry in layer["accumulators"]:
        counts = [
            number(entry[key]) if entry.get(key) is not None else DASH
            for key in ("persistent", "transient")
        ]
        rows.append(
            [
                clean(entry["name"]),
                clean(entry.get("saturates_at") or DASH),
                number(entry["wrong"]),
                percent(share(entry["wrong"], layer["outputs"])),
                *counts,
                number(entry.get("largest_error")),
                decibels(layer, entry["name"]),
            ]
        )
    heads = (
        *("accumulator", "limits act at", "wrong", "rate"),
        *("persistent", "transient", "largest error", "SQNR, dB"),
    )
    return Table("Accumulators", heads, rows, texts=2) if rows else None


def _worst_channels(layer: Data, widths: Mapping[int, str]) -> Table | None:
    """Return the channels that overflow most, or need most, at the first integer width."""
    needed = (layer.get("channel_data_widths") or {}) if layer["outputs"] else {}
    bounds = layer.get("channel_bounds") or {}
    counts = layer.get("channel_overflowed") or {}
    chosen = [width for width in widths if counts.get(str(width))]

    if not (chosen or needed.get("given") or bounds.get("sign_split")):
        return None
    unknown = [None] * layer["channels"]
    tables = [needed.get(key) or unknown for key in DATA_WIDTHS]
    tables += [bounds.get(key) or unknown for key in BOUNDS]
    ranks = [counts[str(width)] for width in chosen]
    ranks += [needed.get("given"), bounds.get("sign_split")]
    badness = list(zip(*filter(None, ranks), strict=True))
    worst = heapq.nlargest(WORST_CHANNELS, range(layer["channels"]), key=badness.__getitem__)
    rows = []
    for channel in worst:
        row = [str(channel)]
        for width in chosen:
            count = counts[str(width)][channel]
            row += [number(count), percent(share(count, layer["dots"]))]
        values = [column[channel] for column in tables]
        rows.append(row + list(map(width_text, values)))
    heads = ["channel"]
    for width in chosen:
        heads += [f"over {widths[width]}", "rate"]
    heads += [title for title, _ in (*DATA_WIDTHS.values(), *BOUNDS.values())]
    hidden = layer["channels"] - len(rows)
    note = f"{number(hidden)} more in the JSON report." if hidden else ""
    return Table("Worst channels", heads, rows, note=note)


def _diagnostics(identity: str, entry: Data) -> Diagnostics:
    events = entry["events"]
    facts = []
    for key, (words, whole) in _EVENTS.items():
        count = events.get(key)
        if count is None:
            continue
        rate = percent(share(count, events.get(whole) or 0))
        facts.append((words, f"{number(count)} ({rate} of {whole})" if count else "0"))
    if entry.get("lost") is not None:
        facts.append(("lost, sum of exact - result", number(entry["lost"])))
    if entry.get("lost_magnitude") is not None:
        facts.append(("lost, sum of |exact - result|", number(entry["lost_magnitude"])))
    spans = entry.get("exponent_spans") or {}
    figure = None
    if spans.get("spans") and any(spans["steps"]):
        figure = Figure(
            "Exponent spans",
            _charts.exponent_spans(identity, spans["spans"], spans["steps"]),
            "A term that lies more bits below the sum than the accumulator has is lost.",
        )
    return Diagnostics(clean(entry["name"]), facts, figure)
