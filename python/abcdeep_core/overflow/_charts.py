"""The plots of an overflow page: functions from numbers to inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from . import _svg as svg
from ._summary import number, percent


@dataclass(frozen=True)
class Mark:
    """A width with its name, marked in a plot over widths."""

    name: str
    bits: int


@dataclass(frozen=True)
class Rates:
    """Shares of the outputs that overflow at each width, and how many they are."""

    widths: Sequence[int]
    persistent: Sequence[int]
    transient: Sequence[int]
    outputs: int


@dataclass(frozen=True)
class PartialSums:
    """Counts of partial sums by sign and by the bit length of their magnitude."""

    bits: Sequence[int]
    negative: Sequence[int]
    positive: Sequence[int]


def rate_curve(
    identity: str, rates: Rates, accumulators: Sequence[Mark], bounds: Sequence[Mark]
) -> str:
    """Return the rates against the width, on a log axis with a line of its own for zero.

    Parameters
    ----------
    identity : str
        Begins the ids inside the SVG.
    rates : Rates
    accumulators : sequence of Mark
        Dashed lines over the whole height.
    bounds : sequence of Mark
        A row each below the axis.
    """
    marked = [mark.bits for mark in (*accumulators, *bounds)]
    low = min([*rates.widths, *marked])
    high = max([*rates.widths, *marked, low + 1])
    top, floor, zero = 22.0, 160.0, 176.0
    rows_top = zero + 36
    base = rows_top + 14 * len(bounds)

    shares = [count / rates.outputs for count in (*rates.persistent, *rates.transient) if count]
    bottom = min(math.floor(math.log10(min(shares, default=0.001))), -1)
    step = (svg.WIDTH - svg.LEFT - svg.RIGHT) / (high - low)

    def across(bits: float) -> float:
        return svg.LEFT + (bits - low) * step

    def down(count: int) -> float:
        if not count:
            return zero
        return top + (floor - top) * math.log10(count / rates.outputs) / bottom

    levels = {
        exponent: top + (floor - top) * exponent / bottom for exponent in svg.steps(bottom, 0, 5)
    }
    rows = [rows_top + 14 * index for index in range(len(bounds))]
    ticks = svg.steps(low, high, 13)
    parts = [
        svg.text(0, 12, "share of outputs", "axis", "start"),
        svg.path("grid", *map(svg.across, levels.values()), *(svg.across(y - 4) for y in rows)),
        svg.path("frame", svg.across(zero), *(f"M{across(bits):.4g} {zero:g}v4" for bits in ticks)),
        svg.text(svg.LEFT - 6, zero + 4, "0", anchor="end"),
        *(
            svg.text(svg.LEFT - 6, y + 4, svg.power(place), anchor="end")
            for place, y in levels.items()
        ),
        *(svg.text(across(bits), zero + 16, str(bits)) for bits in ticks),
    ]
    for index, mark in enumerate(accumulators):
        x = across(mark.bits)
        parts += svg.limit(x, top - 6, zero, mark.name, top - 1 + 11 * index)
    for counts, style in ((rates.transient, "transient"), (rates.persistent, "persistent")):
        points = [
            (across(bits), down(count)) for bits, count in zip(rates.widths, counts, strict=True)
        ]
        path = "L".join(f"{x:.4g} {y:.4g}" for x, y in _without_flats(points))
        dots = "".join(
            _dot(x, y, style) for (x, y), count in zip(points, counts, strict=True) if count
        )
        parts += [svg.path(f"line {style}", "M", path), svg.path(f"{style} dot", dots)]
    told = {
        bits: f"{bits} bits: persistent {_counted(lasting, rates.outputs)},"
        f" transient {_counted(passing, rates.outputs)}"
        for bits, lasting, passing in zip(
            rates.widths, rates.persistent, rates.transient, strict=True
        )
        if lasting or passing
    }
    parts.append(svg.hover(svg.LEFT - step / 2, step, told, low))
    for y, mark in zip(rows, bounds, strict=True):
        x = across(mark.bits)
        left = x > svg.WIDTH * 0.6
        label, side = f"{mark.name}: {mark.bits}", "end" if left else "start"
        parts.append(svg.text(x + (-8 if left else 8), y, label, "halo", side))
    dots = "".join(
        _dot(across(mark.bits), y - 4, "persistent") for y, mark in zip(rows, bounds, strict=True)
    )
    parts.append(svg.path("bound", dots))
    parts.append(
        svg.text(svg.WIDTH - svg.RIGHT, base + 6, "bits of the accumulator", "axis", "end")
    )
    words = "; ".join(
        f"{bits} bits: {percent((a + b) / rates.outputs)}"
        for bits, a, b in zip(rates.widths, rates.persistent, rates.transient, strict=True)
        if a + b
    )
    return svg.document(
        identity,
        "Overflow rate against the width of the accumulator",
        words or "No output overflows at any of the widths",
        base + 10,
        parts,
    )


def _without_flats(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points without those inside a level stretch, which draw nothing."""
    inner = range(1, len(points) - 1)
    flat = {i for i in inner if points[i - 1][1] == points[i][1] == points[i + 1][1]}
    return [point for index, point in enumerate(points) if index not in flat]


