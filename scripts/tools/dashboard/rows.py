"""Rows of the dashboard and their panels. Every metric in them is described in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Sequence

from scripts.tools.dashboard.panel import Panel, highest, mean, now, quantile, rate, spread

Rows = Sequence[tuple[str, Sequence[Panel]]]

_SECONDS, _PER_SECOND, _SHARE, _BYTES, _NUMBER = "s", "short", "percentunit", "bytes", "short"
_OVERHEAD, _PARTS = "host_overhead_seconds", "step_part_seconds"


def rows() -> Rows:
    return [
        ("Traffic", _traffic()),
        ("Latency", _latency()),
        ("Tokens", _tokens()),
        ("Steps and host overhead", _steps()),
        ("Rings", _rings()),
        ("KV cache", _kv_cache()),
        ("Stages", _stages()),
    ]


def _stat(title: str, unit: str, expression: str, meaning: str, alarm: float | None = None) -> Panel:
    return Panel(title, unit, [(expression, title)], meaning, kind="stat", width=4, height=4, alarm=alarm)


def _traffic() -> list[Panel]:
    return [
        _stat("Ready", _NUMBER, now("ready"), "Servers that take requests"),
        _stat("Tokens per second", _PER_SECOND, rate("generation_tokens_total"), "Written to clients"),
        _stat("Running", _NUMBER, now("num_requests_running"), "Rows of the batch in use"),
        _stat("Waiting", _NUMBER, now("num_requests_waiting"), "Requests in the queue"),
        _stat("Host overhead", _SECONDS, mean(_OVERHEAD), "Mean per step"),
        _stat("Time to first token", _SECONDS, mean("time_to_first_token_seconds"), "Mean"),
        Panel(
            "Requests by outcome", "reqps", [(rate("requests_total", "outcome"), "{{outcome}}")],
            "How requests ended, per second", width=12, stacked=True,
        ),
        Panel(
            "Requests under way", _NUMBER,
            [
                (now("num_requests_running"), "running"), (now("num_requests_waiting"), "waiting"),
                (now("requests_in_flight"), "in flight"), (now("max_rows"), "rows there are"),
            ],
            "In the batch, in the queue, and in all", width=12,
        ),
    ]  # fmt: skip


def _latency() -> list[Panel]:
    return [
        Panel(title, _SECONDS, spread(histogram), meaning)
        for title, histogram, meaning in (
            ("Time to first token", "time_to_first_token_seconds", "From the arrival of a request"),
            ("Inter-token latency", "inter_token_latency_seconds", "Between two tokens of a request"),
            ("End-to-end latency", "e2e_request_latency_seconds", "From arrival to the last token"),
            ("Queue time", "request_queue_time_seconds", "From arrival to the place in the batch"),
            ("Time per output token", "request_time_per_output_token_seconds", "Mean of each answered request"),
        )
    ] + [
        Panel(
            "Phases of a request", _SECONDS,
            [
                (mean(f"request_{phase}_time_seconds"), phase) for phase in ("queue", "prefill", "decode")
            ],
            "Means, one on top of the other", stacked=True,
        )
    ]  # fmt: skip


def _tokens() -> list[Panel]:
    return [
        Panel(
            "Tokens per second", _PER_SECOND,
            [(rate("generation_tokens_total"), "generated"), (rate("prompt_tokens_total"), "prompts")],
            "Generated: when written; prompts: when their request ends",
        ),
        Panel(
            "Tokens per step", _NUMBER, spread("iteration_tokens"), "New tokens of a step, of prompts and answers"
        ),
        Panel(
            "Tokens per request", _NUMBER,
            [
                (mean("request_prompt_tokens"), "prompt, mean"),
                (quantile(0.99, "request_prompt_tokens"), "prompt, p99"),
                (mean("request_generation_tokens"), "generated, mean"),
                (quantile(0.99, "request_generation_tokens"), "generated, p99"),
                (mean("request_params_max_tokens"), "allowed, mean"),
            ],
            "Of requests that were answered",
        ),
    ]  # fmt: skip


def _steps() -> list[Panel]:
    share = f"({mean(_OVERHEAD)}) / ({mean(_OVERHEAD)} + {mean(_PARTS, part='device')})"
    by_stage = f"{rate('host_overhead_stage_seconds_total', 'stage')} / scalar({rate(f'{_OVERHEAD}_count')})"
    return [
        Panel(
            "Host overhead per step", _SECONDS, spread(_OVERHEAD),
            "From token to token, less the device's time; steps in a row only",
        ),
        Panel(
            "Whom it is due to", _SECONDS, [(by_stage, "{{stage}}")],
            "The stage that the device waited for; per step", stacked=True,
        ),
        Panel(
            "Host overhead, all steps", _SECONDS,
            [(f"{rate(f'{_OVERHEAD}_bucket', 'le')}", "{{le}}")],
            "How many steps per second had how much of it", kind="heatmap",
        ),
        Panel(
            "Share of the host", _SHARE, [(share, "host overhead")], "Of the time from token to token", highest=1
        ),
        Panel(
            "Parts of a step", _SECONDS, [(mean(_PARTS, "part"), "{{part}}")],
            "Means; some of them overlap, see docs/metrics.md",
        ),
        Panel(
            "Steps per second", _PER_SECOND,
            [(rate("steps_total", "stage"), "{{stage}}"), (rate("greedy_steps_total"), "argmax on the device")],
            "All stages do the same steps",
        ),
    ]  # fmt: skip


def _rings() -> list[Panel]:
    return [
        Panel(
            "Occupancy", _SHARE,
            [(f"{highest('ring_used', 'ring')} / {highest('ring_capacity', 'ring')}", "{{ring}}")],
            "What is published and not yet given back", highest=1,
        ),
        Panel(
            "Slots passed per second", _PER_SECOND,
            [(rate("ring_passed_total", "ring", unit="slots"), "{{ring}}")],
            "Rings of slots: steps, logits, tokens, results",
        ),
        Panel(
            "Bytes passed per second", "Bps",
            [(rate("ring_passed_total", "ring", unit="bytes"), "{{ring}}")],
            "Rings of records: requests, replies, rows, deltas",
        ),
        Panel(
            "Wake-ups per second", _PER_SECOND,
            [(rate("ring_wakes_total", "ring, stage"), "{{stage}} wakes at {{ring}}")],
            "System calls; none while both sides are busy",
        ),
        Panel(
            "Waits and sleeps per second", _PER_SECOND,
            [
                (rate("ring_waits_total", "stage"), "{{stage}} waits"),
                (rate("ring_parks_total", "stage"), "{{stage}} sleeps"),
            ],
            "A wait spins first, and sleeps when that was not enough",
        ),
        Panel(
            "CPU time spent spinning", _SHARE, [(rate("ring_spin_seconds_total", "stage"), "{{stage}}")],
            "Of one CPU", stacked=True,
        ),
        _stat(
            "Lost wake-ups", _NUMBER, now("ring_lost_wakes_total"), "Must be 0: please report any", alarm=1
        ),
    ]  # fmt: skip


def _kv_cache() -> list[Panel]:
    hits = f"{rate('prefix_cache_hits_total')} / {rate('prefix_cache_queries_total')}"
    return [
        Panel(
            "Use", _SHARE, [(f"{now('kv_blocks_used')} / {now('kv_blocks')}", "in use")],
            "Part of the blocks that living sequences hold", highest=1,
        ),
        Panel(
            "Blocks", _NUMBER,
            [
                (now("kv_blocks_used"), "in use"), (now("kv_blocks_cached"), "can be shared"),
                (now("kv_blocks"), "there are"),
            ],
            "Blocks that can be shared may be in use or not",
        ),
        Panel(
            "Prefix cache, preemptions", _NUMBER,
            [(hits, "hit rate"), (rate("num_preemptions_total"), "preemptions per second")],
            "Prompt tokens that need not be computed; requests that lost their blocks",
        ),
    ]  # fmt: skip


def _stages() -> list[Panel]:
    return [
        Panel(
            "Restarts", _NUMBER, [(now("restarts_total", "stage"), "{{stage}}")], "Of stages that died or hung"
        ),
        Panel(
            "Requests resumed", _NUMBER, [(now("requests_resumed_total"), "resumed")],
            "They went on after a stage had died",
        ),
        Panel("CPU", _SHARE, [(rate("process_cpu_seconds_total", "stage"), "{{stage}}")], "Of one CPU"),
        Panel(
            "Resident memory", _BYTES, [(now("process_resident_memory_bytes", "stage"), "{{stage}}")],
            "What stages share is counted in each",
        ),
        Panel(
            "Longest garbage collection", _SECONDS, [(highest("gc_pause_max_seconds", "stage"), "{{stage}}")],
            "Since the stage began to serve",
        ),
        Panel("Threads", _NUMBER, [(now("process_threads", "stage"), "{{stage}}")], "Of each stage"),
    ]  # fmt: skip
