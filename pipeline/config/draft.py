"""From a located document to values by dotted key; mistakes in single keys are found here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import Problem
from .kinds import Unsuitable
from .sections import IGNORED
from .setting import Setting, fields_of, settings_of
from .source import Located


@dataclass(slots=True)
class Draft:
    """A configuration that is being read. Keys are dotted: ``pipeline.log.level``."""

    path: Path
    problems: list[Problem]
    values: dict[str, Any] = field(default_factory=dict)
    """Every setting; None for one that is bad or not known yet."""
    places: dict[str, Located] = field(default_factory=dict)
    """The settings that are given, with their places."""
    bad: set[str] = field(default_factory=set)
    """Settings that have a problem already, so that its consequences are not reported, too."""
    ignored: list[str] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    choices: list[Any] = field(default_factory=list)
    """What ``auto`` came to (`pipeline.config.auto.Choice`)."""

    def problem_at(self, keys: Iterable[str], message: str) -> Problem:
        """About several settings; its place is that of the first one that is given."""
        keys = tuple(keys)
        for key in keys:
            if key in self.places:
                return self.places[key].problem(key, message)
        return Problem(str(self.path), 0, message, keys[0])

    def reject(self, keys: Iterable[str], message: str) -> None:
        problem = self.problem_at(keys, message)
        self.problems.append(problem)
        self.bad.add(problem.key)


def read_draft(path: Path, root: Located, top: type, problems: list[Problem]) -> Draft:
    """Every setting of ``top`` from the document, or its default."""
    draft = Draft(path, problems)
    known = dict(settings_of(top, ""))
    _read_section(draft, root, top, "", tuple(known) + tuple(IGNORED))
    for key, setting in known.items():
        draft.values.setdefault(key, None if key in draft.bad else setting.default)
    return draft


def _read_section(draft: Draft, found: Located, kind: type, prefix: str, known: tuple[str, ...]) -> None:
    content = found.value
    if content is None:  # "pipeline:" with nothing below it
        return
    if not isinstance(content, dict):
        draft.problems.append(found.problem(prefix, f"{prefix or 'the file'} is {found.shown()}; expected a mapping"))
        draft.bad |= {key for key, _ in settings_of(kind, prefix)}
        return
    inner = dict(fields_of(kind))
    for name, item in content.items():
        key = f"{prefix}.{name}" if prefix else name
        declared = inner.get(name)
        if key in IGNORED:
            draft.ignored.append(key)
        if isinstance(declared, Setting):
            _read_setting(draft, item, declared, key)
        elif declared is not None:
            _read_section(draft, item, declared, key, known)
        elif key not in IGNORED:
            draft.problems.append(item.problem(key, f"{key} is unknown; {_nearest(key, known)}"))


def _read_setting(draft: Draft, found: Located, setting: Setting, key: str) -> None:
    if found.value is None:  # asks for the default, as leaving it out does
        return
    draft.places[key] = found
    try:
        draft.values[key] = setting.kind.parse(found)
    except Unsuitable as error:
        draft.reject([key], f"{key} is {found.shown()}; {error}")


def _nearest(key: str, known: tuple[str, ...]) -> str:
    prefix, _, name = key.rpartition(".")
    choices = {_below(prefix, other) for other in known} - {""}
    near = difflib.get_close_matches(name, sorted(choices), n=1)
    if near:
        return f"did you mean {prefix + '.' if prefix else ''}{near[0]}?"
    elsewhere = {other.rpartition(".")[2]: other for other in reversed(known)}
    near = difflib.get_close_matches(name, elsewhere, n=1, cutoff=0.8)
    if near:
        return f"it belongs elsewhere: {elsewhere[near[0]]}"
    return f"keys allowed here: {', '.join(sorted(choices))}"


def _below(prefix: str, key: str) -> str:
    """The next name of ``key`` below ``prefix``, "" if it is not below it."""
    start = f"{prefix}." if prefix else ""
    return key[len(start) :].partition(".")[0] if key.startswith(start) else ""
