"""What the launcher tells a front of an API key: its digest, and what its requests may do."""

from __future__ import annotations

from typing import NamedTuple

_NUMBER_DIGITS = 12  # of the digest, in hexadecimal


class ApiKey(NamedTuple):
    """In JSON an array of its fields. None: no limit."""

    digest: str  # SHA-256, in hexadecimal digits
    weight: float = 1.0  # of its share, beside other keys'
    priority: int = 0  # class of its requests; the lowest is first
    concurrent: int | None = None  # requests
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None  # of prompts and answers
    operator: bool = False  # may cancel requests of other keys, and put its own before all

    @property
    def number(self) -> int:
        """By which stages behind the front tell keys apart. The same after a reload, and no way back to the key."""
        return int(self.digest[:_NUMBER_DIGITS], 16) or 1
