"""A run from options to results."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from tqdm import tqdm

from scripts.bench.serving.answers import Answer, read_answer
from scripts.bench.serving.apis import APIS, Api, Ask
from scripts.bench.serving.arrivals import arrival_times_s
from scripts.bench.serving.load import Planned, Run, run_load
from scripts.bench.serving.metrics import Metrics, compute
from scripts.bench.serving.options import Options
from scripts.bench.serving.own_server import OwnServer, server_counters
from scripts.bench.serving.prompts import Encode, PromptMaker, make_requests
from scripts.bench.serving.report import Conditions, Told, tell
from scripts.bench.serving.tokenization import first_model, local_encoder, server_encoder
from scripts.bench.serving.workload import RECORDED, Request, random_lengths, read_custom, recorded_lengths
from scripts.lab.clock import machine_busy_seconds
from scripts.lab.errors import BenchError
from scripts.lab.http import Client
from scripts.lab.machine import describe_machine
from scripts.lab.processes import Running

_RANDOM_PROMPTS = 1000


@dataclass(frozen=True, slots=True)
class Result:
    told: Told
    metrics: Metrics
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """The server, whoever started it."""

    base_url: str
    model: str
    device: str
    tokenizer: Path | None
    process: Running | None


def run_session(options: Options) -> Result:
    """Raises BenchError."""
    with _target(options) as target:
        return _measure(options, target)


@contextlib.contextmanager
def _target(options: Options) -> Iterator[Target]:
    if options.config is None:
        assert options.base_url is not None  # one of them is required
        url = options.base_url.rstrip("/")
        model = options.model or _model_of(options, url)
        yield Target(url, model, f"that of the server at {url}", options.tokenizer, None)
        return
    logits = (f"pipeline.save_logits_dir={options.save_logits.absolute()}",) if options.save_logits else ()
    server = OwnServer.prepare(options.config, (*options.overrides, *logits), options.time_scale)
    tokenizer = options.tokenizer or server.config.tokenizer.vocab_file
    model = options.model or server.config.pipeline.model_name
    with (
        tempfile.TemporaryDirectory(prefix="ringserve-bench-") as folder,
        server.running(Path(folder) / "server.log") as process,
    ):
        yield Target(process.base_url, model, server.device, tokenizer, process)


def _model_of(options: Options, url: str) -> str:
    """llm-serving's requests name no model."""
    return "" if options.backend == "llm-serving" else first_model(url, dict(options.headers))


def _measure(options: Options, target: Target) -> Result:
    api = APIS[options.backend]
    if options.endpoint:
        api = dataclasses.replace(api, path=options.endpoint)
    requests = make_workload(options, lambda: _encoder(options, target))
    client = Client(target.base_url, headers=options.headers, keep_alive=api.keep_alive)
    planned = [_plan(options, target, api, client, request) for request in requests]
    _warm_up(options, client, planned)
    before = server_counters(target.base_url, dict(options.headers))
    busy_s, server_s = machine_busy_seconds(), _server_cpu_s(target)
    run = _run(options, client, planned)
    others_s = machine_busy_seconds() - busy_s - (_server_cpu_s(target) - server_s) - run.cpu_s
    if target.process is not None and any(_failed(outcome.reply) for outcome in run.outcomes):
        target.process.require_alive(patience_s=3.0)
    after = server_counters(target.base_url, dict(options.headers))
    answers = tuple(read_answer(outcome, api, options.time_scale) for outcome in run.outcomes)
    duration_s = run.duration_s * options.time_scale
    metrics = compute(answers, duration_s, options.metric_percentiles, options.goodput)
    conditions = Conditions(
        device=target.device,
        base_url=target.base_url,
        model=target.model,
        num_prompts=len(requests),
        machine=describe_machine() | _about_others(target, others_s / run.duration_s),
        server=_about_server(target, metrics, {name: after[name] - before[name] for name in before if name in after}),
        client=_about_client(run, metrics),
    )
    return Result(tell(options, conditions, metrics, answers), metrics, answers)


# ---- requests ----------------------------------------------------------------------------------------------------


