"""One request and what comes back, however often its connection is lost on the way."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

from scripts.lab.http import Client, Reply
from scripts.verify.everything.kinds import RESPONSES, Kind, Way

_PATIENCE_S, _PAUSE_S = 90.0, 0.05
_LEAVES, _LATEST = 0.15, 40  # so many clients go away by themselves, behind one of the first so many events


@dataclass(slots=True)
class Asked:
    """`events`: of a stream, or the one object of a whole answer. `times_s` are when they came."""

    began_s: float = field(default_factory=time.monotonic)
    times_s: list[float] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    error: str = ""
    broken: bool = False  # its connection, for good
    replica: str = ""  # that its first token came from, where gaps between events mean something
    name: str = ""  # by which it can be collected
    returns: int = 0
    lost: int = 0  # connections
    repeats: int = 0  # how often it was asked anew, since nothing had come that could be collected
    dropped: bool = False  # a client that was to go away has gone

    _taken: int = 0  # lines of the last reply
    _next: int = 0  # number of the next event

    def take(self, reply: Reply, *, steady: bool) -> None:
        lines = reply.lines[self._taken :]
        self._taken = len(reply.lines)
        if steady and not self.name:
            self.replica = reply.headers.get(b"x-ringserve-replica", b"").decode()
        self.name = self.name or reply.headers.get(b"x-stream-id", b"").decode()
        for line in lines:
            if line.startswith((b":", b"retry: ", b"event: ")):
                continue
            if line.startswith(b"id: "):
                if (number := int(line[4:])) != self._next:
                    self.error = f"event {number} came, {self._next} is due"
                continue
            self._next += 1
            if line != b"data: [DONE]":
                self.events.append(json.loads(line.removeprefix(b"data:")))
                self.times_s.append(time.monotonic())

    def whole(self, reply: Reply) -> None:
        self.events = [json.loads(reply.body)]
        self.times_s.append(time.monotonic())

    def come_back(self) -> None:
        self._taken = 0
        if self.name:
            self.returns += 1
        else:
            self.repeats += 1

    @property
    def position(self) -> str:
        return f"?starting_after={self._next - 1}" if self._next else ""


async def ask(port: int, kind: Kind, asked: Asked, detached_s: float, rng: random.Random | None = None) -> None:
    """To the end, into `asked`. With `rng` some clients of streams go away in the middle, and come back."""
    until = time.monotonic() + _PATIENCE_S
    leaves = rng.randint(1, _LATEST) if rng and rng.random() < _LEAVES and kind.way is Way.STREAM else None
    way = _stream if kind.way is Way.STREAM else _background if kind.way is Way.BACKGROUND else _whole
    kept = (("x-detached-s", f"{detached_s:g}"),) if detached_s and kind.way is not Way.WHOLE else ()
    client = Client(f"http://127.0.0.1:{port}", headers=(("x-ringserve-timings", "1"), *kept), keep_alive=False)
    while True:
        try:
            if await way(client, kind, asked, leaves):
                return
        except OSError as error:
            if time.monotonic() > until:
                asked.broken, asked.error = True, f"the connection broke: {error!r}"
                return
            asked.lost += 1
            asked.come_back()
            await asyncio.sleep(_PAUSE_S)


async def _stream(client: Client, kind: Kind, asked: Asked, leaves: int | None) -> bool:
    def watch(reply: Reply) -> bool:
        if reply.status == 200:
            asked.take(reply, steady=kind.steady)
        return leaves is not None and not asked.dropped and bool(asked.name) and len(asked.events) >= leaves

    reply = await client.send(_request(client, kind, asked), watch)
    if reply.status != 200:
        asked.error = f"status {reply.status}: {reply.body.decode(errors='replace')}"
    elif leaves is not None and not asked.dropped and asked.name and len(asked.events) >= leaves:
        asked.dropped = True
        asked.come_back()
        return False
    return True


async def _whole(client: Client, kind: Kind, asked: Asked, _leaves: int | None) -> bool:
    reply = await client.send(_request(client, kind, asked))
    if reply.status == 200:
        asked.whole(reply)
    else:
        asked.error = f"status {reply.status}: {reply.body.decode(errors='replace')}"
    return True


async def _background(client: Client, kind: Kind, asked: Asked, _leaves: int | None) -> bool:
    path = f"{RESPONSES}/{asked.name}"
    reply = await client.send(client.request("GET", path) if asked.name else _request(client, kind, asked))
    if reply.status != 200:
        asked.error = f"status {reply.status}: {reply.body.decode(errors='replace')}"
        return True
    found = json.loads(reply.body)
    asked.name = found["id"]
    if found["status"] in ("queued", "in_progress"):
        await asyncio.sleep(_PAUSE_S)
        return False
    asked.whole(reply)
    return True


def _request(client: Client, kind: Kind, asked: Asked) -> bytes:
    """Where it was, if it has a name by which it is kept."""
    if not asked.name:
        return client.request("POST", kind.path, json.dumps(kind.body).encode())
    return client.request("GET", f"/v1/streams/{asked.name}{asked.position}")
