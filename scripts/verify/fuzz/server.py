"""The server that is fuzzed: a whole one, on an emulated device that takes next to no time."""

from __future__ import annotations

import json
import urllib.request
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from scripts.lab.errors import ServerError
from scripts.lab.processes import resident_bytes
from scripts.lab.server import Server, launched

CONFIG = Path(__file__).with_name("server.yaml")
_REST_S = 15.0
_COMPLAINTS = ("Traceback", "ERROR", "CRITICAL", "WARNING", "Error:", "Exception")


@dataclass(frozen=True, slots=True)
class Usage:
    """What the front holds."""

    descriptors: int
    rss_bytes: int


def at_rest(server: Server) -> Usage:
    """Wait until nothing is under way, and ask it for something good. Raises ServerError."""
    try:
        if busy := server.under_way(_REST_S):
            raise ServerError(f"not at rest after {_REST_S:g} s: {busy}")
        _check_answer(server)
    except OSError as error:
        raise ServerError(f"it does not answer: {error!r}; its exit status: {server.status}") from error
    front = server.stages()["front"]
    return Usage(len(list(Path(f"/proc/{front}/fd").iterdir())), resident_bytes(front))


def _check_answer(server: Server) -> None:
    body = b'{"inputs": "What is a ring?", "parameters": {"max_new_tokens": 5}}'
    request = urllib.request.Request(f"{server.base_url}/models/llama2/generate", body)  # noqa: S310 - http only
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - likewise
        if json.load(answer)["generated_tokens"] != 5:
            raise ServerError("a good request is not answered as it should be")


def complaints(server: Server) -> list[str]:
    """Lines of the log that a client must not be able to cause."""
    return [line for line in server.log_text().splitlines() if any(mark in line for mark in _COMPLAINTS)]


def fuzzed_server(directory: Path) -> AbstractContextManager[Server]:
    """A server of its own until the context ends. Raises ServerError."""
    return launched(CONFIG, (), directory / "fuzz.log")
