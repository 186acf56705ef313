"""Parameters that have several forms: objects told apart by their type, and texts or lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from pipeline.front.api.body import Body, shown
from pipeline.front.api.fields import refuse, wrong
from pipeline.front.api.schema import MADE, WORDS, Schema
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import TOO_LONG, too_long


@dataclass(frozen=True, slots=True, eq=False)
class OneOf:
    """An object of one of these kinds, by its type. `usual`: the type of one that has none, but this member.
    `refused`: what to do instead of using a type that is known, but not supported; `other`: of any other."""

    kinds: Mapping[str, type[Body]]
    usual: tuple[str, str] | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    other: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        kinds = dict.fromkeys(self.kinds.values())
        every: list[CoreSchema | tuple[CoreSchema, str]] = [handler.generate_schema(kind) for kind in kinds]
        return core_schema.with_info_wrap_validator_function(self._read, core_schema.union_schema(every))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        return {**handler(core), WORDS: f"an object of type {self._names}"}

    @property
    def _names(self) -> str:
        *several, last = self.kinds
        return f"{', '.join(several)} or {last}" if several else last

    def _read(self, value: Any, _: Any, info: ValidationInfo) -> Body:
        """By the model of its type alone, whose errors are those of the whole body."""
        if not isinstance(value, dict):
            raise ValueError  # noqa: TRY004 - pydantic's errors are made from these alone
        kind = value.get("type")
        if kind is None and self.usual is not None and self.usual[1] in value:
            kind = self.usual[0]
        found = self.kinds.get(kind) if isinstance(kind, str) else None
        if found is None:
            self._refuse(kind)
        return found.model_validate(value, context=info.context)

    def _refuse(self, kind: Any) -> NoReturn:
        expected = f"expected {self._names}"
        if kind is None:
            wrong(f"is missing: {expected}", ".type")
        instead = self.refused.get(kind, self.other) if isinstance(kind, str) else ""
        wrong(f"is {shown(kind)}, {expected}" + (f": {instead}" if instead else ""), ".type")


@dataclass(frozen=True, slots=True, eq=False)
class TextOr:
    """A text, or a list of `kind`; `of_text` and `of_list` make of it what the model holds."""

    kind: Any
    of_text: Callable[[str], Any]
    of_list: Callable[[list[Any]], Any]
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_wrap_validator_function(self._read, handler.generate_schema(self.kind))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        most = {MADE: lambda settings: {"maxItems": settings.max_prompt}}
        return {"anyOf": [{"type": "string"}, {**handler(core), **most}], WORDS: self.words}

    def _read(self, value: Any, read: Callable[[Any], list[Any]], info: ValidationInfo) -> Any:
        if isinstance(value, str):
            return self.of_text(value)
        if not isinstance(value, list):
            raise ValueError  # noqa: TRY004 - as above
        reading: Any = info.context
        _require_few(len(value), reading.settings)
        return self.of_list(read(value))


def _require_few(count: int, settings: FrontSettings) -> None:
    """There can't be more than a prompt may have tokens."""
    if count > settings.max_prompt:
        told = f"there are {count} items, and a prompt has at most {settings.max_prompt} tokens"
        refuse(too_long(settings.max_length, told), TOO_LONG)
