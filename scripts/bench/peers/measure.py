"""Starts one server after the other and puts the same load on each."""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from scripts.bench.peers.checkpoint import Size, make_checkpoint
from scripts.bench.peers.peers import Peer, Place
from scripts.bench.serving.options import parse
from scripts.bench.serving.servers import ask_json, first_model
from scripts.bench.serving.session import Result, run_session
from scripts.lab.arguments import Say
from scripts.lab.errors import BenchError
from scripts.lab.processes import Running, started
from scripts.lab.table import markdown

_START_TIMEOUT_S = 900.0
_SETTLE_S = 2.0
_IDLE_S = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    peers: tuple[Peer, ...]
    batches: tuple[int, ...]
    rounds: int  # of each batch with each server
    prompt_tokens: int
    output_tokens: int
    size: Size
    cache: Path
    threads: int
    install: bool


Row = dict[str, Any]


def compare(plan: Plan, say: Say) -> tuple[list[Row], dict[str, str]]:
    """A row per server, and why others are missing. Raises BenchError."""
    cache = plan.cache.absolute()
    cache.mkdir(parents=True, exist_ok=True)
    say("making the checkpoint")
    checkpoint = make_checkpoint(cache / "checkpoint", plan.size)
    rows, skipped = [], {}
    for peer in plan.peers:
        place = Place(cache, checkpoint, free_port(), plan.threads)
        try:
            _provide(peer, place, plan, say)
            say(f"{peer.name}: starting")
            rows.append(_measure(peer, place, plan, say))
        except (BenchError, subprocess.CalledProcessError, OSError) as error:
            skipped[peer.name] = brief(str(error))
            say(f"{peer.name}: skipped: {error}")
    return rows, skipped


def brief(why: str) -> str:
    """The first line, and the last one, which is where a server's log says why it ended."""
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    return lines[0] if len(lines) < 2 else f"{lines[0]} {lines[-1]}"


def _provide(peer: Peer, place: Place, plan: Plan, say: Say) -> None:
    """Raises BenchError, CalledProcessError."""
    if not peer.is_installed(place):
        if not plan.install:
            raise BenchError(f"not installed ({peer.size}, {', '.join(peer.packages)}); --install does that")
        say(f"{peer.name}: installing {', '.join(peer.packages)} ({peer.size})")
        peer.install(place)
    peer.prepare(place)


def _measure(peer: Peer, place: Place, plan: Plan, say: Say) -> Row:
    base = f"http://127.0.0.1:{place.port}"
    log = place.cache / f"{peer.name.lower()}.log"
    with started(
        peer.command(place),
        log,
        lambda _: base if answers(base) else None,
        timeout_s=_START_TIMEOUT_S,
        environment=peer.full_environment(place),
    ) as server:
        say(f"{peer.name}: first answer after {server.ready_s:.1f} s")
        text = first_text(base)
        runs = {batch: [_load(base, place, plan, batch) for _ in range(plan.rounds)] for batch in plan.batches}
        memory = server.memory()
        return {
            "name": peer.name,
            "settings": peer.settings,
            "versions": versions(peer, place),
            "ready_s": server.ready_s,
            "processes": len(memory.by_process),
            "rss_mib": memory.rss / 2**20,
            "pss_mib": memory.pss / 2**20,
            "pss_mib_by_process": {name: size / 2**20 for name, size in memory.by_process.items()},
            "idle_cpu_percent": idle_cpu_percent(server),
            "first_text": text,
            "batches": {str(batch): summary(results) for batch, results in runs.items()},
        }


def answers(base: str) -> bool:
    """Whether a token comes back: the same question for all, whatever their /health means."""
    try:
        first_text(base, tokens=1)
    except (BenchError, OSError, ValueError, KeyError):
        return False
    return True


def first_text(base: str, tokens: int = 16) -> str:
    """The greedy answer to a fixed prompt: servers of the same model agree on it, but for rounding."""
    body = {"model": first_model(base, {}), "prompt": [1, 54, 90, 406, 330, 31], "max_tokens": tokens}
    answer = ask_json(f"{base}/v1/completions", {}, body | {"temperature": 0, "ignore_eos": True})
    return str(answer["choices"][0]["text"])


def _load(base: str, place: Place, plan: Plan, batch: int) -> Result:
    """Four times as many requests as run at once, all of the same length, as token ids. Raises BenchError."""
    words = ["--base-url", base, "--backend", "openai", "--tokenizer", str(place.checkpoint), "--prompt-ids"]
    words += ["--ignore-eos", "--disable-tqdm", "--num-warmups", "2", "--max-concurrency", str(batch)]
    words += ["--num-prompts", str(4 * batch), "--random-input-len", str(plan.prompt_tokens)]
    options = parse(None, [*words, "--random-output-len", str(plan.output_tokens)])
    result = run_session(options)
    failed = [answer.error for answer in result.answers if not answer.success]
    if failed:
        raise BenchError(f"{len(failed)} requests failed; the first: {failed[0]}")
    if result.metrics.total_output_tokens != 4 * batch * plan.output_tokens:
        raise BenchError(f"{result.metrics.total_output_tokens} tokens came back, which is not what was asked for")
    return result


def summary(results: Sequence[Result]) -> Row:
    """Medians over rounds."""
    names = ("median_itl_ms", "p99_itl_ms", "median_ttft_ms", "median_tpot_ms", "output_throughput")
    return {name: statistics.median(result.told[name] for result in results) for name in names}


def idle_cpu_percent(server: Running) -> float:
    """Of one core, by all processes together, while nothing is asked."""
    time.sleep(_SETTLE_S)
    before = server.cpu_s()
    time.sleep(_IDLE_S)
    return 100 * (server.cpu_s() - before) / _IDLE_S


def versions(peer: Peer, place: Place) -> dict[str, str]:
    if peer.folder is None:
        return {name: metadata.version(name) for name in peer.versions}
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run(
        [str(place.python(peer.folder)), "-c", code, *peer.versions], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


# ---- one table for all servers ------------------------------------------------------------------------------------


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
