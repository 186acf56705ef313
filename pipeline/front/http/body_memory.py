"""Limits the memory of all bodies that are being received: each is bounded, but there may be a thousand."""

from __future__ import annotations

from pipeline.front.http.errors import OVERLOADED, retry_later
from pipeline.front.settings import FrontSettings


class BodyMemory:
    """Bytes that have been received of bodies that are not complete yet."""

    __slots__ = ("_settings", "_used")

    def __init__(self, settings: FrontSettings) -> None:
        self._settings, self._used = settings, 0  # settings may change

    def take(self, size: int) -> None:
        """Raises ApiError 503 when there is no room for so many bytes more."""
        settings = self._settings
        if self._used + size > settings.body_memory_bytes:
            text = "too many large requests at once; try again later"
            raise retry_later(503, text, OVERLOADED, settings.retry_after_s)
        self._used += size

    def give(self, size: int) -> None:
        """The body is complete, or never will be."""
        self._used -= size
