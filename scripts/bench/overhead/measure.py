"""Cells: so many streams of a server, beside a run of the bare device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.bench.overhead.client import Question, Streams, serve_client
from scripts.bench.overhead.device import PROMPT_ROOM, Device, serve_bare_steps
from scripts.bench.overhead.servers import Server, Variant, started
from scripts.lab.arguments import Say
from scripts.lab.errors import BenchError
from scripts.lab.workers import ask, worker

SETTLING = 5  # tokens after the last stream has begun that do not count
_BARE_STEPS = 20  # of which the length of a cell is reckoned
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plan:
    """Every variant at every batch, in rounds that alternate."""

    device: Device
    batches: tuple[int, ...]
    seconds: float  # of each cell
    rounds: int
    variants: tuple[Variant, ...]
    overrides: tuple[str, ...] = ()  # of RingServe's configuration, in every variant of it
    prompt_tokens: int | None = None

    def tokens(self, step_ms: float) -> int:
        """Of each stream; the streams of a cell begin one after another, a step or more apart in the worst case.
        Raises ValueError where so many do not fit into a sequence."""
        tokens = int(self.seconds * 1000 / step_ms) + max(self.batches) + SETTLING + 2
        room = self.device.max_length - max(PROMPT_ROOM, self.prompt_tokens or 0)
        if self.device.step_ms is None:
            tokens, room = min(tokens, room // 2), room // 2
        if tokens > room:
            raise ValueError(f"--seconds {self.seconds}: {tokens} tokens are more than the {room} of a sequence")
        return tokens


@dataclass(frozen=True, slots=True)
class Cell:
    """One round of one variant at one batch."""

    itl_ms: Float64
    bare_ms: Float64
    cpu_percent: dict[str, float]  # of one core, by stage
    cpu_us: dict[str, float]  # per token, by stage
    parts: dict[str, Part]  # of a step; empty for the replaced path
    residual_us: float | None  # time between tokens that the stamps of the same time do not explain, mean
    texts: tuple[str, ...]


Results = dict[tuple[str, int], list[Cell]]
"""By variant and batch, one cell per round."""


def measure(plan: Plan, directory: Path, say: Say) -> Results:
    """Raises BenchError, ValueError."""
    rows = max(plan.batches)
    file = plan.device.write(directory / "server.yaml", rows)
    results: Results = defaultdict(list)
    with worker(serve_client) as client, worker(serve_bare_steps, file) as bare:
        for number in range(plan.rounds):
            for variants in _by_server(plan.variants if number % 2 == 0 else plan.variants[::-1]):
                with started(variants[0], file, plan.batches, plan.overrides) as server:
                    for variant in variants:
                        say(f"{plan.device.name}: round {number + 1} of {plan.rounds}: {variant.name}")
                        for batch in plan.batches:
                            cell = run_cell(plan, variant, server, client, bare, batch)
                            results[variant.name, batch].append(cell)
            greedy = [variant.name for variant in plan.variants if variant.greedy]
            for batch in plan.batches:
                compare_texts({name: results[name, batch][-1].texts for name in greedy}, batch)
    return results


def _by_server(variants: Sequence[Variant]) -> list[list[Variant]]:
    """Those that differ only in what clients ask for share one, in their order."""
    found: dict[tuple[bool, tuple[str, ...]], list[Variant]] = {}
    for variant in variants:
        found.setdefault((variant.replaced, variant.overrides), []).append(variant)
    return list(found.values())


def run_cell(plan: Plan, variant: Variant, server: Server, client: Connection, bare: Connection, batch: int) -> Cell:
    """The bare device half before, half after the streams, so that a drift of the machine is in both."""
    ask(client, Question(server.port, variant.api, batch, 4))  # warms everybody up
    before: NDArray[np.int64] = ask(bare, (batch, _BARE_STEPS, variant.token_ids))
    step_ms = float(np.median(before)) / 1e6
    half = max(0, int(plan.seconds * 1000 / step_ms / 6) - _BARE_STEPS)
    if half:
        before = np.concatenate([before, ask(bare, (batch, half, variant.token_ids))])
    tokens, cpu = plan.tokens(step_ms), server.cpu_s()
    with server.traced(0.9 * plan.seconds) as events:
        streams: Streams = ask(client, Question(server.port, variant.api, batch, tokens, plan.prompt_tokens))
    used = {stage: seconds - cpu[stage] for stage, seconds in server.cpu_s().items()}
    stamps = read_stamps(events, batch)
    after = ask(bare, (batch, len(before), variant.token_ids))
    wall = float(streams.times_ns.max() - streams.times_ns.min()) / 1e9
    return Cell(
        itl_ms=inter_token_ms(streams.times_ns),
        bare_ms=np.concatenate([before, after]) / 1e6,
        cpu_percent={stage: 100 * seconds / wall for stage, seconds in used.items()},
        cpu_us={stage: 1e6 * seconds / (batch * tokens) for stage, seconds in used.items()},
        parts=stamps.parts if stamps else {},
        residual_us=_residual_us(streams.times_ns, stamps) if stamps else None,
        texts=streams.texts,
    )


def _residual_us(times_ns: NDArray[np.int64], stamps: Stamps) -> float:
    """The mean time between two tokens at the client, less the mean parts of the same time."""
    seen = [row[(row >= stamps.begin_ns) & (row <= stamps.end_ns)] for row in times_ns]
    gaps = np.concatenate([np.diff(row) for row in seen])
    return float(gaps.mean()) / 1e3 - sum(stamps.parts[name].mean_us for name in BETWEEN)


def inter_token_ms(times_ns: NDArray[np.int64]) -> Float64:
    """Of the time in which all streams run, `[streams, tokens]` in."""
    begin = times_ns[:, SETTLING].max()
    end = times_ns[:, -1].min()
    gaps = np.diff(times_ns, axis=1)
    inside = (times_ns[:, :-1] >= begin) & (times_ns[:, 1:] <= end)
    chosen: Float64 = gaps[inside] / 1e6
    if not chosen.size:
        raise BenchError("the streams did not overlap: --seconds is too short for this batch")
    return chosen


def compare_texts(texts: dict[str, Sequence[str]], batch: int) -> None:
    """All variants were asked for the same; one whose cell was longer said more. Raises BenchError."""
    for name, text in texts.items():
        reference = next(iter(texts))
        pairs = zip(text, texts[reference], strict=True)
        if not all(mine.startswith(theirs) or theirs.startswith(mine) for mine, theirs in pairs):
            raise BenchError(f"{name} and {reference} gave different texts at batch {batch}")


# ---- where the time of a step goes: from the time stamps in its descriptor, by way of `/debug/trace` --------------


Step = dict[str, tuple[float, float]]
"""Begin and duration in µs, by name."""

BETWEEN = ("wait", "launch", "device")
"""What lies between two tokens; the sum of the means is the mean time between two tokens."""
AFTERWARDS = ("publish", "sample", "detokenize and send", "schedule")
"""What happens meanwhile: tokens on their way out, and the next step's planning."""


