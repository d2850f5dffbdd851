"""The page of an overflow report: whole, escaped, its numbers those of the report."""

from __future__ import annotations

import functools
import html
import itertools
import math
import re
import shlex
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from abcdeep_core.overflow import ArraySource, OverflowLayer, overflow_report, page
from abcdeep_core.overflow._summary import TIMES, number, percent, verdict, worst_first
from abcdeep_core.overflow._svg import power, steps
from overflow_reports import ACCUMULATORS, empty_layer, layer, model, report

pytest.importorskip("jinja2", reason="needs the extra [report]")

HOSTILE = (
    "<script>alert(1)</script>",
    "\"' onload='x' &amp; </svg></style>",
    "a\0b\n\x1b[31mc\udcff",
    "/model/" + "very_long/" * 60 + "MatMul",
    "",
)


def unsigned() -> dict[str, Any]:
    made = report([layer("a")])
    made["settings"]["signed"] = False
    return made


def undefined() -> dict[str, Any]:
    made = report([layer("a"), layer("b", given=12)])
    made["layers"][0]["accumulators"][2] |= {
        "largest_error": float("inf"),
        "sqnr_db": float("nan"),
        "lost": float("nan"),
        "exponent_spans": {"spans": [], "steps": []},
    }
    made["layers"][1] |= {"partial_sums": None, "channel_data_widths": None, "first_overflow": None}
    made["layers"][1]["bounds"]["input_ranges"] = None
    return made


def without_width() -> dict[str, Any]:
    """Return sums that no width holds: negative ones in unsigned accumulators."""
    made = unsigned()
    made["layers"][0]["data_widths"] |= {"given": 65, "any_order": 65}
    made["layers"][0]["channel_data_widths"]["given"][0] = 65
    made["layers"][0]["fits"] = {}
    return made


def counted() -> dict[str, Any]:
    """Return a report that was really counted."""
    generator = np.random.default_rng(5)
    layers = [
        OverflowLayer(
            name=name,
            weight=generator.integers(-127, 128, (terms, 6), np.int8),
            input_range=(0, 255),
            weight_range=(-127, 127),
            input_type="u8",
            weight_type="s8",
        )
        for name, terms in (("first", 40), ("second", 200))
    ]
    data = {layer.name: generator.integers(0, 256, (9, layer.terms), np.uint8) for layer in layers}
    source = ArraySource(layers, data)
    return overflow_report(source, accumulators=["int16:wrap", "int16:saturate", "m7e4"]).to_dict()


REPORTS: dict[str, Callable[[], dict[str, Any]]] = {
    "model": model,
    "one layer, one channel": lambda: report([layer("only", channels=1, terms=1)]),
    "nothing overflows": lambda: report([layer("a", given=9), layer("b", given=16)]),
    "zero samples": lambda: report([empty_layer("a"), empty_layer("b")], samples=0),
    "no layers": lambda: report([]),
    "floats only": lambda: report([layer("a", accumulators=["m7e4", "m5e4"])]),
    "many accumulators": lambda: report(
        [layer("a", accumulators=[f"int{bits}:wrap" for bits in range(12, 24)])]
    ),
    "hostile names": lambda: report([layer(name) for name in HOSTILE], title=HOSTILE[0]),
    "unsigned": unsigned,
    "without width": without_width,
    "counted": counted,
    "undefined": undefined,
}


@functools.cache
def rendered(name: str) -> str:
    return page.render(REPORTS[name]())


