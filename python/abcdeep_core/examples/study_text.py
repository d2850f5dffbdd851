"""An accumulator study in words: its table, a few sentences, and the claims it tests."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .study_result import AS_TRAINED, FINE_TUNED, FLOAT32, FROM_SCRATCH, Result

COLUMNS = (
    ("accumulator", "format of the running sum, or float32 with no emulation"),
    ("fine-tuning", "straight-through estimator of the gradient"),
    ("bits", "width of the accumulator"),
    ("accuracy %", "of the test samples"),
    ("change", "accuracy against float32 in points"),
    ("overflow %", "products and sums out of range, of all terms"),
    ("underflow %", "products and sums flushed to zero, of all terms"),
    ("swamped %", "terms that are not zero and change nothing, of all terms"),
    ("gain", "regression of the sums on the exact ones, mean of the layers"),
    ("speed", "float32 seconds by seconds of this forward pass, in this run"),
)
SIGNIFICANT = 0.05
NEARLY_NOTHING = 0.5  # points of accuracy


@dataclass(frozen=True)
class Group:
    """The results of one row of the table, one for each seed."""

    results: tuple[Result, ...]

    @property
    def first(self) -> Result:
        """Return the result of the first seed, for what the seeds share."""
        return self.results[0]

    @property
    def accuracy(self) -> float:
        """Return the mean accuracy in percent."""
        return 100 * statistics.fmean(result.accuracy for result in self.results)

    def mean(self, field: str) -> float:
        """Return the mean of a number of `Result`."""
        return statistics.fmean(float(getattr(result, field)) for result in self.results)

    @property
    def deviation(self) -> float:
        """Return the standard deviation of the accuracy over the seeds in percent, 0 for one."""
        if len(self.results) < 2:
            return 0.0
        return 100 * float(statistics.stdev(result.accuracy for result in self.results))


def grouped(results: Sequence[Result]) -> list[Group]:
    """Return the results by row of the table, in the order of their first appearance."""
    rows: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        rows.setdefault((result.stage, result.label), []).append(result)
    return [Group(tuple(row)) for row in rows.values()]


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided probability of so uneven a split if both sides are equally likely.

    Parameters
    ----------
    wins, losses : int
        Test samples that only the one, only the other of two networks classifies rightly.

    Returns
    -------
    float
        In [0, 1]; McNemar's test in its exact form.

    Examples
    --------
    >>> from abcdeep_core.examples.study_text import sign_test
    >>> sign_test(1, 9)
    0.021484375
    """
    total = wins + losses
    tail = sum(math.comb(total, k) for k in range(min(wins, losses) + 1))
    return float(min(1.0, 2 * tail / 2**total))


def differs(one: Group, other: Group) -> bool:
    """Return whether two rows differ more than chance explains, sample by sample."""
    wins = losses = 0
    for a, b in zip(one.results, other.results, strict=True):
        wins += int((a.correct & ~b.correct).sum())
        losses += int((b.correct & ~a.correct).sum())
    return sign_test(wins, losses) < SIGNIFICANT


def cells(group: Group, reference: Group) -> list[str]:
    """Return the texts of one row, in the order of `COLUMNS`."""

    def percent(value: float) -> str:
        if math.isnan(value):
            return "-"
        return "<0.001" if 0 < value < 0.001 else f"{value:.3f}"

    accuracy = f"{group.accuracy:.2f}"
    if len(group.results) > 1:
        accuracy += f" ± {group.deviation:.2f}"
    emulated = group.first.events is not None
    change = f"{group.accuracy - reference.accuracy:+.2f}" if group is not reference else ""
    return [
        group.first.name,
        group.first.method,
        str(group.first.bits),
        accuracy,
        change,
        *(percent(group.mean(field)) for field in ("overflow", "underflow", "swamped")),
        f"{group.mean('gain'):.3f}" if emulated else "-",
        _speed(group),
    ]


def _speed(group: Group) -> str:
    if group.first.name == FLOAT32:
        return "1"
    return f"{group.mean('speed'):.3f}" if group.first.events is not None else "-"


def table(results: Sequence[Result]) -> str:
    """Return the table as text.

    Parameters
    ----------
    results : sequence of Result
        With a float32 row; results of several seeds share their rows.
    """
    groups = grouped(results)
    reference = float32(groups)
    rows = [[title for title, _ in COLUMNS], *(cells(group, reference) for group in groups)]
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(rows[0], sizes)]
    lines.append("-" * len(lines[0]))
    stage = groups[0].first.stage
    for group, row in zip(groups, rows[1:], strict=True):
        if group.first.stage != stage:
            stage = group.first.stage
            lines.append(f"{stage}:")
        lines.append(_line(row, sizes))
    return "\n".join(lines)


def _line(row: Sequence[str], sizes: Sequence[int]) -> str:
    texts = [
        text.ljust(size) if column < 2 else text.rjust(size)
        for column, (text, size) in enumerate(zip(row, sizes, strict=True))
    ]
    return "  ".join(texts).rstrip()


def float32(groups: Sequence[Group]) -> Group:
    """Return the row of the float32 network as trained."""
    return next(group for group in groups if group.first.stage == FLOAT32)