def _dot(x: float, y: float, style: str) -> str:
    """Return a point: a disc for persistent overflows, a diamond for transient ones."""
    if style == "persistent":
        return f"M{x - 2.8:.4g} {y:.4g}a2.8 2.8 0 1 0 5.6 0a2.8 2.8 0 1 0-5.6 0z"
    return f"M{x - 3.6:.4g} {y:.4g}l3.6-3.6 3.6 3.6-3.6 3.6z"


def _counted(count: int, whole: int) -> str:
    return f"{number(count)} ({percent(count / whole)})"


def _log_bars(
    identity: str,
    title: str,
    words: str,
    bars: Sequence[tuple[int, int, str]],
    labels: Mapping[int, str],
    *,
    across_name: str,
    up_name: str,
    outside: Callable[[int], bool] = lambda place: False,
    limits: Sequence[tuple[float, str]] = (),
) -> str:
    """Return counts, (place, count, words) a bar, on a log axis that gives 1 a visible height."""
    top, base = 24.0, 150.0
    low, high = min(place for place, _, _ in bars), max(place for place, _, _ in bars)
    low, high = min([low, *labels]), max([high, *labels])
    step = (svg.WIDTH - svg.LEFT - svg.RIGHT) / (high - low + 1)
    decades = max(1, math.ceil(math.log10(max([1, *(count for _, count, _ in bars)]))))
    lift = 6.0  # the height of a count of 1

    def across(place: float) -> float:
        return svg.LEFT + (place - low + 0.5) * step

    def up(count: float) -> float:
        return base - lift - (base - lift - top) * math.log10(count) / decades

    levels = {exponent: up(10.0**exponent) for exponent in svg.steps(0, decades, 4)}
    parts = [
        svg.text(0, 12, up_name, "axis", "start"),
        svg.path("grid", *map(svg.across, levels.values())),
        *(
            svg.text(svg.LEFT - 6, y + 4, svg.power(place), anchor="end")
            for place, y in levels.items()
        ),
    ]
    gap = min(1.5, step / 5)
    for style, wanted in (("inside", False), ("outside", True)):
        bodies = (
            svg.bar(across(place) - step / 2 + gap / 2, up(count), step - gap, base)
            for place, count, _ in bars
            if count and outside(place) is wanted
        )
        parts.append(svg.path(style, *bodies))
    parts.append(svg.path("frame", svg.across(base)))
    parts += [svg.text(across(place), base + 15, label) for place, label in labels.items()]
    for place, name in limits:
        parts += svg.limit(across(place), top - 8, base, name, top - 1)
    told = {place: words for place, count, words in bars if count}
    parts.append(svg.hover(svg.LEFT, step, told, low))
    parts.append(svg.text(svg.WIDTH - svg.RIGHT, base + 32, across_name, "axis", "end"))
    return svg.document(identity, title, words, base + 38, parts)


def partial_sums(identity: str, sums: PartialSums, limits: tuple[int, int, str] | None) -> str:
    """Return how many partial sums have a magnitude of each number of bits, by sign.

    Parameters
    ----------
    identity : str
    sums : PartialSums
    limits : (int, int, str), optional
        Bits of magnitude that an accumulator holds below and above zero, and its name.
    """
    counts: dict[int, int] = {}
    for bits, below, above in zip(sums.bits, sums.negative, sums.positive, strict=True):
        counts[bits] = counts.get(bits, 0) + above
        counts[-bits] = counts.get(-bits, 0) + below
    whole = sum(counts.values())
    reach = max((abs(place) for place, count in counts.items() if count), default=1)
    reach = max(reach + 1, limits[1] + 1 if limits else 1)
    bars = [
        (place, count, f"{_magnitudes(place)}: {_counted(count, whole)}")
        for place, count in sorted(counts.items())
        if count
    ] or [(0, 0, "")]
    marks = svg.steps(0, reach, 6)
    labels = {
        sign * bits: f"{'-' if sign < 0 and bits else ''}{_power_of_two(bits)}"
        for bits in marks
        for sign in (-1, 1)
    }
    below, above, name = limits or (reach, reach, "")
    seen = [place for place, count in counts.items() if count]
    words = (
        f"The smallest in {_magnitudes(min(seen))}, the largest in {_magnitudes(max(seen))}"
        if seen
        else "No partial sums"
    )
    return _log_bars(
        identity,
        "Partial sums by the size of their magnitude",
        words,
        bars,
        labels,
        across_name="partial sum, a bar a power of two",
        up_name="partial sums",
        outside=lambda place: place > above or -place > below,
        limits=[(-below - 0.5, ""), (above + 0.5, name)] if limits else [],
    )


def _power_of_two(bits: int) -> str:
    return "0" if bits == 0 else "2" + str(bits - 1).translate(svg.SUPERSCRIPT)


