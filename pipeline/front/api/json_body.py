"""JSON from clients, parsed by a library that holds the GIL.

Four megabytes of text or numbers take it 30 ms at most, but four megabytes of empty lists 0.2 s. So a body with more
values than any request needs is refused before it is parsed.
"""

from __future__ import annotations

import codecs
from typing import Any, Final

import numpy as np
import orjson

from pipeline.front.http.errors import ApiError

_COMMA, _QUOTE, _BRACKET, _BACKSLASH, _BRACE, _COLON = b',"[\\{:'
_LIMITS = (
    ((_BRACKET, _BRACE), 1 << 17, "lists and objects"),  # 10,000 messages with several parts each
    ((_COLON,), 1 << 17, "members of objects"),
    ((_COMMA,), 7 << 17, "values in lists and objects"),  # more than 4 MiB of ids of four digits
)


LARGE_BODY: Final = 1 << 16
_MANY_OBJECTS: Final = 256


def is_small(content: bytes) -> bool:
    """Parsing takes a few milliseconds at most. An object takes longer than a text of its length, up to 40 µs."""
    return len(content) < LARGE_BODY and content.count(b"{") <= _MANY_OBJECTS


def parse_object(content: bytes) -> dict[str, Any]:
    """The body, which must be a JSON object. Raises ApiError 400."""
    content = content.removeprefix(codecs.BOM_UTF8)  # some tools of Windows write it
    _require_few_values(content)
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"the body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object")
    return body


def _require_few_values(content: bytes) -> None:
    """Usually the length says enough, or counting bytes; only beyond a limit, those inside of strings are
    subtracted."""
    beyond = [
        (marks, most, what)
        for marks, most, what in _LIMITS
        if len(content) > most < sum(content.count(b"%c" % mark) for mark in marks)
    ]
    if not beyond:
        return
    text = np.frombuffer(content, np.uint8)
    quotes = _quotes(text)
    for marks, most, what in beyond:
        count = _count_outside(text, quotes, marks)
        if count > most:
            raise ApiError(400, f"the body has {count} {what}; at most {most} are allowed")


def _count_outside(text: Any, quotes: Any, marks: tuple[int, ...]) -> int:
    """How often these bytes occur outside of strings. Other threads run meanwhile."""
    places = np.concatenate([np.flatnonzero(text == mark) for mark in marks])
    return int(np.count_nonzero(np.searchsorted(quotes, places) % 2 == 0))


def _quotes(text: Any) -> Any:
    """Where strings begin and end: a quote after an odd number of backslashes is a part of its string."""
    quotes, backslashes = np.flatnonzero(text == _QUOTE), np.flatnonzero(text == _BACKSLASH)
    if not backslashes.size:
        return quotes
    first = np.flatnonzero(np.diff(backslashes, prepend=-2) > 1)  # of each run of them
    last = np.append(first[1:], backslashes.size) - 1
    odd = backslashes[last[(last - first) % 2 == 0]]
    return quotes[~np.isin(quotes - 1, odd, assume_unique=True)]
