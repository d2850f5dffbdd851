"""What an accumulator study leaves: the table on standard output, a report, a JSON file."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import abcdeep_core as ab
from abcdeep_core import report

from .study_page import page
from .study_result import Result
from .study_text import claims, sentences, table

PathLike = str | os.PathLike[str]


def machine() -> dict[str, str]:
    """Return the facts about software and machine that a reader of a report needs.

    Examples
    --------
    >>> from abcdeep_core.examples.study_output import machine
    >>> list(machine())
    ['software', 'machine']
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "software": f"abcdeep_core {ab.__version__}, NumPy {np.__version__},"
        f" Python {platform.python_version()}",
        "machine": f"{platform.machine()}, {cores} cores, kernels for {ab.isa_info()['selected']}",
    }


def warn_without_report() -> None:
    """Say on standard error, before the work begins, that there will be no HTML report."""
    if missing := report.missing_extra():
        print(
            f"no HTML report: {missing} not installed; pip install 'abcdeep_core[report]'",
            file=sys.stderr,
        )


def publish(
    results: Sequence[Result],
    *,
    title: str,
    subtitle: str,
    facts: Mapping[str, str],
    report_path: PathLike | None,
    json_path: PathLike | None = None,
) -> bool:
    """Print the table and its sentences, and write the files.

    Parameters
    ----------
    results : sequence of Result
    title, subtitle : str
        Of the report.
    facts : mapping of str to str
        What a reader needs to run it again.
    report_path, json_path : path-like, optional
        Files to write, None for none.

    Returns
    -------
    bool
        False if a report was asked for and the extra ``[report]`` is not installed.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    print(table(results))
    print()
    print(sentences(results))
    if json_path is not None:
        Path(json_path).write_text(json.dumps(record(results, title, facts), indent=1) + "\n")
        print(f"\nwrote {json_path}", file=sys.stderr)
    if report_path is None:
        return True
    if report.missing_extra():
        warn_without_report()
        return False
    report.write(page(results, title=title, subtitle=subtitle, facts=facts), report_path)
    print(f"\nwrote {report_path}", file=sys.stderr)
    return True


def record(results: Sequence[Result], title: str, facts: Mapping[str, str]) -> dict[str, Any]:
    """Return a whole study as plain data, ready for JSON."""
    return {
        "title": title,
        "summary": sentences(results),
        "claims": [
            {"claim": claim.text, "measured": claim.measured, "shown": claim.shown}
            for claim in claims(results)
        ],
        "facts": dict(facts),
        "rows": [result.to_dict() for result in results],
    }
