"""Cancelling requests that wait or run, by their ids."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from pipeline.front.delivery.live import LiveRequests
from pipeline.front.http.exchange import Exchange, answer_json

CANCEL: Final = re.compile(r"/v1/(requests|responses)/([^/]{1,384})/cancel/?\Z")
CANCEL_PATHS: Final = ("/v1/requests/{id}/cancel", "/v1/responses/{id}/cancel")


class CancelRoutes:
    """The caller has matched the path with `CANCEL`."""

    def __init__(self, live: LiveRequests) -> None:
        self._live = live

    async def cancel(self, exchange: Exchange) -> None:
        """In OpenAI's words where the path is OpenAI's. The body, if there is one, says nothing."""
        found = CANCEL.match(exchange.path.rstrip("/"))
        assert found is not None
        kind, name = found[1], unquote(found[2])
        await exchange.read_body()
        count = self._live.cancel(name, exchange.account)
        if kind == "responses":
            await answer_json(exchange, {"id": name, "object": "response", "status": "cancelled"})
        else:
            await answer_json(exchange, {"id": name, "object": "request", "cancelled": count})
