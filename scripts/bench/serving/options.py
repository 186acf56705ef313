"""The command line. Options that ``vllm bench serve`` has, too, have its names, defaults and meaning."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from scripts.bench.serving.apis import APIS
from scripts.bench.serving.metrics import METRICS, OBJECTIVES
from scripts.bench.serving.workload import RECORDED
from scripts.lab.errors import BenchError


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Checked; rates and times are those of the device, before the time scale."""

    config: Path | None
    overrides: tuple[str, ...]
    base_url: str | None
    backend: str
    endpoint: str | None
    model: str | None
    tokenizer: Path | None
    headers: tuple[tuple[str, str], ...]
    dataset_name: str
    dataset_path: Path | None
    num_prompts: int | None
    random_input_len: int
    random_output_len: int
    random_range_ratio: float
    prompt_ids: bool
    request_rate: float
    burstiness: float
    max_concurrency: int | None
    num_warmups: int
    seed: int
    temperature: float
    ignore_eos: bool
    extra_body: Mapping[str, Any]
    request_timeout_s: float
    time_scale: float
    percentile_metrics: tuple[str, ...]
    metric_percentiles: tuple[float, ...]
    goodput: Mapping[str, float]
    label: str | None
    metadata: Mapping[str, str]
    json: Path | None
    save_detailed: bool
    plot: Path | None
    disable_tqdm: bool
    save_logits: Path | None
    base_logits: Path | None


def parse(description: str | None, arguments: list[str] | None = None) -> Options:
    """Exits with 2 and a message for what is wrong."""
    parser = _parser(description)
    values = vars(parser.parse_args(arguments))
    try:
        values["extra_body"] = _object(values["extra_body"])
        values["goodput"] = _goodput(values["goodput"])
        values["metadata"] = dict(_pair("--metadata", text) for text in values["metadata"])
        values["headers"] = _headers(values.pop("header"))
        values["overrides"] = tuple(values.pop("set"))
        options = Options(**values)
        _check(options)
    except BenchError as error:
        parser.error(str(error))
    return options


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for add in (_add_server, _add_workload, _add_traffic, _add_output, _add_task2):
        add(parser)
    return parser


def _add_server(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("server")
    which = group.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", type=Path, metavar="FILE", help="start RingServe from this file, and end it after")
    which.add_argument("--base-url", metavar="URL", help="a server that runs, for example http://127.0.0.1:8000")
    group.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="with --config: override a key"
    )
    group.add_argument("--backend", choices=tuple(APIS), default="llm-serving", help="the API (default llm-serving)")
    group.add_argument("--endpoint", metavar="PATH", help="another path than the backend's own")
    group.add_argument("--model", help="default: the first that /v1/models names")
    group.add_argument("--tokenizer", type=Path, metavar="PATH", help="default: the server's, by /tokenize")
    group.add_argument("--header", action="append", default=[], metavar="NAME=VALUE", help="of every request")
    help_text = "the emulated device of --config runs this many times as fast; every figure is told in its own time"
    group.add_argument("--time-scale", type=_positive, default=1.0, metavar="K", help=help_text)


