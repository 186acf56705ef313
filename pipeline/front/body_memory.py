"""What all bodies together may take while they arrive: each is bounded, but a thousand connections may send one."""

from __future__ import annotations

from pipeline.front.errors import OVERLOADED, retry_later


class BodyMemory:
    """Bytes that have been received of bodies that are not complete yet."""

    __slots__ = ("_limit", "_retry_after_s", "_used")

    def __init__(self, limit: int, retry_after_s: int) -> None:
        self._limit, self._retry_after_s, self._used = limit, retry_after_s, 0

    def take(self, size: int) -> None:
        """Raises ApiError 503 when there is no room for so many bytes more."""
        if self._used + size > self._limit:
            text = "too many large requests arrive at once; try again later"
            raise retry_later(503, text, OVERLOADED, self._retry_after_s)
        self._used += size

    def give(self, size: int) -> None:
        """The body is complete, or will not be."""
        self._used -= size
