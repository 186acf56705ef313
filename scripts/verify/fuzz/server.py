"""The server that is fuzzed: a whole one, on an emulated device that takes next to no time."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model.demo import DEMO_DIR

BODY_LIMIT = 200_000

_CONFIG = f"""
model_config: {{model_name: emulated, vocab_size: 2048, end_token: 2, seq_length: 100, max_generate_length: 128,
               decode_batch_size: 16}}
pa_config: {{num_blocks: 256, block_size: 16}}
serving_config: {{server_port: 0}}
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
_START_S = 60.0
_GAUGES = ("requests_in_flight", "num_requests_running", "num_requests_waiting", "kv_blocks_used")


class ServerFailedError(Exception):
    """The server did not start, or is not as it was before."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the front holds."""

    descriptors: int
    rss_bytes: int


class FuzzedServer:
    """Running, with its log in a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, port: int) -> None:
        self._process, self._log, self.port = process, log, port
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
        names = {Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip(): int(pid) for pid in children}
        self._front = names["rs-front"]

    def usage(self) -> Usage:
        status = Path(f"/proc/{self._front}/status").read_text(encoding="utf-8")
        rss = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
        return Usage(len(list(Path(f"/proc/{self._front}/fd").iterdir())), int(rss) * 1024)

    def at_rest(self, patience_s: float = 15.0) -> Usage:
        """Wait until nothing is under way. Raises ServerFailedError."""
        deadline = time.monotonic() + patience_s
        while busy := self._busy():
            if time.monotonic() > deadline:
                raise ServerFailedError(f"not at rest after {patience_s:g} s: {busy}")
            time.sleep(0.05)
        self._check_answer()
        return self.usage()

    def _busy(self) -> dict[str, float]:
        lines = self._get("/metrics").decode().splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(values[f"ringserve_{name}"]) for name in _GAUGES if float(values[f"ringserve_{name}"])}

    def _check_answer(self) -> None:
        body = b'{"inputs": "What is a ring?", "parameters": {"max_new_tokens": 5}}'
        if json.loads(self._get("/models/llama2/generate", body))["generated_tokens"] != 5:
            raise ServerFailedError("a good request is not answered as it should be")

    def _get(self, path: str, body: bytes | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET" if body is None else "POST", path, body, {"connection": "close"})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServerFailedError(f"{path}: {error!r}; the server's exit status: {self._process.poll()}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise ServerFailedError(f"{path}: status {answer.status}, {content[:300]!r}")
        return content

    def complaints(self) -> list[str]:
        """Lines of the log that a client must not be able to cause."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        marks = ("Traceback", "ERROR", "CRITICAL", "WARNING", "Error:", "Exception")
        return [line for line in lines if any(mark in line for mark in marks)]


@contextlib.contextmanager
def fuzzed_server(directory: Path) -> Iterator[FuzzedServer]:
    """A server of its own until the context ends. Raises ServerFailedError."""
    config, log = directory / "fuzz.yaml", directory / "fuzz.log"
    config.write_text(_CONFIG, encoding="utf-8")
    with log.open("wb") as stderr:
        command = [sys.executable, "-m", "pipeline.launch", "--config", str(config)]
        process = subprocess.Popen(command, stderr=stderr)
    try:
        yield FuzzedServer(process, log, _port(process, log))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        said = log.read_text(encoding="utf-8")
        if "try: curl" in said:
            return int(said.partition("listening on http://127.0.0.1:")[2].split()[0])
        time.sleep(0.05)
    raise ServerFailedError(f"the server did not start:\n{log.read_text(encoding='utf-8')}")