def make_workload(options: Options, encoder: Any) -> list[Request]:
    """`encoder` is called for the tokenizer only where prompts are made. Raises BenchError."""
    rng = np.random.default_rng([options.seed, 1])
    if options.dataset_name == "custom":
        assert options.dataset_path is not None  # options were checked
        requests = read_custom(options.dataset_path, options.random_output_len)
        return requests[: options.num_prompts]
    if options.dataset_name in RECORDED:
        lengths = recorded_lengths(options.dataset_name)[: options.num_prompts]
    else:
        means = (options.random_input_len, options.random_output_len)
        lengths = random_lengths(options.num_prompts or _RANDOM_PROMPTS, *means, options.random_range_ratio, rng)
    return make_requests(lengths, PromptMaker(encoder(), rng), as_ids=options.prompt_ids)


def _encoder(options: Options, target: Target) -> Encode:
    if target.tokenizer is not None:
        return local_encoder(target.tokenizer)
    return server_encoder(target.base_url, target.model, dict(options.headers))


def _plan(options: Options, target: Target, api: Api, client: Client, request: Request) -> Planned:
    if isinstance(request.prompt, list) and not api.takes_ids:
        raise BenchError(f"{api.name} takes prompts as text only; use --backend openai for token ids")
    ask = Ask(
        request.prompt,
        request.output_tokens,
        target.model,
        options.temperature,
        options.ignore_eos,
        options.extra_body,
    )
    return Planned(client.request("POST", api.path, orjson.dumps(api.body(ask))), request.prompt_tokens)


# ---- the run -----------------------------------------------------------------------------------------------------


def _warm_up(options: Options, client: Client, planned: list[Planned]) -> None:
    """The first requests once more, one after another."""
    some = [planned[i % len(planned)] for i in range(options.num_warmups)]
    run = run_load(client, some, [0.0] * len(some), max_concurrency=1, timeout_s=options.request_timeout_s)
    if failed := [outcome.error or str(outcome.reply) for outcome in run.outcomes if _failed(outcome.reply)]:
        raise BenchError(f"a request before the run failed: {failed[0][:500]}")


def _failed(reply: Any) -> bool:
    return reply is None or reply.status != 200


def _run(options: Options, client: Client, planned: list[Planned]) -> Run:
    """The device's clock runs `time_scale` times as fast as ours, so requests come that much faster, too."""
    rng = np.random.default_rng([options.seed, 2])
    arrivals = arrival_times_s(len(planned), options.request_rate, options.burstiness, rng) / options.time_scale
    with tqdm(total=len(planned), unit="request", disable=options.disable_tqdm or None) as bar:
        return run_load(
            client,
            planned,
            arrivals.tolist(),
            max_concurrency=options.max_concurrency,
            timeout_s=options.request_timeout_s,
            progress=bar.update,
        )


def _about_server(target: Target, metrics: Metrics, counted: dict[str, float]) -> Told:
    told: Told = {name: int(count) for name, count in counted.items()}
    if told.get("steps"):
        told["tokens_per_step"] = metrics.total_output_tokens / told["steps"]
    if target.process is not None:
        memory = target.process.memory()
        told |= {"ready_s": target.process.ready_s, "rss_mib": memory.rss / 2**20, "pss_mib": memory.pss / 2**20}
        told["pss_mib_by_process"] = {name: size / 2**20 for name, size in memory.by_process.items()}
    return told


def _server_cpu_s(target: Target) -> float:
    return target.process.cpu_s() if target.process is not None else 0.0


def _about_others(target: Target, cores: float) -> Told:
    """How busy the machine was with what has nothing to do with this run. Of a server that somebody else started
    nothing is known: it would count as one of the others."""
    return {"others_cpu_percent": max(0.0, 100 * cores)} if target.process is not None else {}


def _about_client(run: Run, metrics: Metrics) -> Told:
    return {
        "cpu_us_per_token": run.cpu_s * 1e6 / max(metrics.total_output_tokens, 1),
        "cpu_percent": 100 * run.cpu_s / run.duration_s,
        "max_lateness_ms": 1000 * max((outcome.late_s for outcome in run.outcomes), default=0.0),
    }
