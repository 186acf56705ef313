"""How many texts change when something happens that should not change them: the flip rate.

    python -m scripts.verify.flips [--model DIR] [--streams 1000] [--tokens 16] [--engines mindspore,openvino-int8]
        [--modes ordinary,deterministic] [--conditions alone,batch,...] [--set KEY=VALUE]... [--markdown FILE]

Every stream is asked for alone first, on a server without a prefix cache that takes each prompt whole. Then one
thing is changed, and texts are compared: half of the streams are greedy, half are sampled with a seed. Conditions
that need no server of their own share one.

    batch        16 at once
    resumption   4 at once, and the inference process is killed again and again
    alone        nothing: the same again, by a process that was started anew
    prefix       its prompt is in the prefix cache
    chunking     prompts are taken in chunks of 16 tokens
    preemption   16 at once, with memory for a quarter of them: rows are given up and computed anew
    speculation  with drafts from the text itself

Sums are rounded in another order where matrices have other shapes, and a near tie is decided otherwise then: that is
arithmetic, and what a table of it is for. In mode "deterministic" all requests ask for `deterministic`, which must
change nothing at all (docs/deterministic.md); an engine that refuses it has no such row. Exit status 1 if it changed
something all the same, or if "alone" did: then the engine itself does not repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
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

from scripts.bench.peers.checkpoint import Size, make_checkpoint
from scripts.lab.arguments import count, parser, say, words
from scripts.lab.errors import BenchError
from scripts.lab.http import Client, post_json
from scripts.lab.machine import describe_machine
from scripts.lab.questions import demo_questions
from scripts.lab.server import WARM, Server, launched
from scripts.lab.table import markdown

RANDOM = Size(2048, 256, 704, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2)
"""The demo model's shape. Random weights leave far more near ties than trained ones."""
MANY, FEW = 16, 4
ORDINARY, DETERMINISTIC = "ordinary", "deterministic"
MODES = (ORDINARY, DETERMINISTIC)
_KILL_EVERY_S = 4.0
_BLOCKS_OF_A_STREAM = 8
WHOLE = (WARM, "pipeline.token_budget=256", f"pipeline.max_rows={MANY}", "pipeline.prefix_cache=false")

Bodies = Sequence[dict[str, Any]]
Texts = list[str]


@dataclass(frozen=True, slots=True)
class Condition:
    at_once: int = 1
    twice: bool = False  # each prompt was there before
    killing: bool = False


SERVERS: Sequence[tuple[tuple[str, ...], Mapping[str, Condition]]] = (
    ((), {"batch": Condition(MANY), "resumption": Condition(FEW, killing=True), "alone": Condition()}),
    (("pipeline.prefix_cache=true",), {"prefix": Condition(twice=True)}),
    (("pipeline.token_budget=16",), {"chunking": Condition()}),
    ((f"pa_config.num_blocks={MANY // 4 * _BLOCKS_OF_A_STREAM}",), {"preemption": Condition(MANY)}),
    (("pipeline.speculation.method=ngram",), {"speculation": Condition()}),
)
"""What is set, and the conditions of that server in order."""
CONDITIONS = tuple(name for _, conditions in SERVERS for name in conditions)
ENGINES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "emulated": ("pipeline.runner.kind=emulated", "pipeline.runner.cost_model.fixed_ms=0.2"),
        "mindspore": ("pipeline.runner.kind=mindspore",),
        "openvino": ("pipeline.runner.kind=openvino",),
        "openvino-bf16": ("pipeline.runner.kind=openvino", "pipeline.runner.weight_dtype=bf16"),
        "openvino-int8": ("pipeline.runner.kind=openvino", "pipeline.runner.weight_dtype=int8"),
    }
)


def main() -> int:
    line = parser(__doc__)
    line.add_argument("--model", type=Path, help="a model's folder; a random one by default")
    line.add_argument("--streams", type=count, default=1000)
    line.add_argument("--tokens", type=count, default=16, help="of each answer")
    line.add_argument("--engines", type=words("engine", ENGINES), default=tuple(ENGINES), metavar="NAMES")
    line.add_argument("--modes", type=words("mode", MODES), default=MODES, metavar="NAMES")
    line.add_argument("--conditions", type=words("condition", CONDITIONS), default=CONDITIONS, metavar="NAMES")
    line.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of all servers")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table there")
    given = line.parse_args()
    modes = {mode: make_bodies(given.streams, given.tokens, mode) for mode in given.modes}
    rows, wrong = [], False
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or make_checkpoint(Path(folder) / "random", RANDOM)
        for engine in given.engines:
            flips = count_flips(model, engine, (*WHOLE, *ENGINES[engine], *given.set), modes, given.conditions)
            for mode, found in flips.items():
                wrong |= bool(sum(found.values()) if mode == DETERMINISTIC else found.get("alone", 0))
                rows.append([f"{engine}, {mode}", *(str(found[name]) for name in given.conditions)])
    about = f"{model.name}, of {given.streams} streams of {given.tokens} tokens; {describe_machine()}"
    table = markdown(["texts that changed", *given.conditions], rows)
    print(f"{about}\n\n{table}")
    if given.markdown:
        given.markdown.write_text(f"{table}\n", encoding="utf-8")
    return int(wrong)


