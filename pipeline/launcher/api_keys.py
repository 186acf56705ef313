"""API keys from the environment and from a file. Only their digests are passed on, and only to the front.

A digest is enough to check a key, and useless to a reader of a memory dump or ``/proc``: keys are random and long, so
that a plain SHA-256 can't be inverted (unlike passwords, which people choose).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pipeline.config import Configuration

API_KEY: Final = "RINGSERVE_API_KEY"
VARIABLES: Final = (API_KEY, "RINGSERVE_API_KEYS")
"""Of the launcher's environment: one key, and several with commas between them."""

MAX_KEYS: Final = 1024
"""Every key is compared with every request's: the number bounds what that costs."""

_LONGEST_FILE = 1 << 20
_KEY = re.compile(r"[\x21-\x7e]{1,1024}\Z")
_ALLOWED = "1 to 1024 visible ASCII characters, none of them a space"


class KeysError(Exception):
    """API keys can't be used. The message says where the mistake is, and holds no part of a key."""


def load_api_keys(config: Configuration, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Digests of all keys, from the environment and from `pipeline.api_keys_file`; none: no key is needed.

    Raises KeysError. A source that is named and holds no key is an error, too: a server must not be open to all
    because a variable is empty.
    """
    path = config.pipeline.api_keys_file
    keys = [*_from_environment(environment), *([] if path is None else _from_file(path))]
    digests = tuple(dict.fromkeys(digest(key.encode()) for key in keys))
    if len(digests) > MAX_KEYS:
        raise KeysError(f"there are {len(digests)} API keys; at most {MAX_KEYS} can be used")
    return digests


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


def _from_environment(environment: Mapping[str, str]) -> Iterator[str]:
    for name in VARIABLES:
        value = environment.get(name)
        if value is None:
            continue
        parts = [value] if name == VARIABLES[0] else value.split(",")
        yield from _checked([part.strip() for part in parts if part.strip()], f"the environment variable {name}")


def _from_file(path: Path) -> list[str]:
    """One key per line; text after a # at the beginning of a line or after a space is a comment."""
    if _mode(path) & stat.S_IWOTH:
        raise KeysError(f"{path} is writable by all users, who could add a key of their own; run chmod 600 {path}")
    lines = (re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip() for line in _read(path).splitlines())
    return _checked(list(lines), str(path), numbered=True)


def _checked(entries: Iterable[str], source: str, *, numbered: bool = False) -> list[str]:
    """The entries that are not empty."""
    for number, entry in enumerate(entries, 1):
        if entry and not _KEY.match(entry):
            place = f"{source}:{number}" if numbered else source
            raise KeysError(f"{place}: an API key has characters that are not allowed; a key is {_ALLOWED}")
    keys = [entry for entry in entries if entry]
    if not keys:
        raise KeysError(f"{source} holds no API key; add one, or remove it to serve without keys")
    return keys


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
