"""Requests that are being served, by the ids that clients know them by, so that they can be cancelled."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from pipeline.front.http.account import Account
from pipeline.front.http.errors import NOT_FOUND, ApiError
from pipeline.front.http.exchange import Exchange

CANCELLED: Final = "request_cancelled"
"""Code of the error with which a request ends that was cancelled."""

CANCELLED_STATUS: Final = 499
_OWN = re.compile(r"(?:[a-z]+[-_])?([0-9a-f]{32})\Z")


def seed_of(name: str) -> str:
    """From an id as x-request-id has it, or the answer: chatcmpl-…, resp_…; empty for one of another kind."""
    found = _OWN.match(name)
    return found[1] if found else ""


class Cancellable(Protocol):
    """A request. `cancel` ends it with this error, whatever it waits for."""

    def cancel(self, error: ApiError) -> None: ...


class LiveRequests:
    """One for a front. Ids that clients have chosen need not be unique."""

    def __init__(self) -> None:
        self._by_id: defaultdict[str, dict[Cancellable, Account | None]] = defaultdict(dict)

    @contextmanager
    def known(self, exchange: Exchange, request: Cancellable) -> Iterator[None]:
        """While it is served."""
        ids = {exchange.seed, exchange.client_id.decode()} - {""}
        for one in ids:
            self._by_id[one][request] = exchange.account
        try:
            yield
        finally:
            for one in ids:
                del self._by_id[one][request]
                if not self._by_id[one]:
                    del self._by_id[one]

    def cancel(self, name: str, account: Account | None) -> int:
        """How many it was. Raises ApiError 404 for an id that is not known, or whose request is another key's, unless
        `account` is an operator's: the two look alike."""
        found = self._by_id.get(name) or self._by_id.get(seed_of(name)) or {}
        operator = account is not None and account.key.operator
        mine = [request for request, theirs in found.items() if operator or theirs is account]
        if not mine:
            told = "no request with this id is being served; expected its x-request-id, or the id in its answer"
            raise ApiError(404, told, kind=NOT_FOUND, parameter="id")
        for request in mine:
            request.cancel(ApiError(CANCELLED_STATUS, "the request was cancelled by its id", code=CANCELLED))
        return len(mine)