def count_flips(
    model: Path, engine: str, overrides: tuple[str, ...], modes: Mapping[str, Bodies], wanted: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Texts that changed, by mode and condition; without modes that the engine refuses. Raises BenchError."""
    undisturbed: dict[str, Texts] = {}
    flips: dict[str, dict[str, int]] = {}
    for own, conditions in SERVERS:
        chosen = {name: condition for name, condition in conditions.items() if name in wanted}
        if not chosen and undisturbed:
            continue
        with tempfile.TemporaryDirectory() as name, launched(model, (*overrides, *own), Path(name) / "log") as server:
            if not undisturbed:
                served = {mode: bodies for mode, bodies in modes.items() if uvloop.run(_serves(server, bodies[0]))}
                undisturbed = {mode: uvloop.run(_ask(server, Condition(), it)) for mode, it in served.items()}
                flips = {mode: {} for mode in served}
            for condition, mode in itertools.product(chosen, undisturbed):
                now = uvloop.run(_ask(server, chosen[condition], modes[mode]))
                changed = sum(one != other for one, other in zip(undisturbed[mode], now, strict=True))
                flips[mode][condition] = changed
                say(f"{engine}, {mode}, {condition}: {changed} of {len(now)} texts")
    return flips


def make_bodies(streams: int, tokens: int, mode: str = ORDINARY) -> list[dict[str, Any]]:
    """No two have the same prompt; each repeats something, so that there is something to guess."""
    asked, found = demo_questions(), list[dict[str, Any]]()
    for number in range(streams):
        question, answer = asked[number % len(asked)]
        prompt = f"{number}. Question: {question}\nAnswer: {answer}\nQuestion: {question}\nAnswer:"
        heat = {"temperature": 0.8, "top_p": 0.95, "seed": number} if number % 2 else {"temperature": 0}
        body = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "deterministic": mode == DETERMINISTIC}
        found.append({**body, **heat})
    return found


async def _serves(server: Server, body: dict[str, Any]) -> bool:
    """Whether the engine takes requests of this mode."""
    try:
        await _answers(server, 1, [{**body, "max_tokens": 1}])
    except BenchError as error:
        if "deterministic" not in str(error):
            raise
        say(str(error))
        return False
    return True


async def _ask(server: Server, condition: Condition, bodies: Bodies) -> Texts:
    if condition.twice:
        await _answers(server, MANY, [{**body, "max_tokens": 1} for body in bodies])
    if not condition.killing:
        return await _answers(server, condition.at_once, bodies)
    before, killing = await asyncio.to_thread(server.restarts), asyncio.create_task(_kill(server))
    texts = await _answers(server, condition.at_once, bodies)
    killing.cancel()
    if await asyncio.to_thread(server.restarts) == before:
        raise BenchError(
            f"nothing was killed meanwhile: more or longer texts than what takes {_KILL_EVERY_S:g} s are needed"
        )
    return texts


async def _answers(server: Server, at_once: int, bodies: Bodies) -> Texts:
    client, room = Client(server.base_url), asyncio.Semaphore(at_once)

    async def one(body: dict[str, Any]) -> str:
        async with room:
            answer = await post_json(client, "/v1/completions", body)
        text: str = answer["choices"][0]["text"]
        return text

    with contextlib.closing(client):
        return list(await asyncio.gather(*(one(body) for body in bodies)))


async def _kill(server: Server) -> None:
    """Only one that has done something: a server gives up after some deaths in a row."""
    before = 0.0
    while True:
        await asyncio.sleep(_KILL_EVERY_S)
        tokens = (await asyncio.to_thread(server.metrics)).total("generation_tokens_total")
        if tokens > before and (pid := server.stages().get("inference")):
            before = tokens
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"flips: {error}")
