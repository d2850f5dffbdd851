"""What the page and the table of an overflow report share: rates, order of layers, verdict."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .._accumulator_widths import NO_WIDTH

Data: TypeAlias = Mapping[str, Any]

DASH = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
ORDERS = {"natural": "given", "greedy": "best"}  # the words of the command
WIDTHS_NAMED = 3  # integer accumulators in a sentence
_INTEGER = re.compile(r"(u?int)(\d+)(?::|$)")


def check(report: Data) -> None:
    """Raise unless `report` is what ``OverflowReport.to_dict()`` returns.

    Raises
    ------
    TypeError
        If it is no mapping.
    ValueError
        If a part is missing or it has another version.
    """
    if not isinstance(report, Mapping):
        raise TypeError(
            f"report: expected the dictionary of an overflow report, got {type(report).__name__}"
        )
    if report.get("version") != 1:
        raise ValueError(f"report: expected version 1, got {report.get('version')!r}")
    if missing := {"title", "samples", "settings", "layers"} - set(report):
        raise ValueError(f"report: expected the keys {sorted(missing)}, got {sorted(report)}")


def clean(text: object) -> str:
    """Return the text without characters that no file or terminal can show."""
    printable = str(text).encode("utf-8", "replace").decode("utf-8")
    return "".join(
        letter if letter.isprintable() or letter == " " else "\N{REPLACEMENT CHARACTER}"
        for letter in printable
    )


def integer_width(name: str) -> int | None:
    """Return the bits of an integer accumulator such as ``"int16:wrap"``, None for others."""
    found = _INTEGER.match(name)
    return int(found[2]) if found else None


def accumulator_names(report: Data) -> list[str]:
    """Return the names of all accumulators, those of the settings first."""
    names = list(report["settings"].get("accumulators", ()))
    for layer in report["layers"]:
        names += (entry["name"] for entry in layer["accumulators"])
    return list(dict.fromkeys(names))


def integer_widths(report: Data) -> dict[int, str]:
    """Return the widths of the integer accumulators in the order they were chosen: 16 -> int16."""
    widths: dict[int, str] = {}
    for name in accumulator_names(report):
        if found := _INTEGER.match(name):
            widths.setdefault(int(found[2]), found[1] + found[2])
    # Accumulators with names of their own, such as a datapath's.
    kind = "int" if report["settings"].get("signed", True) else "uint"
    for layer in report["layers"]:
        for bits in sorted(map(int, layer.get("channel_overflowed") or ())):
            widths.setdefault(bits, f"{kind}{bits}")
    return widths


def data_width(layer: Data, order: str) -> int | None:
    """Return the width that the data of a layer need, None where nothing was counted."""
    width: int | None = layer["data_widths"].get(order) if layer["outputs"] else None
    return width


def width_text(bits: int | None) -> str:
    """Return a width as text; "none" where no accumulator holds the sums."""
    if bits is None:
        return DASH
    return "none" if bits >= NO_WIDTH else str(bits)


def drawable(bits: int | None) -> bool:
    """Return whether there is a width, and one that an accumulator can have."""
    return bits is not None and bits < NO_WIDTH


def accumulator(layer: Data, name: str) -> Data | None:
    """Return what a layer says about an accumulator, None if nothing."""
    return next((entry for entry in layer["accumulators"] if entry["name"] == name), None)


def overflowed(layer: Data, width: int) -> int | None:
    """Return how many outputs overflow an integer accumulator of `width` bits, None if unknown."""
    for entry in layer["accumulators"]:
        if integer_width(entry["name"]) == width and entry.get("overflowed") is not None:
            return int(entry["overflowed"])
    curve = layer["curve"]
    if width in curve["widths"]:
        return int(curve["overflowed"][list(curve["widths"]).index(width)])
    channels = (layer.get("channel_overflowed") or {}).get(str(width))
    return None if channels is None else sum(channels)


def share(count: float | None, whole: float) -> float | None:
    """Return count / whole, None where that says nothing."""
    return None if count is None or not whole else count / whole


def overflow_rate(layer: Data, width: int) -> float | None:
    """Return the share of outputs that overflow `width` bits, None if unknown."""
    return share(overflowed(layer, width), layer["outputs"])


def wrong_rate(layer: Data, name: str) -> float | None:
    """Return the share of outputs that the accumulator gets wrong, None if unknown."""
    entry = accumulator(layer, name)
    return share(entry["wrong"], layer["outputs"]) if entry else None


def finite(value: float | None) -> bool:
    """Return whether there is a number."""
    return value is not None and math.isfinite(value)


def worst_first(report: Data) -> list[tuple[int, Data]]:
    """Return (place in the report, layer), the layers that overflow most first.

    Layers are compared by their rate at the first integer accumulator, then by the width that
    their data need, then by the width that is always safe. Without an integer accumulator the
    signal-to-noise ratio at the first accumulator comes first.
    """
    widths = list(integer_widths(report))
    names = accumulator_names(report)

    def badness(place_and_layer: tuple[int, Data]) -> tuple[float, ...]:
        place, layer = place_and_layer
        noise = math.inf
        if not widths and names and (entry := accumulator(layer, names[0])):
            noise = entry["sqnr_db"] if finite(entry["sqnr_db"]) else math.inf
        return (
            noise,
            *(-(overflow_rate(layer, width) or 0) for width in widths),
            -(data_width(layer, "given") or 0),
            -(layer["bounds"].get("sign_split") or 0),
            place,
        )

    return sorted(enumerate(report["layers"]), key=badness)


@dataclass(frozen=True)
class Verdict:
    """What a report finds: a line, what follows, and whether a layer overflows (None: unknown)."""

    line: str
    advice: str
    overflows: bool | None


def largest(widths: Iterable[int | None]) -> int | None:
    """Return the largest of the widths that are known, None if none is."""
    return max((width for width in widths if width is not None), default=None)


def verdict(report: Data) -> Verdict:
    """Return the finding of a report: the layers that overflow and the width that they need."""
    layers: Sequence[Data] = report["layers"]
    if not layers:
        return Verdict("No layer was analysed", "", None)
    # The bounds are those of signed accumulators.
    kind = "" if report["settings"].get("signed", True) else " of a signed accumulator"
    safe = largest(layer["bounds"].get("sign_split") for layer in layers)
    advice = (
        f"{_bits(safe)}{kind} hold every partial sum of any input with these weights, in any order."
        if safe is not None and drawable(safe)
        else ""
    )
    needed = largest(data_width(layer, "given") for layer in layers)
    if not report["samples"] or needed is None:
        return Verdict("No samples: only the safe widths are known", advice, None)

    widths = integer_widths(report)
    counts = {
        name: sum(bool(overflowed(layer, width)) for layer in layers)
        for width, name in widths.items()
    }
    whole = f"{len(layers)} {_plural('layer', len(layers))}"
    parts = [
        f"{count} {'overflows' if count == 1 else 'overflow'} {name}"
        for name, count in list(counts.items())[:WIDTHS_NAMED]
    ]
    if parts:
        count, _, rest = parts[0].partition(" ")
        parts[0] = f"{count} of {whole} {rest}"
    else:
        parts = [f"{whole}, no integer accumulator"]
    if drawable(needed):
        line = ", ".join(parts) + f"; widest needed {_bits(needed)}"
        on_data = (
            f"{_bits(needed)} hold every partial sum of these {report['samples']:,} "
            f"{_plural('sample', report['samples'])} in the given order"
        )
        advice = f"{on_data}; {advice}" if advice else f"{on_data}."
    else:
        line = ", ".join(parts) + "; no width holds every sum"
    return Verdict(line, advice, any(counts.values()) if counts else None)


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + "s"


def _bits(count: int) -> str:
    return f"{count} {_plural('bit', count)}"


def percent(value: float | None) -> str:
    """Return a share as text; only nothing is 0% and only everything is 100%."""
    if value is None or not finite(value):
        return DASH
    if value in (0, 1):
        return f"{value:.0%}"
    hundredths = 100 * value
    if hundredths >= 99.95:
        return ">99.9%"
    return f"{hundredths:.1f}%" if hundredths >= 9.95 else f"{hundredths:.2g}%"


def number(value: float | None) -> str:
    """Return a count or an error as text: integers in full, others with four digits."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else "-\N{INFINITY}"
    if isinstance(value, int):
        return f"{value:,}"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def decibels(layer: Data, name: str) -> str:
    """Return the signal-to-quantisation-noise ratio of an accumulator; "exact" without errors."""
    entry = accumulator(layer, name)
    if entry is None or not layer["outputs"]:
        return DASH
    if finite(entry["sqnr_db"]):
        return f"{entry['sqnr_db']:.1f}"
    return "exact" if entry["wrong"] == 0 else DASH


def accumulator_range(width: int, signed: bool = True) -> tuple[int, int]:
    """Return the smallest and the largest value that an integer accumulator holds."""
    return (-(1 << width - 1), (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)


def factor(value: int) -> str:
    """Return a number as a factor or a term is written: a negative one in parentheses."""
    return f"({value})" if value < 0 else str(value)


def shorten(text: str, length: int) -> str:
    """Return the text with its middle left out where it has more than `length` characters."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return text[: length - 1 - tail] + "\N{HORIZONTAL ELLIPSIS}" + text[len(text) - tail :]
