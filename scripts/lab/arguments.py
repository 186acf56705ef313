"""Command lines of the scripts: what most of them need."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")
Say = Callable[[str], None]
Wrong = argparse.ArgumentTypeError


def parser(description: str | None) -> argparse.ArgumentParser:
    """With the lines of `description` as they are, and a short line of usage."""
    module = sys.modules["__main__"].__spec__  # of `python -m`
    program = f"python -m {module.name.removesuffix('.__main__')}" if module else None
    lines = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(program, "%(prog)s [options]", description, formatter_class=lines)


def say(text: str) -> None:
    """Progress, beside what is printed as the result."""
    print(text, file=sys.stderr, flush=True)


def write_json(file: Path | None, report: object) -> None:
    """Where a file was asked for. Ends the program with a message where it can't be written."""
    if file is not None:
        try:
            file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            sys.exit(f"--json {file}: {error.strerror}")


# ---- types of arguments: argparse tells what Wrong says -----------------------------------------------------------


def whole(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise Wrong(f"{text}: at least {least} expected")
        return value

    return number


count = whole(1)


def counts(most: int) -> Callable[[str], tuple[int, ...]]:
    """Numbers from 1 to `most`, separated by commas."""

    def numbers(text: str) -> tuple[int, ...]:
        words = text.split(",")
        if not all(word.strip().isdecimal() and 1 <= int(word) <= most for word in words):
            raise Wrong(f"{text}: numbers from 1 to {most} expected, separated by commas")
        return tuple(map(int, words))

    return numbers


def positive(text: str) -> float:
    if not (value := float(text)) > 0:
        raise Wrong(f"{text} is not above 0")
    return value


def within(low: float, high: float = math.inf) -> Callable[[str], float]:
    """From `low` on, below `high`."""

    def number(text: str) -> float:
        if not low <= (value := float(text)) < high:
            raise Wrong(f"{text} is not in [{low:g}, {high:g})")
        return value

    return number


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or any(ord(letter) < 32 for letter in text):
        raise Wrong(f"{text!r}: expected NAME=VALUE")
    return name.strip(), value.strip()


def named(kind: str, known: Mapping[str, Value]) -> Callable[[str], tuple[Value, ...]]:
    """Some of `known` by their names, separated by commas."""

    def names(text: str) -> tuple[Value, ...]:
        wanted = [word.strip() for word in text.split(",")]
        if unknown := [word for word in wanted if word not in known]:
            raise Wrong(f"unknown {kind} {unknown[0]!r}; there are {', '.join(known)}")
        return tuple(known[word] for word in wanted)

    return names


def words(kind: str, known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    return named(kind, {name: name for name in known})
