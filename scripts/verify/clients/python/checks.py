"""What a client of Python is asked, and how it tells: a line of JSON for each check, and one for its version.

Runs in the clients' environment, where RingServe is not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

URL, MODEL = sys.argv[1:3]
QUESTION = "What is a ring buffer?"
TOKENS = 12
LONG = ("word " * 1500, "word " * 9000)  # more tokens than fit; more characters than are looked at
ABORTED = 900  # tokens, of which few are read


def run(package: str, **checks: Callable[[], object]) -> None:
    """Names of checks have _ for a blank."""
    print(json.dumps({"version": version(package)}))
    for name, check in checks.items():
        why = ""
        try:
            check()
        except Exception as error:  # noqa: BLE001 - whatever a client raises is what is to be told
            why = f"{type(error).__name__}: {error}"[:300]
        print(json.dumps({"check": name.replace("_", " "), "why": why}), flush=True)


def same(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found!r} in place of {expected!r}")


class Reading(BaseModel):
    """What answers of a given form must look like."""

    model_config = ConfigDict(extra="forbid")

    level: Literal["low", "high"]
    value: int = Field(ge=0, le=99)


FORM_TOKENS = 200  # for an answer of that form


def text(pieces: Iterable[str | None]) -> str:
    return "".join(piece or "" for piece in pieces)


def few(stream: Iterable[object]) -> None:
    """Some of it, and no more."""
    for number, _ in enumerate(stream):
        if number == 3:
            return
    raise AssertionError("the stream was over before it could be left")


def raises(expected: type[BaseException], call: Callable[..., object], *arguments: object) -> None:
    try:
        call(*arguments)
    except expected:
        return
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} in place of {expected.__name__}: {error}") from error
    raise AssertionError(f"no {expected.__name__}")


def too_long(expected: type[BaseException], call: Callable[[str], object]) -> None:
    for prompt in LONG:
        raises(expected, call, prompt)
