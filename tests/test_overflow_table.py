"""The table of an overflow report for the terminal."""

from __future__ import annotations

import re
from typing import Any

import pytest

from abcdeep_core.overflow._summary import shorten, verdict, worst_first
from abcdeep_core.overflow.table import COLUMNS, table_text
from overflow_reports import empty_layer, layer, model, report

REPORTS: dict[str, dict[str, Any]] = {
    "model": model(),
    "one layer": report([layer("only")]),
    "zero samples": report([empty_layer("a")], samples=0),
    "no layers": report([]),
    "floats only": report([layer("a", accumulators=["m7e4", "m5e4"])]),
    "many accumulators": report(
        [layer("a" * 90, accumulators=[f"int{bits}:wrap" for bits in range(8, 30)])]
    ),
    "long names": report(
        [layer(f"/model/{'block/' * 20}{place}/MatMul", terms=10**6) for place in range(3)]
    ),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_line_a_layer_and_the_verdict(name: str) -> None:
    made = REPORTS[name]
    lines = table_text(made).splitlines()
    assert lines[-1] == verdict(made).line
    assert max(map(len, lines)) <= COLUMNS
    assert all(line == line.rstrip() for line in lines)
    hidden = sum("accumulators." in line for line in lines)
    extra = hidden + len(made["skipped"])
    assert len(lines) == (len(made["layers"]) + 4 + extra if made["layers"] else 1 + extra)
    if made["layers"]:
        names = {one["saturates_at"] for one in made["layers"][0]["accumulators"]}
        (limits,) = (line for line in lines if line.startswith(("Limits act", "No limits")))
        assert all(name in limits for name in names) or "\N{HORIZONTAL ELLIPSIS}" in limits
    assert hidden == (name == "many accumulators")


def test_numbers_are_those_of_the_report() -> None:
    made = model()
    lines = table_text(made).splitlines()
    assert lines[1].split() == [
        *("layer", "K", "N", "safe", "given", "int16", "wrap", "saturate", "m7e4", "overflow")
    ]
    for line, (_, data) in zip(lines[2:], worst_first(made), strict=False):
        name, terms, channels, safe, widths, *rates, m7e4 = line.split()[:9]
        assert data["name"].endswith(name.removeprefix("…"))
        assert [int(terms), int(channels)] == [data["terms"], data["channels"]]
        assert int(safe) == data["bounds"]["sign_split"]
        assert widths == f"{data['data_widths']['any_order']}/{data['data_widths']['given']}"
        assert m7e4 == "100%"
        exact = [data["curve"]["overflowed"][8] / data["outputs"]]
        exact += [entry["rate"] for entry in data["accumulators"][:2]]
        for text, rate in zip(rates, exact, strict=True):
            assert abs(float(text.removesuffix("%")) - 100 * rate) <= 0.05 * 100 * rate
        event = data["first_overflow"].get("16")
        end = f"17 (3,383) k={event['k']}" if event else "-"
        assert line.endswith("  " + end)


def test_unknown_numbers_are_dashes() -> None:
    assert table_text(REPORTS["zero samples"]).splitlines()[2].split() == [
        *("a", "576", "64", "21", "-/-", "-", "-", "-", "-")
    ]


def test_names_keep_what_tells_them_apart() -> None:
    lines = table_text(REPORTS["long names"]).splitlines()[2:5]
    assert [line.split()[0] for line in lines] == ["…0/MatMul", "…1/MatMul", "…2/MatMul"]
    (line,) = table_text(report([layer("/" + "abc/" * 40 + "MatMul")])).splitlines()[2:3]
    assert re.fullmatch(r"/(abc/|a|b|c)*…\S*abc/MatMul", line.split()[0])


def test_shorten() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefgh", 6) == "abc…gh"
    assert shorten("abcdefgh", 5) == "ab…gh"


def test_other_things_are_refused() -> None:
    with pytest.raises(TypeError, match="report: expected the dictionary"):
        table_text(None)  # type: ignore[arg-type]


def test_three_nodes_that_were_not_analysed_have_a_reason() -> None:
    skipped = [{"name": f"/Resize_{n}", "reason": "no dot product" * 9} for n in range(5)]
    lines = table_text(report([layer("a")], skipped=skipped)).splitlines()
    assert max(map(len, lines)) == COLUMNS
    said = [line for line in lines if line.startswith("Not analysed: ")]
    assert [line.split(": ")[1] for line in said[:3]] == ["/Resize_0", "/Resize_1", "/Resize_2"]
    assert all(line.split(": ")[2].startswith("no dot product") for line in said[:3])
    assert said[3:] == ["Not analysed: 2 more, which the report lists"]
