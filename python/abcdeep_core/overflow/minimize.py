"""`minimize_accumulators`: the narrowest accumulator of each layer, and why it is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

from .._accumulator_widths import GREEDY
from .._format_base import integer
from ..accumulators import get_accumulator, integer_accumulator
from ..bounds import METHODS
from ..datapath import Datapath
from .choice import AccumulatorChoice, LayerChoice, accumulator_bits
from .layer import OverflowLayer
from .layer_bounds import layer_bounds, observed_ranges
from .metric_search import Metric, MetricSearch
from .report import OverflowReport
from .run import overflow_report
from .source import Source

OVERFLOW = ("wrap", "saturate")


def minimize_accumulators(
    layers: Source | Sequence[OverflowLayer],
    inputs: Mapping[str, npt.ArrayLike] | None = None,
    *,
    method: str | None = None,
    report: OverflowReport | Mapping[str, Any] | None = None,
    max_rate: float | None = None,
    metric: Metric | None = None,
    minimum: float | None = None,
    widths: tuple[int, int] = (2, 63),
    candidates: Sequence[str | Datapath] | None = None,
    overflow: str = "wrap",
) -> AccumulatorChoice:
    """Return the narrowest accumulator of every layer under a bound, an overflow rate, or a metric.

    Parameters
    ----------
    layers : sequence of OverflowLayer, or Source
        Layers with names of their own, or a model with its data.
    inputs : mapping of str to array_like, optional
        The input of every layer. Makes the rate of overflow on these the criterion, by the report
        that `overflow_report` gives; with ``method="input_ranges"`` only their ranges count.
    method : {"sign_split", "data_type", "l1", "input_ranges"}, optional
        A bound of `accumulator_bounds`, the criterion unless there are inputs, a report, a maximal
        rate or a metric: the widths are proved, for every order of every input in the layer's range
        ("input_ranges": in the range that each operand has in `inputs`, or else in the layer's).
        Default "sign_split".
    report : OverflowReport or its `to_dict`, optional
        Makes the rate of overflow on the report's data the criterion. The accumulators that are
        chosen have the order, group and tile of the report (of the greedy order, the natural one).
    max_rate : float, optional
        Largest share of a layer's outputs that may overflow, 0 by default; for inputs, a report, or
        a Source. An output of a saturating accumulator overflows if any of its running sums does,
        one of a wrapping accumulator only if its final sum does: wrapped running sums leave no
        error, unless wrapped sums of tiles are added in a wider accumulator.
    metric : callable, optional
        Takes a mapping from the layers' names to datapaths and returns a number, larger is better:
        the criterion is ``metric(choice) >= minimum``.
    minimum : float, optional
        The smallest metric that is good enough.
    widths : (int, int)
        Narrowest and widest integer accumulator that may be chosen, within 2..63.
    candidates : sequence of str or Datapath, optional
        Accumulators to choose from by the metric instead of integer ones, the narrowest first:
        ``["m4e3", "m5e4", "m7e4", "m10e5"]``.
    overflow : {"wrap", "saturate"}
        Of the integer accumulators.

    Returns
    -------
    AccumulatorChoice

    Raises
    ------
    TypeError, ValueError
        If arguments do not go together or are out of range; if a layer needs more than ``widths``
        or is missing in the report; if the widest accumulators do not reach `minimum`.

    Notes
    -----
    By a metric each layer is narrowed alone, the others at their widest: integer widths, at most
    that of "sign_split", by bisection, candidates one by one from the widest until one fails. Then
    all are tried together; as long as the metric is too small, the layer whose accumulator raises
    it most when it is the next wider one, gets that. The result always meets `minimum`. That no
    layer alone could be narrower holds if the metric does not fall as an accumulator is widened.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> rng = np.random.default_rng(0)
    >>> w = rng.integers(-8, 8, (256, 10)).astype(np.int8)
    >>> layer = ab.OverflowLayer(name="fc", weight=w, input_range="u8", weight_range="s4")
    >>> print(ab.minimize_accumulators([layer], method="data_type").table())
    layer  accumulator  bits  why
    fc     int20:wrap   20    data_type proves 20 bits
    >>> x = rng.integers(0, 256, (50, 256)).astype(np.uint8)
    >>> exact = x.astype(int) @ w.astype(int)
    >>> def right(choice):
    ...     return float((ab.matmul(x, w, choice["fc"]) == exact).mean())
    >>> print(ab.minimize_accumulators([layer], metric=right, minimum=1.0).table())
    layer  accumulator  bits  why
    fc     int17:wrap   17    16 bits: metric 0.988 alone
    metric of all together: 1, at least 1
    """
    source, layers = (layers, layers.layers) if isinstance(layers, Source) else (None, layers)
    names = [layer.name for layer in layers]
    if len(set(names)) != len(names):
        raise ValueError(f"layers must have names of their own, got {names}")
    limits = _limits(widths)
    if overflow not in OVERFLOW:
        raise ValueError(f"overflow must be 'wrap' or 'saturate', got {overflow!r}")
    given = {
        "method": method is not None,
        "report": report is not None,
        "metric": metric is not None,
    }
    if sum(given.values()) > 1:
        raise ValueError(
            "give one of method, report and metric, got "
            + " and ".join(name for name, there in given.items() if there)
        )
    for name, value in (("minimum", minimum), ("candidates", candidates)):
        if value is not None and metric is None:
            raise ValueError(f"{name} needs a metric, got none")
    if inputs is not None and (report is not None or metric is not None or source is not None):
        raise ValueError("inputs must be None with a report, a metric or a Source, got some")
    if inputs is not None and method not in (None, "input_ranges"):
        raise ValueError(f"inputs must be None with method={method!r}, got some")
    data = report
    if method is None and metric is None:
        if inputs is not None:
            data = overflow_report(layers, inputs, accumulators=(), widths=limits)
        elif source is not None and report is None and max_rate is not None:
            data = overflow_report(source, accumulators=(), widths=limits)
    if max_rate is not None and data is None:
        raise ValueError("max_rate needs a report, inputs or a Source, got none")
    if metric is not None:
        if not callable(metric):
            raise TypeError(f"metric must be callable, got {type(metric).__name__}")
        if minimum is None:
            raise ValueError("metric needs a minimum, got none")
        options = _options(layers, limits, candidates, overflow)
        return MetricSearch(options, metric, float(minimum)).run(bisect=candidates is None)
    if data is not None:
        return _by_rate(layers, data, 0.0 if max_rate is None else max_rate, limits, overflow)
    return _by_bound(layers, method or "sign_split", inputs, limits, overflow)


def _limits(widths: Any) -> tuple[int, int]:
    try:
        low, high = widths
    except (TypeError, ValueError):
        raise TypeError(f"widths must be a pair of integers, got {widths!r}") from None
    low, high = integer("widths", low, 2, 63), integer("widths", high, 2, 63)
    if low > high:
        raise ValueError(f"widths must be (narrowest, widest), got {widths!r}")
    return low, high


def _by_bound(
    layers: Sequence[OverflowLayer],
    method: str,
    inputs: Mapping[str, npt.ArrayLike] | None,
    limits: tuple[int, int],
    overflow: str,
) -> AccumulatorChoice:
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    chosen = []
    for layer in layers:
        if inputs is not None and layer.name not in inputs:
            raise ValueError(f"inputs must hold the input of {layer.name}, got {sorted(inputs)}")
        ranges = None if inputs is None else observed_ranges(layer, inputs[layer.name])
        bits = layer_bounds(layer, ranges).width(method)
        chosen.append(
            _integer_choice(layer.name, bits, f"{method} proves {bits} bits", limits, overflow)
        )
    return AccumulatorChoice(layers=tuple(chosen), criterion=method)


def _integer_choice(
    name: str,
    bits: int,
    reason: str,
    limits: tuple[int, int],
    overflow: str,
    settings: Mapping[str, Any] = MappingProxyType({}),
    rate: float | None = None,
) -> LayerChoice:
    if bits > limits[1]:
        raise ValueError(f"{name}: needs {bits} bits, got widths up to {limits[1]}")
    width = max(bits, limits[0])
    accumulator = integer_accumulator(
        width,
        overflow,
        signed=settings.get("signed", True),
        group=settings.get("group", 1),
        chunk=settings.get("tile", 0),
        merge=settings.get("tile_merge", "same"),
    )
    order = settings.get("order", "natural")
    if order != GREEDY:
        accumulator = accumulator.replace(order=order if isinstance(order, str) else tuple(order))
    return LayerChoice(name=name, accumulator=accumulator, bits=width, reason=reason, rate=rate)


def _by_rate(
    layers: Sequence[OverflowLayer],
    report: OverflowReport | Mapping[str, Any],
    max_rate: float,
    limits: tuple[int, int],
    overflow: str,
) -> AccumulatorChoice:
    if not 0 <= max_rate <= 1:
        raise ValueError(f"max_rate must be in 0..1, got {max_rate!r}")
    data = report if isinstance(report, Mapping) else report.to_dict()
    settings = data["settings"]
    rows = {row["name"]: row for row in data["layers"]}
    merged_exactly = settings.get("tile", 0) and settings.get("tile_merge") == "exact"
    final = overflow == "wrap" and not merged_exactly
    chosen = []
    for layer in layers:
        if layer.name not in rows:
            raise ValueError(f"report must hold the layer {layer.name}, got {sorted(rows)}")
        row = rows[layer.name]
        bits, count = _narrowest(row, max_rate, limits, final)
        outputs = row["outputs"]
        reason = f"{count} of {outputs} outputs overflow on the data"
        rate = count / outputs if outputs else 0.0
        chosen.append(_integer_choice(layer.name, bits, reason, limits, overflow, settings, rate))
    return AccumulatorChoice(layers=tuple(chosen), criterion="rate", limit=float(max_rate))


def _narrowest(
    row: Mapping[str, Any], max_rate: float, limits: tuple[int, int], final: bool
) -> tuple[int, int]:
    """Return the smallest width whose rate is low enough, and its count of overflowed outputs."""
    kind, without = ("persistent", "final") if final else ("overflowed", "given")
    widest = max(row["data_widths"][without], limits[0])  # where nothing overflows
    curve = zip(row["curve"]["widths"], row["curve"][kind], strict=True)
    known = [(bits, count) for bits, count in curve if limits[0] <= bits < widest]
    enough: list[tuple[int, int]] = [
        pair for pair in known if not pair[1] or pair[1] / row["outputs"] <= max_rate
    ]
    return min([*enough, (widest, 0)])


def _options(
    layers: Sequence[OverflowLayer],
    limits: tuple[int, int],
    candidates: Sequence[str | Datapath] | None,
    overflow: str,
) -> dict[str, list[Datapath]]:
    """Return what each layer may get, the narrowest first."""
    if candidates is not None:
        chosen = [get_accumulator(candidate) for candidate in candidates]
        if not chosen:
            raise ValueError("candidates must hold at least one accumulator, got none")
        for datapath in chosen:
            accumulator_bits(datapath)
        return {layer.name: chosen for layer in layers}
    low, high = limits
    options = {}
    for layer in layers:
        proved = layer_bounds(layer).width("sign_split")
        top = max(low, min(high, proved))
        options[layer.name] = [integer_accumulator(bits, overflow) for bits in range(low, top + 1)]
    return options
