"""Texts that preprocess encodes for clients of /tokenize and their like: the front has no tokenizer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

import ipc
from pipeline.front.delivery.lane import NOWHERE, Lane, Lanes
from pipeline.front.delivery.suspects import conviction
from pipeline.front.http.errors import OVERLOADED, ApiError, ClientGone, retry_later
from pipeline.front.http.exchange import Exchange
from pipeline.front.http.worker import MOST_BYTES
from pipeline.runtime.generations import Verdict
from pipeline.wire.request import Cancel, Encode, Encoded, GoOn

_SHORT = 2048  # characters; longer texts are sent one after the other, lest they fill the ring


@dataclass(slots=True)
class _Text:
    asked: Encode
    answer: asyncio.Future[tuple[int, bytes]]
    pieces: list[bytes] = field(default_factory=list)
    strikes: int = 0
    home: int = NOWHERE  # the replica that it was sent to

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def disconnect(self, why: str) -> None:
        self.fail(ClientGone(why))


class Encodings:
    """Made inside a running loop. Like requests, texts wait while there are no rings, and are sent again after a
    restart. Any replica will do: they take turns."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes, self._turn_of = lanes, 0
        self._texts: dict[int, _Text] = {}
        self._turn = asyncio.Semaphore()
        self._bytes = 0  # of the bodies that wait, and of those that are worked on

    async def encode(self, asked: Encode, exchange: Exchange) -> tuple[int, bytes]:
        """How many ids the text has, and the ids unless they are too many. Raises ApiError, ClientGone."""
        size = exchange.body_bytes
        if self._bytes and self._bytes + size > MOST_BYTES:
            raise retry_later(429, "too many large requests at once; try again later", OVERLOADED)
        self._bytes += size
        try:
            async with contextlib.nullcontext() if asked.size <= _SHORT else self._turn:
                return await self._encode(asked, exchange)
        finally:
            self._bytes -= size

    async def _encode(self, asked: Encode, exchange: Exchange) -> tuple[int, bytes]:
        connection = exchange.connection
        if connection.lost:
            raise ClientGone("the client closed the connection")
        text = self._texts[asked.request] = _Text(asked, asyncio.get_running_loop().create_future())
        connection.on_lost.add(text.disconnect)
        try:
            self._submit(text)
            return await text.answer
        except BaseException:
            self._send(text, Cancel(asked.request).pack())
            raise
        finally:
            connection.on_lost.discard(text.disconnect)
            del self._texts[asked.request]

    # ---- rings ----------------------------------------------------------------------------------------------

    def on_attached(self, lane: Lane) -> None:
        """Texts that have waited for this replica, or for any, are sent again."""
        self._again([text for text in self._texts.values() if text.home in (lane.replica, NOWHERE)])

    def on_verdict(self, verdict: Verdict) -> None:
        """Texts at that replica are sent to others, unless they may be to blame, or there is no other. None of them
        ever has a row: where those who have one are suspects, it is nobody here."""
        mine = [text for text in self._texts.values() if text.home == verdict.replica]
        named = [text for text in mine if text.asked.request in (verdict.suspects or ())]
        self.blame([text.asked.request for text in named])
        self._again([text for text in mine if text not in named])

    def on_away(self, replica: int) -> None:
        """Texts that wait for that replica are sent to others."""
        self._again([text for text in self._texts.values() if text.home == replica])

    def _again(self, texts: Sequence[_Text]) -> None:
        for text in texts:
            text.asked = msgspec.structs.replace(text.asked, attempt=text.asked.attempt + 1)
            text.pieces.clear()
            self._submit(text)

    def blame(self, requests: Sequence[int]) -> None:
        """One of these made preprocess fail by itself."""
        for text in [self._texts[request] for request in requests if request in self._texts]:
            text.strikes += 1
            if text.strikes > 1:
                text.fail(conviction())

    def fail_all(self, error: ApiError, lane: Lane | None = None) -> None:
        """Of one lane, or of all."""
        for text in self._texts.values():
            if lane is None or text.home == lane.replica:
                text.fail(error)

    def _submit(self, text: _Text) -> None:
        if not text.answer.done():
            able = self._lanes.open
            self._turn_of += 1
            text.home = able[self._turn_of % len(able)] if able else NOWHERE
            self._send(text, text.asked.pack())

    def _send(self, text: _Text, record: bytes) -> None:
        """As soon as there is room; not at all if the rings close before."""
        client = None if text.home == NOWHERE else self._lanes[text.home].client
        if client is not None:
            with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):
                if not client.try_send(record):
                    client.send_later(lambda: record)

    # ---- answers --------------------------------------------------------------------------------------------

    def on_encoded(self, reply: Encoded) -> None:
        """Ids of a text; what is said of another attempt, or of a text that nobody waits for, is dropped."""
        text = self._texts.get(reply.request)
        if text is None or text.answer.done() or reply.attempt != text.asked.attempt:
            return
        text.pieces.append(reply.ids)
        if reply.last:
            text.answer.set_result((reply.count, b"".join(text.pieces)))
        else:
            self._send(text, GoOn(reply.request).pack())

    def on_refused(self, request: int, attempt: int, error: ApiError) -> None:
        text = self._texts.get(request)
        if text is not None and attempt == text.asked.attempt:
            text.fail(error)
