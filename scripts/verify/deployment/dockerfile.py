"""Reads a Dockerfile: as much of the form as ours uses, and refuses the rest by name."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from scripts.lab.errors import BenchError


@dataclass(frozen=True, slots=True)
class Step:
    """`RUN` has a text, all others words."""

    kind: str
    words: tuple[str, ...]
    text: str


@dataclass(slots=True)
class Stage:
    """From one FROM to the next."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def last(self, kind: str) -> tuple[str, ...]:
        """Words of the last step of this kind; none if there is none."""
        return next((step.words for step in reversed(self.steps) if step.kind == kind), ())


_JSON = {"ENTRYPOINT", "CMD", "HEALTHCHECK"}
_WORDS = {"COPY", "ENV", "WORKDIR", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "LABEL"}


def parse(text: str) -> list[Stage]:
    """Raises BenchError for what is not understood."""
    stages: list[Stage] = []
    for line in _lines(text):
        kind, _, rest = line.partition(" ")
        kind, rest = kind.upper(), rest.strip()
        if kind == "FROM":
            base, *name = re.split(r"\s+AS\s+", rest, flags=re.IGNORECASE)
            stages.append(Stage(base, name[0] if name else ""))
        elif not stages:
            raise BenchError(f"{kind} stands before FROM")
        else:
            stages[-1].steps.append(Step(kind, _words(kind, rest), rest))
    return stages


def _lines(text: str) -> list[str]:
    """Instructions, those over several lines put together."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"[ \t]*\\[ \t]*\n[ \t]*", " ", kept)
    return [line.strip() for line in joined.splitlines() if line.strip()]


def _words(kind: str, rest: str) -> tuple[str, ...]:
    if kind in _JSON:
        listed = rest[rest.index("[") :] if "[" in rest else ""
        if not listed:
            raise BenchError(f"{kind} {rest}: only the form with a list is understood")
        return tuple(json.loads(listed))
    if kind in _WORDS:
        return tuple(shlex.split(rest))
    if kind == "RUN":
        return ()
    raise BenchError(f"{kind} is not understood")


def environment(steps: Sequence[Step]) -> Mapping[str, str]:
    """What ENV has set."""
    return dict(word.split("=", 1) for step in steps if step.kind == "ENV" for word in step.words)


def ignored(path: PurePosixPath, patterns: Sequence[str]) -> bool:
    """Whether .dockerignore leaves this path, relative to the context, out; so it does all below it."""
    return any(_matches(parent, pattern) for parent in (path, *path.parents[:-1]) for pattern in patterns)


def _matches(path: PurePosixPath, pattern: str) -> bool:
    anywhere = pattern.removeprefix("**/")
    if anywhere != pattern:
        return fnmatch.fnmatchcase(path.name, anywhere)
    return path.as_posix() == pattern.strip("/")
