"""`$ref`: every target becomes a definition of its own, so that no pointer depends on what else is rewritten."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from model.grammar.errors import GrammarError


class References:
    """Of one document. Targets are numbered in the order in which they are met."""

    def __init__(self, document: Any) -> None:
        self._document = document
        own = document.get("$id", document.get("id", "")) if isinstance(document, dict) else ""
        self._own_id = own.rstrip("#") if isinstance(own, str) else ""
        self.pending: list[tuple[str, str]] = []  # name, pointer
        self._names: dict[str, str] = {}

    def name(self, reference: Any, pointer: str) -> str:
        """What the target is called in `$defs`. Raises GrammarError for one outside of the document."""
        target = self._local(reference, pointer)
        self.resolve(target, pointer)
        if target not in self._names:
            self._names[target] = str(len(self._names))
            self.pending.append((self._names[target], target))
        return self._names[target]

    def _local(self, reference: Any, pointer: str) -> str:
        if not isinstance(reference, str):
            raise GrammarError("$ref", f"$ref must be a string, not {str(reference)[:40]}", pointer)
        target = reference.removeprefix(self._own_id) if self._own_id else reference
        if not target.startswith("#"):
            raise GrammarError("$ref", f"$ref {reference[:80]!r} is remote; put its target into $defs", pointer)
        if target not in ("#", "#/") and not target.startswith("#/"):
            raise GrammarError("$ref", f"$ref {reference[:80]!r} is an anchor; use a JSON pointer (#/…)", pointer)
        return target.removesuffix("/") if target == "#/" else target

    def resolve(self, target: str, pointer: str) -> Any:
        found = self._document
        for part in target.split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                raise GrammarError("$ref", f"$ref {target[:80]!r} leads nowhere: there is no {key[:40]!r}", pointer)
        return found
