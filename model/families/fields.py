"""Typed access to a ``config.json``, which remembers what was looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from model.errors import ConfigurationError


class Fields:
    """A mapping's values by key; null counts as missing. Each method raises ConfigurationError for another type."""

    def __init__(self, content: Mapping[str, Any], where: str = "") -> None:
        self._content, self._where = content, where
        self.seen: set[str] = set()

    def get(self, key: str) -> Any:
        self.seen.add(key)
        return self._content.get(key)

    def count(self, key: str, default: int | None = None) -> int:
        """A positive whole number; required without a default."""
        value = default if self.get(key) is None else self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.error(key, "it must be a positive whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = default if self.get(key) is None else self.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.error(key, "it must be a number")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = default if self.get(key) is None else self.get(key)
        if not isinstance(value, bool):
            raise self.error(key, "it must be true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = default if self.get(key) is None else self.get(key)
        if not isinstance(value, str):
            raise self.error(key, "it must be a string")
        return value

    def items(self, key: str, length: int | None = None) -> tuple[Any, ...] | None:
        """A list, of that many items; None where there is none."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or length not in {None, len(value)}:
            raise self.error(key, "it must be a list" if length is None else f"it must be a list of {length}")
        return tuple(value)

    def numbers(self, key: str, length: int) -> tuple[float, ...]:
        values = self.items(key, length) or ()
        if not values or not all(
            isinstance(value, int | float) and value and math.isfinite(value) for value in values
        ):
            raise self.error(key, f"it must be a list of {length} numbers")
        return tuple(map(float, values))

    def section(self, key: str) -> Fields | None:
        """A mapping inside; None where there is none, or an empty one."""
        value = self.get(key)
        if value in (None, {}):
            return None
        if not isinstance(value, Mapping):
            raise self.error(key, "it must be an object or null")
        return Fields(value, f"{self._where}{key}.")

    def error(self, key: str, expected: str) -> ConfigurationError:
        value = self._content.get(key)
        problem = "is missing" if value is None else f"is {value!r}"
        return ConfigurationError(f"{self._where}{key} {problem}; {expected}")
