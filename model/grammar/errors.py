"""What is wrong with a grammar, and where."""

from __future__ import annotations

from model.errors import ModelError


class GrammarError(ModelError, ValueError):
    """A grammar that is malformed, or cannot be enforced in full: the client's error.

    ``pointer``: a JSON pointer into the schema, as a URI fragment (``#/properties/a``); "" for what has none.
    ``keyword``: the schema's keyword, the limit, or the kind of grammar that it is about.
    """

    def __init__(self, keyword: str, message: str, pointer: str = "") -> None:
        super().__init__(f"{pointer}: {message}" if pointer else message)
        self.keyword = keyword
        self.pointer = pointer


def child(pointer: str, *names: str | int) -> str:
    """The pointer to what stands below ``pointer`` under these names."""
    escaped = (str(name).replace("~", "~0").replace("/", "~1") for name in names)
    return "/".join((pointer, *escaped))
