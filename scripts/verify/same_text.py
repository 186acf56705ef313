"""Whether a server that speculates answers as one that does not: token by token, greedy and sampled.

    python -m scripts.verify.same_text [--model DIR_OR_CONFIG] [--texts 24] [--tokens 100] [--rows 4]
        [--set KEY=VALUE]...

Without a model: the demo model, on its default engine. Questions are asked whose answer stands in the prompt, so that
there is something to guess. A wider matrix product may be rounded otherwise, and a near tie may be decided otherwise
then: each such place is printed with what both servers say of it. Exit status 1 if these are more than one in 10,000
tokens, or if one is no near tie: the two servers' log-probabilities of the tokens in question, or with temperature 0
those of the two tokens, are more than 1e-4 apart.
"""

from __future__ import annotations

import asyncio
import math
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from model.demo import DEMO_DIR
from scripts.lab.arguments import count, parser
from scripts.lab.http import Client, post_json
from scripts.lab.machine import describe_machine
from scripts.lab.questions import demo_questions
from scripts.lab.server import WARM, launched

TEMPERATURES = (0.0, 0.7, 1.2)
MOST_DIFFERENCES, MOST_APART = 1e-4, 1e-4


@dataclass(frozen=True, slots=True)
class Answer:
    tokens: list[str]
    top: list[dict[str, float]]  # log-probabilities of each token and of the most probable ones


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two answers part."""

    temperature: float
    position: int
    tokens: tuple[str, str]
    top: tuple[dict[str, float], dict[str, float]]

    @property
    def apart(self) -> float:
        """How far from a tie it is: what is not among the most probable tokens is far."""
        between = [abs(self.top[0].get(token, 99) - self.top[1].get(token, -99)) for token in self.tokens]
        tie = abs(self.top[0].get(self.tokens[0], 99) - self.top[0].get(self.tokens[1], -99))
        return max(*between, 0.0 if self.temperature else tie)

    @property
    def text(self) -> str:
        one, other = ({token: top.get(token) for token in self.tokens} for top in self.top)
        return f"temperature {self.temperature}, token {self.position}: {self.tokens}; {one} without, {other} with"


def main() -> int:
    line = parser(__doc__)
    line.add_argument("--model", type=Path, default=DEMO_DIR, help="a model's folder, or a configuration file")
    line.add_argument("--texts", type=count, default=24)
    line.add_argument("--tokens", type=count, default=100, help="of each, at most")
    line.add_argument("--rows", type=count, default=4, help="that are asked for at once")
    line.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of both servers")
    given = line.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        servers = [
            stack.enter_context(
                launched(
                    given.model, (f"pipeline.speculation.method={method}", WARM, *given.set), Path(name) / method
                )
            )
            for method in ("off", "ngram")
        ]
        requests = make_requests(given.texts, given.tokens)
        without, with_ = (uvloop.run(ask(server.base_url, requests, given.rows)) for server in servers)
        metrics = servers[1].metrics()
    guessed, right = (metrics.total(f"{name}_total") for name in ("draft_tokens", "accepted_draft_tokens"))
    print(f"{given.model.name}; {describe_machine()}")
    print(f"{guessed:.0f} tokens were guessed, {right:.0f} of them right")
    return judge(requests, without, with_) or int(not right)


def make_requests(texts: int, tokens: int) -> list[dict[str, Any]]:
    asked = demo_questions()
    wanted = {"max_tokens": tokens, "logprobs": 5, "ignore_eos": True}
    found = []
    for number in range(texts):
        question, answer = asked[number % len(asked)]
        prompt = f"Question: {question}\nAnswer: {answer}\nQuestion: {question}\nAnswer:"
        found += [{**wanted, "prompt": prompt, "temperature": heat, "seed": number} for heat in TEMPERATURES]
    return found


async def ask(base_url: str, requests: Sequence[dict[str, Any]], rows: int) -> list[Answer]:
    """So many at once. Raises BenchError."""
    client, room = Client(base_url), asyncio.Semaphore(rows)

    async def one(body: dict[str, Any]) -> Answer:
        async with room:
            answer = await post_json(client, "/v1/completions", body)
        logprobs = answer["choices"][0]["logprobs"]
        return Answer(logprobs["tokens"], logprobs["top_logprobs"])

    return list(await asyncio.gather(*(one(request) for request in requests)))


def find_difference(temperature: float, one: Answer, other: Answer) -> Difference | None:
    for at, tokens in enumerate(zip(one.tokens, other.tokens, strict=False)):
        if tokens[0] != tokens[1]:
            return Difference(temperature, at, tokens, (one.top[at], other.top[at]))
    return None


def judge(requests: Sequence[dict[str, Any]], without: Sequence[Answer], with_: Sequence[Answer]) -> int:
    compared, found = 0, []
    for request, *answers in zip(requests, without, with_, strict=True):
        difference = find_difference(request["temperature"], *answers)
        if difference is not None:
            found.append(difference)
            print(f"{difference.text}; {difference.apart:.2g} apart")
        elif len(answers[0].tokens) != len(answers[1].tokens):
            print(f"answers of {len(answers[0].tokens)} and {len(answers[1].tokens)} tokens")
            return 1
        compared += len(answers[0].tokens) if difference is None else difference.position + 1
    print(f"{len(found)} of {len(requests)} texts part, in {compared} tokens that were compared")
    few = len(found) <= math.ceil(MOST_DIFFERENCES * compared)
    return int(not few or any(one.apart > MOST_APART for one in found))


if __name__ == "__main__":
    sys.exit(main())
