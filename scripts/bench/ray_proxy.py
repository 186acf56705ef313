"""A server behind Ray Serve's own proxy: the proxy, a replica that copies bytes, and the server. For comparison: an
application as in `pipeline.ray` has nothing of this in the way of its tokens."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from scripts.lab.processes import descendants

_PASSED = (b"content-type", b"cache-control", b"retry-after")
_STREAMS = 2000

Asgi = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


def is_installed() -> bool:
    return importlib.util.find_spec("ray") is not None


@contextlib.contextmanager
def behind_ray(port: int, own: int) -> Iterator[list[int]]:
    """The server on `port` can be reached on the port `own`, too. Yields the pids of all that Ray has started."""
    before = {*descendants(os.getpid())}
    import ray
    from ray import serve

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": own})
        passing = serve.ingress(lambda: passing_on(port))(type("PassOn", (), {}))
        made = serve.deployment(passing).options(max_ongoing_requests=_STREAMS, ray_actor_options={"num_cpus": 0})
        serve.run(made.bind(), name="bench", route_prefix="/")
        yield [pid for pid in descendants(os.getpid()) if pid not in before]
    finally:
        serve.shutdown()
        ray.shutdown()


def passing_on(port: int) -> Asgi:
    """An application that asks the server on this port, and passes its answer on, chunk by chunk."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(_request(scope, await _body(receive)))
            await _answer(reader, send)
        finally:
            writer.close()

    return application


async def _body(receive: Any) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _request(scope: Any, body: bytes) -> bytes:
    line = f"{scope['method']} {scope['path']} HTTP/1.1".encode()
    kept = [b"%b: %b" % (name, value) for name, value in scope["headers"] if name.lower() == b"content-type"]
    own = [b"host: bench", b"connection: close", b"content-length: %d" % len(body)]
    return b"\r\n".join([line, *own, *kept, b"", b""]) + body


async def _answer(reader: asyncio.StreamReader, send: Any) -> None:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).rstrip().split(b"\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    kept = [(name, value) for name, value in headers if name in _PASSED]
    await send({"type": "http.response.start", "status": int(first.split()[1]), "headers": kept})
    if (b"transfer-encoding", b"chunked") in headers:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            chunk = await reader.readexactly(size + 2)
            await send({"type": "http.response.body", "body": chunk[:-2], "more_body": True})
        rest = b""
    else:
        rest = await reader.read()
    await send({"type": "http.response.body", "body": rest})