@dataclass(frozen=True, slots=True)
class Part:
    """Microseconds."""

    mean_us: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class Stamps:
    """From one token to the next, the parts follow one another without a gap: the step before is computed → *wait* →
    its descriptor is taken → *launch* → the device is started → *device* → it is computed. The rest happens while the
    device computes, and a token passes through it once on its way to the client."""

    parts: dict[str, Part]
    begin_ns: int  # of the time that the parts are from; the client's clock is the same one
    end_ns: int


def read_stamps(events: list[dict[str, Any]], batch: int) -> Stamps | None:
    """Of pure decode steps of `batch` rows that follow such a step. None if there are none."""
    steps: dict[int, Step] = {}
    for event in events:
        args = event.get("args", {})
        if args.get("decode_rows") == args.get("tokens") == batch:
            steps.setdefault(args["step"], {})[event["name"]] = event["ts"], event["dur"]
    steps = {number: step for number, step in steps.items() if step.keys() >= {"launch", "device"}}
    pairs = [(steps[number - 1], step) for number, step in steps.items() if number - 1 in steps]
    if not pairs:
        return None
    times = {name: [step[name][1] for _, step in pairs if name in step] for name in (*BETWEEN[1:], *AFTERWARDS)}
    times["wait"] = [step["launch"][0] - sum(before["device"]) for before, step in pairs]
    # From the tokens to the start of the next step, where inference had to wait for them
    times["feedback"] = [
        max(0.0, sum(step["launch"]) - sum(before["sample"])) for before, step in pairs if "sample" in before
    ]
    parts = {}
    for name, values in times.items():
        if values:
            parts[name] = Part(*np.round([np.mean(values), *np.percentile(values, [50, 99])], 2).tolist())
    begin_us, end_us = (
        min(sum(before["device"]) for before, _ in pairs),
        max(sum(step["device"]) for _, step in pairs),
    )
    return Stamps(parts, int(1e3 * begin_us), int(1e3 * end_us))
