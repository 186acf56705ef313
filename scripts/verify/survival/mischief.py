"""Requests that are no good, and clients that go away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from dataclasses import dataclass
from typing import Any

from scripts.lab.http import Client, message

_GENERATE, _COMPLETIONS = "/models/llama2/generate", "/v1/completions"


@dataclass(frozen=True, slots=True)
class Bad:
    """A request, in bytes, that must be refused with one of these statuses."""

    name: str
    request: bytes
    statuses: tuple[int, ...]


def _post(path: str, body: bytes | dict[str, Any]) -> bytes:
    return message("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())


BAD = (
    Bad("no JSON", _post(_COMPLETIONS, b"{prompt: x}"), (400,)),
    Bad("a parameter that is not supported", _post(_COMPLETIONS, {"prompt": "x", "mirostat": 2}), (400,)),
    Bad("a negative length", _post(_COMPLETIONS, {"prompt": "x", "max_tokens": -2}), (400,)),
    Bad("a token that does not exist", _post(_COMPLETIONS, {"prompt": [1, 10**6]}), (400,)),
    Bad("a prompt without tokens", _post(_COMPLETIONS, {"prompt": []}), (400,)),
    Bad("more than fits", _post(_COMPLETIONS, {"prompt": "x " * 5000, "max_tokens": 20}), (400,)),
    Bad("a temperature in words", _post(_GENERATE, {"inputs": "x", "parameters": {"temperature": "hot"}}), (422,)),
    Bad("no inputs", _post(_GENERATE, {"parameters": {}}), (422,)),
    Bad("a giant", _post(_GENERATE, b"{").replace(b"length: 1\r\n", b"length: 1073741824\r\n"), (413,)),
    Bad("another path", message("GET", "/admin"), (404,)),
    Bad("another method", message("DELETE", "/v1/models"), (405,)),
    Bad("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", (400,)),
)


async def send(port: int, bad: Bad) -> str:
    """What is wrong with the answer; empty if nothing. Raises OSError where there is none."""
    reply = await Client(f"http://127.0.0.1:{port}", keep_alive=False).send(bad.request)
    return "" if reply.status in bad.statuses else f"{bad.name}: status {reply.status}, not {bad.statuses}"


async def abandon(port: int, rng: random.Random) -> None:
    """Go away in the middle of a request."""
    request = _post(_GENERATE, {"inputs": "x " * 100, "parameters": {"max_new_tokens": 20}})
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request[: rng.randrange(len(request))])
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
