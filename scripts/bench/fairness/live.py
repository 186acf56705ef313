"""A real server with an emulated device, and two clients with keys of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import uvloop

from scripts.bench.fairness.scenarios import FIFO, GREEDY, MODEST, Scenario
from scripts.bench.fairness.simulation import Asked, Seen
from scripts.lab.errors import BenchError
from scripts.lab.http import Client, Reply
from scripts.lab.paths import ROOT
from scripts.lab.server import WARM, Server, launched

_CONFIG = ROOT / "configs" / "emulated_910b.yaml"
_KEYS = {GREEDY: "sk-greedy-0123456789", MODEST: "sk-modest-0123456789"}
_IDS = (300, 2048)  # of the demo's tokenizer
_LOOK_S = 0.25
_PATIENCE_S = 20.0


@contextlib.contextmanager
def server(overrides: list[str]) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as name:
        keys = Path(name) / "keys"
        keys.write_text("\n".join(_KEYS.values()), encoding="utf-8")
        keys.chmod(0o600)
        settings = (
            WARM, f"pipeline.api_keys_file={keys}", "pipeline.max_queue=4096", "pipeline.max_connections=4096",
            "pipeline.log.level=warning", "pipeline.prefix_cache=false", *overrides,
        )  # fmt: skip
        with launched(_CONFIG, settings, Path(name) / "log") as running:
            yield running


@dataclass(slots=True)
class LiveSeen(Seen):
    """What all have got, by time; the greedy one's is what the modest one has not."""

    at_s: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)

    def rate(self, key: int, begin_s: float, end_s: float) -> float:
        times = np.array(self.tokens[MODEST])
        modest = float(((times >= begin_s) & (times < end_s)).sum()) / (end_s - begin_s)
        if key == MODEST:
            return modest
        first, last = (max(0, bisect_right(self.at_s, at) - 1) for at in (begin_s, end_s))
        passed = self.at_s[last] - self.at_s[first]
        return max(0.0, (self.total[last] - self.total[first]) / passed - modest) if passed else 0.0


def run(running: Server, scenario: Scenario, order: str, until_s: float) -> LiveSeen:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run(_run(running, scenario.asked(order, until_s), until_s, fair=order != FIFO))
    if running.under_way(_PATIENCE_S):
        raise BenchError("requests are still under way though their clients are gone")
    return seen


async def _run(running: Server, asked: list[Asked], until_s: float, *, fair: bool) -> LiveSeen:
    seen = LiveSeen()
    before = running.metrics().total("num_preemptions_total")
    keys = _KEYS if fair else dict.fromkeys(_KEYS, _KEYS[GREEDY])
    clients = {
        key: Client(running.base_url, headers=(("authorization", f"Bearer {text}"),)) for key, text in keys.items()
    }
    requests = [_request(clients[one.key], one) for one in asked]
    begin = time.monotonic()
    every = zip(asked, requests, strict=True)
    tasks = [asyncio.create_task(_ask(clients[one.key], request, one, begin, seen)) for one, request in every]
    while (now := time.monotonic() - begin) < until_s + _LOOK_S:
        with contextlib.suppress(OSError):  # a thousand bodies at once may keep it longer than that waits
            metrics = await asyncio.to_thread(running.metrics)
            seen.at_s.append(now)
            seen.total.append(metrics.total("sampled_tokens_total"))
        await asyncio.sleep(_LOOK_S)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    seen.preemptions = int(running.metrics().total("num_preemptions_total") - before)
    return seen


def _request(client: Client, asked: Asked) -> bytes:
    ids = np.random.default_rng(asked.prompt * 7919 + asked.output).integers(*_IDS, asked.prompt).tolist()
    body = {"prompt": ids, "max_tokens": asked.output, "ignore_eos": True, "stream": asked.key == MODEST}
    return client.request("POST", "/v1/completions", json.dumps(body).encode())


async def _ask(client: Client, request: bytes, asked: Asked, begin: float, seen: LiveSeen) -> None:
    await asyncio.sleep(max(0.0, begin + asked.at_s - time.monotonic()))
    sent = time.monotonic()

    def watch(reply: Reply) -> bool:
        while len(noted) < len(reply.lines):
            line, at = reply.lines[len(noted)], reply.times_ns[len(noted)] / 1e9
            noted.append(line.startswith(b"data: {"))
            if noted[-1]:
                if sum(noted) == 1:
                    seen.first_s[MODEST].append(at - sent)
                seen.tokens[MODEST].append(at - begin)
        return False

    noted: list[bool] = []
    reply = await client.send(request, watch if asked.key == MODEST else None)
    if reply.status != 200:
        raise BenchError(f"the server answered {reply.status}: {reply.body[:200]!r}")
