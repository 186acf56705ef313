"""How many texts change when something happens that should not change them: the flip rate.

    python -m scripts.verify.flips [--model DIR] [--streams 1000] [--tokens 32] [--engines mindspore,openvino-int8]
        [--conditions alone,batch,...] [--set KEY=VALUE]... [--markdown FILE]

Every stream is asked for alone first, on a server without a prefix cache that takes each prompt whole. Then one
thing is changed, and texts are compared: half of the streams are greedy, half are sampled with a seed.

    alone        nothing: the same again, on another server
    batch        16 at once
    prefix       its prompt is in the prefix cache
    chunking     prompts are taken in chunks of 16 tokens
    preemption   16 at once, with memory for a quarter of them: rows are given up and computed anew
    resumption   4 at once, and the inference process is killed again and again
    speculation  with drafts from the text itself

Sums are rounded in another order where matrices have other shapes, and a near tie is decided otherwise then: that is
arithmetic, and what a table of it is for. Exit status 1 if "alone" changed anything: then the engine itself does not
repeat.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import uvloop

from model.demo import DEMO_DIR
from scripts.lab.arguments import count, parser, say, words
from scripts.lab.http import Client, post_json
from scripts.lab.machine import describe_machine
from scripts.lab.questions import demo_questions
from scripts.lab.server import Server, launched
from scripts.lab.table import markdown

MANY, FEW = 16, 4
_KILL_EVERY_S = 4.0
_BLOCKS_OF_A_STREAM = 12
WHOLE = ("pipeline.token_budget=256", f"pipeline.max_rows={MANY}", "pipeline.prefix_cache=false")


@dataclass(frozen=True, slots=True)
class Condition:
    overrides: tuple[str, ...] = ()
    at_once: int = 1
    twice: bool = False  # the second answer counts
    killing: bool = False


CONDITIONS: Mapping[str, Condition] = MappingProxyType(
    {
        "alone": Condition(),
        "batch": Condition(at_once=MANY),
        "prefix": Condition(("pipeline.prefix_cache=true",), twice=True),
        "chunking": Condition(("pipeline.token_budget=16",)),
        "preemption": Condition((f"pa_config.num_blocks={MANY // 4 * _BLOCKS_OF_A_STREAM}",), at_once=MANY),
        "resumption": Condition(at_once=FEW, killing=True),
        "speculation": Condition(("pipeline.speculation.method=ngram",)),
    }
)
ENGINES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "mindspore": ("pipeline.runner.kind=mindspore",),
        "openvino": ("pipeline.runner.kind=openvino",),
        "openvino-bf16": ("pipeline.runner.kind=openvino", "pipeline.runner.weight_dtype=bf16"),
        "openvino-int8": ("pipeline.runner.kind=openvino", "pipeline.runner.weight_dtype=int8"),
    }
)


def main() -> int:
    line = parser(__doc__)
    line.add_argument("--model", type=Path, default=DEMO_DIR, help="a model's folder")
    line.add_argument("--streams", type=count, default=1000)
    line.add_argument("--tokens", type=count, default=32, help="of each answer")
    line.add_argument("--engines", type=words("engine", ENGINES), default=tuple(ENGINES), metavar="NAMES")
    line.add_argument("--conditions", type=words("condition", CONDITIONS), default=tuple(CONDITIONS), metavar="NAMES")
    line.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of all servers")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table there")
    given = line.parse_args()
    bodies = make_bodies(given.streams, given.tokens)
    rows, repeats = [], True
    for engine in given.engines:
        overrides = (*WHOLE, *ENGINES[engine], *given.set)
        undisturbed = texts(given.model, overrides, Condition(), bodies)
        flips = {}
        for name in given.conditions:
            now = texts(given.model, (*overrides, *CONDITIONS[name].overrides), CONDITIONS[name], bodies)
            flips[name] = sum(one != other for one, other in zip(undisturbed, now, strict=True))
            say(f"{engine}, {name}: {flips[name]} of {len(bodies)} texts")
        repeats &= not flips.get("alone", 0)
        rows.append([engine, *(str(flips[name]) for name in given.conditions)])
    about = f"{given.model.name}, of {given.streams} streams of {given.tokens} tokens; {describe_machine()}"
    table = markdown(["texts that changed", *given.conditions], rows)
    print(f"{about}\n\n{table}")
    if given.markdown:
        given.markdown.write_text(f"{table}\n", encoding="utf-8")
    return int(not repeats)


def make_bodies(streams: int, tokens: int) -> list[dict[str, Any]]:
    """No two have the same prompt; each repeats something, so that there is something to guess."""
    asked, found = demo_questions(), list[dict[str, Any]]()
    for number in range(streams):
        question, answer = asked[number % len(asked)]
        other, _ = asked[(number * 7 + number // len(asked) + 1) % len(asked)]
        prompt = f"{number}. Question: {question}\nAnswer: {answer}\nQuestion: {other}\nQuestion: {question}\nAnswer:"
        heat = {"temperature": 0.8, "top_p": 0.95, "seed": number} if number % 2 else {"temperature": 0}
        found.append({"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, **heat})
    return found


def texts(model: Path, overrides: Sequence[str], condition: Condition, bodies: Sequence[dict[str, Any]]) -> list[str]:
    """Answers of a server of its own. Raises BenchError."""
    with tempfile.TemporaryDirectory() as name, launched(model, overrides, Path(name) / "log") as server:
        return uvloop.run(_ask(server, condition, bodies))


async def _ask(server: Server, condition: Condition, bodies: Sequence[dict[str, Any]]) -> list[str]:
    client, room = Client(server.base_url), asyncio.Semaphore(condition.at_once)

    async def one(body: dict[str, Any]) -> str:
        async with room:
            for _ in range(1 + condition.twice):
                answer = await post_json(client, "/v1/completions", body)
        text: str = answer["choices"][0]["text"]
        return text

    killing = asyncio.create_task(_kill(server)) if condition.killing else None
    try:
        return list(await asyncio.gather(*(one(body) for body in bodies)))
    finally:
        if killing:
            killing.cancel()


async def _kill(server: Server) -> None:
    while True:
        await asyncio.sleep(_KILL_EVERY_S)
        if pid := server.stages().get("inference"):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
