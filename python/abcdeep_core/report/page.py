"""A report as data (page, sections, tables, figures), and its rendering as one HTML file."""

from __future__ import annotations

import importlib
import importlib.resources
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, what it means, and whether it holds numbers.

    Parameters
    ----------
    title, meaning : str
        The meaning is shown when the pointer rests on the heading; "" for none.
    number : bool
        Numbers are aligned to the right.
    """

    title: str
    meaning: str = ""
    number: bool = True


@dataclass(frozen=True)
class Row:
    """A row of a table: one text per column, or a heading that spans all of them.

    Parameters
    ----------
    cells : sequence of str
        A single cell is a heading.
    share : float, optional
        In [0, 1]: a bar of this length lies behind the cell of the table's bar column.
    """

    cells: Sequence[str]
    share: float | None = None


@dataclass(frozen=True)
class Table:
    """Columns and rows; ``bar_column`` is the index of the column with bars, -1 for none."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    caption: str = ""
    bar_column: int = -1

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) not in (1, len(self.columns)):
                raise ValueError(
                    f"rows: expected 1 or {len(self.columns)} cells, got {list(row.cells)}"
                )


@dataclass(frozen=True)
class Figure:
    """A plot as SVG text, with what it shows in words."""

    svg: str
    caption: str
    title: str = ""


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, then tables, then figures."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class Page:
    """A whole report.

    Parameters
    ----------
    title, subtitle : str
    summary : str
        What the report shows, in a sentence or two.
    sections : sequence of Section
    facts : mapping of str to str
        What a reader needs to run it again: versions, seeds, the machine.
    """

    title: str
    subtitle: str = ""
    summary: str = ""
    sections: Sequence[Section] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def missing_extra(*packages: str) -> str:
    """Return which packages of the extra ``[report]`` are not installed, "" if none.

    Parameters
    ----------
    *packages : str
        Those that are needed, all of the extra by default.

    Returns
    -------
    str

    Examples
    --------
    >>> from abcdeep_core import report
    >>> isinstance(report.missing_extra(), str)
    True
    """
    missing = []
    for name in packages or ("jinja2", "matplotlib"):
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    return " and ".join(missing)


def require_extra(*packages: str) -> None:
    """Raise ImportError, naming the extra, unless its packages (or just these) are installed."""
    if missing := missing_extra(*packages):
        raise ImportError(
            f"a report needs {missing}; expected the extra [report]:"
            " pip install 'abcdeep_core[report]'"
        )


def render_template(package: str, files: Sequence[str], **values: object) -> str:
    """Return the first of a package's template files, which may include the others, filled in.

    Texts are escaped. Needs jinja2 (`require_extra`).
    """
    import jinja2

    folder = importlib.resources.files(package)
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.DictLoader(
            {name: folder.joinpath(name).read_text(encoding="utf-8") for name in files}
        ),
    )
    text: str = environment.get_template(files[0]).render(**values)
    return text


def render(page: Page) -> str:
    """Return the page as one HTML document that refers to nothing outside itself.

    Parameters
    ----------
    page : Page
        All texts are escaped; only the SVG of figures is taken as it is.

    Returns
    -------
    str

    Raises
    ------
    ImportError
        Without the extra ``[report]``.

    Examples
    --------
    >>> from abcdeep_core import report
    >>> page = report.Page("Widths", sections=[report.Section("Why", ["2 < 3"])])
    >>> "2 &lt; 3" in report.render(page)
    True
    """
    require_extra()
    text = render_template(str(__package__), ("template.html",), page=page)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def write(page: Page, path: str | os.PathLike[str]) -> Path:
    """Render the page into a file and return its path.

    Parameters
    ----------
    page : Page
    path : path-like
        An existing file is replaced.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ImportError
        As `render`.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from abcdeep_core import report
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = report.write(report.Page("Widths"), pathlib.Path(folder, "page.html"))
    ...     path.read_text()[:15]
    '<!DOCTYPE html>'
    """
    target = Path(path)
    target.write_text(render(page), encoding="utf-8")
    return target
