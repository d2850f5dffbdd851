"""The plots of a report, each a function from numbers to SVG text."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .page import require_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# Okabe and Ito's palette, told apart with any colour vision, and three more.
COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"),
    *("#7a5195", "#8c6d31", "#8a8f98"),
)
QUIET = "#5b6675"

_STYLE: Any = {
    "svg.fonttype": "none",  # texts stay texts: sharp, searchable, small
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": "#9aa4b1",
    "axes.labelcolor": "#1c2430",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e3e7ec",
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "lines.linewidth": 1.7,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
_REFERENCE: dict[str, Any] = {"color": QUIET, "linestyle": "--", "linewidth": 1.2}

_BEST = 99.9
_TICKS = (0, 50, 80, 90, 95, 98, 99, 99.5, 99.9)


def _from_accuracy(accuracy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return -np.log(np.maximum(100 - accuracy, 1e-3))


def _to_accuracy(place: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 100 - np.exp(-place)


@dataclass(frozen=True)
class Series:
    """Points of one colour: x, y and, if wanted, a label at each."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    names: Sequence[str] = ()
    line: str = "-"
    marker: str = "o"


@dataclass(frozen=True)
class Curve:
    """Values after each epoch; `boundary` is the number of epochs of a first stage, 0 for none."""

    label: str
    values: Sequence[float]
    boundary: int = 0


@contextlib.contextmanager
def _plot(width: float, height: float) -> Iterator[tuple[Canvas, Axes]]:
    """Yield an empty plot of this size in inches, in the style of the reports."""
    require_extra()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        canvas = Figure(figsize=(width, height), layout="constrained")
        yield canvas, canvas.add_subplot()


def _svg(canvas: Canvas, name: str) -> str:
    """Return the canvas as an <svg> element, the same text for the same numbers."""
    import matplotlib

    # Several figures share one document, hence ids that begin with the name.
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        canvas.savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(?<= id=")|(?<="#)|(?<=url\(#)', f"{name}-", text)
    # The page chooses the font.
    return re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)


def accuracy_against_bits(
    series: Sequence[Series], reference: float, name: str = "accuracy"
) -> str:
    """Plot accuracy in percent against accumulator width, with the reference as a dashed line.

    The axis is that of the logarithm of the error, so that 99 and 98 % stand apart as do 90 and
    80 %; an error below 0.1 % is drawn as 0.1 %.

    Parameters
    ----------
    series : sequence of Series
        x is the width in bits, y the accuracy in percent.
    reference : float
        Accuracy of float32 in percent.
    name : str
        Told apart from the other figures of a page.

    Returns
    -------
    str
        An SVG element.

    Raises
    ------
    ImportError
        Without the extra ``[report]``.

    Examples
    --------
    >>> from abcdeep_core import report
    >>> svg = report.accuracy_against_bits([report.Series("as trained", [8, 12], [90, 98])], 99)
    >>> svg.startswith("<svg")
    True
    """
    with _plot(6.2, 4.6) as (canvas, axes):
        axes.axhline(min(reference, _BEST), **_REFERENCE, label="float32")
        for one, color in zip(series, itertools.cycle(COLORS), strict=False):
            order = np.argsort(one.x, kind="stable")
            axes.plot(
                np.asarray(one.x)[order],
                np.minimum(np.asarray(one.y)[order], _BEST),
                linestyle=one.line,
                marker=one.marker,
                color=color,
                label=one.label,
            )
            for x, y, text in zip(one.x, one.y, one.names, strict=False):
                axes.annotate(
                    text,
                    (x, min(y, _BEST)),
                    textcoords="offset points",
                    xytext=(0, -12),
                    ha="center",
                    fontsize=8,
                    color=color,
                )
        axes.set_xlabel("accumulator width (bits)")
        axes.set_ylabel("test accuracy (%)")
        axes.set_yscale("function", functions=(_from_accuracy, _to_accuracy))
        shown = [min(y, _BEST) for y in [reference, *(y for one in series for y in one.y)]]
        low, high = 100 - 1.5 * (100 - min(shown)), 100 - 0.75 * (100 - max(shown))
        axes.set_ylim(max(0.0, low), high)
        axes.set_yticks([y for y in _TICKS if low <= y <= high])
        axes.set_xticks(sorted({x for one in series for x in one.x}))
        axes.margins(x=0.08)
        canvas.legend(loc="outside lower center", ncols=2)
        return _svg(canvas, name)


def event_rates(
    labels: Sequence[str], rates: Mapping[str, Sequence[float]], name: str = "events"
) -> str:
    """Plot rates in percent as horizontal bars on a logarithmic axis, one group a label.

    Parameters
    ----------
    labels : sequence of str
        One a group, from the top.
    rates : mapping of str to sequence of float
        Kind of event to percentages, one a label; NaN where the kind does not exist.
    name : str
        As `accuracy_against_bits`.

    Returns
    -------
    str
        An SVG element.

    Raises
    ------
    ImportError
        Without the extra ``[report]``.

    Examples
    --------
    >>> from abcdeep_core import report
    >>> svg = report.event_rates(["M7E4"], {"overflow": [0.01], "swamped": [0.7]})
    >>> "swamped" in svg
    True
    """
    smallest = 1e-3  # percent; rarer events are drawn as none
    with _plot(6.2, 1.0 + 0.42 * len(labels)) as (canvas, axes):
        places = np.arange(len(labels), dtype=float)
        thickness = 0.8 / max(len(rates), 1)
        shown = np.array(list(rates.values()), dtype=float).reshape(len(rates), len(labels))
        # The bars that a group has are centred on its label.
        exists = ~np.isnan(shown)
        offsets = np.cumsum(exists, axis=0) - 1 - (exists.sum(axis=0) - 1) / 2
        shown[~exists | (shown < smallest)] = 0
        for index, kind in enumerate(rates):
            axes.barh(
                places + thickness * offsets[index],
                shown[index],
                height=0.9 * thickness,
                color=COLORS[index % len(COLORS)],
                label=kind,
            )
        axes.set_xscale("log")
        axes.set_xlim(smallest, 100)
        axes.set_xticks([0.001, 0.01, 0.1, 1, 10, 100], ["0.001", "0.01", "0.1", "1", "10", "100"])
        axes.set_yticks(places, labels)
        axes.tick_params(axis="y", labelcolor="#1c2430", length=0)
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        axes.set_xlabel("% of terms (logarithmic)")
        canvas.legend(loc="outside upper center", ncols=max(len(rates), 1))
        return _svg(canvas, name)


