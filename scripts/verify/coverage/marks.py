"""Source with marks: a statement that sets a byte, at the beginning of each block and wherever a block goes on behind
a statement that may not have come to its end.

What lies between two marks counts as reached with the first: a statement that raises takes those behind it along.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

NAME = "__ringserve_marks__"
"""Of the bytes, a builtin of measured processes."""

_BRANCHING = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.With, ast.AsyncWith, ast.Match)
_NO_CODE = (ast.Global, ast.Nonlocal)


class Marked:
    """`tree`: with marks from number `first` on. `statements`: how many lie behind each."""

    def __init__(self, source: str, first: int) -> None:
        """Raises SyntaxError."""
        self._first = first
        self.statements: list[int] = []
        self.tree = ast.parse(source)
        self.tree.body = self._block(self.tree.body)

    def _block(self, block: list[ast.stmt]) -> list[ast.stmt]:
        made, current = list[ast.stmt](), None
        for statement in block:
            if not _is_left_out(statement):
                if current is None:
                    current = len(self.statements)
                    made.append(self._mark(statement))
                self.statements[current] += 1
                for owner, name in _blocks(statement):
                    setattr(owner, name, self._block(getattr(owner, name)))
                if isinstance(statement, _BRANCHING):
                    current = None
            made.append(statement)
        return made

    def _mark(self, before: ast.stmt) -> ast.stmt:
        (mark,) = ast.parse(f"{NAME}[{self._first + len(self.statements)}] = 1").body
        self.statements.append(0)
        for node in ast.walk(mark):
            ast.copy_location(node, before)
        return mark


def _is_left_out(statement: ast.stmt) -> bool:
    """Nothing of it is counted, nor of what it holds."""
    match statement:
        case ast.Expr(value=ast.Constant()) | ast.ImportFrom(module="__future__"):
            return True
        case ast.If(test=ast.Name("TYPE_CHECKING")):
            return True
        case ast.If(test=ast.Compare(left=ast.Name("__name__"))):
            return True
        case ast.FunctionDef(name="construct"):  # MindSpore compiles its source; Python never runs it
            return True
        case ast.FunctionDef(decorator_list=decorators):
            return any(isinstance(one, ast.Name) and one.id == "overload" for one in decorators)
    return isinstance(statement, _NO_CODE)


def _blocks(statement: ast.stmt) -> Iterator[tuple[ast.AST, str]]:
    for owner in (statement, *getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        for name in ("body", "orelse", "finalbody"):
            if getattr(owner, name, None):
                yield owner, name
