"""What the answers of a model family consist of: reasoning, text and calls of tools, and the marks around them.

A format comes from a checkpoint's `response_template` or is one of the presets. Its marks are literals and token ids:
a mark that is one token of the vocabulary is that token, and text that only spells it is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


@dataclass(frozen=True, slots=True)
class Mark:
    """`token_id`: of the added token that it is; None: it is text."""

    text: str
    token_id: int | None = None


class Syntax(Enum):
    """How one call, or a list of them, is written between its marks."""

    JSON = "json"  # {"name": "f", "arguments": {…}}, the keys in either order
    JSON_LIST = "json-list"  # [{"name": …}, …]
    JSON_ARGUMENTS = "json-arguments"  # {…} alone; the name stands before it, up to `name_end`
    XML = "xml"  # <parameter=key>value</parameter> …; the name as in JSON_ARGUMENTS
    PYTHONIC = "pythonic"  # [f(a=1), g(b="x")]


@dataclass(frozen=True, slots=True)
class Calls:
    """Where calls stand in an answer. `opens` before a call, or before a list of them; `bare`: also without a mark,
    at the beginning of the answer's text. `between`: what models write between calls that no marks part.
    `name_begin`, `name_end`: around the name, where the syntax has it before the arguments; `name_skips`: between the
    name and `name_end` may stand other text, which means nothing. `parameter`: of XML, what stands before a key,
    behind it, and behind its value. `json_values`: of XML, values of no known type are JSON where they can be, else
    they are strings. `arguments_end`: between the arguments and the closing mark. Blanks around these literals are
    what models were trained to write; a reader takes others, or none, as well."""

    opens: tuple[Mark, ...]
    closes: tuple[Mark, ...]
    syntax: Syntax
    name_key: str = "name"
    arguments_key: str = "arguments"
    bare: bool = False
    between: str = ""
    name_end: str = ""
    parameter: tuple[str, str, str] = ("", "", "")
    name_begin: str = ""
    name_skips: bool = False
    json_values: bool = False
    arguments_end: str = ""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What a model writes before its answer. `at_start`: also without a mark, from the beginning of its message."""

    opens: tuple[Mark, ...]
    closes: tuple[Mark, ...]
    at_start: bool = False


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """`calls`: the forms that are read; guaranteed calls have the first one. `ends`: marks of the text's end, which
    are no part of it. `text_opens`: marks before the answer's text, where it has such; then what stands outside of
    all marks is no part of the answer. `anchors`: literals behind which, in a prompt, the model's message begins.
    `id_length`: of the ids of calls, where the family's chat template demands one (letters and digits), else 0.
    `inner_ids`: of special tokens that are a part of a literal above, and no mark themselves."""

    name: str
    reasoning: Reasoning | None = None
    calls: tuple[Calls, ...] = ()
    ends: tuple[Mark, ...] = ()
    anchors: tuple[str, ...] = ()
    id_length: int = 0
    text_opens: tuple[Mark, ...] = ()
    inner_ids: tuple[int, ...] = ()

    @property
    def shown_ids(self) -> frozenset[int]:
        """Tokens whose text must arrive, special or not."""
        parts = ([] if self.reasoning is None else [self.reasoning]) + list(self.calls)
        marks = [mark for part in parts for mark in (*part.opens, *part.closes)]
        marks += [*self.text_opens, *self.ends]
        return frozenset(self.inner_ids) | {mark.token_id for mark in marks if mark.token_id is not None}


class Opened(Enum):
    """What the end of a prompt leaves open for the answer to go on with."""

    NOTHING = "nothing"
    REASONING = "reasoning"
    TEXT = "text"


RAW: Final = "raw"
"""In place of a tool's schema: its input is a text, which its calls have as it is (`raw_calls`)."""


class Kind(Enum):
    """Of what an answer consists of, piece by piece."""

    TEXT = "text"
    REASONING = "reasoning"
    CALL_BEGIN = "call-begin"
    CALL_ARGUMENTS = "call-arguments"
    CALL_END = "call-end"


Piece = tuple[Kind, str]
"""With its text; of CALL_BEGIN the tool's name, of CALL_ARGUMENTS a part of a JSON text, of CALL_END nothing."""
