"""The command line. Options that ``vllm bench serve`` has, too, have its names, defaults and meaning."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any

import orjson

from scripts.bench.serving.apis import APIS
from scripts.bench.serving.metrics import METRICS, OBJECTIVES
from scripts.bench.serving.workload import RECORDED
from scripts.lab.arguments import Wrong, count, pair, parser, positive, whole, within, words
from scripts.lab.errors import BenchError


def parse(description: str | None, arguments: list[str] | None = None) -> argparse.Namespace:
    """Checked; rates and times are those of the device, before the time scale. Exits with 2 and a message for what is
    wrong."""
    line = parser(description)
    for add in (_add_server, _add_workload, _add_traffic, _add_output, _add_task2):
        add(line)
    options = line.parse_args(arguments)
    key = os.environ.get("OPENAI_API_KEY")  # the bearer token, as for vLLM's client
    options.headers = (*options.headers, *([("authorization", f"Bearer {key}")] if key else []))
    options.goodput = dict(options.goodput)
    try:
        _check(options)
    except BenchError as error:
        line.error(str(error))
    return options


def _add_server(line: argparse.ArgumentParser) -> None:
    group = line.add_argument_group("server")
    which = group.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", type=Path, metavar="FILE", help="start RingServe from this file, and end it after")
    which.add_argument("--base-url", metavar="URL", help="a server that runs, for example http://127.0.0.1:8000")
    add = group.add_argument
    many: dict[str, Any] = {"action": "append", "default": []}
    add("--set", dest="overrides", **many, metavar="KEY=VALUE", help="with --config: override a key")
    add("--backend", choices=tuple(APIS), default="llm-serving", help="the API (default llm-serving)")
    add("--endpoint", metavar="PATH", help="another path than the backend's own")
    add("--model", help="default: the first that /v1/models names")
    add("--tokenizer", type=Path, metavar="PATH", help="default: the server's, by /tokenize")
    add("--header", dest="headers", type=pair, **many, metavar="NAME=VALUE", help="of every request")
    text = "the emulated device of --config runs this many times as fast; every figure is told in its own time"
    add("--time-scale", type=positive, default=1.0, metavar="K", help=text)


def _add_workload(line: argparse.ArgumentParser) -> None:
    add = line.add_argument_group("workload").add_argument
    names = (*RECORDED, "random", "custom")
    add("--dataset-name", choices=names, default="random", help="recorded lengths, or others")
    add("--dataset-path", type=Path, metavar="FILE", help="of custom prompts: JSON or JSON lines")
    add("--num-prompts", type=count, metavar="N", help="default: all there are; 1000 random ones")
    add("--random-input-len", type=count, default=1024, metavar="TOKENS", help="mean")
    add("--random-output-len", type=count, default=128, metavar="TOKENS", help="mean, or where no other")
    add("--random-range-ratio", type=within(0, 1), default=0.0, metavar="R", help="mean * (1 ± R)")
    add("--prompt-ids", action="store_true", help="send token ids instead of text (completions)")
    add("--seed", type=int, default=0, help="same seed: same prompts, same arrivals")
    add("--temperature", type=within(0), default=0.0, help="0, the default, is greedy")
    add("--ignore-eos", action="store_true", help="answers have their full length")
    add("--extra-body", type=_object, default={}, metavar="JSON", help="merged into each request's parameters")


def _add_traffic(line: argparse.ArgumentParser) -> None:
    add = line.add_argument_group("traffic").add_argument
    add("--request-rate", type=positive, default=math.inf, metavar="RPS", help="default: all at once")
    add("--burstiness", type=positive, default=1.0, help="1: Poisson; less: burstier; inf: even")
    add("--max-concurrency", type=count, metavar="N", help="requests under way at most")
    add("--num-warmups", type=whole(0), default=0, metavar="N", help="requests before, which do not count")
    add("--request-timeout", type=positive, default=3600.0, dest="request_timeout_s", metavar="SECONDS")


def _add_output(line: argparse.ArgumentParser) -> None:
    add = line.add_argument_group("output").add_argument
    metrics = words("metric", METRICS)
    add("--percentile-metrics", type=metrics, default=tuple(METRICS), metavar="NAMES", help=f"of {','.join(METRICS)}")
    add("--metric-percentiles", type=_percentiles, default=(99.0,), metavar="P,P", help="default 99")
    text = "objectives: ttft, tpot, e2el"
    add("--goodput", type=_objective, nargs="+", default=[], metavar="NAME:MS", help=text)
    add("--label", help="of this run, in the JSON")
    add("--metadata", type=pair, nargs="*", default=[], metavar="KEY=VALUE", help="into the JSON")
    add("--json", type=Path, metavar="FILE", help="the results, with vLLM's keys")
    add("--save-detailed", action="store_true", help="the JSON has every request, too")
    add("--plot", type=Path, metavar="FILE", help="a picture (PNG); needs matplotlib")
    add("--disable-tqdm", action="store_true", help="no progress bar")


def _add_task2(line: argparse.ArgumentParser) -> None:
    add = line.add_argument_group("accuracy (task 2)").add_argument
    text = "with --config: the server saves the logits of every 100th position there"
    add("--save-logits", type=Path, metavar="DIR", help=text)
    add("--base-logits", type=Path, metavar="DIR", help="compare them with those of an earlier run")


# ---- values ------------------------------------------------------------------------------------------------------


def _percentiles(text: str) -> tuple[float, ...]:
    values = tuple(float(word) for word in text.split(","))
    if not all(0 <= value <= 100 for value in values):
        raise Wrong(f"{text}: percentiles lie in [0, 100]")
    return values


def _object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Wrong(f"{text} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise Wrong(f"{text}: expected a JSON object")
    return value


def _objective(word: str) -> tuple[str, float]:
    name, _, limit = word.partition(":")
    try:
        if name in OBJECTIVES and float(limit) >= 0:
            return name, float(limit)
    except ValueError:
        pass
    raise Wrong(f"{word}: expected one of {', '.join(OBJECTIVES)}, a colon and milliseconds")


def _check(options: argparse.Namespace) -> None:
    custom = options.dataset_name == "custom"
    if custom != (options.dataset_path is not None):
        raise BenchError("--dataset-path FILE belongs to --dataset-name custom, which needs it")
    if options.base_url and (options.overrides or options.time_scale != 1.0 or options.save_logits):
        raise BenchError("--set, --time-scale and --save-logits are for a server started by --config")
    if options.base_logits and not options.save_logits:
        raise BenchError("--base-logits needs --save-logits: the directory that is compared with it")
    if options.prompt_ids and not APIS[options.backend].takes_ids:
        raise BenchError(f"--prompt-ids: {options.backend} takes text only; use --backend openai")
    if math.isinf(options.time_scale):
        raise BenchError("--time-scale must be finite")
