"""One table for all servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from scripts.bench.peers.measure import Plan, Row
from scripts.lab.table import markdown


def tell(rows: Sequence[Row], skipped: Mapping[str, str], plan: Plan, machine: Mapping[str, Any]) -> Row:
    """As JSON has it."""
    return {
        "machine": dict(machine),
        "model": asdict(plan.size),
        "dtype": "float32",
        "threads": plan.threads,
        "prompt_tokens": plan.prompt_tokens,
        "output_tokens": plan.output_tokens,
        "rounds": plan.rounds,
        "servers": list(rows),
        "skipped": dict(skipped),
    }


def table(told: Row) -> str:
    """Markdown."""
    machine, servers = told["machine"], told["servers"]
    batches = list(servers[0]["batches"]) if servers else []
    head = ["", *(f"ITL p50 / p99, ms, batch {batch}" for batch in batches)]
    head += [f"tokens/s, batch {batch}" for batch in batches] + [f"TTFT p50, ms, batch {n}" for n in batches[:1]]
    head += ["memory, PSS / RSS, MiB", "processes", "first answer after, s", "idle CPU, %"]
    return "\n".join(
        [
            f"Random Llama of {_parameters(told['model']) / 1e6:.0f} million parameters, float32, {told['threads']} "
            f"threads; {told['prompt_tokens']} prompt and {told['output_tokens']} output tokens, greedy; medians of "
            f"{told['rounds']} rounds.",
            f"{machine['cpu']}, {machine['usable_cores']} usable cores; others used "
            f"{machine.get('others_cpu_percent', float('nan')):.0f} % of one core meanwhile.",
            "",
            markdown(head, [_line(row, batches) for row in servers]),
            "",
            *(f"{row['name']}: {_versions(row)}; {row['settings']}" for row in servers),
            *(f"{name} skipped: {why}" for name, why in told["skipped"].items()),
            agreement(servers),
        ]
    )


def _line(row: Row, batches: Sequence[str]) -> list[str]:
    by_batch = [row["batches"][batch] for batch in batches]
    return [
        row["name"],
        *(f"{cell['median_itl_ms']:.1f} / {cell['p99_itl_ms']:.1f}" for cell in by_batch),
        *(f"{cell['output_throughput']:.1f}" for cell in by_batch),
        *(f"{cell['median_ttft_ms']:.0f}" for cell in by_batch[:1]),
        f"{row['pss_mib']:,.0f} / {row['rss_mib']:,.0f}",
        str(row["processes"]),
        f"{row['ready_s']:.1f}",
        f"{row['idle_cpu_percent']:.1f}",
    ]


def _versions(row: Row) -> str:
    return ", ".join(f"{name} {version}" for name, version in row["versions"].items())


def _parameters(model: Mapping[str, int]) -> int:
    hidden, kv = model["hidden_size"], model["num_key_value_heads"] * model["hidden_size"]
    kv //= model["num_attention_heads"]
    layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * model["intermediate_size"] + 2 * hidden
    return 2 * model["vocab_size"] * hidden + model["num_hidden_layers"] * layer + hidden


def agreement(servers: Sequence[Row]) -> str:
    """Whether all gave the same greedy answer: the same checkpoint was computed."""
    texts = {row["name"]: row["first_text"] for row in servers}
    if len(set(texts.values())) <= 1:
        return "All servers gave the same greedy answer to a fixed prompt." if len(texts) > 1 else ""
    return "The greedy answers to a fixed prompt differ: " + "; ".join(f"{n}: {t!r}" for n, t in texts.items())
