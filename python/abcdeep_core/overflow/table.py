"""The overflow report as a table for the terminal: a line a layer, the worst first."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ._summary import (
    DASH,
    Data,
    accumulator_names,
    check,
    clean,
    data_width,
    integer_widths,
    overflow_rate,
    percent,
    shorten,
    verdict,
    width_text,
    worst_first,
    wrong_rate,
)

COLUMNS = 100
_NAME = 20  # characters that a name gets at least
_SKIPPED = 3  # nodes that get a line of their own
_SKIPPED_NAME = 40  # characters that their names get at most
_GAP = "  "


@dataclass(frozen=True)
class _Column:
    """Two lines of heading, and the text of a layer."""

    over: str
    under: str
    text: Callable[[Data], str]
    left: bool = False


def table_text(report: Data) -> str:
    """Return a report as a table of at most 100 columns, worst layers first, and its verdict.

    Parameters
    ----------
    report : mapping
        What ``OverflowReport.to_dict()`` returns.

    Returns
    -------
    str
        Lines: two of headings, one a layer, and the verdict. K is the number of terms of an
        output, N the number of output channels, "safe" the width of the sign split bound, "data"
        the widths that the partial sums of the data need in any order and in the given one; then
        the share of outputs that overflow the first integer accumulator and that each
        accumulator gets wrong, and the first overflow. Accumulators that find no room are
        counted in a line of their own. Then where the limits act (`Datapath.saturates_at`), and
        nodes that were not looked at, the first three with the reason.

    Raises
    ------
    TypeError
        If `report` is no mapping.
    ValueError
        If it is not the dictionary of an overflow report.

    Examples
    --------
    >>> from abcdeep_core.overflow.table import table_text
    >>> print(table_text({"version": 1, "title": "none", "samples": 0,
    ...                   "settings": {"accumulators": ["int16:wrap"]}, "layers": []}))
    No layer was analysed
    """
    check(report)
    finding = verdict(report).line
    if not report["layers"]:
        return "\n".join([*_skipped(report), finding])
    layers = [layer for _, layer in worst_first(report)]
    columns = [
        _Column("", "K", lambda layer: str(layer["terms"])),
        _Column("", "N", lambda layer: str(layer["channels"])),
        _Column("bits", "safe", lambda layer: _width(layer["bounds"].get("sign_split"))),
        _Column("any/", "given", _data_widths),
    ]
    widths = integer_widths(report)
    end = []
    if widths:
        first, name = next(iter(widths.items()))
        columns.append(_Column("over", name, lambda layer: _ascii(overflow_rate(layer, first))))
        end = [_Column("first", "overflow", lambda layer: _first(layer, first), left=True)]

    names = accumulator_names(report)
    wrong = [_wrong(name, alone=len(widths) == 1) for name in names]
    name_width = max(len("layer"), *(len(clean(layer["name"])) for layer in layers))
    at_least = min(name_width, _NAME)
    while wrong and at_least + _room(columns + wrong + end, layers) > COLUMNS:
        wrong.pop()
    columns += wrong + end
    name_width = max(at_least, min(name_width, COLUMNS - _room(columns, layers)))
    titles = _titles(layers, name_width)
    columns.insert(0, _Column("", "layer", lambda layer: titles[id(layer)], left=True))
    lines = _lines(columns, layers)
    if hidden := len(names) - len(wrong):
        lines.append(f"Without room here: {hidden} of {len(names)} accumulators.")
    return "\n".join([*lines, _limits(report), *_skipped(report), finding])


def _limits(report: Data) -> str:
    """Return where each accumulator's range rule acts."""
    places: dict[str, list[str]] = {}
    for accumulator in report["layers"][0]["accumulators"]:
        places.setdefault(accumulator["saturates_at"], []).append(clean(accumulator["name"]))
    found = "; ".join(f"{place}: {', '.join(names)}" for place, names in places.items())
    return shorten(f"Limits act at the {found}", COLUMNS) if found else "No limits were emulated"


def _skipped(report: Data) -> list[str]:
    """Return lines on the nodes that were not looked at: the first few, why, and how many more."""
    skipped = report.get("skipped") or []
    lines = []
    for node in skipped[:_SKIPPED]:
        head = f"Not analysed: {shorten(clean(node['name']), _SKIPPED_NAME)}: "
        lines.append(head + shorten(clean(node["reason"]), COLUMNS - len(head)))
    if more := len(skipped) - len(lines):
        lines.append(f"Not analysed: {more} more, which the report lists")
    return lines


def _wrong(name: str, alone: bool) -> _Column:
    """Return the column of an accumulator: its rule says enough where all have one width."""
    rule = name.partition(":")[2] if alone else ""
    title = shorten(clean(rule or name), 14)
    return _Column("wrong", title, lambda layer: _ascii(wrong_rate(layer, name)))


def _titles(layers: Sequence[Data], length: int) -> dict[int, str]:
    """Return the names by `id` of the layer; where one is too long all lose their common head."""
    names = {id(layer): clean(layer["name"]) for layer in layers}
    if len(layers) > 1 and max(map(len, names.values())) > length:
        letters = zip(min(names.values()), max(names.values()), strict=False)
        head = "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], letters))
        cut = 1 + max(head.rfind("."), head.rfind("/"))
        if cut > 1:
            names = {key: "\N{HORIZONTAL ELLIPSIS}" + name[cut:] for key, name in names.items()}
    return {key: shorten(name, length) for key, name in names.items()}


def _lines(columns: Sequence[_Column], layers: Sequence[Data]) -> list[str]:
    """Return the lines of headings and layers, each column as wide as its widest text."""
    rows = [
        [column.over for column in columns],
        [column.under for column in columns],
        *([column.text(layer) for column in columns] for layer in layers),
    ]
    sizes = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        texts = (
            text.ljust(size) if column.left else text.rjust(size)
            for text, size, column in zip(row, sizes, columns, strict=True)
        )
        lines.append(_GAP.join(texts).rstrip())
    return lines


def _room(columns: Sequence[_Column], layers: Sequence[Data]) -> int:
    """Return how many characters the columns take, each with a gap before it."""
    return sum(
        len(_GAP)
        + max(len(column.over), len(column.under), *(len(column.text(layer)) for layer in layers))
        for column in columns
    )


def _width(bits: int | None) -> str:
    return width_text(bits).replace(DASH, "-")


def _data_widths(layer: Data) -> str:
    return "/".join(_width(data_width(layer, order)) for order in ("any_order", "given"))


def _ascii(share: float | None) -> str:
    return percent(share).replace(DASH, "-")


def _first(layer: Data, width: int) -> str:
    found = (layer.get("first_overflow") or {}).get(str(width))
    if found is None:
        return "-"
    coordinate = ",".join(map(str, found["coordinate"]))
    return f"{found['sample']} ({coordinate}) k={found['k']}"
