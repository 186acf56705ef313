"""Rows of the dashboard and their panels. Every metric in them is described in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Sequence

from scripts.tools.dashboard.panel import Panel, each, highest, mean, now, quantile, rate, spread

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
    outcomes = each(rate, "requests_total", "outcome")
    under_way = [
        (now("num_requests_running"), "running"),
        (now("num_requests_waiting"), "waiting"),
        (now("requests_in_flight"), "in flight"),
        (now("max_rows"), "rows there are"),
    ]
    return [
        _stat("Ready", _NUMBER, now("ready"), "Servers that take requests"),
        _stat("Tokens per second", _PER_SECOND, rate("generation_tokens_total"), "Written to clients"),
        _stat("Running", _NUMBER, now("num_requests_running"), "Rows of the batch in use"),
        _stat("Waiting", _NUMBER, now("num_requests_waiting"), "Requests in the queue"),
        _stat("Host overhead", _SECONDS, mean(_OVERHEAD), "Mean per step"),
        _stat("Time to first token", _SECONDS, mean("time_to_first_token_seconds"), "Mean"),
        Panel("Requests by outcome", "reqps", outcomes, "How requests ended, per second", width=12, stacked=True),
        Panel("Requests under way", _NUMBER, under_way, "In the batch, in the queue, and in all", width=12),
    ]


def _latency() -> list[Panel]:
    phases = [(mean(f"request_{phase}_time_seconds"), phase) for phase in ("queue", "prefill", "decode")]
    histograms = (
        ("Time to first token", "time_to_first_token_seconds", "From the arrival of a request"),
        ("Inter-token latency", "inter_token_latency_seconds", "Between two tokens of a request"),
        ("End-to-end latency", "e2e_request_latency_seconds", "From arrival to the last token"),
        ("Queue time", "request_queue_time_seconds", "From arrival to the place in the batch"),
        ("Time per output token", "request_time_per_output_token_seconds", "Mean of each answered request"),
    )
    return [
        *(Panel(title, _SECONDS, spread(histogram), meaning) for title, histogram, meaning in histograms),
        Panel("Phases of a request", _SECONDS, phases, "Means, one on top of the other", stacked=True),
    ]


def _tokens() -> list[Panel]:
    per_second = [(rate("generation_tokens_total"), "generated"), (rate("prompt_tokens_total"), "prompts")]
    per_request = [
        (mean("request_prompt_tokens"), "prompt, mean"),
        (quantile(0.99, "request_prompt_tokens"), "prompt, p99"),
        (mean("request_generation_tokens"), "generated, mean"),
        (quantile(0.99, "request_generation_tokens"), "generated, p99"),
        (mean("request_params_max_tokens"), "allowed, mean"),
    ]
    when, new = (
        "Generated: when written; prompts: when their request ends",
        "New tokens of a step, of prompts and answers",
    )
    return [
        Panel("Tokens per second", _PER_SECOND, per_second, when),
        Panel("Tokens per step", _NUMBER, spread("iteration_tokens"), new),
        Panel("Tokens per request", _NUMBER, per_request, "Of requests that were answered"),
        Panel(
            "Tokens by API key", _PER_SECOND, each(rate, "key_generated_tokens_total", "key"), "Generated, per second"
        ),
        Panel(
            "Devices by API key",
            _SHARE,
            each(rate, "key_device_seconds_total", "key"),
            "Device-seconds per second",
            stacked=True,
        ),
    ]


def _steps() -> list[Panel]:
    share = f"({mean(_OVERHEAD)}) / ({mean(_OVERHEAD)} + {mean(_PARTS, part='device')})"
    by_stage = f"{rate('host_overhead_stage_seconds_total', 'stage')} / scalar({rate(f'{_OVERHEAD}_count')})"
    idle = [(share, "host overhead"), (highest("device_idle_share", "steps"), "device idle, {{steps}} of a minute")]
    steps = [
        *each(rate, "steps_total", "stage"),
        (rate("greedy_steps_total"), "argmax on the device"),
        (rate("uncompiled_steps_total"), "padded: their size is not compiled"),
    ]
    return [
        Panel("Host overhead per step", _SECONDS, spread(_OVERHEAD),
              "From token to token, less the device's time; steps in a row only"),
        Panel("Whom it is due to", _SECONDS, [(by_stage, "{{stage}}")],
              "The stage that the device waited for; per step", stacked=True),
        Panel("Host overhead, all steps", _SECONDS, each(rate, f"{_OVERHEAD}_bucket", "le"),
              "How many steps per second had how much of it", kind="heatmap"),
        Panel("Share of the host", _SHARE, idle, "Of the time from token to token", highest=1),
        Panel("Parts of a step", _SECONDS, each(mean, _PARTS, "part"),
              "Means; some of them overlap, see docs/metrics.md"),
        Panel("Steps per second", _PER_SECOND, steps, "All stages do the same steps"),
    ]  # fmt: skip


def _rings() -> list[Panel]:
    occupancy = f"{highest('ring_used', 'ring')} / {highest('ring_capacity', 'ring')}"
    wakes = [(rate("ring_wakes_total", "ring, stage"), "{{stage}} wakes at {{ring}}")]
    sleeps = [
        (rate("ring_waits_total", "stage"), "{{stage}} waits"),
        (rate("ring_parks_total", "stage"), "{{stage}} sleeps"),
    ]
    return [
        Panel("Occupancy", _SHARE, [(occupancy, "{{ring}}")], "What is published and not yet given back", highest=1),
        Panel("Slots passed per second", _PER_SECOND, each(rate, "ring_passed_total", "ring", unit="slots"),
              "Rings of slots: steps, logits, tokens, results"),
        Panel("Bytes passed per second", "Bps", each(rate, "ring_passed_total", "ring", unit="bytes"),
              "Rings of records: requests, replies, rows, deltas"),
        Panel("Wake-ups per second", _PER_SECOND, wakes, "System calls; none while both sides are busy"),
        Panel("Waits and sleeps per second", _PER_SECOND, sleeps,
              "A wait spins first, and sleeps when that was not enough"),
        Panel("CPU time spent spinning", _SHARE, each(rate, "ring_spin_seconds_total", "stage"), "Of one CPU",
              stacked=True),
        _stat("Lost wake-ups", _NUMBER, now("ring_lost_wakes_total"), "Must be 0: please report any", alarm=1),
    ]  # fmt: skip


def _kv_cache() -> list[Panel]:
    use = [(f"{now('kv_blocks_used')} / {now('kv_blocks')}", "in use")]
    blocks = [
        (now("kv_blocks_used"), "in use"),
        (now("kv_blocks_cached"), "can be shared"),
        (now("kv_blocks"), "there are"),
    ]
    prefixes = [
        (f"{rate('prefix_cache_hits_total')} / {rate('prefix_cache_queries_total')}", "hit rate"),
        (rate("num_preemptions_total"), "preemptions per second"),
    ]
    return [
        Panel("Use", _SHARE, use, "Part of the blocks that living sequences hold", highest=1),
        Panel("Blocks", _NUMBER, blocks, "Blocks that can be shared may be in use or not"),
        Panel("Prefix cache, preemptions", _NUMBER, prefixes,
              "Prompt tokens that need not be computed; requests that lost their blocks"),
    ]  # fmt: skip


def _stages() -> list[Panel]:
    resumed = [(now("requests_resumed_total"), "resumed")]
    return [
        Panel("Restarts", _NUMBER, each(now, "restarts_total", "stage"), "Of stages that died or hung"),
        Panel("Requests resumed", _NUMBER, resumed, "They went on after a stage had died"),
        Panel("CPU", _SHARE, each(rate, "process_cpu_seconds_total", "stage"), "Of one CPU"),
        Panel("Resident memory", _BYTES, each(now, "process_resident_memory_bytes", "stage"),
              "What stages share is counted in each"),
        Panel("Longest garbage collection", _SECONDS, each(highest, "gc_pause_max_seconds", "stage"),
              "Since the stage began to serve"),
        Panel("Threads", _NUMBER, each(now, "process_threads", "stage"), "Of each stage"),
    ]  # fmt: skip
