"""Tokens of many clients that are written together."""

from __future__ import annotations

import asyncio
import time

from pipeline.front.metrics.trace import Spans
from pipeline.stats import Histograms, RequestHistogram


class Outbox:
    """Chunks that wait until all that were read off the ring with them are ready, too.

    A system call in between evicts Python's code from the CPU caches: writing each token as soon as it was ready took
    twice the time.
    """

    def __init__(self, times: Histograms, spans: Spans) -> None:
        self._times, self._spans = times, spans
        self._chunks: list[tuple[asyncio.WriteTransport, bytes]] = []

    def put(self, transport: asyncio.WriteTransport, chunk: bytes) -> None:
        """Nothing else may be written there before `flush`."""
        self._chunks.append((transport, chunk))

    def flush(self, since_ns: int) -> None:
        """Write all. `since_ns`: when they were read off the ring."""
        chunks, self._chunks = self._chunks, []
        for transport, chunk in chunks:
            transport.write(chunk)
        if chunks:
            self.record(since_ns, len(chunks))

    def record(self, since_ns: int, count: int = 1) -> None:
        """So many writes are done, of what was read off the ring then."""
        now = time.monotonic_ns()
        self._times.observe(RequestHistogram.FRONT, now - since_ns, count)
        if self._spans.wanted:
            self._spans.add(since_ns, now)
