"""An accumulator study as an HTML report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from abcdeep_core import report

from .study_result import AS_TRAINED, FINE_TUNED, FROM_SCRATCH, Result
from .study_text import COLUMNS, Group, cells, claims, float32, grouped, sentences


def page(
    results: Sequence[Result], *, title: str, subtitle: str, facts: Mapping[str, str]
) -> report.Page:
    """Return the report of a study.

    Parameters
    ----------
    results : sequence of Result
        As `study_text.table`.
    title, subtitle : str
    facts : mapping of str to str
        Shown at the end: seeds, versions, the machine.

    Returns
    -------
    report.Page

    Raises
    ------
    ImportError
        Without the extra ``[report]``.
    """
    groups = grouped(results)
    return report.Page(
        title=title,
        subtitle=subtitle,
        summary=sentences(results),
        sections=[
            report.Section("The table", tables=[_table(groups)]),
            report.Section("Accuracy and gain", figures=[_accuracy(groups), _gains(groups)]),
            report.Section("Fine-tuning", figures=_curves(groups)),
            report.Section("Inside the accumulators", figures=[_events(groups), _extremes(groups)]),
            report.Section(
                "What the paper claims, and what this run measured",
                [_CLAIMS],
                tables=[_claims(results)],
            ),
            report.Section("How to read it", _READING),
        ],
        facts=facts,
    )


_CLAIMS = (
    "The claims are those of arXiv 2401.14110. A difference counts where an exact sign test over"
    " the test samples finds it at the 5 % level."
)

_READING = (
    "M7E4 is a floating-point accumulator with 7 mantissa and 4 exponent bits: every product and"
    " every sum is truncated toward zero to it, magnitudes below its range become zero, those above"
    " become the largest value. Sums run in chunks of 16 terms. b6 is an exponent bias of 6"
    " instead of the default, which moves the range down. int16 and int12 add the products of int8"
    " operands, and wrap around or saturate.",
    "As trained: the float32 weights, unchanged, under the accumulator. Fine-tuned: trained on with"
    " the accumulator in the forward products and float32 in the gradients; with two stages, the"
    " first has underflow switched off. The identity estimator ignores what the accumulator did;"
    " immediate/DIFF gives no gradient to terms that changed nothing, immediate/OF and recursive/OF"
    " none to terms that overflowed.",
    "Trained from scratch: the same training as that of the float32 network, but with LUQ: weights"
    " and activations are rounded to INT4, output gradients to unbiased logarithmic FP4; sums are"
    " float32.",
    "Rates are events per 100 terms of the dot products, zeros included. A product that becomes"
    " zero underflows; a sum that becomes zero counts as underflow and its addend as swamped.",
)


def _table(groups: Sequence[Group]) -> report.Table:
    reference = float32(groups)
    rows, stage = [], ""
    for group in groups:
        if group.first.stage != stage:
            stage = group.first.stage
            rows.append(report.Row([stage]))
        rows.append(report.Row(cells(group, reference), share=group.accuracy / 100))
    columns = [
        report.Column(title, meaning, number=index >= 2)
        for index, (title, meaning) in enumerate(COLUMNS)
    ]
    caption = "; ".join(f"{title}: {meaning}" for title, meaning in COLUMNS[4:])
    return report.Table(columns, rows, caption=f"{caption}.", bar_column=3)


def _claims(results: Sequence[Result]) -> report.Table:
    columns = [report.Column(name, number=False) for name in ("claim", "measured", "shows")]
    rows = [
        report.Row([claim.text, claim.measured, "yes" if claim.shown else "no"])
        for claim in claims(results)
    ]
    return report.Table(columns, rows)


def _chosen(groups: Sequence[Group], stage: str, integer: bool = False) -> list[Group]:
    return [
        group
        for group in groups
        if group.first.stage == stage
        and group.first.events is not None
        and group.first.is_integer == integer
    ]


def _accuracy(groups: Sequence[Group]) -> report.Figure:
    floats = _chosen(groups, AS_TRAINED)
    usual = [group for group in floats if " " not in group.first.name]
    names = [group.first.name for group in usual]
    series = [_series("default bias, as trained", usual, "-", "o", names)]
    for group in floats:
        if group not in usual:
            series.append(_series(f"{group.first.name}, as trained", [group], "none", "s"))
    for group in _chosen(groups, FINE_TUNED):
        series.append(_series(group.first.label, [group], "none", "D"))
    for overflow, marker in (("saturate", "^"), ("wrap", "v")):
        integers = _chosen(groups, AS_TRAINED, integer=True)
        rows = [group for group in integers if group.first.name.endswith(overflow)]
        series.append(_series(f"int8 operands, {overflow}", rows, ":", marker))
    return report.Figure(
        report.accuracy_against_bits(series, float32(groups).accuracy),
        "Test accuracy against the width of the accumulator; the axis is logarithmic in the error.",
        "accuracy against accumulator width",
    )


def _series(
    label: str, rows: list[Group], line: str, marker: str, names: Sequence[str] = ()
) -> report.Series:
    bits = [group.first.bits for group in rows]
    return report.Series(label, bits, [group.accuracy for group in rows], names, line, marker)


def _gains(groups: Sequence[Group]) -> report.Figure:
    floats = _chosen(groups, AS_TRAINED)
    layers = [
        f"layer {index + 1}\nK = {layer.terms}" for index, layer in enumerate(floats[0].first.gains)
    ]
    gains = {group.first.name: [layer.gain for layer in group.first.gains] for group in floats}
    return report.Figure(
        report.layer_gains(layers, gains),
        "Gain of each layer's sums of K terms: below 1 truncation has shrunk them.",
        "gain of the layers",
    )


def _curves(groups: Sequence[Group]) -> list[report.Figure]:
    loss, accuracy, staged = [], [], False
    for group in groups:
        result = group.first
        if result.history is None or result.stage == FROM_SCRATCH:
            continue
        staged |= result.boundary > 0
        percent = [100 * value for value in result.history.validation_accuracy]
        accuracy.append(report.Curve(result.label, percent, result.boundary))
        loss.append(report.Curve(result.label, result.history.loss, result.boundary))
    mark = " A tick marks where the second stage begins." if staged else ""
    return [
        report.Figure(
            report.training_curves(accuracy, "test accuracy (%)", "tuning-accuracy"),
            f"Test accuracy after each epoch of fine-tuning.{mark}",
            "accuracy while fine-tuning",
        ),
        report.Figure(
            report.training_curves(loss, "training loss", "tuning-loss", logarithmic=True),
            f"Mean training loss of each epoch of fine-tuning.{mark}",
            "loss while fine-tuning",
        ),
    ]


def _emulated(groups: Sequence[Group]) -> list[Group]:
    return [group for group in groups if group.first.events is not None]


def _events(groups: Sequence[Group]) -> report.Figure:
    rows = _emulated(groups)
    kinds = ("overflow", "underflow", "swamped")
    rates = {kind: [group.mean(kind) for group in rows] for kind in kinds}
    return report.Figure(
        report.event_rates([group.first.label for group in rows], rates),
        "Events of the forward pass over the test samples; no bar is less than 0.001 %. Integer"
        " sums neither underflow nor swamp.",
        "event rates",
    )


def _extremes(groups: Sequence[Group]) -> report.Figure:
    results = [group.first for group in _emulated(groups)]
    low, high = (
        [float(getattr(result.events, name)) / result.limit for result in results]
        for name in ("min_partial", "max_partial")
    )
    return report.Figure(
        report.partial_sum_range([result.label for result in results], low, high),
        "Smallest and largest partial sum before saturation or wrap, in units of the largest"
        " value of the accumulator; what reaches beyond the lines overflows.",
        "partial sums",
    )
