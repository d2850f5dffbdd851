"""Pieces of the plots of an overflow page: inline SVG in a fixed frame.

Colours are classes that the page's style sheet sets, so that a plot follows light, dark and print.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence

WIDTH = 440
LEFT, RIGHT = 46, 12  # margins
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def document(identity: str, title: str, words: str, height: float, parts: Sequence[str]) -> str:
    """Return an SVG that names itself to a screen reader."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" text-anchor="middle"'
        f' aria-labelledby="{identity}-title {identity}-words">'
        f'<title id="{identity}-title">{html.escape(title)}</title>'
        f'<desc id="{identity}-words">{html.escape(words)}</desc>{"".join(parts)}</svg>'
    )


def text(x: float, y: float, text: str, style: str = "", anchor: str = "middle") -> str:
    look = f' class="{style}"' if style else ""
    place = "" if anchor == "middle" else f' text-anchor="{anchor}"'
    return f'<text{look} x="{x:.4g}" y="{y:.4g}"{place}>{html.escape(text)}</text>'


def across(y: float) -> str:
    """Return the path of a line from the left axis to the right margin."""
    return f"M{LEFT} {y:.4g}H{WIDTH - RIGHT}"


def path(style: str, *pieces: str) -> str:
    return f'<path class="{style}" d="{"".join(pieces)}"/>' if any(pieces) else ""


def bar(x: float, y: float, width: float, bottom: float) -> str:
    """Return the path of a bar from `bottom` up to `y`."""
    return f"M{x:.4g} {bottom:.4g}V{y:.4g}h{width:.3g}V{bottom:.4g}z"


def hover(left: float, step: float, words: Mapping[int, str], low: int) -> str:
    """Return what the script needs to say the words of each place under the pointer."""
    told = [words.get(place, "") for place in range(low, max(words, default=low) + 1)]
    return (
        f'<g class="hover" data-left="{left:.4g}" data-step="{step:.4g}"'
        f' data-words="{html.escape("|".join(told))}"/>'
    )


def power(exponent: int) -> str:
    """Return a power of ten as a tick label: 0.01, 1, 100, and 10⁻⁶ beyond."""
    if -2 <= exponent <= 3:
        return f"{10.0**exponent:,g}"
    return "10" + str(exponent).translate(SUPERSCRIPT)


def steps(low: int, high: int, most: int) -> list[int]:
    """Return whole numbers from `low` to `high` at round distances, at most about `most`."""
    distance = next(
        d for d in itertools.count(1) if (high - low) / d <= most and 0 in (48 % d, d % 48)
    )
    return list(range(-(-low // distance) * distance, high + 1, distance))


def limit(x: float, top: float, base: float, name: str, text_y: float) -> list[str]:
    """Return the dashed line of an accumulator and its name, to the left near the right margin."""
    left = x > WIDTH - 90
    words = text(x + (-4 if left else 4), text_y, name, "limit-name", "end" if left else "start")
    return [path("limit", f"M{x:.4g} {top:g}V{base:g}"), words if name else ""]
