"""The page of an overflow report says what the command and the table say, in their words."""

from __future__ import annotations

import re

import pytest

from abcdeep_core.overflow import page
from overflow_reports import layer, model, report

pytest.importorskip("jinja2", reason="needs the extra [report]")


def test_neighbours_follow_the_table() -> None:
    made = report([layer("a", given=12), layer("b", given=20), layer("c", given=14)])
    text = page.render(made)
    links = re.findall(r'<a href="#(layer-\d)">(previous|next)</a>', text)
    assert links == [
        *(("layer-3", "next"), ("layer-2", "previous")),
        *(("layer-1", "next"), ("layer-3", "previous")),
    ]


@pytest.mark.parametrize(
    ("order", "word"), [("natural", "given"), ("greedy", "best"), ("pair4", "pair4")]
)
def test_orders_have_the_words_of_the_command(order: str, word: str) -> None:
    made = report([layer("a")])
    made["settings"]["order"] = order
    assert f"<dt>order</dt><dd>{word}</dd>" in page.render(made)


def test_commands_say_where_their_file_comes_from() -> None:
    sentence = "report.json is what the option --json report.json of abcdeep overflow writes."
    assert page.render(report([layer("a")])).count(sentence) == 1
    assert sentence not in page.render(report([layer("a", given=9)]))


def test_limits_act_where_an_accumulator_wraps_too() -> None:
    text = page.render(model())
    assert '<th scope="col" class="text">limits act at</th>' in text
    assert "saturates at" not in text
