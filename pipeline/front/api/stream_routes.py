"""Answers that are kept: read from where their clients were, asked for, deleted."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qs, unquote

import orjson

from pipeline.front.delivery.kept.answer import KeptAnswer
from pipeline.front.delivery.kept.answers import KeptAnswers
from pipeline.front.delivery.live import CANCELLED
from pipeline.front.http.errors import NOT_FOUND, ApiError
from pipeline.front.http.exchange import Exchange, Handler, answer_json

STREAM: Final = re.compile(r"/v1/(streams|responses)/([^/]{1,384})/?\Z")
STREAM_PATHS: Final = ("/v1/streams/{id}", "/v1/responses/{id}")
LAST_EVENT: Final = b"last-event-id"
AFTER: Final = "starting_after"
_NUMBER = re.compile(r"\d{1,9}\Z")


class StreamRoutes:
    """The caller has matched the path with `STREAM`."""

    def __init__(self, kept: KeptAnswers) -> None:
        self._kept = kept

    @property
    def methods(self) -> dict[str, Handler]:
        return {"GET": self.get, "DELETE": self.delete}

    async def get(self, exchange: Exchange) -> None:
        """In OpenAI's words where the path is OpenAI's: an object, unless a stream is asked for."""
        only_head = exchange.method == "HEAD"
        kind, _, answer = self._found(exchange, make=not only_head)
        query = parse_qs(exchange.query.decode("latin-1"), keep_blank_values=True)
        position = _position(exchange, query)
        if only_head:
            await answer.audience.show_head(exchange)
        elif kind == "responses" and not _is_stream(query):
            await exchange.respond(200, await _object(answer, exchange))
        elif answer.written.whole is None and answer.written.complete and position > len(answer.written.events):
            told = f"{AFTER} is {position - 1}, expected at most {len(answer.written.events) - 1}, the last event"
            raise ApiError(400, told, parameter=AFTER)
        else:
            await answer.audience.play(exchange, position)

    async def delete(self, exchange: Exchange) -> None:
        """If it is being made, that ends."""
        kind, name, answer = self._found(exchange, make=False)
        answer.give_up("its answer was deleted")
        await answer_json(exchange, {"id": name, "object": kind.removesuffix("s"), "deleted": True})

    def _found(self, exchange: Exchange, *, make: bool) -> tuple[str, str, KeptAnswer]:
        found = STREAM.match(exchange.path.rstrip("/"))
        assert found is not None
        kind, name = found[1], unquote(found[2])
        answer = self._kept.find(name, exchange.account, make=make)
        if kind == "responses" and answer.exchange.path.rstrip("/") != "/v1/responses":
            raise ApiError(404, "no response with this id is kept", kind=NOT_FOUND, parameter="id")
        return kind, name, answer


def _is_stream(query: dict[str, list[str]]) -> bool:
    """Raises ApiError 400."""
    told = query.get("stream", ["false"])[-1]
    if told not in ("true", "false"):
        raise ApiError(400, f"stream is {told!r}, expected true or false", parameter="stream")
    return told == "true"


def _position(exchange: Exchange, query: dict[str, list[str]]) -> int:
    """Of the first event that the client has not got. Raises ApiError 400."""
    header = exchange.headers.get(LAST_EVENT)
    name, told = (
        (AFTER, query[AFTER][-1]) if AFTER in query else (LAST_EVENT.decode(), (header or b"").decode("latin-1"))
    )
    if not told:
        return 0
    if not _NUMBER.match(told):
        raise ApiError(400, f"{name} must be the number of an event, as its id says", parameter=name)
    return int(told) + 1


async def _object(answer: KeptAnswer, exchange: Exchange) -> bytes:
    """The response as it is now: what its newest event with all of it says."""
    await answer.settled(exchange)
    written = answer.written
    if written.error is not None and written.error.code != CANCELLED:
        raise written.error
    if written.whole is not None:
        return written.whole[1]
    events = written.events[-1:] if written.complete else written.events[:1]
    told = [orjson.loads(event.partition(b"data: ")[2])["response"] for event in events]
    if written.error is not None:
        told = [orjson.loads(answer.pending)]
    found = told[0] if told else orjson.loads(answer.pending)
    failed = found.get("error") or {}
    if written.error is not None or failed.get("code") == CANCELLED:
        found["status"] = "cancelled"
    return orjson.dumps(found)