class Reader(HTMLParser):
    """Collects ids, references, texts and the table of layers, and checks the nesting."""

    EMPTY = ("meta", "link", "br", "img", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.local: set[str] = set()
        self.texts: list[str] = []
        self.keys: list[str] = []
        self.rows: list[list[tuple[str, str | None]]] = []
        self.inside_table = False
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert len(values) == len(attrs)
        if tag not in self.EMPTY:
            self.open.append(tag)
        self._attributes(tag, values)
        if tag == "table":
            self.inside_table = values.get("id") == "layers"
        elif self.inside_table and tag == "tr":
            self.rows.append([])
        elif self.inside_table and tag in ("td", "th"):
            if "data-key" in values:
                self.keys.append(values["data-key"] or "")
            self.rows[-1].append(("", values.get("data-value")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(tag, dict(attrs))

    def _attributes(self, tag: str, values: dict[str, str | None]) -> None:
        for name, value in values.items():
            assert not name.startswith("on")
            assert name not in ("src", "srcset", "action", "data")
            if name == "id":
                self.ids.append(value or "")
            elif name == "href":
                assert value is not None
                assert value.startswith("#")
                self.local.add(value[1:])
            elif name in ("aria-labelledby", "for"):
                self.local |= set((value or "").split())

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)
        if self.inside_table and self.rows and self.rows[-1]:
            text, value = self.rows[-1][-1]
            self.rows[-1][-1] = (text + data.strip(), value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "table":
            self.inside_table = False

    def layers(self) -> list[dict[str, tuple[str, str | None]]]:
        """Return the rows of the table by the key of their column."""
        return [dict(zip(self.keys, row, strict=True)) for row in self.rows[2:]]


@pytest.mark.parametrize("name", REPORTS)
def test_page_is_whole_and_refers_to_nothing_outside(name: str) -> None:
    text = rendered(name)
    reader = Reader(text)
    assert len(set(reader.ids)) == len(reader.ids)
    assert reader.local <= set(reader.ids)
    assert "@import" not in text
    assert "url(" not in text
    assert not re.findall(r"https?://", text)
    assert text == page.render(REPORTS[name]())


@pytest.mark.parametrize("name", REPORTS)
def test_every_plot_is_well_formed_and_has_a_title(name: str) -> None:
    for svg in re.findall(r"<svg.*?</svg>", rendered(name), re.DOTALL):
        root = ElementTree.fromstring(svg)
        assert root.get("aria-hidden") == "true" or root.find("title") is not None
        for shape in root.iter():
            for key in ("d", "x", "y", "cx"):
                assert not re.search(r"nan|inf", shape.get(key, ""))


@pytest.mark.parametrize("name", REPORTS)
def test_every_layer_has_a_row_and_a_section(name: str) -> None:
    made = REPORTS[name]()
    reader = Reader(rendered(name))
    sections = [text for text in reader.ids if re.fullmatch(r"layer-\d+", text)]
    assert sections == [f"layer-{place + 1}" for place, _ in worst_first(made)]
    assert len(reader.layers()) == len(made["layers"])


@pytest.mark.parametrize("name", REPORTS)
def test_nothing_is_written_as_python_writes_it(name: str) -> None:
    words = " ".join(Reader(rendered(name)).texts)
    assert not re.search(r"\b(nan|NaN|None|inf|True|False)\b", words.replace("and NaNs", ""))


@pytest.mark.parametrize("name", ["model", "nothing overflows", "undefined", "counted"])
def test_numbers_of_the_table_are_those_of_the_report(name: str) -> None:
    made = REPORTS[name]()
    rows = Reader(rendered(name)).layers()
    for row, (_, data) in zip(rows, worst_first(made), strict=True):
        assert row["name"][0] == data["name"]
        assert int(row["k"][0].replace(",", "")) == data["terms"]
        assert int(row["n"][0].replace(",", "")) == data["channels"]
        for key, width in (*data["bounds"].items(), *data["data_widths"].items()):
            assert row[key][0] == ("\N{EN DASH}" if width is None else str(width))
        overflowed = data["curve"]["overflowed"][16 - 8]
        assert float(row["rate"][1] or "nan") == overflowed / data["outputs"]
        assert row["rate"][0] == percent(overflowed / data["outputs"])
        for entry in data["accumulators"]:
            assert float(row[f"wrong-{entry['name']}"][1] or "nan") == entry["rate"]
            noise = row[f"sqnr-{entry['name']}"]
            if entry["wrong"] == 0:
                assert noise == ("exact", "Infinity")
            elif entry["sqnr_db"] is not None and math.isfinite(entry["sqnr_db"]):
                assert float(noise[1] or noise[0]) == entry["sqnr_db"]
            else:
                assert noise == ("\N{EN DASH}", None)
        for key, fits in data["fits"].items():
            assert row[f"fits-{key}"] == ("✓" if fits else "✗", str(int(fits)))


def test_worst_layers_come_first() -> None:
    made = report([layer("a", given=12), layer("b", given=20), layer("c", given=14)])
    made["layers"] += [layer("d", given=14, terms=7)]
    assert [place for place, _ in worst_first(made)] == [1, 2, 3, 0]
    floats = report([layer(name, accumulators=["m7e4"]) for name in "abc"])
    for data, noise in zip(floats["layers"], (20.0, None, 3.0), strict=True):
        data["accumulators"][0]["sqnr_db"] = noise
    assert [place for place, _ in worst_first(floats)] == [2, 0, 1]


def test_names_are_escaped_and_commands_survive_a_shell() -> None:
    text = rendered("hostile names")
    assert "<script>alert" not in text
    assert text.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;: accumulator overflow</title>" in text
    words = [shlex.split(html.unescape(code)) for code in re.findall(r"<code>(.*?)</code>", text)]
    named = [command[command.index("--row") + 1] for command in words]
    for name, found in zip(HOSTILE, named, strict=True):
        clean = re.sub(r"[\0\n\x1b]", "\N{REPLACEMENT CHARACTER}", name).replace("\udcff", "?")
        assert found == f"{clean}:16"
    text.encode("utf-8")


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (model, "8 of 36 layers overflow int16; widest needed 21 bits"),
        (
            lambda: report([layer("a", given=17)]),
            "1 of 1 layer overflows int16; widest needed 17 bits",
        ),
        (
            lambda: report([layer("a", given=9), layer("b", given=16)]),
            "0 of 2 layers overflow int16; widest needed 16 bits",
        ),
        (
            lambda: report(
                [
                    layer(str(given), given=given, accumulators=["int12:wrap", "int14:saturate"])
                    for given in (13, 14, 15)
                ]
            ),
            "3 of 3 layers overflow int12, 1 overflows int14; widest needed 15 bits",
        ),
        (
            lambda: report([layer("a", accumulators=["m7e4"])]),
            "1 layer, no integer accumulator; widest needed 18 bits",
        ),
        (
            lambda: report([empty_layer("a")], samples=0),
            "No samples: only the safe widths are known",
        ),
        (lambda: report([]), "No layer was analysed"),
        (without_width, "1 of 1 layer overflows int16; no width holds every sum"),
    ],
)
def test_verdict(made: Callable[[], dict[str, Any]], line: str) -> None:
    assert verdict(made()).line == line
    assert f"<strong>{line}</strong>" in page.render(made())


def test_advice_names_the_safe_width() -> None:
    assert verdict(report([layer("a", given=17)])).advice == (
        "17 bits hold every partial sum of these 1,000 samples in the given order;"
        " 20 bits hold every partial sum of any input with these weights, in any order."
    )


def test_safe_widths_of_an_unsigned_report_say_that_they_are_signed() -> None:
    assert "; 21 bits of a signed accumulator hold" in verdict(unsigned()).advice
    assert ">safe bits, signed</th>" in rendered("unsigned")


def test_first_overflow_is_a_sentence() -> None:
    made = report([layer("a", channels=6)])
    assert (
        f"sample 17, output (3, 5), k=288 of 0 to 575: 32760 + 12 {TIMES} 7 = 32844 &gt; 32767"
        in page.render(made)
    )
    event = made["layers"][0]["first_overflow"]["16"]
    event |= {"weight": -7, "before": -32760, "value": -32844, "term": 11}
    assert (
        f"k=288 of 0 to 575, operand 11: -32760 + 12 {TIMES} (-7) = -32844 &lt; -32768"
        in page.render(made)
    )
    event["input"] = -12
    assert f": -32760 + (-12) {TIMES} (-7) = " not in page.render(made)
    event |= {"weight": 7}
    assert f": -32760 + (-12) {TIMES} 7 = -32844 &lt; -32768" in page.render(made)
    event |= {"input": 12, "weight": -7}
    made["settings"]["group"] = 4
    event |= {"value": -40000, "k": 72}
    assert (
        "k=72 of 0 to 143, operand 11: -32760 becomes -40000 &lt; -32768,"
        f" last product 12 {TIMES} (-7)" in page.render(made)
    )


def test_first_overflow_in_a_bias_and_between_tiles() -> None:
    made = report([layer("a", channels=6)])
    event = made["layers"][0]["first_overflow"]["16"]
    event |= {"k": -1, "term": -1, "before": 0, "value": 40000, "input": 0, "weight": 0}
    assert "sample 17, output (3, 5): the bias is 40000 &gt; 32767" in page.render(made)
    made["settings"]["tile"] = 16
    event |= {"k": 33, "before": 30000}
    assert "k=33: 30000 becomes 40000 &gt; 32767 as a tile is added" in page.render(made)


def test_an_accumulator_with_a_name_of_its_own_counts_by_its_width() -> None:
    made = report([layer("a")])
    for entry in made["layers"][0]["accumulators"][:2]:
        entry["name"] = "my " + entry["name"].replace(":", " ")
    made["settings"]["accumulators"] = [
        entry["name"] for entry in made["layers"][0]["accumulators"]
    ]
    assert verdict(made).line == "1 of 1 layer overflows int16; widest needed 18 bits"
    row = Reader(page.render(made)).layers()[0]
    assert row["rate"][0] == "0.2%"
    assert row["wrong-my int16 wrap"][1] is not None


def test_worst_channels_are_listed_and_the_others_counted() -> None:
    data = layer("a", channels=4096)
    data["channel_overflowed"]["16"] = [n % 100 == 7 for n in range(4096)]
    data["channel_overflowed"]["16"][2000] = 5
    text = page.render(report([data]))
    table = text[text.index("Worst channels") :]
    channels = re.findall(r'<th scope="row" class="text">(\d+)</th>', table)
    assert len(channels) == 10
    assert channels[0] == "2000"
    assert all(int(channel) % 100 == 7 for channel in channels[1:])
    assert "4,086 more in the JSON report" in text


def test_a_large_report_stays_small() -> None:
    made = report(
        [
            layer(f"blocks.{i}.fc", given=12 + i % 9, channels=4096, accumulators=ACCUMULATORS[:2])
            for i in range(200)
        ]
    )
    assert len(page.render(made).encode()) < 3_000_000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (float("nan"), "\N{EN DASH}"),
        (0, "0%"),
        (1, "100%"),
        (1e-9, "1e-07%"),
        (0.00123, "0.12%"),
        (0.0999, "10.0%"),
        (0.5, "50.0%"),
        (1 - 1e-12, ">99.9%"),
    ],
)
def test_percent(value: float | None, text: str) -> None:
    assert percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "\N{EN DASH}"), (float("nan"), "\N{EN DASH}"), (float("inf"), "∞")),
        *((12345678901234567890, "12,345,678,901,234,567,890"), (1.5, "1.5"), (2.0, "2")),
        *((1 / 3, "0.3333"), (-float("inf"), "-∞")),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


def test_ticks() -> None:
    assert [power(exponent) for exponent in (-7, -2, 0, 3, 9)] == [
        "10⁻⁷",
        "0.01",
        "1",
        "1,000",
        "10⁹",
    ]
    for high in range(1, 600):
        ticks = steps(0, high, 13)
        assert 1 <= len(ticks) <= 14
        assert len({b - a for a, b in itertools.pairwise(ticks)}) <= 1


def test_write(tmp_path: Path) -> None:
    path = page.write(model(), tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == rendered("model")
    with pytest.raises(OSError, match="missing"):
        page.write(model(), tmp_path / "missing" / "report.html")


def test_other_things_are_refused() -> None:
    with pytest.raises(TypeError, match=r"report: expected the dictionary .* got list"):
        page.render([])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="report: expected version 1, got 2"):
        page.render({**model(), "version": 2})
    with pytest.raises(ValueError, match=r"report: expected the keys \['layers'\]"):
        page.render({key: part for key, part in model().items() if key != "layers"})


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(ImportError, match=r"jinja2; expected the extra \[report\]: pip install"):
        page.render(model())
