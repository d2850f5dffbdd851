"""Draws dot_product.svg: what narrow accumulators do to a dot product, against its length.

Run from anywhere: ``python docs/figures/make_dot_product.py``. It prints the numbers it draws. It
needs the package with the extra ``[report]`` (Matplotlib).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

import abcdeep_core as ab

TERMS = tuple(2**i for i in range(4, 14))
SIDE = 64  # SIDE * SIDE dot products of each length


class Line(NamedTuple):
    """One accumulator of the figure, and how it is drawn."""

    label: str
    datapath: ab.Datapath
    colour: str
    width: float = 1.8


LINES = (
    Line("exact sum", ab.exact_accumulator(), "#c7ccd4", 6),  # seen behind the lines upon it
    Line("fp16, nearest even", ab.float_accumulator("fp16"), "#2563eb"),
    Line("M7E4, nearest even, chunks of 16", ab.get_accumulator("m7e4:rne"), "#0f9d7a"),
    Line("M7E4, truncating, chunks of 16", ab.get_accumulator("m7e4"), "#d97706"),
    Line("M7E4, truncating, no chunks", ab.get_accumulator("m7e4:c0"), "#c2255c"),
)


def operands(terms: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x ~ N(0, 1) and w ~ N(0, 1/K), whose dot products have variance 1."""
    rng = np.random.default_rng(terms)
    x = rng.standard_normal((SIDE, terms)).astype(np.float32)
    w = (rng.standard_normal((terms, SIDE)) / np.sqrt(terms)).astype(np.float32)
    return x, w


def gain_and_error(datapath: ab.Datapath, terms: int) -> tuple[float, float]:
    """Return the regression gain on the exact products, and the relative RMS error."""
    x, w = operands(terms)
    exact = x.astype(np.float64) @ w.astype(np.float64)
    got = ab.matmul(x, w, datapath).astype(np.float64)
    power = float(np.vdot(exact, exact))
    error = got - exact
    return float(np.vdot(got, exact)) / power, float(np.sqrt(np.vdot(error, error) / power))


def draw(path: Path) -> None:
    """Compute every point, print the table, and write the figure."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    mpl.rcParams.update({"svg.hashsalt": "abcdeep_core", "svg.fonttype": "none"})
    figure = Figure(figsize=(9.4, 4.1), layout="constrained")
    gain, error = figure.subplots(1, 2)
    print("gain / relative RMS error".ljust(34) + "".join(f"{f'K = {k}':>16}" for k in TERMS[::3]))
    for line in LINES:
        points = {k: gain_and_error(line.datapath, k) for k in TERMS}
        cells = (f"{points[k][0]:.3f} / {points[k][1]:.1e}" for k in TERMS[::3])
        print(line.label.ljust(34) + "".join(f"{cell:>16}" for cell in cells))
        style = {"color": line.colour, "marker": "o", "markersize": 3.5, "linewidth": line.width}
        gain.plot(TERMS, [points[k][0] for k in TERMS], label=line.label, **style)
        error.plot(TERMS, [points[k][1] for k in TERMS], label=line.label, **style)
    for axes, title in ((gain, "gain on the exact result"), (error, "relative RMS error")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(TERMS[::2], [str(k) for k in TERMS[::2]])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("K, terms of the dot product")
        axes.set_title(title, loc="left", fontsize=11)
        axes.grid(color="#e5e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    gain.set_ylim(0, 1.05)
    error.set_yscale("log")
    error.set_ylim(2e-4, 1.5)  # the exact sum, rounded to float32, lies far below
    gain.legend(loc="lower left", frameon=False, fontsize=9)
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(__file__).with_name("dot_product.svg"))
