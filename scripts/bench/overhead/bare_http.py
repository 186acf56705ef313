"""The floor of a time to the first token over HTTP: uvicorn with an application that does nothing but answer."""

from __future__ import annotations

import socket
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import orjson
import uvicorn

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
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    lines = orjson.loads(body)["parameters"]["max_new_tokens"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for _ in range(lines):
        await send({"type": "http.response.body", "body": _LINE, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
