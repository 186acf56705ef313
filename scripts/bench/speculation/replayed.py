"""Texts as token ids: a file of them for a server, and asking for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.lab.errors import BenchError
from scripts.lab.http import Client, Reply


@dataclass(frozen=True, slots=True)
class Replayed:
    prompt: list[int]
    answer: list[int]

    @property
    def body(self) -> bytes:
        """A request for the whole answer."""
        wanted = {"prompt": self.prompt, "max_tokens": len(self.answer), "temperature": 0, "repetition_penalty": 1}
        return json.dumps({**wanted, "ignore_eos": True, "stream": True}).encode()


@dataclass(frozen=True, slots=True)
class Answers:
    seconds: float  # from the first token of the last one that began to the last token of all
    texts: list[str]


def write_replay(file: Path, kinds: Iterable[Sequence[Replayed]]) -> Path:
    """As `model.replay` reads them."""
    lines = [json.dumps({"prompt": one.prompt, "answer": one.answer}) for kind in kinds for one in kind]
    file.write_text("\n".join(lines))
    return file


async def ask_all(base_url: str, bodies: Sequence[bytes]) -> Answers:
    """At once. Raises BenchError for an answer that is none."""
    client = Client(base_url)
    requests = [client.request("POST", "/v1/completions", body) for body in bodies]
    replies = await asyncio.gather(*(client.send(request) for request in requests))
    client.close()
    begun = max(reply.times_ns[0] for reply in replies)
    ended = max(reply.times_ns[-1] for reply in replies)
    return Answers((ended - begun) / 1e9, [_text(reply) for reply in replies])


def _text(reply: Reply) -> str:
    if reply.status != 200:
        raise BenchError(f"status {reply.status}: {reply.body[:200]!r}")
    events = [
        json.loads(line[5:]) for line in reply.lines if line.startswith(b"data:") and line[5:].strip() != b"[DONE]"
    ]
    return "".join(choice["text"] for event in events for choice in event["choices"])
