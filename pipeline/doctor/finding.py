"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """`WARN`: it works, but something is slow or may fail later. `FAIL`: it can't work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """`topic` is a part of the host, such as "memory"; `fix` says what to change, "" where nothing needs to be."""

    level: Level
    topic: str
    text: str
    fix: str = ""


def ok(topic: str, text: str) -> Finding:
    return Finding(Level.OK, topic, text)


def warn(topic: str, text: str, fix: str) -> Finding:
    return Finding(Level.WARN, topic, text, fix)


def fail(topic: str, text: str, fix: str) -> Finding:
    return Finding(Level.FAIL, topic, text, fix)
