"""Spans of requests on their way to the exporter, and the trace context of clients (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

import ipc
from pipeline.front.http.exchange import Exchange, Header
from pipeline.stats import Counters, FrontCounter
from pipeline.wire.span import RequestSpan

TRACEPARENT: Final = b"traceparent"
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_SAMPLED = 1
_CHATS = ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat")
_LONGEST_MESSAGE = 500


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where a request's span belongs. Its own ids come from the request's id, which is random."""

    trace_id: bytes
    span_id: bytes
    parent: bytes = b""

    @classmethod
    def of(cls, exchange: Exchange) -> Self | None:
        """None: its client does not want it to be recorded. A header that is wrong begins a trace of its own."""
        own = bytes.fromhex(exchange.seed)
        found = _PARENT.match(exchange.headers.get(TRACEPARENT, b""))
        if found is None or not _is_valid(found):
            return cls(own, own[8:])
        if not int(found[4], 16) & _SAMPLED:
            return None
        return cls(bytes.fromhex(found[2].decode()), own[8:], bytes.fromhex(found[3].decode()))

    def header(self) -> Header:
        return TRACEPARENT, b"00-%b-%b-01" % (self.trace_id.hex().encode(), self.span_id.hex().encode())


def _is_valid(found: re.Match[bytes]) -> bool:
    """A later version may say more behind what is known; version ff is forbidden, and so are ids of zeros."""
    version, more = found[1], found[5]
    return version != b"ff" and (version != b"00" or more is None) and bool(int(found[2], 16) and int(found[3], 16))


def operation_of(path: str) -> str:
    return "chat" if path.startswith(_CHATS) else "text_completion"


class Tracing:
    """Writes spans to the exporter's ring, whose descriptors this takes over: without waiting; those for which there
    is no room are dropped and counted. Whether an exporter is there makes no other difference."""

    def __init__(self, handle: ipc.RingHandle, counters: Counters) -> None:
        """Raises IpcError."""
        self._ring, self._counters = ipc.ByteRing.from_handle(handle), counters
        self._producer = self._ring.producer(label="front")

    def close(self) -> None:
        self._producer.close()
        self._ring.close()

    def send(self, span: RequestSpan) -> None:
        span.message = span.message[:_LONGEST_MESSAGE]
        try:
            self._producer.write(span.pack(), timeout=0)
        except (ipc.IpcError, ValueError):  # full, or larger than any
            self._counters.add(FrontCounter.SPANS_DROPPED)
        else:
            self._counters.add(FrontCounter.SPANS)
