"""What is compared, and its servers: RingServe as users start it, or what it replaces."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from scripts.bench.overhead.replaced.server import serve_replaced
from scripts.lab.arguments import named
from scripts.lab.clock import cpu_seconds
from scripts.lab.errors import BenchError
from scripts.lab.server import launched


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    meaning: str
    api: str = "llm-serving"
    overrides: tuple[str, ...] = ()  # of RingServe's configuration
    token_ids: bool = False  # the device gives token ids instead of logits
    greedy: bool = True  # texts can be compared with those of the others
    replaced: bool = False  # the data path of llm-serving instead


_PLAIN, _LOGITS = "pipeline.overlap=false", "pipeline.greedy_on_device=false"
_ALL = (
    Variant("ringserve", "llm-serving's API, greedy; configured by default", token_ids=True),
    Variant("plain", "the same without overlap", overrides=(_PLAIN,), token_ids=True),
    Variant("host", "all logits to the host", overrides=(_LOGITS,)),
    Variant("plain-host", "all logits to the host, without overlap", overrides=(_PLAIN, _LOGITS)),
    Variant("completions", "OpenAI's API, greedy", "completions", token_ids=True),
    Variant("ngram", "with speculation", overrides=("pipeline.speculation.method=ngram",), token_ids=True),
    Variant("sampled", "temperature 0.7, top_k 40, top_p 0.95", "sampled", greedy=False, token_ids=True),
    Variant("mixed", "one stream is sampled as above, all others are greedy", "mixed", greedy=False, token_ids=True),
    Variant("grammar", "OpenAI's API, every answer has a grammar", "grammar", greedy=False),
    Variant(
        "one-grammar", "one stream has a grammar, all others are greedy", "one-grammar", greedy=False, token_ids=True
    ),
    Variant("replaced", "llm-serving's data path: text over TCP, nine segments, lists; greedy", replaced=True),
)
VARIANTS: Mapping[str, Variant] = MappingProxyType({variant.name: variant for variant in _ALL})
REPLACED, DEFAULT = "replaced", "ringserve"

choose = named("variant", VARIANTS)

_START_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    port: int
    pids: dict[str, int]  # by stage
    ready_s: float  # from the command to "ready"

    def cpu_s(self) -> dict[str, float]:
        """CPU time so far, by stage."""
        return {name: cpu_seconds(pid) for name, pid in self.pids.items()}

    @contextlib.contextmanager
    def traced(self, seconds: float) -> Iterator[list[dict[str, Any]]]:
        """The events of the coming seconds; they are there when the context has ended. The replaced path has none."""
        events: list[dict[str, Any]] = []
        thread = threading.Thread(target=self._trace, args=(seconds, events))
        if "launcher" in self.pids:
            thread.start()
        try:
            yield events
        finally:
            if thread.ident:
                thread.join()

    def _trace(self, seconds: float, events: list[dict[str, Any]]) -> None:
        url = f"http://127.0.0.1:{self.port}/debug/trace?seconds={seconds:.3f}"
        with urllib.request.urlopen(url, timeout=seconds + 60) as answer:
            events += json.load(answer)["traceEvents"]


def started(
    variant: Variant, file: Path, batches: tuple[int, ...], overrides: Sequence[str] = ()
) -> contextlib.AbstractContextManager[Server]:
    """Raises BenchError."""
    return _replaced(file, batches) if variant.replaced else ringserve(file, (*variant.overrides, *overrides))


@contextlib.contextmanager
def ringserve(file: Path, overrides: Sequence[str] = ()) -> Iterator[Server]:
    """As a user starts it. Raises BenchError."""
    with launched(file, overrides, file.with_suffix(".log")) as running:
        yield Server(running.port, running.processes(), running.ready_s)


@contextlib.contextmanager
def _replaced(file: Path, batches: tuple[int, ...]) -> Iterator[Server]:
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    began = time.monotonic()
    process = spawn.Process(target=serve_replaced, args=(file, batches, there))
    process.start()
    there.close()
    try:
        if not here.poll(_START_TIMEOUT_S):
            raise BenchError("the replaced data path did not start")
        port, agent = here.recv()
        assert process.pid is not None
        yield Server(port, {"server": process.pid, "agent": agent}, time.monotonic() - began)
    except EOFError as error:
        raise BenchError("the replaced data path ended while it started") from error
    finally:
        process.terminate()
        process.join(20)
        if process.is_alive():
            process.kill()
            process.join()