def _magnitudes(place: int) -> str:
    """Return the values that a bar stands for."""
    if abs(place) <= 1:
        return str(place)
    low, high = 1 << abs(place) - 1, (1 << abs(place)) - 1
    return f"{low} to {high}" if place > 0 else f"{-high} to {-low}"


def exponent_spans(identity: str, spans: Sequence[int], counts: Sequence[int]) -> str:
    """Return how many additions have exponents that lie a number of bits apart."""
    whole = sum(counts)
    bars = [
        (span, count, f"{span} bits apart: {_counted(count, whole)}")
        for span, count in zip(spans, counts, strict=True)
    ]
    labels = {bits: str(bits) for bits in svg.steps(min(spans), max(spans), 10)}
    widest = max((span for span, count in zip(spans, counts, strict=True) if count), default=0)
    return _log_bars(
        identity,
        "Distance between the exponents of an addition",
        f"At most {widest} bits apart",
        bars,
        labels,
        across_name="bits between the exponents",
        up_name="additions",
    )


def channels(identity: str, series: Mapping[str, Sequence[int]]) -> str:
    """Return how many channels need each width: a bar of a style a series, with its count.

    Parameters
    ----------
    identity : str
    series : mapping of str to sequence of int
        Style ("inside", "proved") to the widths of the channels.
    """
    counts = {
        style: {bits: list(widths).count(bits) for bits in set(widths)}
        for style, widths in series.items()
        if widths
    }
    low = min(min(table) for table in counts.values())
    high = max(max(table) for table in counts.values())
    most = max(max(table.values()) for table in counts.values())
    top, base = 30.0, 130.0
    step = min((svg.WIDTH - 2 * svg.RIGHT) / (high - low + 1), 64.0)
    left = (svg.WIDTH - step * (high - low + 1)) / 2
    thick = 0.8 * step / len(counts)
    parts = [svg.text(0, 12, "channels", "axis", "start")]
    for index, (style, table) in enumerate(counts.items()):
        path = ""
        for bits, count in sorted(table.items()):
            x = left + (bits - low + 0.1) * step + thick * index
            y = base - max(2.0, (base - top) * count / most)
            path += svg.bar(x, y, thick, base)
            if thick >= 6 * len(str(count)):
                parts.append(svg.text(x + thick / 2, y - 4, str(count)))
        parts.append(svg.path(style, path))
    parts.append(svg.path("frame", f"M{svg.RIGHT} {base:g}H{svg.WIDTH - svg.RIGHT}"))
    for bits in svg.steps(low, high, max(1, int((high - low + 1) * step / 26))):
        parts.append(svg.text(left + (bits - low + 0.5) * step, base + 15, str(bits)))
    names = {"inside": "data", "proved": "sign split"}
    told = {
        bits: f"{bits} bits: "
        + ", ".join(f"{names[style]} {table.get(bits, 0)}" for style, table in counts.items())
        for bits in range(low, high + 1)
    }
    parts.append(svg.hover(left, step, told, low))
    parts.append(
        svg.text(svg.WIDTH - svg.RIGHT, base + 32, "bits that a channel needs", "axis", "end")
    )
    return svg.document(
        identity,
        "Channels by the width that they need",
        f"From {low} to {high} bits",
        base + 38,
        parts,
    )


def ruler(low: int, high: int, widths: Mapping[str, int | None], limit: int | None) -> str:
    """Return the widths of a layer on a common scale, for a row of a table.

    Parameters
    ----------
    low, high : int
        Ends of the scale in bits.
    widths : mapping of str to int or None
        "final", "given", "sign_split" and "data_type".
    limit : int, optional
        Width of the accumulator.
    """
    size = 112.0

    def across(bits: int) -> float:
        return 4 + (size - 8) * (bits - low) / max(high - low, 1)

    parts = [f'<path class="grid" d="M4 8H{size - 4:g}"/>']
    known = {name: bits for name, bits in widths.items() if bits is not None}
    if "final" in known and "given" in known:
        ends = f"M{across(known['final']):.4g} 8H{across(known['given']):.4g}"
        parts.append(f'<path class="reach" d="{ends}"/>')
    if limit is not None:
        parts.append(f'<path class="limit" d="M{across(limit):.4g} 0V16"/>')
    if "data_type" in known:
        parts.append(f'<path class="wall" d="M{across(known["data_type"]):.4g} 3V13"/>')
    if "sign_split" in known:
        parts.append(
            f'<circle class="proved" cx="{across(known["sign_split"]):.4g}" cy="8" r="3.6"/>'
        )
    if "given" in known:
        over = limit is not None and known["given"] > limit
        parts.append(
            f'<circle class="{"outside" if over else "inside"}"'
            f' cx="{across(known["given"]):.4g}" cy="8" r="3.4"/>'
        )
    return f'<svg class="ruler" viewBox="0 0 {size:g} 16" aria-hidden="true">{"".join(parts)}</svg>'
