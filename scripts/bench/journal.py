"""What it costs per token to keep an answer: in the journal, from which the next front goes on, and as an event with
a number, which its client may ask for again.

Passes of the front over so many streams, a token of each, in turns: with nothing kept, with the records written to
the journal, and with the events kept, too. All of it is the front's own code; no client listens.

    python -m scripts.bench.journal [--streams 1 8 32 64] [--tokens 400] [--rounds 30] [--json FILE]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

from model.sampling import SamplingParams
from pipeline.front.delivery.kept.answer import KeptAnswer, KeptExchange
from pipeline.front.delivery.kept.answers import KeptAnswers
from pipeline.front.http.request_parser import Head
from pipeline.front.settings import FrontSettings
from pipeline.wire.delta import Delta, FinishReason, delta_head
from pipeline.wire.request import Choice, Request, Submit
from scripts.lab.arguments import count, parser, write_json
from scripts.lab.table import columns

PASSES = 16  # between two turns of the event loop, in which the front looks at what all of it takes
KINDS = ("nothing", "journal", "events")
WORDS = (" word", " another", " and", " punctuation", ",", " a", " quoted", "\n")
EVENT = (
    b'data: {"id":"cmpl-0123456789abcdef0123456789abcdef","object":"text_completion","created":1795902473,'
    b'"model":"demo","choices":[{"index":0,"text":" word","logprobs":null,"finish_reason":null}]}\n\n'
)
SETTINGS = FrontSettings(
    model_name="demo", vocab_size=32000, max_length=4096, max_prompt=4000, max_rows=64, max_queue=1024,
    kept_bytes=1 << 28,
)  # fmt: skip


def records_of(request: int, tokens: int) -> list[bytes]:
    made = (
        Delta(request, 0, index, 100 + index, float("nan"), FinishReason.NONE, WORDS[index % len(WORDS)])
        for index in range(1, tokens + 1)
    )
    return [delta.pack() for delta in made]


def answer_of(kept: KeptAnswers, number: int) -> KeptAnswer:
    """As if its request had just been sent to preprocess."""
    exchange = KeptExchange(Head("POST", "/v1/completions", b"", {}, modern=True, keep_alive=False), SETTINGS)
    exchange.content = b'{"prompt": "What is a ring buffer?", "stream": true}'
    answer = KeptAnswer(exchange, "", 60.0, kept)
    submit = Submit.of([Choice(number)], array("i", range(20)), Request(SamplingParams(), max_tokens=400))
    answer.open(b"\n\n", b"", [submit])
    return answer


async def passes(answers: Sequence[KeptAnswer], records: Sequence[list[bytes]], kind: str) -> float:
    """Nanoseconds per token. The records of a pass come in a list for each stream, as in the front."""
    tokens = [[[record] for record in each] for each in zip(*records, strict=True)]
    began = time.perf_counter_ns()
    for turn, every in enumerate(tokens):
        for (record,) in every:  # it has just been read off the ring
            delta_head(record)
        for answer, own in zip(answers, every, strict=True):
            if kind != "nothing":
                answer.note(own)
            if kind == "events":
                answer.add(EVENT)
        if not turn % PASSES:
            await asyncio.sleep(0)
    return (time.perf_counter_ns() - began) / (len(tokens) * len(answers))


def measure(streams: int, tokens: int, rounds: int) -> dict[str, float]:
    """Median nanoseconds per token of each kind beyond those of nothing."""
    took: dict[str, list[float]] = {kind: [] for kind in KINDS}
    records = [records_of(number, tokens) for number in range(1, streams + 1)]

    async def one(kind: str) -> float:
        kept = KeptAnswers(SETTINGS)
        try:
            return await passes([answer_of(kept, number + 1) for number in range(streams)], records, kind)
        finally:
            kept.close()

    for _ in range(rounds):
        for kind in KINDS:
            took[kind].append(asyncio.run(one(kind)))
    base = statistics.median(took["nothing"])
    return {kind: statistics.median(took[kind]) - base for kind in KINDS[1:]}


def main() -> int:
    given = parser(__doc__)
    given.add_argument("--streams", type=count, nargs="+", default=[1, 8, 32, 64])
    given.add_argument("--tokens", type=count, default=400)
    given.add_argument("--rounds", type=count, default=30)
    given.add_argument("--json", type=Path)
    options = given.parse_args()
    found = {streams: measure(streams, options.tokens, options.rounds) for streams in options.streams}
    rows = [[streams, *(ns / 1e3 for ns in each.values())] for streams, each in found.items()]
    print(columns(["streams", "journal, µs a token", "and events, µs a token"], rows))
    write_json(options.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
