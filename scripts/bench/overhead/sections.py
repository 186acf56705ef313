"""The sections of the benchmark, so that a run can be split. Each gives rows and goals, as JSON has them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from model.tokenizer import load_tokenizer
from pipeline.config import load_configuration
from pipeline.wire.topology import INFERENCE, STAGES
from scripts.bench.overhead.client import Question, Streams, prompt, serve_client
from scripts.bench.overhead.device import Device, serve_bare_steps
from scripts.bench.overhead.exposed import exposed
from scripts.bench.overhead.figures import Row, figures, goals, medians
from scripts.bench.overhead.measure import Cell, Plan, measure, run_cell
from scripts.bench.overhead.replaced.server import serve_bare_http
from scripts.bench.overhead.servers import VARIANTS, Server, choose, ringserve, started
from scripts.bench.overhead.tail import tail
from scripts.lab.arguments import Say
from scripts.lab.goals import Goal
from scripts.lab.paths import ROOT
from scripts.lab.workers import ask, worker

Options = argparse.Namespace
Section = Callable[[Options, Path, Say], Row]
"""With a directory for what it writes. Raises BenchError."""


def _told(title: str, rows: list[Row], judged: list[Goal]) -> Row:
    return {"title": title, "results": rows, "goals": [goal.told() for goal in judged]}


# ---- every variant at every batch ----------------------------------------------------------------------------------

_DEMO_LENGTH = 1024


def plan_of(section: str, options: Options) -> Plan:
    """Of steps, fast or demo. Raises ValueError for what can't be measured."""
    if section == "demo":
        device, variants = Device(None, _DEMO_LENGTH), choose("ringserve")
    elif section == "fast":
        device, variants = (
            Device(min(5.0, options.step_ms), vocab=options.vocab),
            options.only or choose(options.fast_variants),
        )
    else:
        device, variants = Device(options.step_ms, vocab=options.vocab), options.only or choose(options.slow_variants)
    plan = Plan(device, options.batches, options.seconds, options.rounds, variants, tuple(options.overrides))
    if device.step_ms is not None:
        if device.step_ms <= 0:
            raise ValueError("--step-ms must be above 0; for a device that takes no time see --section null")
        plan.tokens(device.step_ms)
    return plan


def _cells(section: str) -> Section:
    def run(options: Options, directory: Path, say: Say) -> Row:
        plan = plan_of(section, options)
        rows = figures(measure(plan, directory, say), plan)
        return {
            "device": plan.device.name,
            "step_ms": plan.device.step_ms,
            "seconds": plan.seconds,
            "rounds": plan.rounds,
            "overrides": list(plan.overrides),
            "results": rows,
            "goals": [goal.told() for goal in goals(rows, plan.device.step_ms)],
        }

    return run


# ---- whether a step costs more at the end of a long context than at the beginning of a short one -----------------

_CONTEXTS = (64, 4096)
_CONTEXT_BATCH = 8
_CHANGE_GOAL_PERCENT = 5.0


def _context(options: Options, directory: Path, say: Say) -> Row:
    """Of the same server, alternating."""
    device, variant, seconds = Device(5.0, max_length=8192), VARIANTS["completions"], max(1.5, options.seconds)
    batches = (_CONTEXT_BATCH,)
    plans = {n: Plan(device, batches, seconds, options.rounds, (variant,), prompt_tokens=n) for n in _CONTEXTS}
    file = device.write(directory / "context.yaml", _CONTEXT_BATCH)
    cells: dict[int, list[Cell]] = {n: [] for n in _CONTEXTS}
    with (
        worker(serve_client) as client,
        worker(serve_bare_steps, file) as bare,
        started(variant, file, batches) as server,
    ):
        for number in range(options.rounds):
            say(f"contexts of {' and '.join(map(str, _CONTEXTS))} tokens: round {number + 1} of {options.rounds}")
            for n in _CONTEXTS if number % 2 == 0 else _CONTEXTS[::-1]:
                cells[n].append(run_cell(plans[n], variant, server, client, bare, _CONTEXT_BATCH))
    rows = [_context_row(n, cells[n]) for n in _CONTEXTS]
    between, path = (
        100 * (sum(rows[1][name] for name in names) / sum(rows[0][name] for name in names) - 1)
        for names in (("itl_p50_ms",), ("wait_p50_us", "launch_p50_us"))
    )
    ends = "64 → 4096 tokens"
    judged = [
        Goal(f"change of the time between tokens, {ends}", round(between, 2), _CHANGE_GOAL_PERCENT, "%"),
        Goal(f"change of wait + launch, {ends}", round(path, 1), _CHANGE_GOAL_PERCENT, "%"),
    ]
    return _told(f"By length of the context; device {device.name}, batch {_CONTEXT_BATCH}", rows, judged)


