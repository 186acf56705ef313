"""From a text to YAML nodes, with limits on the time and memory that a hostile file can take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

MAX_VALUES = 20_000
"""Values of a file with every alias written out: a few lines of aliases to aliases could stand for billions."""
MAX_DEPTH = 32


def compose(text: str) -> Node | None:
    """The only document of the text; None when it is empty. Raises yaml.YAMLError."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
    finally:
        loader.dispose()
    if root is not None:
        _refuse_bomb(root)
    return root


class _Loader(yaml.SafeLoader):
    """Composes nodes up to `MAX_DEPTH` and `MAX_VALUES`, so that it ends before it takes long."""

    depth = 0
    count = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self.depth += 1
        self.count += 1
        if self.depth > MAX_DEPTH:
            raise _refusal(f"it is nested more than {MAX_DEPTH} deep", mark)
        if self.count > MAX_VALUES:
            raise _refusal(f"it holds more than {MAX_VALUES} values", mark)
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _refusal(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _refuse_bomb(root: Node) -> None:
    """Aliases share nodes: their expansion is counted without making it."""
    measured: dict[int, tuple[int, int]] = {}
    active: set[int] = set()

    def measure(node: Node) -> tuple[int, int]:
        """Values and levels."""
        if id(node) in active:
            raise _refusal("an alias refers to a value that contains the alias", node.start_mark)
        if id(node) not in measured:
            active.add(id(node))
            inner = [measure(child) for child in _children(node)]
            active.discard(id(node))
            values = 1 + sum(values for values, _ in inner)
            measured[id(node)] = values, 1 + max((levels for _, levels in inner), default=0)
        values, levels = measured[id(node)]
        if values > MAX_VALUES:
            raise _refusal(f"its aliases expand to more than {MAX_VALUES} values", node.start_mark)
        if levels > MAX_DEPTH:
            raise _refusal(f"its aliases expand to more than {MAX_DEPTH} levels", node.start_mark)
        return values, levels

    measure(root)


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, SequenceNode):
        yield from node.value
