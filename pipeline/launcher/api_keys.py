"""API keys from the environment and from a file. Only their digests are passed on, and only to the front.

A line of the file is a key, and behind it what its requests may do::

    sk-alice  weight=2 concurrent=8 tokens_per_minute=60000    # a comment
    sk-batch  priority=1

A digest is enough to check a key, and useless to a reader of a memory dump or ``/proc``: keys are random and long, so
that a plain SHA-256 can't be inverted (unlike passwords, which people choose).
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.config import Configuration
from pipeline.wire.api_key import ApiKey

API_KEY: Final = "RINGSERVE_API_KEY"
VARIABLES: Final = (API_KEY, "RINGSERVE_API_KEYS")
"""Of the launcher's environment: one key, and several with commas between them."""

MAX_KEYS: Final = 1024
"""Every key is compared with every request's: the number bounds what that costs."""

_LONGEST_FILE = 1 << 20
_KEY = re.compile(r"[\x21-\x7e]{1,1024}\Z")
_ALLOWED = "1 to 1024 visible ASCII characters, none of them a space"
_WEIGHT, _CLASS, _LIMIT = (0.01, 100.0), (-1000, 1000), (1, 1 << 40)
_RULES: Final[Mapping[str, tuple[type[int] | type[float], tuple[float, float]]]] = {
    "weight": (float, _WEIGHT),
    "priority": (int, _CLASS),
    "concurrent": (int, _LIMIT),
    "requests_per_minute": (int, _LIMIT),
    "tokens_per_minute": (int, _LIMIT),
}
_OPERATOR: Final = "operator"
_KNOWN = f"{', '.join(f'{name}=N' for name in _RULES)}, {_OPERATOR}"


class KeysError(Exception):
    """API keys can't be used. The message says where the mistake is, and holds no part of a key."""


def load_api_keys(config: Configuration, environment: Mapping[str, str] = os.environ) -> tuple[ApiKey, ...]:
    """All keys, from the environment and from `pipeline.api_keys_file`; none: no key is needed. What the file says of
    a key holds wherever else it comes from.

    Raises KeysError. A source that is named and holds no key is an error, too: a server must not be open to all
    because a variable is empty.
    """
    path = config.pipeline.api_keys_file
    keys = [*_from_environment(environment), *([] if path is None else _from_file(path))]
    if len(known := {key.digest: key for key in keys}) > MAX_KEYS:
        raise KeysError(f"there are {len(known)} API keys; at most {MAX_KEYS} can be used")
    return tuple(known.values())


def digest(key: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(key).hexdigest()


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for processes that need no keys."""
    return {name: value for name, value in environment.items() if name not in VARIABLES}


def key_file_warning(path: Path | None) -> str | None:
    """About a file that all users of this machine can read. A warning only: secrets of containers are like that."""
    if path is None or not (mode := _mode(path)) & stat.S_IROTH:
        return None
    return f"{path} holds API keys and is readable by all users (mode {mode:04o}); if only you need it: chmod 600"


def _from_environment(environment: Mapping[str, str]) -> Iterator[ApiKey]:
    for name in VARIABLES:
        value = environment.get(name)
        if value is None:
            continue
        parts = [value] if name == VARIABLES[0] else value.split(",")
        entries = [part.strip() for part in parts if part.strip()]
        yield from _checked([(entry, "") for entry in entries], f"the environment variable {name}")


def _from_file(path: Path) -> list[ApiKey]:
    """One key per line, with its rules; text after a # at the beginning of a line or after a space is a comment."""
    if _mode(path) & stat.S_IWOTH:
        raise KeysError(f"{path} is writable by all users, who could add a key of their own; run chmod 600 {path}")
    lines = (re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip() for line in _read(path).splitlines())
    entries = [(key, rules) for line in lines for key, _, rules in [" ".join(line.split()).partition(" ")]]
    return _checked(entries, str(path), numbered=True)


def _checked(entries: Iterable[tuple[str, str]], source: str, *, numbered: bool = False) -> list[ApiKey]:
    """Keys and their rules; entries may be empty."""
    keys: list[ApiKey] = []
    for number, (key, rules) in enumerate(entries, 1):
        place = f"{source}:{number}" if numbered else source
        if key and not _KEY.match(key):
            raise KeysError(f"{place}: an API key has characters that are not allowed; a key is {_ALLOWED}")
        if key:
            keys.append(ApiKey(digest(key.encode()), **_rules(rules, place)))
    if not keys:
        raise KeysError(f"{source} holds no API key; add one, or remove it to serve without keys")
    return keys


def _rules(text: str, place: str) -> dict[str, Any]:
    """Unknown words are not repeated: they may be another key."""
    rules: dict[str, Any] = {}
    for word in text.split():
        name, _, value = word.partition("=")
        if word == _OPERATOR:
            rules[_OPERATOR] = True
        elif name in _RULES and name not in rules:
            rules[name] = _rule(name, value, place)
        else:
            raise KeysError(f"{place}: behind an API key may stand, once each: {_KNOWN}; and a comment behind ' #'")
    return rules


def _rule(name: str, value: str, place: str) -> float:
    kind, (low, high) = _RULES[name]
    try:
        number = kind(value)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        what = "an integer" if kind is int else "a number"
        raise KeysError(f"{place}: {name} is wrong; expected {what} from {low} to {high}")
    return number


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_FILE + 1)
    except OSError as error:
        raise KeysError(f"{path} can't be read: {error.strerror}; expected API keys, one per line") from None
    if len(content) > _LONGEST_FILE:
        raise KeysError(f"{path} is larger than {_LONGEST_FILE} bytes; expected API keys, one per line")
    return content.decode("utf-8", "replace")


def _mode(path: Path) -> int:
    """Permission bits; 0 when there is no such file."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0
