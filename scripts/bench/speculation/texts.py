"""Texts to be replayed: prompts and answers of four kinds, twenty each, the same for a given checkout.

Edits are commits of this project (`edits.json`): a file before, what to do, and the file after. Tables are made up,
and their answers are the same rows as JSON. Code and prose are halves of the project's own modules and pages.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

COUNT = 20
_ROOT = Path(__file__).parents[3]
_SHORTEST, _LONGEST = 3000, 6000  # characters of a text that is halved
_FIRST = ["Ada", "Bob", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana"]
_LAST = ["Smith", "Jones", "Kay", "Lund", "Meyer", "Novak"]


class Text(NamedTuple):
    prompt: str
    answer: str


def _edits() -> Iterator[Text]:
    for edit in json.loads((Path(__file__).parent / "edits.json").read_text()):
        prompt = f"```python\n{edit['before']}```\nChange this file: {edit['ask']}. Write it anew.\n```python\n"
        yield Text(prompt, edit["after"] + "```\n")


def _tables() -> Iterator[Text]:
    draw = random.Random(3)  # noqa: S311
    while True:
        rows = [
            {
                "id": draw.randrange(10**5),
                "name": f"{draw.choice(_FIRST)} {draw.choice(_LAST)}",
                "email": f"user{draw.randrange(999)}@example.org",
                "status": draw.choice(["active", "blocked", "new"]),
                "score": round(draw.random() * 100, 1),
            }
            for _ in range(10)
        ]
        table = "\n".join(" | ".join(map(str, row.values())) for row in rows)
        yield Text(f"As JSON, with id, name, email, status, score:\n{table}\n", json.dumps(rows, indent=2) + "\n")


def _halves(pattern: str) -> Iterator[Text]:
    for file in sorted(_ROOT.glob(pattern)):
        text = file.read_text()[:_LONGEST]
        if len(text) >= _SHORTEST:
            yield Text(text[: len(text) // 2], text[len(text) // 2 :])


def _prose() -> Iterator[Text]:
    """Pages without their tables and examples, in pieces."""
    for file in sorted(_ROOT.glob("docs/*.md")):
        plain = [line for line in file.read_text().split("\n") if not line.startswith(("|", "    ", "```", "<"))]
        text = "\n".join(plain)
        for start in range(0, len(text) - _SHORTEST, _SHORTEST):
            piece = text[start : start + _SHORTEST]
            yield Text(piece[: len(piece) // 2], piece[len(piece) // 2 :])


_KINDS: Mapping[str, Callable[[], Iterator[Text]]] = MappingProxyType(
    {"edits": _edits, "tables": _tables, "code": lambda: _halves("pipeline/*/*.py"), "prose": _prose}
)
KINDS = tuple(_KINDS)


def texts(kind: str) -> list[Text]:
    """Of one of `KINDS`."""
    return list(islice(_KINDS[kind](), COUNT))
