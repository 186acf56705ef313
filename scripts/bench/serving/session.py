"""A run from options to results."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from tqdm import tqdm

from scripts.bench.serving.apis import APIS, Answer, Api, Ask, read_answer
from scripts.bench.serving.load import Outcome, Planned, Run, run_load
from scripts.bench.serving.metrics import Metrics, compute
from scripts.bench.serving.report import Told, tell
from scripts.bench.serving.servers import Target, target
from scripts.bench.serving.workload import Request, arrival_times_s, make_workload
from scripts.lab.errors import BenchError
from scripts.lab.http import Client
from scripts.lab.machine import describe_machine
from scripts.lab.others import Others


@dataclass(frozen=True, slots=True)
class Result:
    told: Told
    metrics: Metrics
    answers: tuple[Answer, ...]


def run_session(options: argparse.Namespace) -> Result:
    """Raises BenchError."""
    with target(options) as server:
        return _measure(options, server)


def _measure(options: argparse.Namespace, server: Target) -> Result:
    api = APIS[options.backend]
    if options.endpoint:
        api = dataclasses.replace(api, path=options.endpoint)
    requests = make_workload(options, server.encoder)
    client = Client(server.base_url, headers=options.headers, keep_alive=api.keep_alive)
    planned = [_plan(options, server, api, client, request) for request in requests]
    _warm_up(options, client, planned)
    before, others = server.counters(), Others(server.cpu_s)
    run = _run(options, client, planned)
    others_percent = others.percent()
    if server.process is not None and any(map(_failed, run.outcomes)):
        server.process.require_alive(patience_s=3.0)
    after = server.counters()
    answers = tuple(read_answer(outcome, api, options.time_scale) for outcome in run.outcomes)
    metrics = compute(answers, run.duration_s * options.time_scale, options.metric_percentiles, options.goodput)
    counted = {name: after[name] - before[name] for name in before if name in after}
    conditions = {
        "server": _about_server(server, metrics, counted),
        "client": _about_client(run, metrics),
        # A server that somebody else has started would count as one of the others
        "machine": describe_machine() | ({"others_cpu_percent": others_percent} if server.process else {}),
    }
    return Result(tell(options, server, metrics, answers) | conditions, metrics, answers)


def _plan(options: argparse.Namespace, server: Target, api: Api, client: Client, request: Request) -> Planned:
    if isinstance(request.prompt, list) and not api.takes_ids:
        raise BenchError(f"{api.name} takes prompts as text only; use --backend openai for token ids")
    how = (server.model, options.temperature, options.ignore_eos, options.extra_body)
    body = orjson.dumps(api.body(Ask(request.prompt, request.output_tokens, *how)))
    return Planned(client.request("POST", api.path, body), request.prompt_tokens)


def _warm_up(options: argparse.Namespace, client: Client, planned: list[Planned]) -> None:
    """The first requests once more, one after another."""
    some = [planned[i % len(planned)] for i in range(options.num_warmups)]
    run = run_load(client, some, [0.0] * len(some), max_concurrency=1, timeout_s=options.request_timeout_s)
    if failed := [outcome.error or str(outcome.reply) for outcome in run.outcomes if _failed(outcome)]:
        raise BenchError(f"a request before the run failed: {failed[0][:500]}")


def _failed(outcome: Outcome) -> bool:
    return outcome.reply is None or outcome.reply.status != 200


def _run(options: argparse.Namespace, client: Client, planned: list[Planned]) -> Run:
    """The device's clock runs `time_scale` times as fast as ours, so requests come that much faster, too."""
    rng = np.random.default_rng([options.seed, 2])
    arrivals = arrival_times_s(len(planned), options.request_rate, options.burstiness, rng) / options.time_scale
    limits: dict[str, Any] = {"max_concurrency": options.max_concurrency, "timeout_s": options.request_timeout_s}
    with tqdm(total=len(planned), unit="request", disable=options.disable_tqdm or None) as bar:
        return run_load(client, planned, arrivals.tolist(), progress=bar.update, **limits)


def _about_server(server: Target, metrics: Metrics, counted: dict[str, float]) -> Told:
    told: Told = {name: int(count) for name, count in counted.items()}
    if told.get("steps"):
        told["tokens_per_step"] = metrics.total_output_tokens / told["steps"]
    if server.process is not None:
        memory = server.process.memory()
        told |= {"ready_s": server.process.ready_s, "rss_mib": memory.rss / 2**20, "pss_mib": memory.pss / 2**20}
        told["pss_mib_by_process"] = {name: size / 2**20 for name, size in memory.by_process.items()}
    return told


def _about_client(run: Run, metrics: Metrics) -> Told:
    return {
        "cpu_us_per_token": run.cpu_s * 1e6 / max(metrics.total_output_tokens, 1),
        "cpu_percent": 100 * run.cpu_s / run.duration_s,
        "max_lateness_ms": 1000 * max((outcome.late_s for outcome in run.outcomes), default=0.0),
    }
