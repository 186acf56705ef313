"""The figures of all rounds as JSON has them, and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scripts.bench.peers.goals import goals
from scripts.bench.peers.journal import Journal
from scripts.bench.peers.loads import TTFT
from scripts.bench.peers.peers import PEERS, WIDTHS
from scripts.bench.peers.rounds import Plan
from scripts.lab.goals import Goal
from scripts.lab.table import markdown

Told = dict[str, Any]
_PEERS = {peer.name: peer for peer in PEERS}


def tell(journal: Journal, plan: Plan, skipped: Mapping[str, str], machine: Mapping[str, Any]) -> Told:
    """Medians over rounds."""
    rounds, names = journal.of("round"), [peer.name for peer in plan.peers]
    measured = {name for record in rounds for name in record["set"]}
    seen = {record["name"]: record for record in journal.of("server")}
    first = {record["name"]: record["first_s"] for record in journal.of("start")}
    servers = [
        {
            "name": name,
            "width": _PEERS[name].width,
            "settings": _PEERS[name].settings,
            "first_start_s": first.get(name),
            **seen.get(name, {}),
            "loads": medians([record["figures"][name] for record in rounds if name in record["set"]]),
        }
        for name in names
        if name in measured
    ]
    busy = [record["others_cpu_percent"] for record in journal.of("server")]
    return {
        "machine": dict(machine) | {"others_cpu_percent": max(busy, default=None)},
        "parameters": plan.model.size.parameters,
        **plan.told(),
        "streams": list(plan.streams),
        "rounds": min((sum(name in record["set"] for record in rounds) for name in measured), default=0),
        "servers": servers,
        "skipped": dict(skipped),
        "goals": [goal.told() | {"note": goal.note} for goal in goals(rounds, plan.streams, names)],
        "measured": rounds,
    }


def medians(rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Of each figure of each load."""
    return {
        load: {name: statistics.median(each[load][name] for each in rounds) for name in figures}
        for load, figures in rounds[0].items()
    }


def goals_of(told: Told) -> list[Goal]:
    return [Goal(**{name: value for name, value in goal.items() if name != "met"}) for goal in told["goals"]]


def report(told: Told) -> str:
    """Markdown: a table for each width, one of what is beside speed, and the goals."""
    parts = [_head(told)]
    for width in WIDTHS:
        if servers := [row for row in told["servers"] if row["width"] == width]:
            parts.append(_speed(width, servers, told["streams"]))
            parts.append(agreement(servers))
    parts += [_beside(told["servers"]), _versions(told)]
    if told["goals"]:
        parts.append("```text\n" + "\n".join(goal.text for goal in goals_of(told)) + "\n```")
    return "\n\n".join(part for part in parts if part)


def _head(told: Told) -> str:
    machine, load = told["machine"], told["loads"][0]
    others = machine["others_cpu_percent"]
    busy = "" if others is None else f"; others used up to {others:.0f} % of one core meanwhile"
    return (
        f"Random Llama of {told['parameters'] / 1e6:,.0f} million parameters, stored in {told['model']['dtype']}; "
        f"{load['prompt_tokens']} prompt and {load['output_tokens']} output tokens, greedy, with so many streams; "
        f"TTFT of {told['loads'][-1]['prompt_tokens']} tokens, one at a time; {told['threads']} threads; "
        f"medians over rounds in which servers took turns: {told['rounds']}. {machine['cpu']}, "
        f"{machine['usable_cores']} usable cores{busy}."
    )


def _speed(width: str, servers: Sequence[Told], streams: Sequence[int]) -> str:
    head = [width, *(f"tokens/s, {n}" for n in streams), *(f"ITL p50 / p99, ms, {n}" for n in streams), "TTFT, ms"]
    return markdown(head, [list(_speed_cells(row, streams)) for row in servers])


def _speed_cells(row: Told, streams: Sequence[int]) -> Iterator[str]:
    cells = [row["loads"][str(number)] for number in streams]
    yield row["name"]
    yield from (f"{cell['tokens_per_s']:,.1f}" for cell in cells)
    yield from (f"{cell['itl_p50_ms']:.1f} / {cell['itl_p99_ms']:.1f}" for cell in cells)
    yield f"{row['loads'][TTFT]['ttft_ms']:,.0f}"


def _beside(servers: Sequence[Told]) -> str:
    head = ["", "memory, PSS / RSS, MiB", "processes", "first answer after, s", "at the first start", "idle CPU, %"]
    lines = [
        [
            row["name"],
            f"{row['pss_mib']:,.0f} / {row['rss_mib']:,.0f}",
            row["processes"],
            f"{row['ready_s']:.1f}",
            "-" if row["first_start_s"] is None else f"{row['first_start_s']:.1f}",
            f"{row['idle_cpu_percent']:.1f}",
        ]
        for row in servers
        if "ready_s" in row
    ]
    return markdown(head, lines) if lines else ""


def _versions(told: Told) -> str:
    lines = [
        f"- {row['name']}: {', '.join(f'{name} {version}' for name, version in row.get('versions', {}).items())}; "
        f"{row['settings']}"
        for row in told["servers"]
    ]
    return "\n".join([*lines, *(f"- {name} skipped: {why}" for name, why in told["skipped"].items())])


def agreement(servers: Sequence[Told]) -> str:
    """Whether all of a width gave the same greedy answer: the same checkpoint was computed."""
    texts = {row["name"]: row["first_text"] for row in servers if "first_text" in row}
    if len(texts) < 2:
        return ""
    if len({*texts.values()}) == 1:
        return "All gave the same greedy answer to a fixed prompt."
    return "The greedy answers to a fixed prompt differ: " + "; ".join(f"{n}: `{t}`" for n, t in texts.items())
