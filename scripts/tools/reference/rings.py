"""The table of rings in docs/architecture.md."""

from __future__ import annotations

from pipeline.wire.topology import FLOWS


def tables() -> dict[str, str]:
    rows = [f"| `{flow.name}` | {flow.producer} | {flow.consumer} | {flow.unit} | {flow.carries} |" for flow in FLOWS]
    return {"rings": "\n".join(["| ring | from | to | measured in | carries |", "|---|---|---|---|---|", *rows, ""])}
