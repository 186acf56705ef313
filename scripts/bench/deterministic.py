"""What deterministic requests cost: the same load in turns, ordinary and deterministic, on one server.

    python -m scripts.bench.deterministic [--model DIR_OR_CONFIG] [--rows 1,4,16] [--tokens 64] [--prompt 512]
        [--rounds 5] [--set KEY=VALUE]... [--json FILE]

Measured are tokens per second of each of so many streams together, and the time of a prompt alone; and what ordinary
streams still have while one beside them is deterministic. Medians of rounds, and their ratios to ordinary ones of the
same round. Without a model: the demo model, on the engine mindspore. The prefix cache is off; all buckets are
compiled first.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from model.demo import DEMO_DIR
from scripts.lab.arguments import count, counts, parser, say, write_json
from scripts.lab.errors import BenchError
from scripts.lab.http import Client, post_json
from scripts.lab.machine import describe_machine
from scripts.lab.server import WARM, launched
from scripts.lab.table import markdown

_SHORT = 8  # tokens of a prompt where decoding is measured
_IDS = range(20, 1000)  # that prompts are made of
_MOST_ROWS = 16

ORDINARY, DETERMINISTIC, BESIDE = "ordinary", "deterministic", "ordinary, beside one"
Figures = dict[str, list[float]]  # of each round, by what was measured


def main() -> int:
    line = parser(__doc__)
    line.add_argument("--model", type=Path, default=DEMO_DIR, help="a model's folder, or a configuration file")
    line.add_argument("--rows", type=counts(_MOST_ROWS), default=(1, 4, 16), metavar="N,N", help="streams at once")
    line.add_argument("--tokens", type=count, default=64, help="of each stream")
    line.add_argument("--prompt", type=count, default=512, help="tokens of the prompt whose time is measured")
    line.add_argument("--rounds", type=count, default=5)
    line.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the server")
    line.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    given = line.parse_args()
    fixed = (WARM, "pipeline.prefix_cache=false", f"pipeline.max_rows={_MOST_ROWS}")
    engine = ("pipeline.runner.kind=mindspore",) if given.model == DEMO_DIR else ()
    overrides = (*fixed, *engine, *given.set)
    with tempfile.TemporaryDirectory() as name, launched(given.model, overrides, Path(name) / "log") as server:
        found = uvloop.run(measure(server.base_url, given.rows, given.tokens, given.prompt, given.rounds))
    print(table(found))
    write_json(given.json, {"machine": describe_machine(), "model": given.model.name, "rounds": found})
    return 0


async def measure(base_url: str, rows: Sequence[int], tokens: int, prompt: int, rounds: int) -> dict[str, Figures]:
    """By load and mode. Raises BenchError."""
    client, drawn = Client(base_url), random.Random(1)  # noqa: S311
    found: dict[str, Figures] = {}

    def note(load: str, mode: str, figure: float) -> None:
        found.setdefault(load, {}).setdefault(mode, []).append(figure)

    for number in range(1 + rounds):  # the first one warms up
        for mode in (ORDINARY, DETERMINISTIC) if number % 2 else (DETERMINISTIC, ORDINARY):
            asked = mode == DETERMINISTIC
            taken = await _time(client, [_body(drawn, prompt, 1, deterministic=asked)])
            note(f"prompt of {prompt} tokens, ms", mode, taken * 1e3)
            for n in rows:
                taken = await _time(client, [_body(drawn, _SHORT, tokens, deterministic=asked) for _ in range(n)])
                note(f"{n} streams, tokens/s each", mode, tokens / taken)
        for n in (n for n in rows if n > 1):
            beside = asyncio.ensure_future(
                post_json(client, "/v1/completions", _body(drawn, _SHORT, 4 * tokens, deterministic=True))
            )
            taken = await _time(client, [_body(drawn, _SHORT, tokens, deterministic=False) for _ in range(n - 1)])
            note(f"{n} streams, tokens/s each", BESIDE, tokens / taken)
            await beside
        say(f"round {number} of {rounds}")
    return {load: {mode: figures[1:] for mode, figures in modes.items()} for load, modes in found.items()}


def _body(drawn: random.Random, prompt: int, tokens: int, *, deterministic: bool) -> dict[str, Any]:
    ids = drawn.choices(_IDS, k=prompt)
    common = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    return {"prompt": ids, "deterministic": deterministic, **common}


async def _time(client: Client, bodies: Sequence[dict[str, Any]]) -> float:
    """Seconds until all are answered."""
    began = time.perf_counter()
    await asyncio.gather(*(post_json(client, "/v1/completions", body) for body in bodies))
    return time.perf_counter() - began


def table(found: dict[str, Figures]) -> str:
    rows = []
    for load, modes in found.items():
        usual = modes[ORDINARY]
        for mode, figures in modes.items():
            ratio = statistics.median(one / other for one, other in zip(figures, usual, strict=True))
            rows.append([f"{load}: {mode}", round(statistics.median(figures), 1), round(ratio, 3)])
    return markdown(["load", "median", "against ordinary"], rows)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench-deterministic: {error}")
