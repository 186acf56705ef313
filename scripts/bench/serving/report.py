"""What came of a run: JSON with vLLM's keys, text in vLLM's form, and a picture."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.bench.serving.apis import Answer
from scripts.bench.serving.metrics import METRICS, Metrics, distributions, token_times_s, under_way
from scripts.bench.serving.servers import Target
from scripts.lab.plot import BLUE, ORANGE, picture

Told = dict[str, Any]

_DETAILS = {
    "input_lens": "prompt_tokens",
    "output_lens": "output_tokens",
    "ttfts": "ttft",
    "itls": "itl",
    "latencies": "latency",
    "start_times": "start_time",
    "queue_times": "queue_time",
    "generated_texts": "text",
    "finish_reasons": "finish_reason",
    "errors": "error",
}


def tell(options: argparse.Namespace, server: Target, metrics: Metrics, answers: Sequence[Answer]) -> Told:
    """As JSON has it. Keys that vLLM has mean what they mean there; times are the device's."""
    totals = {name: getattr(metrics, name) for name in metrics.__slots__ if name not in ("score", "summaries")}
    detailed = {key: [getattr(answer, name) for answer in answers] for key, name in _DETAILS.items()}
    return {
        **_setup(options, server, len(answers)),
        **totals,
        **(detailed if options.save_detailed else {}),
        **_summaries(metrics, options.percentile_metrics),
        "score": metrics.score,
    }


def _setup(options: argparse.Namespace, server: Target, num_prompts: int) -> Told:
    rates = {name: getattr(options, name) for name in ("request_rate", "burstiness")}
    return {
        "date": time.strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": options.backend,
        "backend": options.backend,
        "label": options.label or options.backend,
        "model_id": server.model,
        "tokenizer_id": str(options.tokenizer) if options.tokenizer else server.model,
        "num_prompts": num_prompts,
        "dataset_name": options.dataset_name,
        "seed": options.seed,
        **dict(options.metadata),
        **{name: rate if math.isfinite(rate) else "inf" for name, rate in rates.items()},
        "max_concurrency": options.max_concurrency,
        "device": server.device,
        "time_scale": options.time_scale,
        "goodput_objectives_ms": options.goodput,
    }


def _summaries(metrics: Metrics, names: Sequence[str]) -> Told:
    told: Told = {}
    for name in names:
        summary = metrics.summaries[name]
        told |= {f"mean_{name}_ms": summary.mean, f"median_{name}_ms": summary.median, f"std_{name}_ms": summary.std}
        told |= {f"p{percentile:g}_{name}_ms": value for percentile, value in summary.percentiles.items()}
    return told


# ---- text --------------------------------------------------------------------------------------------------------


def table(options: argparse.Namespace, told: Told) -> str:
    lines = [_title("Serving Benchmark Result", "="), *_conditions(told), *_shown(told, _overview(options))]
    parts = ["mean", "median", "std", *(f"p{percentile:g}" for percentile in options.metric_percentiles)]
    for name in options.percentile_metrics:
        names = {f"{part}_{name}_ms": f"{part.title()} {name.upper()} (ms):" for part in parts}
        lines += [_title(METRICS[name], "-"), *_shown(told, names)]
    if told["server"]:
        lines += [_title("Server", "-"), *_shown(told["server"], _SERVER)]
    lines += [_title("The client itself, real time", "-"), *_shown(told["client"], _CLIENT)]
    lines += _shown(told["machine"], {"others_cpu_percent": "Others' CPU meanwhile, of one core (%):"})
    return "\n".join([*lines, "=" * 56])


def _conditions(told: Told) -> list[str]:
    lines = [f"Device: {told['device']}"]
    if told["time_scale"] != 1.0:
        scale = f"{told['time_scale']:g}"
        lines.append(f"All times are the device's: real ones times {scale}. The host's work counts {scale}-fold.")
    return lines


