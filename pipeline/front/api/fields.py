"""Reading a JSON object key by key: every key takes effect or is refused, nothing is clamped or ignored."""

from __future__ import annotations

import difflib
import reprlib
from array import array
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from pipeline.front.http.errors import ApiError
from pipeline.wire.request import MAX_STOP_LENGTH, MAX_STOPS, TOO_LONG

_PIECE = 1 << 14  # values that are checked without a pause
_SHOWN = 80  # characters of a value, in an error
_SPELLED = {"true": True, "false": False}  # clients of llm-serving send Python's True and False as strings


class Fields:
    """A JSON object from a client. `status` is its API's status for an invalid parameter.

    null counts as absent, as in OpenAI's API.
    """

    def __init__(self, values: dict[str, Any], *, status: int) -> None:
        self._values = {key: value for key, value in values.items() if value is not None}
        self.status = status
        self._known: set[str] = set(values) - set(self._values)

    def refuse(self, name: str, allowed: str) -> NoReturn:
        raise self.invalid(name, f"{name} is {shown(self._values.get(name))}, expected {allowed}")

    def invalid(self, parameter: str | None, message: str, code: str | None = None) -> ApiError:
        return ApiError(self.status, message, parameter=parameter, code=code)

    def has(self, name: str) -> bool:
        return name in self._values

    def take(self, name: str, default: Any = None) -> Any:
        self._known.add(name)
        return self._values.get(name, default)

    def integer(self, name: str, default: int | None, low: int | None = None, high: int | None = None) -> Any:
        value = self.take(name, default)
        if value is default:
            return value
        fits = (low is None or value >= low) and (high is None or value <= high) if _is_int(value) else False
        if not fits:
            self.refuse(name, f"an integer{_range(low, high)}")
        return value

    def number(self, name: str, default: float) -> float:
        """Any finite number; its range is checked with the sampling parameters."""
        value = self.take(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e300:
            self.refuse(name, "a number")
        return float(value)

    def boolean(self, name: str, default: bool, *, spelled: bool = False) -> bool:
        """With `spelled`, the strings "True" and "false" are accepted, too."""
        value = self.take(name, default)
        if spelled and isinstance(value, str):
            value = _SPELLED.get(value.strip().lower(), value)
        if not isinstance(value, bool):
            self.refuse(name, "true or false")
        return value

    def text(self, name: str, default: str | None = None) -> Any:
        value = self.take(name, default)
        if value is not default and not isinstance(value, str):
            self.refuse(name, "a string")
        return value

    def texts(self, name: str, *, most: int = MAX_STOPS, longest: int = MAX_STOP_LENGTH) -> tuple[str, ...]:
        """A string, or a list of strings, none of them empty."""
        value = self.take(name, [])
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or len(values) > most or not all(_fits(text, longest) for text in values):
            self.refuse(name, f"a string or up to {most} strings, each of 1 to {longest} characters")
        return tuple(values)

    def token_ids(self, name: str, vocab_size: int) -> array[int]:
        value = self.take(name, [])
        ids = array("i") if value == [] else as_token_ids(value, vocab_size)
        if ids is None:
            self.refuse(name, f"a list of token ids in [0, {vocab_size - 1}]")
        return ids

    def limit_text(self, name: str, text: str, most: int, tokens: int) -> str:
        """The prompt, unless it has more characters than can ever fit: such a prompt need not be tokenized."""
        if len(text) > most:
            allowed = f"at most {most} characters and {tokens} tokens are allowed"
            raise self.invalid(name, f"the prompt has {len(text)} characters; {allowed}", TOO_LONG)
        return text

    def mapping(self, name: str) -> dict[str, Any]:
        """An object, empty where it is left out."""
        value = self.take(name, {})
        if not isinstance(value, dict):
            self.refuse(name, "an object")
        return value

    def only(self, name: str, *allowed: Any) -> None:
        """A parameter that is known, but supported at these values only."""
        value = self.take(name)
        if value is None or any(value == one and type(value) is type(one) for one in allowed):
            return
        choices = " or ".join(dict.fromkeys(map(shown, allowed))) or "no value"
        self.refuse(name, f"{choices}: other values are not supported")

    def restrict(self, allowed: Mapping[str, tuple[Any, ...]]) -> None:
        """`only` for a table of parameters."""
        for name in self._values.keys() & allowed.keys():
            self.only(name, *allowed[name])
        self._known.update(allowed)

    def done(self) -> None:
        """Raises ApiError for the first unknown key."""
        for name in [name for name in self._values if name not in self._known]:
            near = difflib.get_close_matches(name, self._known, n=1) if len(name) <= _SHOWN else []
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise self.invalid(_cut(name), f"unknown parameter {shown(name)}{hint}")


def as_token_ids(value: Any, vocab_size: int) -> array[int] | None:
    """A list of at least one token id, else None. Long ones are checked in pieces, so that other threads can run in
    between."""
    if not isinstance(value, list) or not value:
        return None
    ids = array("i")
    for start in range(0, len(value), _PIECE):
        piece = value[start : start + _PIECE]
        if set(map(type, piece)) != {int}:  # a bool is not a token id
            return None
        try:
            ids.extend(array("i", piece))
        except OverflowError:
            return None
    found = np.asarray(ids)
    return ids if found.min() >= 0 and found.max() < vocab_size else None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _fits(text: Any, longest: int) -> bool:
    return isinstance(text, str) and 1 <= len(text) <= longest


def _range(low: int | None, high: int | None) -> str:
    if high is None:
        return "" if low is None else f" of at least {low}"
    return f" in [{low}, {high}]"


def shown(value: Any) -> str:
    """A client's value, cut to the length that an error message shows; it may be large, or nested deeply."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = _SHOWN
    return _cut(short.repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
