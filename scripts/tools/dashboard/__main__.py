"""Writes configs/grafana.json, a dashboard for Grafana: ``python -m scripts.tools.dashboard configs/grafana.json``.

In Grafana's classic form, version 42, which is its last and which every version since 10 imports.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.tools.dashboard.panel import Panel
from scripts.tools.dashboard.rows import rows

SCHEMA_VERSION = 42
_WIDTH = 24
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> dict[str, Any]:
    return {
        "title": "RingServe",
        "uid": "ringserve",
        "description": "What /metrics tells; docs/metrics.md says what each of it means.",
        "tags": ["ringserve", "llm"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }


def text() -> str:
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1}
    yield _variable("instance", "Server", "label_values(ringserve_ready, instance)", ".+")
    yield _variable("replica", "Replica", 'label_values(ringserve_generation{instance=~"$instance"}, replica)', ".*")


def _variable(name: str, label: str, query: str, everything: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": everything,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 1, 0
    for title, panels in rows():
        place = {"x": 0, "y": top, "w": _WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        number, top, left, height = number + 1, top + 1, 0, 0
        for panel in panels:
            if left + panel.width > _WIDTH:
                top, left, height = top + height, 0, 0
            yield _panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": panel.height})
            number, left, height = number + 1, left + panel.width, max(height, panel.height)
        top += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": [_target(panel, i, *target) for i, target in enumerate(panel.targets)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _target(panel: Panel, index: int, expression: str, legend: str) -> dict[str, Any]:
    form = {"format": "heatmap"} if panel.kind == "heatmap" else {}
    return {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": expression, "legendFormat": legend} | form


def _defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.alarm is not None:
        steps.append({"color": "red", "value": panel.alarm})
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        defaults["custom"] = {"fillOpacity": 25 if panel.stacked else 5, "lineWidth": 1, "stacking": stacking}
        defaults["min"] = 0
    if panel.highest is not None:
        defaults["max"] = panel.highest
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        colour = "background" if panel.alarm is not None else "none"
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area", "colorMode": colour}
    if panel.kind == "heatmap":
        return {"calculate": False, "color": {"scheme": "Blues"}, "yAxis": {"unit": panel.unit}, "cellGap": 1}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        Path(argument).write_text(text(), encoding="utf-8")
