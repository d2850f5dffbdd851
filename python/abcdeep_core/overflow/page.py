"""The overflow report as one HTML file that refers to nothing outside itself."""

from __future__ import annotations

import os
from pathlib import Path

from ..report.page import render_template, require_extra
from ._page_layer import section_of
from ._page_table import columns_of, groups, rows_of, terms
from ._summary import ORDERS, Data, check, clean, number, shorten, verdict, worst_first

_PARTS = ("page.html", "page_style.html", "page_script.html")


def render(report: Data) -> str:
    """Return an overflow report as one HTML document, readable on screen, on a phone, in print.

    Parameters
    ----------
    report : mapping
        What ``OverflowReport.to_dict()`` returns. Every text of it is escaped.

    Returns
    -------
    str
        A verdict, a table of the layers (worst first; a heading sorts, and so does an address that
        ends in ``#sort=rate``), and a section a layer in the same order.

    Raises
    ------
    ImportError
        Without the extra ``[report]``.
    TypeError
        If `report` is no mapping.
    ValueError
        If it is not the dictionary of an overflow report.

    Examples
    --------
    >>> from abcdeep_core.overflow import page
    >>> text = page.render({"version": 1, "title": "a < b", "samples": 0,
    ...                     "settings": {"accumulators": ["int16:wrap"]}, "layers": []})
    >>> "a &lt; b" in text
    True
    """
    check(report)
    require_extra("jinja2")
    columns = columns_of(report)
    text = render_template(
        str(__package__),
        _PARTS,
        title=clean(report["title"]) or "Overflow report",
        verdict=verdict(report),
        facts=_facts(report),
        skipped=[
            (clean(node["name"]), clean(node["reason"])) for node in report.get("skipped") or ()
        ],
        columns=columns,
        groups=groups(columns),
        rows=rows_of(report, columns),
        terms=terms(),
        sections=[section_of(report, place) for place, _ in worst_first(report)],
    )
    return "\n".join(filter(None, (line.strip() for line in text.splitlines()))) + "\n"


def write(report: Data, path: str | os.PathLike[str]) -> Path:
    """Render an overflow report into a file and return its path.

    Parameters
    ----------
    report : mapping
        As `render`.
    path : path-like
        An existing file is replaced.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ImportError, TypeError, ValueError
        As `render`.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from abcdeep_core.overflow import page
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = page.write({"version": 1, "title": "digits", "samples": 0, "settings": {},
    ...                        "layers": []}, pathlib.Path(folder, "report.html"))
    ...     path.read_text()[:15]
    '<!DOCTYPE html>'
    """
    target = Path(path)
    target.write_text(render(report), encoding="utf-8")
    return target


def _facts(report: Data) -> list[tuple[str, str]]:
    """Return the settings of a report in words."""
    settings = report["settings"]
    facts = [
        ("samples", number(report["samples"])),
        ("layers", number(len(report["layers"]))),
        ("outputs", number(sum(layer["outputs"] for layer in report["layers"]))),
        ("accumulators", ", ".join(map(clean, settings.get("accumulators", ())))),
    ]
    if widths := settings.get("widths"):
        facts.append(("widths", f"{widths[0]} to {widths[-1]} bits"))
    facts += [
        (title, shorten(clean(_word(settings[key])), 120))
        for key, title in (("group", "terms a step"), ("tile", "terms a tile"), ("order", "order"))
        if settings.get(key)
    ]
    if "signed" in settings:
        facts.append(("sign", "signed" if settings["signed"] else "unsigned"))
    return [(name, text) for name, text in facts if text]


def _word(setting: object) -> object:
    """Return an order as the command calls it."""
    return ORDERS.get(setting, setting) if isinstance(setting, str) else setting
