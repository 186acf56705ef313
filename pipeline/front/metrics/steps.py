"""Steps, the parts of their time, and the host overhead between two of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from prometheus_client.core import Metric

from pipeline.front.metrics.families import Labelled, Labels, counter, gauge, histogram
from pipeline.stats import STAGE_COUNTERS, HistogramSnapshot, RequestHistogram, StatsReader, StepHistogram
from pipeline.wire.request import MANY_DRAFTS
from pipeline.wire.topology import BEHIND_FRONT, FRONT, INFERENCE, SAMPLING, Role

_PARTS = [part for part in StepHistogram if part not in (StepHistogram.OVERHEAD, StepHistogram.TOKENS)]
_IDLE_NS = 60 * 10**9
_WAITS = (("draw", "waited_for_draw"), ("edit", "waited_for_edit"), ("drafts", "waited_for_drafts"))
_DRAWS = (("known", "drawn"), ("unknown", "not_drawn"))


def step_metrics(stats: StatsReader) -> Iterator[Metric]:
    topology = stats.topology
    replicas = [{"replica": str(replica)} for replica in range(topology.replicas)]

    def each(role: Role, key: str) -> Labelled:
        """Of one stage per replica: every rank does the same steps."""
        for i, replica in enumerate(replicas):
            yield replica, stats.counters(STAGE_COUNTERS[role.name], topology.find(role, i).key)[key]

    def observed(which: StepHistogram, **labels: str) -> Iterator[tuple[Labels, HistogramSnapshot]]:
        return (({**replica, **labels}, stats.histogram(which, i)) for i, replica in enumerate(replicas))

    yield counter("steps", "Steps done, by stage", _steps(stats))
    greedy = each(INFERENCE, "greedy_steps")
    known = "Steps whose tokens inference knows: each is the argmax taken on the device, or drawn from its candidates"
    yield counter("greedy_steps", known, greedy)
    draws = (
        ({**labels, "result": result}, count) for result, key in _DRAWS for labels, count in each(INFERENCE, key)
    )
    yield counter(
        "candidate_draws",
        "Tokens of steps in which rows draw from the device's candidates; unknown: these did not tell, and sampling "
        "drew from all logits",
        draws,
    )
    waited = (
        ({**labels, "reason": reason}, count) for reason, key in _WAITS for labels, count in each(INFERENCE, key)
    )
    yield counter(
        "waited_steps",
        "Steps that waited until sampling had chosen the tokens of the step before, and why: a token is drawn at a "
        "temperature, its logits are edited by a penalty, a bias or a ban, or there may be drafts. A step may count "
        "for several",
        waited,
    )
    yield gauge("buckets", "Sizes of steps that are compiled for, in total", each(INFERENCE, "buckets"))
    compiled = "Of them, those that are compiled; steps are padded to these"
    yield gauge("buckets_compiled", compiled, each(INFERENCE, "compiled"))
    padded = "Steps padded to a larger size, because the one that they fit into is not compiled yet, or can't be"
    yield counter("uncompiled_steps", padded, each(INFERENCE, "uncompiled_steps"))
    yield gauge(
        "device_idle_share",
        "Share of the time between two tokens in which the device stood still, 0 to 1, over the steps of the last "
        "minute that followed one another",
        _idle(stats, replicas),
    )
    yield counter("sampled_tokens", "Tokens published by sampling", each(SAMPLING, "tokens"))
    yield counter(
        "scored_tokens", "Tokens of prompts whose log-probability was computed", each(SAMPLING, "scored_tokens")
    )
    yield counter("failed_rows", "Rows that failed because their logits gave no token", each(SAMPLING, "failed_rows"))
    yield from _drafts(each)
    yield from _grammars(each)
    tokens = observed(StepHistogram.TOKENS)
    yield histogram("iteration_tokens", "New tokens per step, of prompts and answers", tokens)
    yield histogram(
        "host_overhead_seconds",
        "Host overhead per step: the time between two tokens less the device's. Consecutive steps only, without idle "
        "times",
        observed(StepHistogram.OVERHEAD),
    )
    yield counter(
        "host_overhead_stage_seconds",
        "Host overhead by the stage that the device waited for; the time of a handover counts as the receiver's",
        (
            ({"stage": role.name, **replica}, ns / 1e9)
            for role in BEHIND_FRONT
            for replica, ns in each(SAMPLING, f"overhead_{role.name}_ns")
        ),
    )
    parts = [one for part in _PARTS for one in observed(part, part=part.name.lower())]
    yield histogram(
        "step_part_seconds",
        "Parts of a step's time; `front`: from reading tokens off the ring to writing them to the socket",
        [*parts, ({"part": FRONT.name}, stats.histogram(RequestHistogram.FRONT))],
    )


def _idle(stats: StatsReader, replicas: list[dict[str, str]]) -> Iterator[tuple[Labels, float]]:
    """The mean, and what 99 % of the steps are below."""
    since = time.monotonic_ns() - _IDLE_NS
    for i, replica in enumerate(replicas):
        shares = stats.idle_shares(since, i)
        yield {**replica, "steps": "mean"}, float(shares.mean()) if len(shares) else 0.0
        yield {**replica, "steps": "p99"}, float(np.quantile(shares, 0.99)) if len(shares) else 0.0


def _drafts(each: Callable[[Role, str], Labelled]) -> Iterator[Metric]:
    yield counter("draft_tokens", "Tokens that were guessed, and verified in a step", each(SAMPLING, "drafted"))
    accepted = (
        ({**labels, "position": str(position)}, count)
        for position in range(1, MANY_DRAFTS + 1)
        for labels, count in each(SAMPLING, f"accepted_{position}")
        if position == 1 or count
    )
    yield counter(
        "accepted_draft_tokens", "Guesses that were right, by their position behind the row's newest token", accepted
    )
    yield counter(
        "row_steps",
        "Rows that a step sampled: tokens per step of a row are sampled_tokens by these",
        each(SAMPLING, "rows"),
    )


def _grammars(each: Callable[[Role, str], Labelled]) -> Iterator[Metric]:
    def seconds(key: str) -> Labelled:
        return ((labels, ns / 1e9) for labels, ns in each(SAMPLING, key))

    compiled = "Grammars made ready for a row, compiled anew or not"
    yield counter("grammar_compiles", compiled, each(SAMPLING, "compiles"))
    yield counter("grammar_compile_seconds", "Time for that, in a thread", seconds("compile_ns"))
    yield counter("grammar_masks", "Masks of rows with a grammar", each(SAMPLING, "masks"))
    masks = "Time for masks, while the device computes the next step"
    yield counter("grammar_mask_seconds", masks, seconds("mask_ns"))
    late = "Tokens that came a step later, because their row's mask was not there: the row sat out the step"
    yield counter("grammar_late_tokens", late, each(SAMPLING, "sat_out"))


def _steps(stats: StatsReader) -> Labelled:
    for stage in stats.topology.stages:
        if not stage.is_front:
            steps = stats.counters(STAGE_COUNTERS[stage.name], stage.key)["steps"]
            yield stats.topology.labels(stage), steps
