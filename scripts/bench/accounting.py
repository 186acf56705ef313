"""What it costs to know where a request's time and money went, over recorded tokens.

A stream's records are read, written and counted as the front does it for every token. Beside that, per request: what
the devices have done is read three times, its share is added to its key's, and, if it asked for timings, the header
and the usage are made. In turns, with and without; the difference is divided by the stream's tokens.

    python -m scripts.bench.accounting [--tokens 128] [--rounds 200] [--json FILE]
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pipeline.front.api.openai.answer import StreamOptions
from pipeline.front.api.openai.completions_answer import CompletionWriter, ShownPrompt
from pipeline.front.delivery.job import Identity, events_of
from pipeline.front.delivery.progress import Progress
from pipeline.stats import Counters, Histograms, KeyCounters, RequestHistogram, StatsPage, StatsReader, Work
from pipeline.wire.delta import Delta, FinishReason, unpack_delta
from scripts.lab.arguments import count, parser, write_json

KINDS = ("nothing", "counted", "asked")
WORDS = [" word", " another", " and", " punctuation", ",", " a", " quoted"]


@dataclass(frozen=True, slots=True)
class Client:
    """Of an exchange, what a request's progress looks at."""

    seed: str = "0" * 32
    client_id: bytes = b""
    key: str = hashlib.sha256(b"key").hexdigest()


class NoWork(StatsReader):
    """Says that nothing has been done, at no cost."""

    def work(self) -> Work:
        return _NONE


class NoKeys(KeyCounters):
    def add(self, key: str, counts: Any) -> None:
        pass


class _Uncounted(Progress):
    def _used(self) -> dict[Any, int]:
        return {}


_NONE = Work(0, 0)


def recorded(tokens: int) -> list[bytes]:
    """The records of a stream, as they come off the ring."""
    reasons = [FinishReason.NONE] * (tokens - 1) + [FinishReason.LENGTH]
    texts = (WORDS[index % len(WORDS)] for index in range(tokens))
    each = enumerate(zip(reasons, texts, strict=True), 1)
    return [Delta(1, 0, index, 1000 + index, float("nan"), reason, text).pack() for index, (reason, text) in each]


class Bench:
    def __init__(self, page: StatsPage) -> None:
        self._counters, self._times = Counters(page, "front"), Histograms(page, RequestHistogram)
        self._stats = {kind: NoWork(page) if kind == "nothing" else StatsReader(page) for kind in KINDS}
        self._keys = {kind: NoKeys(page, 0) if kind == "nothing" else KeyCounters(page, 0) for kind in KINDS}

    def stream(self, kind: str, records: Sequence[bytes]) -> int:
        """ns for a whole stream."""
        began = time.perf_counter_ns()
        stats = self._stats[kind]
        made = self._counters, self._times, stats, self._keys[kind]
        progress = (_Uncounted if kind == "nothing" else Progress)(1, cast(Any, Client()), *made)
        writer = CompletionWriter(Identity("0" * 32, 0), "m", StreamOptions(True), n=1, prompts=[ShownPrompt()])
        progress.begun = stats.work()
        write = writer.choices[0].write
        for record in records:
            for event in events_of(0, [unpack_delta(record)]):
                write(event)
            progress.on_tokens(1, time.monotonic_ns())
        if kind == "asked":
            progress.headers()
            writer.measured(progress.taken)
        writer.tail()
        progress.finish(FinishReason.LENGTH)
        return time.perf_counter_ns() - began


def measure(bench: Bench, tokens: int, rounds: int) -> dict[str, Any]:
    records, times = recorded(tokens), {kind: list[int]() for kind in KINDS}
    run: Callable[[str], int] = lambda kind: bench.stream(kind, records)  # noqa: E731
    for turn in range(rounds):
        for kind in KINDS[turn % len(KINDS) :] + KINDS[: turn % len(KINDS)]:
            times[kind].append(run(kind))
    base = statistics.median(times["nothing"])
    more = {kind: statistics.median(times[kind]) - base for kind in KINDS[1:]}
    per_token = {f"{kind}_ns_per_token": round(ns / tokens, 1) for kind, ns in more.items()}
    return {"tokens": tokens, "stream_us_per_token": round(base / tokens / 1e3, 3), **per_token}


def main() -> None:
    line = parser(__doc__)
    line.add_argument("--tokens", type=count, nargs="*", default=[16, 128, 1024], help="of a stream")
    line.add_argument("--rounds", type=count, default=300, help="streams of each kind; default 300")
    line.add_argument("--json", type=Path, metavar="FILE")
    options = line.parse_args()
    page = StatsPage.create()
    page.unlink()
    found = [measure(Bench(page), tokens, options.rounds) for tokens in options.tokens]
    print("| tokens | all that is done per token, us | counting for the key, ns | and asked for times, ns |")
    print("| ---: | ---: | ---: | ---: |")
    for each in found:
        print("| " + " | ".join(map(str, each.values())) + " |")
    write_json(options.json, {"streams": found})


if __name__ == "__main__":
    main()
