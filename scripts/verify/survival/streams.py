"""Streams of both APIs, read token by token."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

Token = tuple[str, int | None]
"""Text, and the id where the API tells it."""

_LLM_SERVING, _COMPLETIONS = "/models/llama2/generate_stream", "/v1/completions"


@dataclass(frozen=True, slots=True)
class Job:
    """A request for a stream."""

    path: str
    body: dict[str, Any]

    def __str__(self) -> str:
        prompt = str(self.body.get("prompt", self.body.get("inputs")))
        return f"{self.path} {prompt[:30]!r}"

    @classmethod
    def llm_serving(cls, prompt: str, tokens: int, **parameters: Any) -> Job:
        options = {"max_new_tokens": tokens, "ignore_eos": True, "return_full_text": True, **parameters}
        return cls(_LLM_SERVING, {"inputs": prompt, "parameters": options, "stream": True})

    @classmethod
    def completion(cls, prompt: str | list[int], tokens: int, **parameters: Any) -> Job:
        options = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True, **parameters}
        return cls(_COMPLETIONS, {"prompt": prompt, "stream": True, **options})


@dataclass(slots=True)
class Stream:
    """What has come so far. `error` says why it ended early; `broken`: because the connection did."""

    began_s: float = field(default_factory=time.monotonic)
    tokens: list[Token] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    status: int = 0
    reason: str | None = None
    error: str = ""
    broken: bool = False

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.tokens)


async def read(port: int, job: Job, stream: Stream, *, most: int | None = None) -> None:
    """Ask, and read to the end into `stream`; after `most` tokens the client goes away."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps(job.body).encode()
        head = f"POST {job.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await _read_answer(reader, stream, most)
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:  # ValueError: no size where a chunk begins
        stream.broken, stream.error = True, f"the connection broke: {error!r}"
    finally:
        if writer is not None:
            writer.close()


async def _read_answer(reader: asyncio.StreamReader, stream: Stream, most: int | None) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    stream.status = int(head.split(None, 2)[1])
    if stream.status != 200:
        stream.error = (await reader.read()).decode(errors="replace")
        return
    rest = b""
    while size := int(await reader.readline(), 16):
        *lines, rest = (rest + await reader.readexactly(size)).split(b"\n")
        await reader.readexactly(2)
        now = time.monotonic()
        for line in filter(None, lines):
            _take(line, stream, now)
        if most is not None and len(stream.tokens) >= most:
            return
    if stream.reason is None and not stream.error:
        stream.error = "the stream ended without a reason"


def _take(line: bytes, stream: Stream, now: float) -> None:
    if line == b"data: [DONE]":
        return
    event = json.loads(line.removeprefix(b"data: "))
    data = event.get("data", event)
    if "error" in data:
        stream.error = json.dumps(data["error"])
    elif "choices" in data:
        choice = data["choices"][0]
        _add(stream, now, choice["text"], None)
        stream.reason = choice["finish_reason"]
    elif "finish_reason" in data:  # llm-serving's last line repeats the whole
        stream.reason = data["finish_reason"]
    else:
        _add(stream, now, data["generated_text"], data["tokens"]["id"])


def _add(stream: Stream, now: float, text: str, token: int | None) -> None:
    stream.tokens.append((text, token))
    stream.times_s.append(now)
