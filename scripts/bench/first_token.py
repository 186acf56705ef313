"""Where the time to the first token of an idle server goes, from the client's send to the client's read.

    python -m scripts.bench.first_token                         60 requests, one at a time
    python -m scripts.bench.first_token --against ../before     and of another checkout, in turns
    python -m scripts.bench.first_token --idle-ms 0             one after the other: nothing has cooled down
    python -m scripts.bench.first_token --set pipeline.prefix_cache=false

The device is emulated and takes its time whatever the batch; every prompt is another one. Each request is sent on an
open connection, after all processes have slept for a while. Parts are from the time stamps of the step and from the
front's spans (`/debug/trace`), which have the client's clock; CPU time is what each process used for a request of two
tokens. On a machine that others use compare medians of one run only.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.bench.overhead.device import Device
from scripts.lab.arguments import count, parser, positive, say, within, write_json
from scripts.lab.clock import cpu_seconds
from scripts.lab.errors import BenchError
from scripts.lab.paths import ROOT
from scripts.lab.processes import running
from scripts.lab.server import ReadyPipe, launch_command, stages_of
from scripts.lab.table import markdown

PARTS = (
    "sent → the front knows the head",
    "→ body read, checked, sent on",
    "→ preprocess plans: woken, tokenized, hashed",
    "→ step published",
    "→ device started",
    "the device",
    "→ sampling has the results",
    "→ text published",
    "→ the front has it",
    "→ written",
    "→ the client has it",
)
DEVICE = PARTS.index("the device")
EVENTS = ("read", "schedule", "launch", "device", "publish", "detokenize and send", "write")
_TIMEOUT_S, _WARM_UP, _TOKENS, _END = 60.0, 5, 2, b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it was sent and its first token read, in ns."""

    sent: int
    first: int


@dataclass(slots=True)
class Side:
    """A server and what was seen of it."""

    name: str
    pid: int  # of its launcher
    port: int
    connection: socket.socket
    asked: list[Asked] = field(default_factory=list)
    cpu_s: dict[str, float] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, text: str) -> Asked:
        """Two tokens of it, read to the end."""
        parameters = {"max_new_tokens": _TOKENS, "ignore_eos": True, "return_full_text": False}
        body = json.dumps({"inputs": text, "parameters": parameters, "stream": True}).encode()
        head = b"POST /models/llama2/generate_stream HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        request, answer, first = head + body, b"", 0
        sent = time.monotonic_ns()
        self.connection.sendall(request)
        while not answer.endswith(_END):
            answer += (part := self.connection.recv(1 << 16))
            first = first or (b'"event"' in answer and time.monotonic_ns())
            if not part or not answer.startswith(b"HTTP/1.1 200"):
                raise BenchError(f"{self.name} answered {answer[:200]!r}")
        return Asked(sent, first)

    def used(self) -> dict[str, float]:
        return {stage: cpu_seconds(pid) for stage, pid in stages_of(self.pid).items()}

    def trace(self, seconds: float) -> None:
        url = f"http://127.0.0.1:{self.port}/debug/trace?seconds={seconds:.1f}"
        with urllib.request.urlopen(url, timeout=seconds + _TIMEOUT_S) as answer:
            self.events += json.load(answer)["traceEvents"]

    def points(self, asked: Asked) -> list[float] | None:
        """Where its parts begin, and the end of the last one, in ns; None: the trace has not seen all of it."""
        spans = [span for name in EVENTS if (span := self._first(name, asked)) is not None]
        if len(spans) < len(EVENTS):
            return None
        read, schedule, *step, write = spans
        return [asked.sent, *read, *schedule, *(end for _, end in step), *write, asked.first]

    def _first(self, name: str, asked: Asked) -> tuple[float, float] | None:
        """Begin and end of the first such event of a request: one comes after the other."""
        for event in self.events:
            if event["name"] == name and asked.sent <= (begin := 1e3 * event["ts"]) <= asked.first:
                return begin, begin + 1e3 * event["dur"]
        return None


