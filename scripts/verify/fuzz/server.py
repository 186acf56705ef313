"""The server that is fuzzed: a whole one, on an emulated device that takes next to no time."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model.demo import DEMO_DIR
from scripts.lab.errors import ServerError
from scripts.lab.processes import resident_bytes
from scripts.lab.server import Server, launched

BODY_LIMIT = 200_000

_CONFIG = f"""
model_config: {{model_name: emulated, vocab_size: 2048, end_token: 2, seq_length: 100, max_generate_length: 128,
               decode_batch_size: 16}}
pa_config: {{num_blocks: 256, block_size: 16}}
tokenizer: {{type: LlamaTokenizer, vocab_file: {json.dumps(str(Path(DEMO_DIR) / "tokenizer.json"))}}}
pipeline:
  token_budget: 128
  max_queue: 4096
  max_connections: 512
  body_limit_bytes: {BODY_LIMIT}
  header_timeout_s: 1
  body_timeout_s: 1
  keep_alive_s: 3
  write_timeout_s: 3
  drain_timeout_s: 5
  log: {{level: info}}
  runner: {{kind: emulated, cost_model: {{fixed_ms: 0.05}}, token_range: [300, 2048]}}
"""
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
    return [line for line in server.said().splitlines() if any(mark in line for mark in _COMPLAINTS)]


@contextlib.contextmanager
def fuzzed_server(directory: Path) -> Iterator[Server]:
    """A server of its own until the context ends. Raises ServerError."""
    config = directory / "fuzz.yaml"
    config.write_text(_CONFIG, encoding="utf-8")
    with launched(config, (), directory / "fuzz.log") as server:
        yield server
