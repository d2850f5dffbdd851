"""The HTML report: one file, nothing outside it, well-formed plots, clear refusals."""

from __future__ import annotations

import builtins
import functools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from abcdeep_core import report

pytest.importorskip("matplotlib", reason="needs the extra [report]")
pytest.importorskip("jinja2", reason="needs the extra [report]")

NAN = float("nan")
FIGURES = {
    "accuracy": lambda: report.accuracy_against_bits(
        [
            report.Series("as trained", [16, 8, 12], [99, 80, 98], ["a", "b", "c"]),
            report.Series("none right, all right", [8, 12], [0, 100], line=":"),
        ],
        98.5,
    ),
    "accuracy of nothing": lambda: report.accuracy_against_bits([], 100),
    "events": lambda: report.event_rates(
        ["M7E4", "int16"], {"overflow": [0, 12.5], "underflow": [3, NAN], "swamped": [1e-9, NAN]}
    ),
    "curves": lambda: report.training_curves(
        [report.Curve("a", [0.3, 0.1, 0.2], 2), report.Curve("b", [0.4])], "loss", logarithmic=True
    ),
    "partial": lambda: report.partial_sum_range(["M4E3", "int12"], [-0.5, -9], [0.7, 70000]),
    "gains": lambda: report.layer_gains(["K = 9", "K = 64"], {"M7E4": [0.98, 0.95], "i": [0, -1]}),
}


@functools.cache
def page() -> report.Page:
    columns = [report.Column("name", number=False), report.Column("accuracy", "in <percent>")]
    rows = [report.Row(["a & b"]), report.Row(["M7E4", "98.0"], share=0.98), report.Row(["x", "-"])]
    figures = [report.Figure(draw(), "caption", name) for name, draw in FIGURES.items()]
    return report.Page(
        "Widths <8>",
        "sub",
        "One. Two.",
        [
            report.Section("Table", ["1 < 2"], [report.Table(columns, rows, "caption", 1)]),
            report.Section("Plots", figures=figures[:1] + figures[2:]),
        ],
        {"seed": "0"},
    )


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_a_well_formed_svg_and_always_the_same(name: str) -> None:
    svg = FIGURES[name]()
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox")
    assert FIGURES[name]() == svg


class Reader(HTMLParser):
    """Collects ids, references to ids, and all other references, and checks the nesting."""

    EMPTY = ("meta", "link", "br", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.local: set[str] = set()
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.EMPTY:
            self.open.append(tag)
        self._attributes(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(attrs)

    def _attributes(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            assert value is not None
            if name == "id":
                self.ids.append(value)
            for target in re.findall(r"url\(([^)]*)\)", value):
                self.local.add(target.removeprefix("#"))
            if name in ("href", "xlink:href", "src", "srcset", "action", "data"):
                if value.startswith("#"):
                    self.local.add(value[1:])
                else:
                    self.outside.append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_refers_to_nothing_outside() -> None:
    text = report.render(page())
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.outside == []
    assert len(set(reader.ids)) == len(reader.ids)
    assert reader.local <= set(reader.ids)
    assert "@import" not in text
    assert "<script" not in text
    named = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert named <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_texts_are_escaped_and_bars_have_their_length() -> None:
    text = report.render(page())
    for part in ("<title>Widths &lt;8&gt;</title>", "1 &lt; 2", "a &amp; b", "in &lt;percent&gt;"):
        assert part in text
    assert text.count("--share: 98.0%") == 1
    assert text.count('<tr class="group">') == 1


def test_page_without_anything_but_a_title() -> None:
    text = report.render(report.Page("Empty"))
    assert "<h1>Empty</h1>" in text
    assert "<table" not in text
    assert "How it was made" not in text


def test_write(tmp_path: Path) -> None:
    path = report.write(page(), tmp_path / "page.html")
    assert path.read_text(encoding="utf-8") == report.render(page())
    with pytest.raises(OSError, match="missing"):
        report.write(page(), tmp_path / "missing" / "page.html")


def test_rows_fit_their_columns() -> None:
    columns = [report.Column("a"), report.Column("b"), report.Column("c")]
    with pytest.raises(ValueError, match="rows: expected 1 or 3 cells"):
        report.Table(columns, [report.Row(["1", "2"])])


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make these packages impossible to import."""
    real = builtins.__import__

    def refuse(name: str, *args: Any, **keywords: Any) -> Any:
        if name.split(".")[0] in names:
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr("importlib.import_module", refuse)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert report.missing_extra() == ""
    without(monkeypatch, "matplotlib")
    assert report.missing_extra() == "matplotlib"
    with pytest.raises(ImportError, match=r"\[report\]"):
        report.render(report.Page("Widths"))
    for draw in FIGURES.values():
        with pytest.raises(ImportError, match=r"matplotlib; expected the extra \[report\]"):
            draw()
    without(monkeypatch, "matplotlib", "jinja2")
    assert report.missing_extra() == "jinja2 and matplotlib"
