"""The live page: its files, and the stream of its metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Final

from pipeline.front.http.exchange import Exchange, Handler
from pipeline.front.page import LiveFeed
from pipeline.front.settings import FrontSettings
from pipeline.stats import RingEnds, StatsReader
from pipeline.wire.topology import Topology

_TYPES: Final[Mapping[str, bytes]] = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"cache-control", b"no-cache"),
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    content_type: bytes
    etag: bytes


class PageRoutes:
    """The files are read once, when the front starts. Made inside a running loop."""

    def __init__(self, settings: FrontSettings, stats: StatsReader, ends: RingEnds) -> None:
        self.feed = LiveFeed(stats, ends, _about(settings, stats.topology))
        self._files = {f"/page/{name}": file for name, file in load_files().items()}
        self._files["/"] = self._files.pop("/page/index.html")

    def routes(self) -> dict[str, tuple[str, Handler]]:
        return {**dict.fromkeys(self._files, ("GET", self._file)), "/live": ("GET", self.feed.watch)}

    async def _file(self, exchange: Exchange) -> None:
        file = self._files[exchange.path.rstrip("/") or "/"]
        headers = [*_HEADERS, (b"etag", file.etag)]
        if exchange.headers.get(b"if-none-match") == file.etag:
            await exchange.start(304, None, headers)
            return await exchange.end()
        return await exchange.respond(200, file.content, file.content_type, headers)


def load_files() -> dict[str, File]:
    """The files in pipeline/front/page/static/, by name."""
    return {
        entry.name: _load(entry.read_bytes(), entry.name)
        for entry in files("pipeline.front.page").joinpath("static").iterdir()
        if entry.name.rpartition(".")[2] in _TYPES
    }


def _load(content: bytes, name: str) -> File:
    etag = b'"%b"' % hashlib.sha256(content).hexdigest()[:16].encode()
    return File(content, _TYPES[name.rpartition(".")[2]], etag)


def _about(settings: FrontSettings, topology: Topology) -> dict[str, Any]:
    """Constants for the page."""
    return {
        "version": version("ringserve"),
        "model": settings.model_name,
        "runner": settings.runner,
        "max_rows": settings.max_rows * settings.replicas,
        "max_length": settings.max_length,
        "serves": settings.metrics_port is None,  # else the page is on another port than the API
        **_picture(topology, 0),
        **(
            {"replicas": [_picture(topology, each) for each in range(topology.replicas)]}
            if topology.replicas > 1
            else {}
        ),
    }


def _picture(topology: Topology, replica: int) -> dict[str, list[dict[str, str]]]:
    """The stages of a replica with the first front, in the order of a request's way, and the rings between them."""
    stages = [stage for stage in topology.users(replica) if stage.rank == 0]
    rings = [
        (ring.key, ring.flow)
        for stage in stages
        for ring in stage.writes
        if ring.replica == replica and not ring.front
    ]
    return {
        "stages": [{"key": stage.key, "name": stage.name, "does": stage.role.does} for stage in stages],
        "rings": [
            {"key": key, "name": flow.name, "from": flow.producer, "to": flow.consumer, "carries": flow.carries}
            for key, flow in rings
        ],
    }
