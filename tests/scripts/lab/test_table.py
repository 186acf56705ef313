"""Tables and judgements as text."""

from __future__ import annotations

from scripts.lab.goals import Goal
from scripts.lab.table import columns, markdown, text


def test_columns_are_aligned():
    assert columns(("name", "ms"), [("a", 1.5), ("longer", None)]) == "name     ms\na       1.5\nlonger    -"
    assert columns(("name", "ms"), [("a", 20)], left=0) == "name  ms\n   a  20"
    assert columns(("name", "ms"), []) == "name  ms"


def test_markdown_has_as_many_cells_in_every_row():
    lines = markdown(("name", "ms", "%"), [("a", 1, None)]).splitlines()
    assert lines == ["| name | ms | % |", "| --- | ---: | ---: |", "| a | 1 | - |"]


def test_floats_are_short():
    assert [text(value) for value in (1234.5678, 2.0, 0.1, 0.0)] == ["1,234.568", "2", "0.1", "0"]


def test_goals_are_met_missed_or_unknown():
    most, least = Goal("delay", 2.0, 3.0, "ms"), Goal("rate", 2.0, 3.0, "1/s", at_least=True, note=", alone")
    assert (most.met, least.met, Goal("x", None, 1.0, "s").met) == (True, False, None)
    assert most.text == "met     delay: 2 ms (at most 3)"
    assert least.text == "MISSED  rate: 2 1/s (at least 3), alone"
    assert Goal("x", None, 1.0, "s").text == "not measured: x"
    told = {"what": "rate", "measured": 2.0, "goal": 3.0, "unit": "1/s", "at_least": True, "met": False}
    assert least.told() == told


def test_large_figures_are_written_out():
    assert (
        "118,657 tokens/s (at least 25,000)" in Goal("null device", 118657.4, 25000, "tokens/s", at_least=True).text
    )
    assert "2.513 ms (at most 1.5)" in Goal("first token", 2.5129, 1.5, "ms").text
