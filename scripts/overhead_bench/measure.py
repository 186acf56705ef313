"""Rounds of all variants and batches, each beside a run of the bare device."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overhead_bench.client import StreamError, Streams, serve_client
from overhead_bench.device import MAX_LENGTH, PROMPT_ROOM, serve_bare_steps, write_configuration
from overhead_bench.servers import Server, started
from overhead_bench.variants import Variant

MAX_BATCH = 256
SETTLING = 5  # tokens after the last stream has begun that do not count
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plan:
    batches: tuple[int, ...]
    step_ms: float
    seconds: float  # of each cell
    rounds: int
    variants: tuple[Variant, ...]
    overrides: tuple[str, ...] = ()  # of RingServe's configuration, in every variant of it

    def check(self) -> None:
        """Raises ValueError for what can't be measured."""
        if not self.batches or min(self.batches) < 1 or max(self.batches) > MAX_BATCH:
            raise ValueError(f"--batches: numbers from 1 to {MAX_BATCH} expected, separated by commas")
        if self.step_ms <= 0 or self.seconds <= 0 or self.rounds < 1:
            raise ValueError("--step-ms and --seconds must be above 0, --rounds at least 1")
        if self.tokens > MAX_LENGTH - PROMPT_ROOM:
            raise ValueError(f"--seconds {self.seconds}: {self.tokens} tokens are more than fit into a sequence")

    @property
    def tokens(self) -> int:
        """Of each stream; the streams of a cell begin one after another, a step or more apart in the worst case."""
        return int(self.seconds * 1000 / self.step_ms) + max(self.batches) + SETTLING + 2


@dataclass(frozen=True, slots=True)
class Cell:
    """One round of one variant at one batch."""

    itl_ms: Float64
    bare_ms: Float64
    cpu_percent: dict[str, float]  # of one core, by stage
    parts_us: dict[str, float]  # mean per step, by part; empty for the replaced path
    texts: tuple[str, ...]


@dataclass(slots=True)
class Results:
    """Cells by (variant, batch), one per round."""

    cells: dict[tuple[str, int], list[Cell]] = field(default_factory=dict)

    def add(self, variant: str, batch: int, cell: Cell) -> None:
        self.cells.setdefault((variant, batch), []).append(cell)


class TextError(Exception):
    """Two variants gave different texts for the same prompts: one of them is wrong."""


def measure(plan: Plan, directory: Path, say: Callable[[str], None]) -> Results:
    """Raises StreamError, ServerError, TextError."""
    rows = max(plan.batches)
    file = write_configuration(directory / "server.yaml", step_ms=plan.step_ms, rows=rows, tokens=plan.tokens)
    results = Results()
    with _worker(serve_client) as client, _worker(serve_bare_steps, file) as bare:
        for number in range(plan.rounds):
            order = plan.variants if number % 2 == 0 else plan.variants[::-1]
            for variant in order:
                say(f"round {number + 1} of {plan.rounds}: {variant.name}")
                with started(variant, file, plan.batches, plan.overrides) as server:
                    for batch in plan.batches:
                        _warm_up(client, server, variant.api, batch)
                        results.add(variant.name, batch, _measure_cell(plan, variant, batch, server, client, bare))
            compare_texts(results, plan)
    return results


def _warm_up(client: Connection, server: Server, api: str, batch: int) -> None:
    _ask(client, (server.port, api, batch, 4))


def _measure_cell(
    plan: Plan, variant: Variant, batch: int, server: Server, client: Connection, bare: Connection
) -> Cell:
    """The bare device first half before, half after the streams, so that a drift of the machine is in both."""
    half = max(10, int(plan.seconds * 1000 / plan.step_ms / 4))
    before = _ask(bare, (batch, half, variant.token_ids))
    parts = server.parts() if not variant.replaced else {}
    cpu = server.cpu_s()
    streams: Streams = _ask(client, (server.port, variant.api, batch, plan.tokens))
    used = {stage: seconds - cpu[stage] for stage, seconds in server.cpu_s().items()}
    means = _mean_us(parts, server.parts()) if not variant.replaced else {}
    after = _ask(bare, (batch, half, variant.token_ids))
    wall = float(streams.times_ns.max() - streams.times_ns.min()) / 1e9
    return Cell(
        itl_ms=inter_token_ms(streams.times_ns),
        bare_ms=np.concatenate([before, after]) / 1e6,
        cpu_percent={stage: 100 * seconds / wall for stage, seconds in used.items()},
        parts_us=means,
        texts=streams.texts,
    )


def inter_token_ms(times_ns: NDArray[np.int64]) -> Float64:
    """Of the time in which all streams run, `[streams, tokens]` in."""
    begin = times_ns[:, SETTLING].max()
    end = times_ns[:, -1].min()
    gaps = np.diff(times_ns, axis=1)
    inside = (times_ns[:, :-1] >= begin) & (times_ns[:, 1:] <= end)
    chosen: Float64 = gaps[inside] / 1e6
    if not chosen.size:
        raise StreamError("the streams did not overlap: --seconds is too short for this batch")
    return chosen


def _mean_us(before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]) -> dict[str, float]:
    means = {}
    for part, (total, count) in after.items():
        steps = count - before[part][1]
        means[part] = 1e6 * (total - before[part][0]) / steps if steps else 0.0
    return means


def compare_texts(results: Results, plan: Plan) -> None:
    for batch in plan.batches:
        greedy = {variant.name for variant in plan.variants if variant.greedy}
        cells_of = {name: cells for (name, of), cells in results.cells.items() if of == batch and name in greedy}
        texts = {name: cells[-1].texts for name, cells in cells_of.items()}
        if not texts:
            continue
        reference = next(iter(texts))
        for name, text in texts.items():
            if text != texts[reference]:
                raise TextError(f"{name} and {reference} gave different texts at batch {batch}")


@contextmanager
def _worker(target: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """A process that answers what is sent to it, until the pipe is closed."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=target, args=(*arguments, there))
    process.start()
    there.close()
    try:
        here.recv()
        yield here
    finally:
        here.close()
        process.join(5)
        if process.is_alive():
            process.terminate()
            process.join()


def _ask(worker: Connection, question: object) -> Any:
    worker.send(question)
    answer = worker.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer
