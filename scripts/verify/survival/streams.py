"""Streams of both APIs, read token by token."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

from scripts.lab.http import Client, Reply

Token = tuple[str, int | None]
"""Text, and the id where the API has it."""

_PATIENCE_S, _PAUSE_S = 90.0, 0.05

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
    replica: str = ""  # that its first token came from
    name: str = ""  # by which it can be collected, if it is kept
    events: int = 0
    returns: int = 0  # how often its client came back

    _taken: int = 0  # lines of the last answer

    @property
    def ended(self) -> bool:
        """As it should."""
        return self.reason is not None

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.tokens)

    def take(self, reply: Reply) -> None:
        """The lines that have come since."""
        lines, times_ns = reply.lines[self._taken :], reply.times_ns[self._taken :]
        if not self.events:
            self.replica = reply.headers.get(b"x-ringserve-replica", b"0").decode()
            self.name = reply.headers.get(b"x-stream-id", b"").decode()
        self._taken = len(reply.lines)
        for line, time_ns in zip(lines, times_ns, strict=True):
            if line.startswith((b"id: ", b"retry: ")):
                continue
            self.events += 1
            if line != b"data: [DONE]":
                self._event(json.loads(line.removeprefix(b"data: ")), time_ns / 1e9)

    def come_back(self) -> None:
        """Another answer follows, behind the events that have come."""
        self._taken, self.returns = 0, self.returns + 1

    def _event(self, event: dict[str, Any], now: float) -> None:
        data = event.get("data", event)
        if "error" in data:
            self.error = json.dumps(data["error"])
        elif "choices" in data:
            choice = data["choices"][0]
            self._add(now, choice["text"], None)
            self.reason = choice["finish_reason"]
        elif "finish_reason" in data:  # llm-serving's last line repeats the whole
            self.reason = data["finish_reason"]
        else:
            self._add(now, data["generated_text"], data["tokens"]["id"])

    def _add(self, now: float, text: str, token: int | None) -> None:
        self.tokens.append((text, token))
        self.times_s.append(now)


async def read(port: int, job: Job, stream: Stream, *, most: int | None = None, detached_s: float = 0) -> None:
    """Ask, and read to the end into `stream`; after `most` tokens the client goes away. With `detached_s` the request
    goes on without its client, which comes back when its connection is lost."""
    kept = (("x-detached-s", f"{detached_s:g}"),) if detached_s else ()
    headers = (("x-ringserve-timings", "1"), *kept)
    client = Client(f"http://127.0.0.1:{port}", headers=headers, keep_alive=False)
    enough = False

    def watch(reply: Reply) -> bool:
        nonlocal enough
        if reply.status == 200:
            stream.take(reply)
            enough = most is not None and len(stream.tokens) >= most
        return enough

    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            reply = await client.send(_request(client, job, stream), watch)
        except OSError as error:
            if not detached_s or time.monotonic() > until:
                stream.broken, stream.error = True, f"the connection broke: {error!r}"
                return
            stream.come_back()
            await asyncio.sleep(_PAUSE_S)
        else:
            break
    stream.status = reply.status
    if reply.status != 200:
        stream.error = reply.body.decode(errors="replace")
    elif stream.reason is None and not stream.error and not enough:
        stream.error = "the stream ended without a reason"


def _request(client: Client, job: Job, stream: Stream) -> bytes:
    """Where it was, if it had begun."""
    if not stream.events:
        return client.request("POST", job.path, json.dumps(job.body).encode())
    return client.request("GET", f"/v1/streams/{stream.name}?starting_after={stream.events - 1}")