@contextlib.contextmanager
def serving(name: str, checkout: Path, file: Path, overrides: Sequence[str]) -> Iterator[Side]:
    """A server of the code in `checkout`."""
    with ReadyPipe() as pipe:
        command = [*launch_command(file, overrides), *pipe.options]
        log, environment = file.with_suffix(f".{name}.log"), os.environ | {"PYTHONPATH": str(checkout)}
        with running(
            command,
            log,
            pipe.wait,
            timeout_s=_TIMEOUT_S,
            environment=environment,
            pass_fds=pipe.fds,
            cwd=checkout,
        ) as server:
            port = int(server.base_url.rsplit(":", 1)[1])
            with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as connection:
                yield Side(name, server.pid, port, connection)


def measure(sides: Sequence[Side], requests: int, idle_s: float, step_ms: float) -> None:
    """One request at a time, the sides in turn; traced, since that costs a few microseconds."""
    for number in range(_WARM_UP):
        for side in sides:
            side.ask(_prompt(-number))
    seconds = 1 + requests * len(sides) * (idle_s + _TOKENS * (step_ms + 3) / 1e3)
    tracing = [threading.Thread(target=side.trace, args=(seconds,)) for side in sides]
    for thread in tracing:
        thread.start()
    time.sleep(0.2)
    before = [side.used() for side in sides]
    for number in range(requests):
        for side in sides if number % 2 else sides[::-1]:
            time.sleep(idle_s)
            side.asked.append(side.ask(_prompt(number)))
    for side, used in zip(sides, before, strict=True):
        side.cpu_s = {stage: (now - used[stage]) / requests for stage, now in side.used().items()}
    say("waiting for the end of the trace")
    for thread in tracing:
        thread.join()


def _prompt(number: int) -> str:
    return f"{time.monotonic_ns()}: {number}. " + "What does a ring buffer hold, and who may write to it? " * 3


def parts(side: Side) -> NDArray[np.float64]:
    """``[requests, PARTS]`` in µs, of those that are in the trace. Raises BenchError where none is."""
    seen = [points for asked in side.asked if (points := side.points(asked)) is not None]
    if not seen:
        raise BenchError(f"the trace of {side.name} holds no request")
    return np.diff(seen, axis=1) / 1e3


def report(sides: Sequence[Side], step_ms: float) -> dict[str, Any]:
    result: dict[str, Any] = {"step_ms": step_ms, "requests": len(sides[0].asked), "sides": {}}
    lines: list[list[object]] = [[name] for name in PARTS]
    lines += [["**all but the device, median**"], ["its 10th percentile"]]
    for side in sides:
        every = parts(side)
        own = every.sum(axis=1) - every[:, DEVICE]
        column = [*np.median(every, axis=0), np.median(own), np.percentile(own, 10)]
        for line, value in zip(lines, column, strict=True):
            line.append(round(float(value)))
        cpu = {f"CPU of {stage}": round(1e6 * used) for stage, used in side.cpu_s.items()}
        result["sides"][side.name] = {str(line[0]): line[-1] for line in lines} | cpu
    stages = [f"CPU of {stage}" for stage in sides[0].cpu_s]
    lines += [[name, *(result["sides"][side.name][name] for side in sides)] for name in stages]
    print(markdown(("first token, µs, medians", *(side.name for side in sides)), lines))
    return result


def main() -> int:
    line = parser(__doc__)
    line.add_argument("--against", type=Path, metavar="DIR", help="another checkout, built in place")
    line.add_argument("--requests", type=count, default=60, help="of each; default 60")
    line.add_argument("--idle-ms", type=within(0), default=100.0, help="before each request; default 100")
    line.add_argument("--step-ms", type=positive, default=22.5, help="of the device; default 22.5")
    line.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="of the servers"
    )
    line.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    given = line.parse_args()
    checkouts = {"here": ROOT, **({"there": given.against} if given.against else {})}
    overrides = ("pipeline.prefix_cache=true", *given.overrides)
    try:
        with tempfile.TemporaryDirectory(prefix="ringserve-bench-") as directory, contextlib.ExitStack() as stack:
            file = Device(given.step_ms).write(Path(directory) / "server.yaml", 8)
            sides = [stack.enter_context(serving(name, where, file, overrides)) for name, where in checkouts.items()]
            measure(sides, given.requests, given.idle_ms / 1e3, given.step_ms)
            write_json(given.json, report(sides, given.step_ms))
    except (BenchError, OSError) as error:
        print(f"first_token: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
