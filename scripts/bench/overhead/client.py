"""The client: one process that reads many streams and notes when each token came.

Raw sockets, so that the client costs little on the CPUs that it shares with the server: it counts a mark per token
and looks at the text only when all is over.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TIMEOUT_S = 120.0

Prompt = str | list[int]
"""Token ids where the API takes them: OpenAI's."""


@dataclass(frozen=True, slots=True)
class Api:
    """How a stream is asked for, and how its tokens are told apart."""

    path: str
    mark: bytes  # once in every token's line, which is JSON from its first brace on
    body: Callable[[Prompt, int], dict[str, Any]]  # of a prompt and a number of tokens
    text: Callable[[Any], str]  # of a line


def _llm_serving(prompt: Prompt, tokens: int) -> dict[str, Any]:
    parameters = {"do_sample": False, "max_new_tokens": tokens, "ignore_eos": True}
    return {"inputs": prompt, "parameters": parameters, "stream": True}


def _sampled(prompt: Prompt, tokens: int) -> dict[str, Any]:
    parameters = {"do_sample": True, "temperature": 0.8, "top_k": 40, "top_p": 0.95, "seed": 1}
    return {
        "inputs": prompt,
        "parameters": parameters | {"max_new_tokens": tokens, "ignore_eos": True},
        "stream": True,
    }


def _completion(prompt: Prompt, tokens: int) -> dict[str, Any]:
    options = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    return {"model": "bench", "prompt": prompt} | options


_ROUTE = "/models/llama2/generate_stream"
APIS: Mapping[str, Api] = MappingProxyType(
    {
        "llm-serving": Api(_ROUTE, b'"event"', _llm_serving, lambda line: str(line["data"]["generated_text"])),
        "sampled": Api(_ROUTE, b'"event"', _sampled, lambda line: str(line["data"]["generated_text"])),
        "completions": Api("/v1/completions", b'"text"', _completion, lambda line: str(line["choices"][0]["text"])),
    }
)


@dataclass(frozen=True, slots=True)
class Question:
    """So many answers at once, each of so many tokens."""

    port: int
    api: str
    streams: int
    tokens: int
    prompt_tokens: int | None = None  # None: a short text, another one for every stream
    settle_s: float = 0.0  # from connecting to sending; a client that is known has an open connection


@dataclass(frozen=True, slots=True)
class Streams:
    """What the streams of one cell brought."""

    sent_ns: NDArray[np.int64]  # [streams], when each request was sent, on a connection that was there
    times_ns: NDArray[np.int64]  # [streams, tokens], when each token's line was read
    texts: tuple[str, ...]


class StreamError(Exception):
    """A stream ended early, or not at all."""


@dataclass(slots=True)
class _Stream:
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
    """Answers a `Question` with `Streams`, or with a StreamError."""
    pipe.send("ready")
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(read_streams(question))
        except (StreamError, OSError) as error:
            pipe.send(StreamError(str(error)))


def read_streams(question: Question) -> Streams:
    """Ask for all answers at once and read them to their ends. Raises StreamError, OSError."""
    api = APIS[question.api]
    gc.collect()
    gc.disable()
    opened: list[_Stream] = []
    try:
        opened.extend(_open(question, api, number) for number in range(question.streams))
        _read(opened)
    finally:
        gc.enable()
        for stream in opened:
            stream.connection.close()
    for stream in opened:
        if len(stream.times) != question.tokens:
            start = b"".join(stream.parts)[:200]
            raise StreamError(f"{len(stream.times)} tokens came instead of {question.tokens}: {start!r}")
    return Streams(
        np.array([s.sent_ns for s in opened], np.int64),
        np.array([s.times for s in opened], np.int64),
        tuple(_text(api, s.parts) for s in opened),
    )


def _read(opened: list[_Stream]) -> None:
    by_fd = {stream.connection.fileno(): stream for stream in opened}
    poll = select.epoll()
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    deadline = time.monotonic() + _TIMEOUT_S
    with poll:
        while by_fd:
            if time.monotonic() > deadline:
                raise StreamError(f"{len(by_fd)} streams did not end within {_TIMEOUT_S:.0f} s")
            for fd, _ in poll.poll(1.0):
                part = by_fd[fd].connection.recv(1 << 16)
                if part:
                    by_fd[fd].on_data(part, time.monotonic_ns())
                else:
                    poll.unregister(fd)
                    del by_fd[fd]


def _open(question: Question, api: Api, number: int) -> _Stream:
    body = json.dumps(api.body(_prompt(question, number), question.tokens)).encode()
    head = f"POST {api.path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", question.port), timeout=_TIMEOUT_S)
    time.sleep(question.settle_s)
    sent_ns = time.monotonic_ns()
    connection.sendall(head.encode() + body)
    return _Stream(connection, api.mark, sent_ns, [], [])


def _prompt(question: Question, number: int) -> Prompt:
    if question.prompt_tokens is None:
        return prompt(number)
    return [300 + (number + i) % 1000 for i in range(question.prompt_tokens)]


def prompt(number: int) -> str:
    """About 20 tokens, as in the known load; another one for every stream."""
    return f"{number}: what does a ring buffer hold?"


def _text(api: Api, parts: list[bytes]) -> str:
    """The generated text. Lines of HTTP's chunks hold no mark."""
    lines = (line for line in b"".join(parts).split(b"\n") if api.mark in line)
    return "".join(api.text(json.loads(line[line.index(b"{") :])) for line in lines)
