"""A study of trainings from scratch in words: its table, and the claims it tests."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .study_text import SIGNIFICANT, Claim, sign_test
from .training_study import Training

COLUMNS = (
    ("arithmetic", "of the matrix products"),
    ("accuracy %", "of the test samples, mean and standard deviation of the seeds"),
    ("to float32", "accuracy against float32 with the same seed, in points"),
    ("training loss", "of the last epoch"),
    ("to float32", "training loss against float32 with the same seed"),
    ("diverged", "trainings that did not finish"),
    ("seconds", "of one training, with its evaluations"),
)


@dataclass(frozen=True)
class Trained:
    """The trainings of one row of the table, one for each seed, in the order of the seeds."""

    trainings: tuple[Training, ...]

    @property
    def name(self) -> str:
        """Return the name of the row."""
        return self.trainings[0].name

    @property
    def finished(self) -> tuple[Training, ...]:
        """Return the trainings that did not diverge."""
        return tuple(training for training in self.trainings if not training.failure)

    def values(self, field: str) -> list[float]:
        """Return the accuracies in percent or the losses of the trainings that finished."""
        factor = 100 if field == "accuracy" else 1
        return [factor * float(getattr(training, field)) for training in self.finished]

    def mean(self, field: str) -> float:
        """Return the mean of `values`, NaN if no training finished."""
        values = self.values(field)
        return statistics.fmean(values) if values else float("nan")

    def differences(self, other: Trained, field: str) -> list[float]:
        """Return this minus the other, for each seed with which both trainings finished."""
        factor = 100 if field == "accuracy" else 1
        return [
            factor * (float(getattr(one, field)) - float(getattr(two, field)))
            for one, two in self.pairs(other)
            if not one.failure and not two.failure
        ]

    def pairs(self, other: Trained) -> list[tuple[Training, Training]]:
        """Return the trainings of both rows by seed."""
        return list(zip(self.trainings, other.trainings, strict=True))


def grouped(trainings: Sequence[Training], names: Sequence[str]) -> list[Trained]:
    """Return the trainings of one network by row, in the order of `names`."""
    rows = []
    for name in names:
        chosen = [training for training in trainings if training.name == name]
        if chosen:
            rows.append(Trained(tuple(sorted(chosen, key=lambda training: training.seed))))
    return rows


def table(rows: Sequence[Trained]) -> str:
    """Return the table of one network as text; its first row is float32.

    Parameters
    ----------
    rows : sequence of Trained
    """
    texts = [[title for title, _ in COLUMNS], *(_cells(row, rows[0]) for row in rows)]
    sizes = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [
        "  ".join(
            text.rjust(size) if column else text.ljust(size)
            for column, (text, size) in enumerate(zip(row, sizes, strict=True))
        ).rstrip()
        for row in texts
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cells(row: Trained, reference: Trained) -> list[str]:
    cells = [row.name]
    for field, digits in (("accuracy", 2), ("loss", 4)):
        cells.append(_spread(row.values(field), f".{digits}f"))
        own = row is reference
        cells.append("" if own else _spread(row.differences(reference, field), f"+.{digits}f"))
    failures = len(row.trainings) - len(row.finished)
    seconds = statistics.fmean(training.seconds for training in row.trainings)
    return [*cells, f"{failures} of {len(row.trainings)}" if failures else "", f"{seconds:.0f}"]


def _spread(values: Sequence[float], form: str) -> str:
    """Return mean and standard deviation, or what there is of them."""
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):{form}}"
    digits = form.lstrip("+")
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):{digits}}"


@dataclass(frozen=True)
class Expectation:
    """What one row is expected to do against another.

    Parameters
    ----------
    text : str
        The claim.
    row, other : str
        Names of the rows.
    better : bool
        Whether `row` is expected to be the better one of the two.
    """

    text: str
    row: str
    other: str
    better: bool


def claims(
    rows: Sequence[Trained],
    expectations: Sequence[Expectation],
    *,
    near: Sequence[str],
    points: float = 1.0,
) -> list[Claim]:
    """Return the claims with what was measured and whether it shows.

    Parameters
    ----------
    rows : sequence of Trained
        Of one network, float32 first.
    expectations : sequence of Expectation
        Each is one claim about the accuracy and one about the training loss. A difference counts
        where all seeds agree, and for the accuracy where, too, an exact sign test over the test
        samples finds it at the 5 % level. A training that diverged is the worse one.
    near : sequence of str
        Names of the rows that are claimed to stay within `points` of float32.
    points : float
        Of accuracy.

    Returns
    -------
    list of Claim
    """
    by_name = {row.name: row for row in rows}
    found = []
    for name in (name for name in near if name in by_name):
        row, reference = by_name[name], rows[0]
        change = row.mean("accuracy") - reference.mean("accuracy")
        found.append(
            Claim(
                f"{name} trains to within {points:g} % of {reference.name}",
                f"{_accuracy(row)} against {_accuracy(reference)} ({change:+.2f} points)",
                not _diverged(row) and abs(change) <= points,
            )
        )
    for expected in expectations:
        if expected.row in by_name and expected.other in by_name:
            row, other = by_name[expected.row], by_name[expected.other]
            found += [_accuracy_claim(expected, row, other), _loss_claim(expected, row, other)]
    return found


def _diverged(row: Trained) -> bool:
    return len(row.finished) < len(row.trainings)


def _accuracy(row: Trained) -> str:
    failures = len(row.trainings) - len(row.finished)
    text = f"{row.mean('accuracy'):.2f} %" if row.finished else ""
    return f"{text} ({failures} diverged)".strip() if failures else text


def _accuracy_claim(expected: Expectation, row: Trained, other: Trained) -> Claim:
    pairs = row.pairs(other)
    wins = [int((one.correct & ~two.correct).sum()) for one, two in pairs]
    losses = [int((two.correct & ~one.correct).sum()) for one, two in pairs]
    probability = sign_test(sum(wins), sum(losses))
    agree = sum((won > lost) == expected.better for won, lost in zip(wins, losses, strict=True))
    return Claim(
        f"{expected.text}: accuracy",
        f"{row.name} {_accuracy(row)}, {other.name} {_accuracy(other)}; {agree} of {len(pairs)}"
        f" seeds, sign test p = {probability:.2g}",
        agree == len(pairs) and probability < SIGNIFICANT,
    )


def _loss_claim(expected: Expectation, row: Trained, other: Trained) -> Claim:
    pairs = row.pairs(other)
    # The loss of a training that diverged is infinite: a worse one there is not.
    losses = [[math.inf if t.failure else t.loss for t in pair] for pair in pairs]
    agree = sum(one != two and (one < two) == expected.better for one, two in losses)
    values = [f"{r.name} {_spread(r.values('loss'), '.4f')}" for r in (row, other)]
    return Claim(
        f"{expected.text}: training loss",
        f"{', '.join(values)}; {agree} of {len(pairs)} seeds",
        agree == len(pairs),
    )