def _context_row(context: int, cells: list[Cell]) -> Row:
    rounds = []
    for cell in cells:
        itl, bare = float(np.median(cell.itl_ms)), float(np.median(cell.bare_ms))
        parts = {f"{name}_p50_us": cell.parts[name].p50_us for name in ("wait", "launch", "schedule")}
        rounds.append({"itl_p50_ms": itl, "overhead_p50_ms": itl - bare, **parts})
    return {"context": context, **medians(rounds, 4)}


# ---- the first token of an idle server: what it waits for beside tokenizing and the prefill step ------------------

_TTFT_GOAL_MS = 1.5
_TTFT_STEP_MS = 22.5
_TTFT_IDLE_S = 0.1  # on an open connection, before each request: everybody sleeps


def _ttft(options: Options, directory: Path, say: Say) -> Row:
    """One request at a time; and how much of it a server that does nothing but speak HTTP needs, too."""
    device = Device(_TTFT_STEP_MS)
    file = device.write(directory / "ttft.yaml", 1)
    vocabulary = load_configuration(file).tokenizer.vocab_file
    assert vocabulary is not None
    tokenizer = load_tokenizer(vocabulary)
    say(f"time to the first token of an idle server: {options.ttft_requests} requests")
    times: dict[str, list[float]] = {"encode": [], "ttft": [], "http": []}
    with (
        worker(serve_client) as client,
        worker(serve_bare_steps, file) as bare,
        worker(serve_bare_http) as http,
        ringserve(file) as server,
    ):
        step_ms = float(np.median(ask(bare, (1, 20, True)))) / 1e6
        ports = {"ttft": server.port, "http": ask(http, "port")}
        for number in range(-3, options.ttft_requests):  # the first ones warm up
            begun = time.perf_counter_ns()
            tokenizer.encode(prompt(0))
            times["encode"].append((time.perf_counter_ns() - begun) / 1e6)
            for name, port in ports.items():
                streams: Streams = ask(client, Question(port, "llm-serving", 1, 2, settle_s=_TTFT_IDLE_S))
                if number >= 0:
                    times[name].append(float(streams.times_ns[0, 0] - streams.sent_ns[0]) / 1e6)
    encoding, ttft, bare_http = (float(np.median(times[name])) for name in times)
    p50, p99 = np.percentile(np.array(times["ttft"]) - encoding - step_ms, [50, 99]).tolist()
    row = {
        "requests": options.ttft_requests,
        "ttft_p50_ms": ttft,
        "step_ms": step_ms,
        "tokenizing_ms": encoding,
        "bare_http_p50_ms": bare_http,
        "overhead_p50_ms": p50,
        "overhead_p99_ms": p99,
    }
    what = "time to the first token beside tokenizing and the step, median"
    where = "at an HTTP client with an open connection"
    title = f"Time to the first token of an idle server, {where}; device {device.name}"
    rounded = {name: round(value, 3) for name, value in row.items()}
    return _told(title, [rounded], [Goal(what, rounded["overhead_p50_ms"], _TTFT_GOAL_MS, "ms")])


# ---- many rows that draw, from candidates that the device brings ---------------------------------------------------

_DRAWS_BATCH = 128
_DRAWS_GOAL_MS = 1.5
_PER_CANDIDATE_MS = 4e-6  # 8 bytes at 2 GB/s


def _draws(options: Options, directory: Path, say: Say) -> Row:
    """The bare step is the argmax: what candidates take on their way to the host is in the overhead."""
    charged = f"pipeline.runner.cost_model.per_candidate_ms={_PER_CANDIDATE_MS:f}"
    rows: list[Row] = []
    for vocabulary in options.draws_vocabularies:
        device, overrides = Device(_TTFT_STEP_MS, vocab=vocabulary), (charged, *options.overrides)
        plan = Plan(device, (_DRAWS_BATCH,), options.seconds, options.rounds, choose("sampled"), overrides)
        (row,) = figures(measure(plan, directory, say), plan)
        names = ("wait", "launch", "publish", "sample")
        parts = {f"{name}_us": row["parts"][name]["p50_us"] if name in row["parts"] else None for name in names}
        rows.append(
            {"vocabulary": vocabulary, **{k: row[k] for k in ("overhead_p50_ms", "overhead_p99_ms")}, **parts}
        )
    judged = [
        Goal(
            f"{_DRAWS_BATCH} rows that draw from {row['vocabulary']} tokens",
            row["overhead_p50_ms"],
            _DRAWS_GOAL_MS,
            "ms",
        )
        for row in rows
    ]
    return _told(
        f"Batch {_DRAWS_BATCH}, top-k 40, top-p 0.95, temperature 0.7; {_TTFT_STEP_MS:g} ms per step", rows, judged
    )


# ---- a device that takes no time: how many tokens per second the server itself can bring to its clients -----------

