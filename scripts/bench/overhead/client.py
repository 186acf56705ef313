"""The client: one process that reads many streams and notes when each token came.

Raw sockets, so that the client costs little on the CPUs that it shares with the server: it counts a mark per token
and looks at the text only when all is over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from scripts.bench.serving.apis import APIS, Ask
from scripts.lab.errors import BenchError

_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to ask for a stream."""

    api: str  # of scripts.bench.serving
    mark: bytes  # once in every token's line
    ask: Ask
    first: Ask | None = None  # of the first stream; None: as the others


_LLM_SERVING = Ask("", 1, "bench", 0.0, True, {"return_full_text": False})
_OPENAI = Ask("", 1, "bench", 0.0, True, {"stream_options": {"include_usage": False}})
_SAMPLED = {"top_k": 40, "top_p": 0.95, "seed": 1, "return_full_text": False}
_DRAWN = Ask("", 1, "bench", 0.7, True, _SAMPLED)
_PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 16}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
_ENDLESS = {"type": "array", "items": _PERSON, "minItems": 5000}
_SHAPED = Ask("", 1, "bench", 0.0, True, {"guided_json": _ENDLESS})
WAYS: Mapping[str, _Way] = MappingProxyType(
    {
        "llm-serving": _Way("llm-serving", b'"event":', _LLM_SERVING),
        "sampled": _Way("llm-serving", b'"event":', _DRAWN),
        "mixed": _Way("llm-serving", b'"event":', _LLM_SERVING, first=_DRAWN),
        "completions": _Way("openai", b'"text":', _OPENAI),
        "grammar": _Way("openai", b'"text":', _SHAPED),
        "one-grammar": _Way("openai", b'"text":', _OPENAI, first=_SHAPED),
    }
)


@dataclass(frozen=True, slots=True)
class Question:
    """So many answers at once, each of so many tokens."""

    port: int
    way: str
    streams: int
    tokens: int
    prompt_tokens: int | None = None  # None: a short text, another one for every stream
    settle_s: float = 0.0  # from connecting to sending; a client that is known has an open connection
    chunked: bool = True  # False: HTTP/1.0, without chunks, which proxies cut anew, through the middle of events


@dataclass(frozen=True, slots=True)
class Streams:
    """What the streams of one cell brought."""

    sent_ns: NDArray[np.int64]  # [streams], when each request was sent, on a connection that was there
    times_ns: NDArray[np.int64]  # [streams, tokens], when each token's line was read
    texts: tuple[str, ...]


@dataclass(slots=True)
class Stream:
    connection: socket.socket
    mark: bytes
    sent_ns: int
    parts: list[bytes]
    times: list[int]
    tail: bytes = b""

    def on_data(self, part: bytes, now: int) -> None:
        seen = self.tail + part
        self.times.extend([now] * seen.count(self.mark))
        self.parts.append(part)
        self.tail = seen[-(len(self.mark) - 1) :]


def serve_client(pipe: Connection) -> None:
    """Answers a `Question` with `Streams`, or with a BenchError."""
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            question = pipe.recv()
            try:
                pipe.send(read_streams(question))
            except (BenchError, OSError) as error:
                pipe.send(BenchError(str(error)))


def read_streams(question: Question) -> Streams:
    """Ask for all answers at once and read them to their ends. Raises BenchError, OSError."""
    way = WAYS[question.way]
    gc.collect()
    gc.disable()
    opened: list[Stream] = []
    try:
        opened.extend(_open(question, way, number) for number in range(question.streams))
        _read(opened)
    finally:
        gc.enable()
        for stream in opened:
            stream.connection.close()
    for stream in opened:
        if len(stream.times) != question.tokens:
            start = b"".join(stream.parts)[:200]
            raise BenchError(f"{len(stream.times)} tokens came instead of {question.tokens}: {start!r}")
    return Streams(
        np.array([s.sent_ns for s in opened], np.int64),
        np.array([s.times for s in opened], np.int64),
        tuple(_text(way, s.parts) for s in opened),
    )


def _read(opened: list[Stream]) -> None:
    by_fd = {stream.connection.fileno(): stream for stream in opened}
    poll = select.epoll()
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    deadline = time.monotonic() + _TIMEOUT_S
    with poll:
        while by_fd:
            if time.monotonic() > deadline:
                raise BenchError(f"{len(by_fd)} streams did not end within {_TIMEOUT_S:.0f} s")
            for fd, _ in poll.poll(1.0):
                part = by_fd[fd].connection.recv(1 << 16)
                if part:
                    by_fd[fd].on_data(part, time.monotonic_ns())
                else:
                    poll.unregister(fd)
                    del by_fd[fd]


def _open(question: Question, way: _Way, number: int) -> Stream:
    asked = way.first if way.first is not None and number == 0 else way.ask
    api, ask = APIS[way.api], dataclasses.replace(asked, prompt=prompt(number), max_tokens=question.tokens)
    if question.prompt_tokens is not None:
        ask = dataclasses.replace(ask, prompt=[300 + (number + i) % 1000 for i in range(question.prompt_tokens)])
    body = json.dumps(api.body(ask)).encode()
    version = "1.1" if question.chunked else "1.0"
    head = f"POST {api.path} HTTP/{version}\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", question.port), timeout=_TIMEOUT_S)
    time.sleep(question.settle_s)
    sent_ns = time.monotonic_ns()
    connection.sendall(head.encode() + body)
    return Stream(connection, way.mark, sent_ns, [], [])


def open_stream(port: int, way: str, tokens: int) -> Stream:
    """One, which the caller reads and closes. Raises OSError."""
    return _open(Question(port, way, 1, tokens), WAYS[way], 0)


def prompt(number: int) -> str:
    """About 20 tokens, as in the known load; another one for every stream."""
    return f"{number}: what does a ring buffer hold?"


def _text(way: _Way, parts: list[bytes]) -> str:
    """The generated text. Lines of HTTP's chunks hold no mark."""
    lines = (line for line in b"".join(parts).split(b"\n") if way.mark in line)
    return "".join(APIS[way.api].read(line).text for line in lines)