def _overview(options: argparse.Namespace) -> dict[str, str]:
    rate = {"request_rate": "Request rate configured (RPS):"} if math.isfinite(options.request_rate) else {}
    goodput = {"request_goodput": "Request goodput (req/s):"} if options.goodput else {}
    return {
        "completed": "Successful requests:",
        "failed": "Failed requests:",
        "max_concurrency": "Maximum request concurrency:",
        **rate,
        "duration": "Benchmark duration (s):",
        "score": "First start to last answer (s):",
        "total_input_tokens": "Total input tokens:",
        "total_output_tokens": "Total generated tokens:",
        "request_throughput": "Request throughput (req/s):",
        **goodput,
        "output_throughput": "Output token throughput (tok/s):",
        "max_output_tokens_per_s": "Peak output token throughput (tok/s):",
        "max_concurrent_requests": "Peak concurrent requests:",
        "total_token_throughput": "Total token throughput (tok/s):",
    }


_SERVER = {
    "ready_s": "Ready after (s, real time):",
    "steps": "Steps:",
    "tokens_per_step": "Output tokens per step:",
    "preemptions": "Preemptions:",
    "pss_mib": "Memory of all processes, PSS (MiB):",
}
_CLIENT = {
    "cpu_us_per_token": "CPU per token (µs):",
    "cpu_percent": "CPU of one core (%):",
    "max_lateness_ms": "Latest start after it was due (ms):",
}


def _title(text: str, fill: str) -> str:
    return f" {text} ".center(56, fill)


def _shown(told: Told, names: dict[str, str]) -> Iterable[str]:
    """What is there and known."""
    for key, name in names.items():
        if (value := told.get(key)) is not None:
            yield f"{name:<42}{value:<14.2f}" if isinstance(value, float) else f"{name:<42}{value:<14}"


# ---- the picture: how latencies are distributed, and what happened over time --------------------------------------


def plot(told: Told, answers: Sequence[Answer], path: Path) -> None:
    """Raises BenchError where matplotlib is missing, or the file can't be written."""
    good = [answer for answer in answers if answer.success]
    with picture(path, 2, 3, (13, 7)) as (figure, axes):
        for axis, (name, values) in zip(axes.flat, distributions(good).items(), strict=False):
            _draw_distribution(axis, name, values)
        counts, edges = np.histogram(np.concatenate([[0.0], token_times_s(good)]), bins=60)
        _draw_steps(axes[1, 1], "output tokens per second", edges[:-1], counts / np.diff(edges))
        _draw_steps(axes[1, 2], "requests under way", *under_way(good))
        figure.suptitle(_caption(told), fontsize=11)
        figure.tight_layout(rect=(0, 0, 1, 0.97))


def _caption(told: Told) -> str:
    rate = f"{told['request_rate']} requests/s" if told["request_rate"] != "inf" else "all at once"
    limit = f", at most {told['max_concurrency']} under way" if told["max_concurrency"] else ""
    scale = f"; times are the device's, real ones times {told['time_scale']:g}" if told["time_scale"] != 1 else ""
    return f"{told['dataset_name']}: {told['num_prompts']} requests, {rate}{limit}\n{told['device']}{scale}"


def _draw_distribution(axis: Any, name: str, seconds: list[float]) -> None:
    """Which part of the values is at most so long."""
    ms = np.sort(np.asarray(seconds or [0.0])) * 1000
    axis.plot(ms, np.arange(1, ms.size + 1) / ms.size, color=BLUE)
    for percentile in (50, 99):
        value = float(np.percentile(ms, percentile))
        axis.axvline(value, color=ORANGE, linewidth=0.8)
        axis.text(value, percentile / 100 - 0.06, f" p{percentile} {value:,.1f}", fontsize=8)
    axis.set_title(f"{name.upper()}: {METRICS[name]}", fontsize=9)
    axis.set_xlabel("ms", fontsize=8)
    axis.set_ylim(0, 1.02)


def _draw_steps(axis: Any, name: str, seconds: Any, values: Any) -> None:
    axis.step(seconds, values, where="post", color=BLUE)
    axis.set_title(name, fontsize=9)
    axis.set_xlabel("s", fontsize=8)