_RATE_GOAL = 60_000.0
_FRONT_GOAL_US = 20.0
_NULL_WAYS = ("llm-serving", "completions")


def _null(options: Options, directory: Path, say: Say) -> Row:
    most = max(options.null_streams)
    file = Device(0.0).write(directory / "null.yaml", most)
    cells = [(way, streams) for way in _NULL_WAYS for streams in options.null_streams]
    rounds: dict[tuple[str, int], list[Row]] = {cell: [] for cell in cells}
    with worker(serve_client) as client, ringserve(file) as server:
        for way in _NULL_WAYS:
            ask(client, Question(server.port, way, most, 20))
        for number in range(options.rounds):
            say(f"null device, up to {most} streams: round {number + 1} of {options.rounds}")
            for way, count in cells:
                before = server.cpu_s()
                streams = ask(client, Question(server.port, way, count, options.null_tokens))
                rounds[way, count].append(_null_row(streams, before, server))
    rows: list[Row] = [
        {"api": way, "streams": count, "rounds": len(every)} | medians(every, 1)
        for (way, count), every in rounds.items()
    ]
    judged = []
    for row in rows:
        name, rate = f"{row['api']}, {row['streams']} streams", row["tokens_per_s"]
        judged.append(Goal(f"null device, {name}", rate, _RATE_GOAL, "tokens/s", at_least=True))
        judged.append(Goal(f"CPU of the front per token, {name}", row["front_us"], _FRONT_GOAL_US, "us"))
    size = f"streams of {options.null_tokens} tokens over HTTP, client on the same CPUs"
    return _told(f"A device that takes no time: {size}; CPU in microseconds per token", rows, judged)


def _null_row(streams: Streams, before: dict[str, float], server: Server) -> Row:
    """From the first request to the last token."""
    times = streams.times_ns
    seconds = float(times.max() - streams.sent_ns.min()) / 1e9
    cpu = {f"{name}_us": 1e6 * (used - before[name]) / times.size for name, used in server.cpu_s().items()}
    del cpu["launcher_us"]
    writes = np.mean([np.unique(row).size for row in times])
    return {"tokens_per_s": times.size / seconds, "tokens_per_write": times.shape[1] / float(writes), **cpu}


# ---- what the server needs while it does nothing: memory, CPU, and the time until it is ready ----------------------

_DEMO = ROOT / "configs" / "demo.yaml"
_MEMORY_GOAL_MB, _READY_GOAL_S, _IDLE_GOAL_PERCENT = 250.0, 20.0, 1.0
_LIGHT = [stage for stage in STAGES if stage != INFERENCE.name]


def _footprint(options: Options, directory: Path, say: Say) -> Row:
    """Of the demo model, after it has served a few requests."""
    say("memory, idle CPU and start of the demo model")
    file = directory / "demo.yaml"  # relative paths are meant from where the original lies
    file.write_text(_DEMO.read_text(encoding="utf-8").replace("../", f"{ROOT}/"), encoding="utf-8")
    with worker(serve_client) as client, ringserve(file, ("serving_config.server_port=0",)) as server:
        ask(client, Question(server.port, "llm-serving", 8, 50))
        time.sleep(1)  # until all have come to rest
        before = server.cpu_s()
        time.sleep(options.idle_s)
        idle = {stage: 100 * (used - before[stage]) / options.idle_s for stage, used in server.cpu_s().items()}
        rows = [_footprint_row(stage, pid, idle[stage]) for stage, pid in server.pids.items()]
    ready_s = round(server.ready_s, 2)
    light = sum(row["rss_mb"] for row in rows if row["stage"] in _LIGHT)
    judged = [
        Goal("resident memory of front, preprocess and sampling", round(light, 1), _MEMORY_GOAL_MB, "MB"),
        Goal("ready after the command", ready_s, _READY_GOAL_S, "s"),
        Goal("idle CPU of all processes", round(sum(idle.values()), 3), _IDLE_GOAL_PERCENT, "% of one core"),
    ]
    title = "The demo model's server at rest (PSS: memory shared with others in parts)"
    return _told(title, rows, judged) | {"ready_s": ready_s}


def _footprint_row(stage: str, pid: int, idle_percent: float) -> Row:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    sizes = {f"{name}_mb": round(kib[name.title()] / 1024, 1) for name in ("rss", "pss")}
    return {"stage": stage, **sizes, "idle_cpu_percent": round(idle_percent, 3)}


SECTIONS: Mapping[str, Section] = MappingProxyType(
    {
        "steps": _cells("steps"),
        "fast": _cells("fast"),
        "demo": _cells("demo"),
        "context": _context,
        "ttft": _ttft,
        "exposed": exposed,
        "tail": tail,
        "draws": _draws,
        "null": _null,
        "footprint": _footprint,
    }
)