def _rows(groups: Sequence[Group], stage: str, name: str = "") -> list[Group]:
    return [
        group for group in groups if group.first.stage == stage and name in ("", group.first.name)
    ]


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _points(value: float) -> str:
    return f"{abs(value):.2f} points"


def sentences(results: Sequence[Result]) -> str:
    """Return what the table shows in up to three sentences, which follow from its numbers.

    A difference counts where an exact sign test over the test samples finds it at the 5 % level.
    """
    groups = grouped(results)
    texts = (_as_trained(groups), _fine_tuned(groups), _from_scratch(groups))
    return " ".join(text for text in texts if text)


def _as_trained(groups: Sequence[Group]) -> str:
    reference = float32(groups)
    kept: list[str] = []
    changed: list[str] = []
    for group in _rows(groups, AS_TRAINED):
        name = group.first.name
        if not group.first.is_integer:
            name += f" ({group.first.bits} bits)"
        if differs(group, reference):
            points = "" if changed else " points"
            changed.append(f"{group.accuracy - reference.accuracy:+.2f}{points} with {name}")
        else:
            kept.append(name)
    parts = []
    if kept:
        parts.append(
            f"{_listed(kept)} {'is' if len(kept) == 1 else 'are'} not measurably different"
        )
    if changed:
        parts.append(f"the accuracy changes by {_listed(changed)}")
    return (
        f"The network reaches {reference.accuracy:.2f} % in float32; with the same weights"
        f" {', while '.join(parts)}."
    )


def _fine_tuned(groups: Sequence[Group]) -> str:
    reference = float32(groups)
    parts = []
    for name in dict.fromkeys(group.first.name for group in _rows(groups, FINE_TUNED)):
        rows = _rows(groups, FINE_TUNED, name)
        before = _rows(groups, AS_TRAINED, name)
        if not before:  # the float32 control
            continue
        start = f"takes {name} from {before[0].accuracy:.2f} %"
        if len(rows) == 1:
            parts.append(f"{start} to {rows[0].accuracy:.2f} % ({_against(rows[0], reference)})")
            continue
        ends = [f"{row.accuracy:.2f} % with {row.first.method}" for row in rows]
        compared = [f"{row.first.method} is {_against(row, rows[0])}" for row in rows[1:]]
        parts.append(f"{start} to {_listed(ends)} ({_listed(compared)})")
    if not parts:
        return ""
    *first, last = parts
    return f"Fine-tuning {', '.join(first)}{', and ' if first else ''}{last}."


def _from_scratch(groups: Sequence[Group]) -> str:
    reference = float32(groups)
    parts = [
        f"with {group.first.name} it reaches {group.accuracy:.2f} % ({_against(group, reference)})"
        for group in _rows(groups, FROM_SCRATCH)
    ]
    return f"Trained from scratch {_listed(parts)}." if parts else ""


def _against(group: Group, other: Group) -> str:
    name = other.first.method or other.first.name
    if not differs(group, other):
        return f"not measurably different from {name}"
    change = group.accuracy - other.accuracy
    return f"{_points(change)} {'above' if change > 0 else 'below'} {name}"


@dataclass(frozen=True)
class Claim:
    """A claim of the LBA paper, what this run measured, and whether it shows."""

    text: str
    measured: str
    shown: bool


def claims(results: Sequence[Result]) -> list[Claim]:
    """Return the three claims of arXiv 2401.14110 that a study can test, with its verdicts."""
    groups = grouped(results)
    reference = float32(groups)
    found = []
    for group in _rows(groups, FINE_TUNED, "M7E4"):
        # float32 trained on for as long is the fair yardstick, where there is one.
        yardstick = next(iter(_rows(groups, FINE_TUNED, FLOAT32)), reference)
        change = group.accuracy - yardstick.accuracy
        found.append(
            Claim(
                "12 bits (M7E4) lose nearly nothing after fine-tuning",
                f"{group.accuracy:.2f} %, {yardstick.first.label} {yardstick.accuracy:.2f} %"
                f" ({change:+.2f} points)",
                change > -NEARLY_NOTHING,
            )
        )
    for group in _rows(groups, AS_TRAINED, "M7E4"):
        layers = [layer.gain for result in group.results for layer in result.gains]
        found.append(
            Claim(
                "a truncating accumulator shrinks sums (gain below 1)",
                f"M7E4 as trained: gain {min(layers):.3f} to {max(layers):.3f} over the layers",
                max(layers) < 1,
            )
        )
    tuned = [group for group in _rows(groups, FINE_TUNED) if group.first.bits == 8]
    for name in dict.fromkeys(group.first.name for group in tuned):
        identity, *others = [group for group in tuned if group.first.name == name]
        for group in others:
            found.append(
                Claim(
                    f"at 8 bits ({name}) a fine-grained gradient beats the identity",
                    f"{group.first.method} {group.accuracy:.2f} %, {identity.first.method}"
                    f" {identity.accuracy:.2f} %"
                    + ("" if differs(group, identity) else ", not measurably different"),
                    differs(group, identity) and group.accuracy > identity.accuracy,
                )
            )
    return found
