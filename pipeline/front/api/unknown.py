"""Parameters that no API here knows, and that were ignored: told to the client, and to the operator."""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import quote

from pipeline.front.api.body import Reading
from pipeline.front.http.exchange import Exchange
from pipeline.front.http.throttle import REFUSED

log = logging.getLogger("ringserve.front")

IGNORED: Final = b"x-ringserve-ignored"
_MOST_TOLD: Final = 1000  # names in the log: clients make them up
_SAFE: Final = "!#$&'()*+./:;<=>?@[]^_`{|}~-"  # in a header, besides letters and digits; the comma separates names


class UnknownParameters:
    """A header names those of a request; the log names each once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, exchange: Exchange, reading: Reading) -> None:
        if not reading.unknown:
            return
        names = ", ".join(quote(name, safe=_SAFE) for name in reading.unknown)
        exchange.common = (*exchange.common, (IGNORED, names.encode()))
        for name, near in reading.unknown.items():
            if name not in self._told and len(self._told) < _MOST_TOLD:
                self._told.add(name)
                advice = f"; did its client mean {near}?" if near else ""
                told = "the unknown parameter %r of %s is ignored%s"
                log.info(told, name, exchange.path, advice, extra={REFUSED: True})
