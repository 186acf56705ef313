"""YAML with places: every value has the file and the line that it comes from.

Nodes are composed and read one by one; no object is ever constructed from a tag, so a file can hold strings, numbers,
booleans, null, lists and mappings, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from .compose import compose
from .errors import Problem

MAX_BYTES = 1 << 20

_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset({_TAG + "str", _TAG + "timestamp", _TAG + "value"})
_PLAIN_TAGS = frozenset({_TAG + "map", _TAG + "seq"})
_LONGEST_NUMBER = 400  # characters; YAML 1.1's numbers to base 60 take quadratic time
_SHOWN = 60  # characters of a value in a message


class Unreadable(Exception):  # noqa: N818 - carries a Problem to where problems are collected
    """The document as a whole cannot be read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Located:
    """A value and its place. ``value`` is a scalar, a list of Located, or a dict of str to Located."""

    value: Any
    source: str
    line: int
    base: Path
    """What relative paths are relative to."""

    def problem(self, key: str, message: str) -> Problem:
        return Problem(self.source, self.line, message, key)

    def shown(self) -> str:
        """For messages, cut short."""
        text = _written(self.value)
        return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"

    def plain(self) -> Any:
        """Without places."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"[{', '.join(item.shown() for item in value[:_SHOWN])}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int) and value.bit_length() > 256:  # Python refuses to format very long numbers
        return f"a number of {value.bit_length()} bits"
    return repr(value)


def read_file(path: Path, problems: list[Problem]) -> Located:
    """The document in a file. Duplicate keys and the like go into ``problems``.

    Raises Unreadable for a file that is missing, too large, not UTF-8, not YAML, or a bomb.
    """
    return read_text(read_content(path), str(path), path.absolute().parent, problems)


def read_content(path: Path) -> str:
    """The text of a file. Raises Unreadable for one that is missing, too large, or not UTF-8."""
    name = str(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise Unreadable(Problem(name, 0, f"cannot be read: {error.strerror}")) from error
    if len(content) > MAX_BYTES:
        message = f"is larger than {MAX_BYTES >> 10} KiB, the most that is read; is it the right file?"
        raise Unreadable(Problem(name, 0, message))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Unreadable(Problem(name, line, "is not UTF-8 text; save it as UTF-8")) from error


def read_text(text: str, source: str, base: Path, problems: list[Problem], *, line: int | None = None) -> Located:
    """The document in a text. ``line`` replaces the lines of the text, for texts that are no files."""
    try:
        node = compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = line if line is not None else mark.line + 1 if mark else 0
        raise Unreadable(Problem(source, at, f"is not usable YAML: {error.problem}")) from error
    except yaml.YAMLError as error:
        detail = str(error).splitlines()[0]
        raise Unreadable(Problem(source, line or 0, f"is not usable YAML: {detail}")) from error
    if node is None:
        return Located({}, source, 1 if line is None else line, base)
    return _Reader(source, base, problems, line).read(node, "")


@dataclass(frozen=True, slots=True)
class _Reader:
    source: str
    base: Path
    problems: list[Problem]
    fixed_line: int | None

    def read(self, node: Node, key: str, mark: Any = None) -> Located:
        """``mark``: place of the key; an alias's value belongs to the line of the alias."""
        line = self._line(mark or node.start_mark)
        if isinstance(node, MappingNode | SequenceNode) and node.tag not in _PLAIN_TAGS:
            self._report(line, key, f"{key} has the tag {node.tag!r}; write a plain value without a tag")
            return Located(None, self.source, line, self.base)
        if isinstance(node, MappingNode):
            return Located(self._mapping(node, key), self.source, line, self.base)
        if isinstance(node, SequenceNode):
            items = [self.read(item, f"{key}[{at}]") for at, item in enumerate(node.value)]
            return Located(items, self.source, line, self.base)
        return Located(self._scalar(node, key, line), self.source, line, self.base)

    def _line(self, mark: Any) -> int:
        return self.fixed_line if self.fixed_line is not None else int(mark.line) + 1

    def _mapping(self, node: MappingNode, prefix: str) -> dict[str, Located]:
        entries: dict[str, Located] = {}
        merged: dict[str, Located] = {}
        for key_node, value_node in node.value:
            line = self._line(key_node.start_mark)
            if key_node.tag == _TAG + "merge":
                merged = {**self._merged(value_node, prefix, line), **merged}
                continue
            name = str(key_node.value) if isinstance(key_node, ScalarNode) else None
            if name is None:
                self._report(line, prefix, "a key must be a string, not a list or a mapping")
                continue
            key = f"{prefix}.{name}" if prefix else name
            if name in entries:
                self._report(line, key, f"{key} is given twice, first in line {entries[name].line}; keep one of them")
                continue
            entries[name] = self.read(value_node, key, key_node.start_mark)
        return {**merged, **entries}

    def _merged(self, node: Node, prefix: str, line: int) -> dict[str, Located]:
        """What ``<<: *anchor`` or ``<<: [*one, *two]`` brings; earlier ones win."""
        nodes = node.value if isinstance(node, SequenceNode) else [node]
        merged: dict[str, Located] = {}
        for source in nodes:
            if not isinstance(source, MappingNode):
                self._report(line, prefix, "<< must refer to a mapping")
                continue
            merged = {**self._mapping(source, prefix), **merged}
        return merged

    def _scalar(self, node: Node, key: str, line: int) -> Any:
        if node.tag in _TEXT_TAGS:
            return node.value
        constructor = _SCALARS.get(node.tag)
        try:
            if constructor is not None and len(node.value) <= _LONGEST_NUMBER:
                return getattr(yaml.constructor.SafeConstructor(), constructor)(node)
        except (ValueError, KeyError, IndexError, OverflowError):
            self._report(line, key, f"{key} is {node.value[:_SHOWN]!r}, not a valid {node.tag.removeprefix(_TAG)}")
            return None
        if constructor is not None:
            self._report(line, key, f"{key} has {len(node.value)} characters, too many for a number")
        else:
            self._report(line, key, f"{key} has the tag {node.tag!r}; write a plain value without a tag")
        return None

    def _report(self, line: int, key: str, message: str) -> None:
        self.problems.append(Problem(self.source, line, message, key))


_SCALARS = {_TAG + kind: f"construct_yaml_{kind}" for kind in ("null", "bool", "int", "float")}
