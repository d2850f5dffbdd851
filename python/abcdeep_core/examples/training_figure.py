"""The plot of a study of trainings from scratch: loss curves and final differences."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from abcdeep_core import report
from abcdeep_core.report.figures import COLORS, QUIET

from .training_text import Trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")

Look = dict[str, Any]  # keywords of a line
_LINES = ("-", "--", ":")


def draw(studies: Mapping[str, Sequence[Trained]], path: str | os.PathLike[str]) -> bool:
    """Write a plot: for each network the training loss by epoch, and accuracy against float32.

    Parameters
    ----------
    studies : mapping of str to sequence of Trained
        The rows of each network, float32 first.
    path : path-like
        Its suffix is one of `FORMATS`.

    Returns
    -------
    bool
        False if the extra ``[report]`` is not installed.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    if report.missing_extra():
        return False
    from matplotlib.figure import Figure

    most = max(map(len, studies.values()))
    figure = Figure(figsize=(14, max(4.2, 0.28 * most) * len(studies)), layout="constrained")
    panels = figure.subplots(len(studies), 2, squeeze=False)
    for (network, rows), (curves, differences) in zip(studies.items(), panels, strict=True):
        longest = max(map(_epochs, rows))
        trained = [row for row in rows if 0 < _epochs(row) == longest]
        # Rows that have a curve come first, so that their colours differ.
        names = [row.name for row in (*trained, *rows)]
        looks = {
            name: {"color": color, "linestyle": line}
            for name, (line, color) in zip(
                dict.fromkeys(names), itertools.product(_LINES, COLORS), strict=False
            )
        }
        _curves(curves, trained, looks)
        curves.set_title(f"{network}: training loss, mean of the seeds")
        _differences(differences, rows, looks)
        differences.set_title(
            f"{network}: accuracy against float32, each seed and mean", loc="right"
        )
    figure.savefig(Path(path), dpi=110)
    return True


def _epochs(row: Trained) -> int:
    return max((len(training.history.loss) for training in row.finished), default=0)


def _curves(axes: Axes, rows: Sequence[Trained], looks: Mapping[str, Look]) -> None:
    for row in rows:
        loss = np.mean([training.history.loss for training in row.finished], axis=0)
        axes.plot(np.arange(1, len(loss) + 1), loss, marker=".", label=row.name, **looks[row.name])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:.2g}")
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("epoch")
    axes.grid(color="#e3e7ec")
    if rows:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def _differences(axes: Axes, rows: Sequence[Trained], looks: Mapping[str, Look]) -> None:
    names: list[str] = []
    for row in rows[1:]:
        values = row.differences(rows[0], "accuracy")
        place, color = len(names), looks[row.name]["color"]
        names.append(row.name if values else f"{row.name} (diverged)")
        axes.plot(values, [place] * len(values), "o", color=color, alpha=0.5)
        if values:
            axes.plot([np.mean(values)], [place], "|", color=color, markersize=18, mew=2.5)
    axes.axvline(0, color=QUIET, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="x", color="#e3e7ec")
    axes.set_xlabel("points")
