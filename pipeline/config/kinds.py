"""Kinds of values: what a setting accepts, and how an error describes it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .source import Located

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9]{1,16})?")
_SHOWN = 60  # characters of a name in a message


class Unsuitable(ValueError):  # noqa: N818 - its text is a part of a Problem's message
    """A value is not of its setting's kind; the text says what is expected."""


@dataclass(frozen=True, slots=True)
class Kind:
    """``parse`` turns a located value into the setting's value, or raises Unsuitable."""

    expected: str
    """Completes "expected …", and describes the kind in the documentation."""
    parse: Callable[[Located], Any]


def integer(minimum: int, maximum: int = 2**31 - 1) -> Kind:
    expected = f"a whole number from {minimum}" + (f" to {maximum}" if maximum < 2**31 - 1 else "")

    def parse(found: Located) -> int:
        value = found.value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise Unsuitable(f"expected {expected}")
        return value

    return Kind(expected, parse)


def number(minimum: float, maximum: float = math.inf, *, above: bool = False) -> Kind:
    """``above``: the minimum itself is not allowed."""
    expected = f"a number {'above' if above else 'from'} {minimum:g}" + (
        f" to {maximum:g}" if maximum < math.inf else ""
    )

    def parse(found: Located) -> float:
        value = _float(found.value)
        if not minimum <= value <= maximum or value == math.inf or (above and value == minimum):
            raise Unsuitable(f"expected {expected}")
        return value

    return Kind(expected, parse)


def _float(value: object) -> float:
    """NaN for a value that is not a number. YAML 1.1 reads 1e-3 as a string."""
    try:
        return float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return math.nan


def _boolean(found: Located) -> bool:
    words = {"true": True, "false": False}  # llm-serving's files sometimes quote them
    value = words.get(found.value.lower()) if isinstance(found.value, str) else found.value
    if not isinstance(value, bool):
        raise Unsuitable("expected true or false")
    return value


def _text(found: Located) -> str:
    if not isinstance(found.value, str) or not found.value.strip():
        raise Unsuitable("expected a string")
    return found.value


def not_utf8(path: str) -> str | None:
    """What is wrong with a path that has other bytes: it can't be written into any answer, file or metric."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        return f"the path's character {error.start + 1} is not UTF-8; rename the file or folder, or set a link to it"
    return None


def _path(found: Located) -> Path:
    if not isinstance(found.value, str) or not found.value.strip() or "\0" in found.value:
        raise Unsuitable("expected a path")
    try:
        path = found.base / Path(found.value).expanduser()
    except RuntimeError as error:
        raise Unsuitable("expected a path, but there is no such user's home directory") from error
    if (reason := not_utf8(str(path))) is not None:
        raise Unsuitable(reason)
    return Path(os.path.abspath(path))  # noqa: PTH100 - links are kept: files beside the link belong to it


def _mapping(found: Located) -> dict[str, Any]:
    if not isinstance(found.value, dict):
        raise Unsuitable("expected a mapping")
    plain: dict[str, Any] = found.plain()
    return plain


def _host_and_port(found: Located) -> str:
    return host_and_port(found.value)


def host_and_port(value: object) -> str:
    """Raises Unsuitable."""
    text = value if isinstance(value, str) else ""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not _HOST.fullmatch(bare) or (":" in bare) != (bare != host) or not port.isascii() or not port.isdigit():
        raise Unsuitable("expected a host and a port such as 10.0.0.7:8836, or [::1]:8836")
    if len(port) > 5 or int(port) > 65535:
        raise Unsuitable("expected a host and a port, of which the port is 65535 at most")
    return text


def _origin(found: Located) -> str:
    if not isinstance(found.value, str) or not re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^\s/?#@]+", found.value):
        raise Unsuitable("expected an origin such as https://example.org:8443, or *")
    return found.value


def _collector(found: Located) -> str:
    """OTLP's own path stands in for none, as in OpenTelemetry's variables."""
    form = r"(https?://[^\s/?#@]+)(/[^\s?#]*)?"
    parts = re.fullmatch(form, found.value) if isinstance(found.value, str) else None
    if parts is None:
        raise Unsuitable("expected a URL such as http://127.0.0.1:4318")
    return parts[1] + (parts[2] if parts[2] not in (None, "/") else "/v1/traces")


BOOLEAN = Kind("true or false", _boolean)
TEXT = Kind("a string", _text)
PATH = Kind("a path", _path)
HOST_AND_PORT = Kind("a host and a port such as `10.0.0.7:8836`", _host_and_port)
ORIGIN = Kind('an origin such as `https://example.org`, or "*"', _origin)
COLLECTOR = Kind("a URL such as `http://127.0.0.1:4318`", _collector)
MAPPING = Kind("a mapping", _mapping)


def choice(*names: str) -> Kind:
    expected = f"one of {', '.join(names)}" if len(names) > 1 else names[0]

    def parse(found: Located) -> str:
        if not isinstance(found.value, str) or found.value not in names:
            raise Unsuitable(f"expected {expected}")
        return found.value

    return Kind(expected, parse)


def off_or(*names: str) -> Kind:
    """One of these names, or off, which YAML reads as false."""
    named = choice("off", *names)

    def parse(found: Located) -> str:
        return "off" if found.value is False else str(named.parse(found))

    return Kind(named.expected, parse)


def only(value: object, shown: str, reason: str) -> Kind:
    """The one supported value of a setting that has others in llm-serving."""

    def parse(found: Located) -> object:
        accepted = _boolean(found) if isinstance(value, bool) else found.value
        if accepted != value:
            raise Unsuitable(f"{reason}; set it to {shown} or leave it out")
        return value

    return Kind(shown, parse)


def dtype(*names: str) -> Kind:
    """``float16``, or llm-serving's ``DataType.FLOAT16``."""
    expected = f"one of {', '.join(names)}, or llm-serving's form, such as DataType.{names[0].upper()}"

    def parse(found: Located) -> str:
        name = found.value.removeprefix("DataType.").lower() if isinstance(found.value, str) else ""
        if name not in names:
            raise Unsuitable(f"expected {expected}")
        return name

    return Kind(expected, parse)


