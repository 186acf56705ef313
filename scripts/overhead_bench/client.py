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
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

_MARK = b'{"event"'  # begins the line of a token
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Streams:
    """What the streams of one cell brought."""

    times_ns: NDArray[np.int64]  # [streams, tokens], when each token's line was read
    texts: tuple[str, ...]


class StreamError(Exception):
    """A stream ended early, or not at all."""


@dataclass(slots=True)
class _Stream:
    connection: socket.socket
    parts: list[bytes]
    times: list[int]
    tail: bytes = b""

    def on_data(self, part: bytes, now: int) -> None:
        seen = self.tail + part
        self.times.extend([now] * seen.count(_MARK))
        self.parts.append(part)
        self.tail = seen[-(len(_MARK) - 1) :]


def serve_client(pipe: Connection) -> None:
    """Answers (port, streams, tokens) with `Streams`, or with a StreamError."""
    pipe.send("ready")
    while True:
        try:
            port, streams, tokens = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(read_streams(port, streams, tokens))
        except (StreamError, OSError) as error:
            pipe.send(StreamError(str(error)))


def read_streams(port: int, streams: int, tokens: int) -> Streams:
    """Ask for so many answers at once and read them to their ends. Raises StreamError, OSError."""
    opened = [_open(port, i, tokens) for i in range(streams)]
    gc.collect()
    gc.disable()
    try:
        _read(opened)
    finally:
        gc.enable()
        for stream in opened:
            stream.connection.close()
    for stream in opened:
        if len(stream.times) != tokens:
            start = b"".join(stream.parts)[:200]
            raise StreamError(f"{len(stream.times)} tokens came instead of {tokens}: {start!r}")
    return Streams(np.array([s.times for s in opened], np.int64), tuple(_text(s.parts) for s in opened))


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


def _open(port: int, number: int, tokens: int) -> _Stream:
    parameters = {"do_sample": False, "max_new_tokens": tokens, "ignore_eos": True}
    body = json.dumps({"inputs": prompt(number), "parameters": parameters, "stream": True}).encode()
    head = (
        f"POST /models/llama2/generate_stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}"
    )
    connection = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
    connection.sendall(head.encode() + b"\r\n\r\n" + body)
    return _Stream(connection, [], [])


def prompt(number: int) -> str:
    """About 20 tokens, as in the known load; another one for every stream."""
    return f"{number}: what does a ring buffer hold?"


def _text(parts: list[bytes]) -> str:
    """The generated text. Lines of HTTP's chunks are told by their first character."""
    lines = b"".join(parts).split(b"\n")
    tokens = (json.loads(line[line.index(_MARK) :]) for line in lines if _MARK in line)
    return "".join(token["data"]["generated_text"] for token in tokens)