def training_curves(
    curves: Sequence[Curve], ylabel: str, name: str = "curves", logarithmic: bool = False
) -> str:
    """Plot values against epochs; a small bar marks where a curve's second stage begins.

    Parameters
    ----------
    curves : sequence of Curve
    ylabel : str
        What the values are.
    name : str
        As `accuracy_against_bits`.
    logarithmic : bool
        Scale of the values.

    Returns
    -------
    str
        An SVG element.

    Raises
    ------
    ImportError
        Without the extra ``[report]``.

    Examples
    --------
    >>> from abcdeep_core import report
    >>> svg = report.training_curves([report.Curve("M7E4", [0.3, 0.2, 0.1], 2)], "loss")
    >>> svg.startswith("<svg")
    True
    """
    with _plot(6.2, 3.2 + 0.09 * len(curves)) as (canvas, axes):
        for curve, color in zip(curves, itertools.cycle(COLORS), strict=False):
            epochs = np.arange(1, len(curve.values) + 1)
            axes.plot(
                epochs, curve.values, marker="o", markersize=3.5, color=color, label=curve.label
            )
            if 0 < curve.boundary < len(curve.values):
                before, after = curve.values[curve.boundary - 1 : curve.boundary + 1]
                axes.plot(
                    [curve.boundary + 0.5], [(before + after) / 2], marker="|", markersize=14,
                    color=color, linestyle="none",
                )  # fmt: skip
        if logarithmic:
            axes.set_yscale("log")
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("epoch of fine-tuning")
        axes.set_ylabel(ylabel)
        canvas.legend(loc="outside lower center", ncols=2)
        return _svg(canvas, name)


def partial_sum_range(
    labels: Sequence[str],
    low: Sequence[float],
    high: Sequence[float],
    name: str = "partial",
) -> str:
    """Plot the extreme partial sums as bars, in units of the accumulator's largest value.

    Parameters
    ----------
    labels : sequence of str
        One a bar, from the top.
    low, high : sequence of float
        Extremes divided by the largest value; beyond -1 and 1 the accumulator overflows.
    name : str
        As `accuracy_against_bits`.

    Returns
    -------
    str
        An SVG element.

    Raises
    ------
    ImportError
        Without the extra ``[report]``.

    Examples
    --------
    >>> from abcdeep_core import report
    >>> svg = report.partial_sum_range(["int12"], [-7.5], [8.1])
    >>> "int12" in svg
    True
    """
    with _plot(6.2, 0.9 + 0.3 * len(labels)) as (canvas, axes):
        places = np.arange(len(labels))
        left, right = np.minimum(low, 0), np.maximum(high, 0)
        outside = (left < -1) | (right > 1)
        colors = [COLORS[1] if beyond else COLORS[0] for beyond in outside]
        axes.barh(places, right - left, left=left, height=0.6, color=colors)
        axes.set_xscale("symlog", linthresh=1, linscale=1)
        reach = max(2.0, 1.3 * float(np.max([*-left, *right], initial=0)))
        axes.set_xlim(-reach, reach)
        inside = [-1.0, -0.5, 0.0, 0.5, 1.0]
        beyond = [2.0**k for k in range(2, 40, 2) if 2.0**k < reach]
        ticks = [-x for x in reversed(beyond)] + inside + beyond
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
        for edge in (-1, 1):
            axes.axvline(edge, color="#1c2430", linewidth=1.1)
        axes.set_yticks(places, labels)
        axes.tick_params(axis="y", labelcolor="#1c2430", length=0)
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        axes.set_xlabel("partial sums / largest value of the accumulator")
        return _svg(canvas, name)


def layer_gains(
    layers: Sequence[str], gains: Mapping[str, Sequence[float]], name: str = "gains"
) -> str:
    """Plot the gain of each layer's sums: the regression of accumulated on exact sums.

    Parameters
    ----------
    layers : sequence of str
        Names, in the order of the forward pass.
    gains : mapping of str to sequence of float
        Accumulator to one gain a layer; 1 neither shrinks nor grows.
    name : str
        As `accuracy_against_bits`.

    Returns
    -------
    str
        An SVG element.

    Raises
    ------
    ImportError
        Without the extra ``[report]``.

    Examples
    --------
    >>> from abcdeep_core import report
    >>> svg = report.layer_gains(["K = 64", "K = 512"], {"M7E4": [0.97, 0.95]})
    >>> "K = 512" in svg
    True
    """
    with _plot(6.2, 3.4) as (canvas, axes):
        axes.axhline(1, **_REFERENCE)
        for (label, values), color in zip(gains.items(), itertools.cycle(COLORS), strict=False):
            axes.plot(range(len(layers)), values, marker="o", color=color, label=label)
        axes.set_xticks(range(len(layers)), layers)
        axes.margins(x=0.08, y=0.1)
        axes.set_ylabel("gain of the sums")
        axes.legend(loc="best")
        return _svg(canvas, name)
