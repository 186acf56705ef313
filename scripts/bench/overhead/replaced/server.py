"""The server process: HTTP and batching in one event loop, which stands still while the agent computes."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import signal
import socket
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvicorn

from model.tokenizer import IncrementalDetokenizer, Tokenizer
from pipeline.config import load_configuration
from pipeline.runtime.tokenizer import open_tokenizer
from scripts.bench.overhead.device import settings_of
from scripts.bench.overhead.replaced.agent import run_agent
from scripts.bench.overhead.replaced.batch import Batch, Entry
from scripts.bench.overhead.replaced.segments import Segments, Sizes


def serve_replaced(file: Path, batches: tuple[int, ...], pipe: Connection) -> None:
    """A process of its own: says its port and its agent's pid, and serves until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn catches it, and raises it again when it has drained
    config = load_configuration(file)
    settings = settings_of(config)
    sizes = Sizes(max(batches), settings.max_length, settings.block_size)
    segments = Segments(sizes)
    try:
        with socket.create_server(("127.0.0.1", 0)) as meeting:
            names = [segment.name for segment in segments.memory]
            arguments = (meeting.getsockname()[1], names, sizes, settings, batches)
            agent = multiprocessing.get_context("spawn").Process(target=run_agent, args=arguments)
            agent.start()
            connection, _ = meeting.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.recv(1)
        batch = Batch(connection, segments, sizes, settings.num_blocks, batches)
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        pipe.send((listener.getsockname()[1], agent.pid))
        asyncio.run(Replaced(batch, open_tokenizer(config, settings.vocab_size)).serve(listener))
        connection.close()
        agent.join(5)
    finally:
        segments.close(unlink=True)


async def read_body(receive: Any) -> bytes:
    """Of a request to an ASGI application."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


class Replaced:
    """An ASGI application, and the loop that drives the batch."""

    def __init__(self, batch: Batch, tokenizer: Tokenizer) -> None:
        self._batch, self._tokenizer = batch, tokenizer
        self._queues: dict[int, asyncio.Queue[tuple[int, float]]] = {}
        self._work = asyncio.Event()

    async def serve(self, listener: socket.socket) -> None:
        config = uvicorn.Config(self.app, interface="asgi3", lifespan="off", log_level="error", access_log=False)
        stepping = asyncio.create_task(self._run())
        await uvicorn.Server(config).serve(sockets=[listener])
        stepping.cancel()

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            for entry, token, logit in self._batch.step():  # nothing else runs meanwhile
                self._queues[id(entry)].put_nowait((token, logit))
            if not self._batch.has_work:
                self._work.clear()
            await asyncio.sleep(0)

    async def app(self, _scope: Any, receive: Any, send: Any) -> None:
        request = json.loads(await read_body(receive))
        ids = self._tokenizer.encode(request["inputs"])
        entry = Entry(ids, len(ids) + request["parameters"]["max_new_tokens"])
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._stream(entry, IncrementalDetokenizer(self._tokenizer, ids), send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream(self, entry: Entry, text: IncrementalDetokenizer, send: Any) -> None:
        queue = self._queues[id(entry)] = asyncio.Queue()
        self._batch.waiting.append(entry)
        self._work.set()
        for left in range(entry.limit - len(entry.tokens) - 1, -1, -1):
            token, logit = await queue.get()
            said = text.push(token) + ("" if left else text.finish())
            await send({"type": "http.response.body", "body": _line(token, logit, said), "more_body": True})
        del self._queues[id(entry)]


def _line(token: int, logit: float, text: str) -> bytes:
    shown = {"id": token, "logprob": logit, "special": not text, "text": text}
    data = {"details": None, "generated_text": text, "tokens": shown, "top_tokens": [shown]}
    return json.dumps({"event": "message", "retry": 30000, "data": data}).encode() + b"\n"


# ---- the floor of a time to the first token: uvicorn with an application that does nothing but answer -------------


_LINE = b'data: {"event": "message", "data": {"generated_text": "ring"}}\n\n'


def serve_bare_http(pipe: Connection) -> None:
    """Answers whatever is asked through the pipe with its port, until the pipe is closed."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        _answer, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="error"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    pipe.send("ready")
    try:
        while True:
            pipe.recv()
            pipe.send(listener.getsockname()[1])
    except EOFError:
        server.should_exit = True
        thread.join()


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    """A line for each token that is asked for, as llm-serving streams them."""
    lines = json.loads(await read_body(receive))["parameters"]["max_new_tokens"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for _ in range(lines):
        await send({"type": "http.response.body", "body": _LINE, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
