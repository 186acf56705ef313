"""Regular expressions of an adapter's configuration, which anyone may have written: a few characters keep `re` busy
for years. So what has repeats or alternatives is matched in a process of its own, whose CPU time is limited."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping

from model.errors import ConfigurationError

LIMIT_S = 5
"""CPU time for all names and patterns of an adapter; usual ones take milliseconds."""

_HARMLESS = re.compile(r"[^*+?{|]*")
_IN_CHILD = """
import json, re, resource, sys
limit_s, patterns, names = json.load(sys.stdin)
resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
found = {}
for pattern in patterns:
    fits = re.compile(pattern).fullmatch
    found[pattern] = {name: match.groups() for name in names if (match := fits(name))}
json.dump(found, sys.stdout)
"""

Matches = Mapping[str, Mapping[str, tuple[str | None, ...]]]
"""Of each pattern the names that it matches as a whole, with its groups."""


def match_all(patterns: Iterable[tuple[str, str]], names: Iterable[str]) -> Matches:
    """``patterns``: what is matched, and the part of it that the adapter has.

    Raises ConfigurationError for what is no regular expression, and if it takes too long.
    """
    wanted, names = dict(patterns), tuple(names)
    for whole, part in wanted.items():
        require_pattern(whole, part)
    risky = {whole: part for whole, part in wanted.items() if not _HARMLESS.fullmatch(part)}
    found = {whole: _matched(whole, names) for whole in wanted.keys() - risky.keys()}
    if risky:
        found |= _in_child(risky, names)
    return found


def require_pattern(whole: str, part: str) -> None:
    """Raises ConfigurationError."""
    try:
        re.compile(whole)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigurationError(f"{part!r} is not a regular expression ({error})") from error


def _matched(pattern: str, names: Iterable[str]) -> dict[str, tuple[str | None, ...]]:
    fits = re.compile(pattern).fullmatch
    return {name: match.groups() for name in names if (match := fits(name))}


def _in_child(risky: Mapping[str, str], names: tuple[str, ...]) -> dict[str, dict[str, tuple[str | None, ...]]]:
    child = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _IN_CHILD],
        input=json.dumps([LIMIT_S, list(risky), names]).encode(),
        capture_output=True,
        check=False,
    )
    if child.returncode:
        shown = ", ".join(repr(part[:100]) for part in list(risky.values())[:3])
        reason = f"takes more than {LIMIT_S} s; list the names instead, or avoid repeats of repeats"
        if child.returncode not in (-signal.SIGXCPU, -signal.SIGKILL):
            reason = f"failed: {child.stderr.decode(errors='replace').strip().rpartition(chr(10))[2]}"
        raise ConfigurationError(f"matching its patterns with modules' names ({shown}) {reason}")
    return {
        pattern: {name: tuple(groups) for name, groups in matches.items()}
        for pattern, matches in json.loads(child.stdout).items()
    }