def _add_workload(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workload")
    names = (*RECORDED, "random", "custom")
    group.add_argument("--dataset-name", choices=names, default="random", help="recorded lengths, or others")
    group.add_argument("--dataset-path", type=Path, metavar="FILE", help="of custom prompts: JSON or JSON lines")
    group.add_argument("--num-prompts", type=_count, metavar="N", help="default: all there are; 1000 random ones")
    group.add_argument("--random-input-len", type=_count, default=1024, metavar="TOKENS", help="mean")
    group.add_argument(
        "--random-output-len", type=_count, default=128, metavar="TOKENS", help="mean, or where no other"
    )
    group.add_argument("--random-range-ratio", type=_ratio, default=0.0, metavar="R", help="mean * (1 ± R)")
    group.add_argument("--prompt-ids", action="store_true", help="send token ids instead of text (completions)")
    group.add_argument("--seed", type=int, default=0, help="same seed: same prompts, same arrivals")
    group.add_argument("--temperature", type=_not_negative, default=0.0, help="0, the default, is greedy")
    group.add_argument("--ignore-eos", action="store_true", help="answers have their full length")
    group.add_argument("--extra-body", default="{}", metavar="JSON", help="merged into each request's parameters")


def _add_traffic(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("traffic")
    group.add_argument("--request-rate", type=_positive, default=math.inf, metavar="RPS", help="default: all at once")
    group.add_argument("--burstiness", type=_positive, default=1.0, help="1: Poisson; less: burstier; inf: even")
    group.add_argument("--max-concurrency", type=_count, metavar="N", help="requests under way at most")
    group.add_argument("--num-warmups", type=int, default=0, metavar="N", help="requests before, which do not count")
    group.add_argument(
        "--request-timeout", type=_positive, default=3600.0, dest="request_timeout_s", metavar="SECONDS"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--percentile-metrics", type=_metrics, default=tuple(METRICS), metavar="NAMES")
    group.add_argument("--metric-percentiles", type=_percentiles, default=(99.0,), metavar="P,P", help="default 99")
    group.add_argument("--goodput", nargs="+", default=[], metavar="NAME:MS", help="objectives: ttft, tpot, e2el")
    group.add_argument("--label", help="of this run, in the JSON")
    group.add_argument("--metadata", nargs="*", default=[], metavar="KEY=VALUE", help="into the JSON")
    group.add_argument("--json", type=Path, metavar="FILE", help="the results, with vLLM's keys")
    group.add_argument("--save-detailed", action="store_true", help="the JSON has every request, too")
    group.add_argument("--plot", type=Path, metavar="FILE", help="a picture (PNG); needs matplotlib")
    group.add_argument("--disable-tqdm", action="store_true", help="no progress bar")


def _add_task2(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("accuracy (task 2)")
    text = "with --config: the server saves the logits of every 100th position there"
    group.add_argument("--save-logits", type=Path, metavar="DIR", help=text)
    group.add_argument("--base-logits", type=Path, metavar="DIR", help="compare them with those of an earlier run")


# ---- values ------------------------------------------------------------------------------------------------------


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0")
    return value


def _ratio(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1)")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return value


def _metrics(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in METRICS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(METRICS)}")
    return names


def _percentiles(text: str) -> tuple[float, ...]:
    values = tuple(float(word) for word in text.split(","))
    if not all(0 <= value <= 100 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: percentiles lie in [0, 100]")
    return values


def _object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BenchError(f"--extra-body is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise BenchError(f"--extra-body is {text}, expected a JSON object")
    return value


def _goodput(words: list[str]) -> dict[str, float]:
    objectives = {}
    for word in words:
        name, colon, limit = word.partition(":")
        try:
            objectives[name] = float(limit)
        except ValueError:
            colon = ""
        if not colon or name not in OBJECTIVES or not objectives[name] >= 0:
            raise BenchError(f"--goodput {word}: expected one of {', '.join(OBJECTIVES)}, a colon and milliseconds")
    return objectives


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or any(ord(letter) < 32 for letter in text):
        raise BenchError(f"{option} {text!r}: expected NAME=VALUE")
    return name.strip(), value.strip()


def _headers(texts: list[str]) -> tuple[tuple[str, str], ...]:
    """OPENAI_API_KEY is sent as the bearer token, as vLLM's client does."""
    headers = [_pair("--header", text) for text in texts]
    key = os.environ.get("OPENAI_API_KEY")
    return (*headers, ("authorization", f"Bearer {key}")) if key else tuple(headers)


def _check(options: Options) -> None:
    custom = options.dataset_name == "custom"
    if custom != (options.dataset_path is not None):
        raise BenchError("--dataset-path FILE belongs to --dataset-name custom, which needs it")
    if options.base_url and (options.overrides or options.time_scale != 1.0 or options.save_logits):
        raise BenchError("--set, --time-scale and --save-logits are for a server started by --config")
    if options.base_logits and not options.save_logits:
        raise BenchError("--base-logits needs --save-logits: the directory that is compared with it")
    if options.prompt_ids and not APIS[options.backend].takes_ids:
        raise BenchError(f"--prompt-ids: {options.backend} takes text only; use --backend openai")
    if options.num_warmups < 0:
        raise BenchError("--num-warmups is below 0")
    if math.isinf(options.time_scale):
        raise BenchError("--time-scale must be finite")
