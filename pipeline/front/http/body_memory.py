"""What all bodies together may take while they arrive: each is bounded, but a thousand connections may send one."""

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
            text = "too many large requests arrive at once; try again later"
            raise retry_later(503, text, OVERLOADED, settings.retry_after_s)
        self._used += size

    def give(self, size: int) -> None:
        """The body is complete, or will not be."""
        self._used -= size
