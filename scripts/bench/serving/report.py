"""What came of a run, as JSON with vLLM's keys and as text in vLLM's form."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.bench.serving.answers import Answer
from scripts.bench.serving.metrics import METRICS, Metrics, Summary
from scripts.bench.serving.options import Options

Told = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which it was measured."""

    device: str
    base_url: str
    model: str
    num_prompts: int
    machine: Mapping[str, Any]
    server: Mapping[str, Any]  # memory and counters, where they are known
    client: Mapping[str, Any]


def tell(options: Options, conditions: Conditions, metrics: Metrics, answers: Sequence[Answer]) -> Told:
    """As JSON has it. Keys that vLLM has mean what they mean there; times are the device's."""
    return {
        **_setup(options, conditions),
        **_totals(metrics),
        **(_detailed(answers) if options.save_detailed else {}),
        **_summaries(metrics.summaries, options.percentile_metrics),
        "score": metrics.score,
        "server": dict(conditions.server),
        "client": dict(conditions.client),
        "machine": dict(conditions.machine),
    }


def _setup(options: Options, conditions: Conditions) -> Told:
    return {
        "date": time.strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": options.backend,
        "backend": options.backend,
        "label": options.label or options.backend,
        "model_id": conditions.model,
        "tokenizer_id": str(options.tokenizer) if options.tokenizer else conditions.model,
        "num_prompts": conditions.num_prompts,
        "dataset_name": options.dataset_name,
        "seed": options.seed,
        **options.metadata,
        "request_rate": options.request_rate if options.request_rate < float("inf") else "inf",
        "burstiness": options.burstiness if options.burstiness < float("inf") else "inf",
        "max_concurrency": options.max_concurrency,
        "device": conditions.device,
        "time_scale": options.time_scale,
        "goodput_objectives_ms": dict(options.goodput),
    }


def _totals(metrics: Metrics) -> Told:
    names = (
        "duration", "completed", "failed", "total_input_tokens", "total_output_tokens", "request_throughput",
        "request_goodput", "output_throughput", "total_token_throughput", "max_output_tokens_per_s",
        "max_concurrent_requests",
    )  # fmt: skip
    return {name: getattr(metrics, name) for name in names}


def _detailed(answers: Sequence[Answer]) -> Told:
    return {
        "input_lens": [answer.prompt_tokens for answer in answers],
        "output_lens": [answer.output_tokens for answer in answers],
        "ttfts": [answer.ttft for answer in answers],
        "itls": [answer.itl for answer in answers],
        "latencies": [answer.latency for answer in answers],
        "start_times": [answer.start_time for answer in answers],
        "queue_times": [answer.queue_time for answer in answers],
        "generated_texts": [answer.text for answer in answers],
        "finish_reasons": [answer.finish_reason for answer in answers],
        "errors": [answer.error for answer in answers],
    }


def _summaries(summaries: Mapping[str, Summary], names: Sequence[str]) -> Told:
    told: Told = {}
    for name in names:
        summary = summaries[name]
        told |= {f"mean_{name}_ms": summary.mean, f"median_{name}_ms": summary.median, f"std_{name}_ms": summary.std}
        told |= {f"p{_word(p)}_{name}_ms": value for p, value in summary.percentiles.items()}
    return told


def _word(percentile: float) -> str:
    return f"{percentile:g}"


# ---- text --------------------------------------------------------------------------------------------------------


def table(options: Options, told: Told, metrics: Metrics) -> str:
    lines = [_title("Serving Benchmark Result", "="), *_conditions(told)]
    lines += [_line(name, value) for name, value in _overview(options, told) if value is not None]
    for name in options.percentile_metrics:
        lines += [_title(METRICS[name], "-"), *_summary(name.upper(), metrics.summaries[name])]
    return "\n".join([*lines, *_server(told), *_client(told), "=" * 56])


def _conditions(told: Told) -> list[str]:
    lines = [f"Device: {told['device']}"]
    if told["time_scale"] != 1.0:
        scale = f"{told['time_scale']:g}"
        lines.append(f"All times are the device's: real ones times {scale}. The host's work counts {scale}-fold.")
    return lines


def _overview(options: Options, told: Told) -> list[tuple[str, Any]]:
    rate = told["request_rate"]
    return [
        ("Successful requests:", told["completed"]),
        ("Failed requests:", told["failed"]),
        ("Maximum request concurrency:", told["max_concurrency"]),
        ("Request rate configured (RPS):", None if rate == "inf" else float(rate)),
        ("Benchmark duration (s):", told["duration"]),
        ("First start to last answer (s):", told["score"]),
        ("Total input tokens:", told["total_input_tokens"]),
        ("Total generated tokens:", told["total_output_tokens"]),
        ("Request throughput (req/s):", told["request_throughput"]),
        ("Request goodput (req/s):", told["request_goodput"] if options.goodput else None),
        ("Output token throughput (tok/s):", told["output_throughput"]),
        ("Peak output token throughput (tok/s):", told["max_output_tokens_per_s"]),
        ("Peak concurrent requests:", told["max_concurrent_requests"]),
        ("Total token throughput (tok/s):", told["total_token_throughput"]),
    ]


def _summary(name: str, summary: Summary) -> list[str]:
    lines = [(f"Mean {name} (ms):", summary.mean), (f"Median {name} (ms):", summary.median)]
    lines.append((f"Std {name} (ms):", summary.std))
    lines += [(f"P{_word(p)} {name} (ms):", value) for p, value in summary.percentiles.items()]
    return [_line(*line) for line in lines]


def _server(told: Told) -> list[str]:
    server = told["server"]
    if not server:
        return []
    shown = {
        "ready_s": "Ready after (s, real time):",
        "steps": "Steps:",
        "tokens_per_step": "Output tokens per step:",
        "preemptions": "Preemptions:",
        "pss_mib": "Memory of all processes, PSS (MiB):",
    }
    return [_title("Server", "-"), *(_line(text, server[key]) for key, text in shown.items() if key in server)]


def _client(told: Told) -> list[str]:
    client = told["client"]
    return [
        _title("The client itself, real time", "-"),
        _line("CPU per token (µs):", client["cpu_us_per_token"]),
        _line("CPU of one core (%):", client["cpu_percent"]),
        _line("Latest start after it was due (ms):", client["max_lateness_ms"]),
        *(_line("Others' CPU meanwhile, of one core (%):", share) for share in _others(told)),
    ]


def _others(told: Told) -> list[float]:
    share = told["machine"].get("others_cpu_percent")
    return [] if share is None else [share]


def _title(text: str, fill: str) -> str:
    return f" {text} ".center(56, fill)


def _line(name: str, value: float) -> str:
    return f"{name:<42}{value:<14.2f}" if isinstance(value, float) else f"{name:<42}{value:<14}"