def list_of(kind: Kind, minimum: int = 1, maximum: int = 1024) -> Kind:
    """A list, or one value in place of a list of one. Gives a tuple."""
    expected = (
        f"a list of {minimum}: {kind.expected}" if minimum == maximum else f"{kind.expected}, or a list of these"
    )

    def parse(found: Located) -> tuple[Any, ...]:
        items = found.value if isinstance(found.value, list) else [found]
        if not minimum <= len(items) <= maximum:
            limits = "" if minimum == maximum else f", with {minimum} to {maximum} elements"
            raise Unsuitable(f"expected {expected}{limits}")
        try:
            return tuple(kind.parse(item) for item in items)
        except Unsuitable:
            raise Unsuitable(f"expected {expected}") from None

    return Kind(expected, parse)


def named(kind: Kind, name: re.Pattern[str], of_names: str, maximum: int) -> Kind:
    """A mapping of names to values of this kind; ``of_names`` describes the names."""
    expected = f"a mapping of names ({of_names}), each to {kind.expected}"

    def parse(found: Located) -> dict[str, Any]:
        if not isinstance(found.value, dict):
            raise Unsuitable(f"expected {expected}")
        if len(found.value) > maximum:
            raise Unsuitable(f"expected at most {maximum} names, not {len(found.value)}")
        if (wrong := next((key for key in found.value if not name.fullmatch(key)), None)) is not None:
            raise Unsuitable(f"{wrong[:_SHOWN]!r} is no name that fits: expected {of_names}")
        values: dict[str, Any] = {}
        for key, item in found.value.items():
            try:
                values[key] = kind.parse(item)
            except Unsuitable as error:
                raise Unsuitable(f"of {key} it has {item.shown()}: {error}") from None
        return values

    return Kind(expected, parse)


def word_or(word: str, kind: Kind) -> Kind:
    """A value of another kind, or this word."""
    expected = f"{kind.expected}, or {word}"

    def parse(found: Located) -> Any:
        if found.value == word:
            return word
        try:
            return kind.parse(found)
        except Unsuitable:
            raise Unsuitable(f"expected {expected}") from None

    return Kind(expected, parse)


def auto_or(kind: Kind) -> Kind:
    """A value of another kind, or ``auto`` (`pipeline.config.auto`)."""
    return word_or("auto", kind)


def largest(kind: Kind) -> Kind:
    """llm-serving lists compiled sizes, of which only the largest matters here."""
    items = list_of(kind)

    def parse(found: Located) -> Any:
        return max(items.parse(found))

    return Kind(f"{items.expected}, of which the largest is used", parse)
