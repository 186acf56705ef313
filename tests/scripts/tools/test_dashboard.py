"""The dashboard for Grafana. That what it asks for exists is tested against a real server, in tests/pipeline."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from scripts.tools.dashboard.__main__ import SCHEMA_VERSION, dashboard, text

FILE = Path(__file__).parents[3] / "configs" / "grafana.json"


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def test_the_file_is_up_to_date():
    assert FILE.read_text() == text(), "run: python -m scripts.tools.dashboard configs/grafana.json"


def test_what_grafana_needs_to_import_it():
    content = json.loads(FILE.read_text())
    assert content["schemaVersion"] == SCHEMA_VERSION == 42
    assert content["title"]
    source, *choices = content["templating"]["list"]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    assert [choice["name"] for choice in choices] == ["instance", "replica"]
    for choice in choices:
        assert choice["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        for target in panel["targets"]:
            assert target["legendFormat"]
            assert target["datasource"] == panel["datasource"]
    numbers = [panel["id"] for panel in content["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_rows_are_those_that_people_look_for():
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == ["Traffic", "Latency", "Tokens", "Steps and host overhead", "Rings", "KV cache", "Stages"]


def test_no_panel_covers_another():
    taken = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        columns = range(place["x"], place["x"] + place["w"])
        cells = set(itertools.product(columns, range(place["y"], place["y"] + place["h"])))
        assert not cells & taken, panel["title"]
        taken |= cells


def test_expressions_are_whole():
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for opening, closing in ("()", "{}", "[]"):
                assert expression.count(opening) == expression.count(closing), expression
            assert expression.count("ringserve_") == expression.count('instance=~"$instance"')
            if "_bucket{" in expression or "_count{" in expression:
                assert "rate(" in expression
