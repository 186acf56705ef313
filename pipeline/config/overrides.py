"""``--set section.key=value`` and options of their own: values on the command line in place of the file's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import Problem
from .source import Located, Unreadable, read_text


@dataclass(frozen=True, slots=True)
class Override:
    """What an option such as ``--port 80`` sets. ``value`` is not YAML: a text as it stands, a number, a list, or a
    mapping."""

    key: str
    value: Any
    option: str

    def located(self) -> Located:
        value = self.value
        if isinstance(value, list):
            value = [self._located(item) for item in value]
        if isinstance(value, dict):
            value = {key: self._located(item) for key, item in value.items()}
        return self._located(value)

    def _located(self, value: Any) -> Located:
        return Located(value, self.option, 0, Path.cwd())


def apply_overrides(root: Located, overrides: Iterable[str | Override], problems: list[Problem]) -> Located:
    """The document with each override in its place; a later one wins. Values are read as YAML.

    Relative paths in them are relative to the working directory, as a shell completes them.
    """
    for override in overrides:
        if isinstance(override, Override):
            root = _with(root, override.key.split("."), override.located(), problems, "")
            continue
        key, equals, text = override.partition("=")
        names = key.strip().split(".")
        if not equals or not all(names):
            message = "expected section.key=value, as in serving_config.server_port=9000"
            problems.append(Problem(f"--set {override}", 0, message))
            continue
        try:
            value = read_text(text, f"--set {override}", Path.cwd(), problems, line=0)
        except Unreadable as error:
            problems.append(replace(error.problem, key=key))
            continue
        value = value if text.strip() else replace(value, value=None)  # "key=" empties it, as "key:" does
        root = _with(root, names, value, problems, "")
    return root


def _with(node: Located, names: list[str], value: Located, problems: list[Problem], prefix: str) -> Located:
    if not names:
        return value
    content = {} if node.value is None else node.value
    if not isinstance(content, dict):
        problems.append(value.problem(prefix, f"{prefix} is {node.shown()}; it has no keys to set"))
        return node
    name, *rest = names
    key = f"{prefix}.{name}" if prefix else name
    inner = content.get(name, replace(value, value={}))
    return replace(node, value={**content, name: _with(inner, rest, value, problems, key)})
