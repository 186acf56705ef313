"""Handler of `/openapi.json`."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import orjson

from pipeline.front.api.openapi.document import openapi_document
from pipeline.front.http.access import ApiKeys
from pipeline.front.http.exchange import Exchange
from pipeline.front.settings import FrontSettings


class OpenApiRoute:
    """The document is made at the first request, and again after a reload; in a thread, since it takes as long as
    several tokens."""

    def __init__(self, settings: FrontSettings, keys: ApiKeys) -> None:
        self._settings, self._keys = settings, keys
        self._made_for: tuple[Any, ...] = ()
        self._document = b""

    async def describe(self, exchange: Exchange) -> None:
        now = (*dataclasses.astuple(self._settings), self._keys.needed)
        if now != self._made_for:
            self._document = await asyncio.to_thread(self._make)
            self._made_for = now
        await exchange.respond(200, self._document)

    def _make(self) -> bytes:
        return orjson.dumps(openapi_document(self._settings, keys_needed=self._keys.needed))
