"""Kinds of parameters that pydantic has no type for. What reads one raises ValueError for a value that the schema
forbids, and the error then says what it allows; `refuse` and `wrong` say something else."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, NoReturn, TypeVar

import numpy as np
from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, create_model
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from model.sampling import SamplingLimits
from pipeline.front.api.body import REFUSED, WRONG, Body, shown
from pipeline.front.api.schema import LEAST_INT, MADE, MOST_INT, WORDS, Schema
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import MAX_STOP_LENGTH, MAX_STOPS, TOO_LONG, too_long

_PIECE: Final = 1 << 14  # token ids that are checked without a pause
_LARGEST_EXACT: Final = 2**53  # a float beyond it may stand for several integers
_SPELLED: Final = {"true": True, "false": False}  # clients of llm-serving send Python's True and False as strings

B = TypeVar("B", bound=Body)
Limit = Callable[[FrontSettings], int]


def refuse(message: str, kind: str = REFUSED) -> NoReturn:
    raise PydanticCustomError(kind, message)


def wrong(told: str, inside: str = "") -> NoReturn:
    """`told` follows the parameter's name; `inside`: where in the parameter, such as `[7]`."""
    raise PydanticCustomError(WRONG, told, {"inside": inside})


@dataclass(frozen=True, slots=True)
class Kind:
    """`read` gets a value and the settings, and returns what the model holds; `schema` is of what it accepts."""

    read: Callable[[Any, FrontSettings], Any]
    schema: Callable[[FrontSettings], Schema]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            lambda value, info: self.read(value, info.context.settings)
        )

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        return {MADE: self.schema}


def given(default: Any, meaning: str, **more: Any) -> Any:
    """A parameter that may be left out."""
    return Field(default, description=meaning, **more)


# ---- what is known, but not supported ------------------------------------------------------------------------------


def only(*allowed: Any, reason: str = "other values are not supported") -> Kind:
    """A parameter that is supported at these values only, or left out."""

    def read(value: Any, settings: FrontSettings) -> Any:
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            raise ValueError
        return value

    words = f"{' or '.join(map(shown, allowed)) or 'no value'}: {reason}"
    return Kind(read, lambda _: {"enum": list(allowed), "description": f"Expected: {words}.", WORDS: words})


def also(
    names: Mapping[str, tuple[Any, ...]], *, labels: str = "", instead: Mapping[str, str] | None = None
) -> Callable[[type[B]], type[B]]:
    """A model with more parameters: `names`, separated by blanks, are supported at these values only; `labels` are
    taken without effect; of `instead` others are to be used."""
    kinds = {name: only(*values) for several, values in names.items() for name in several.split()}
    kinds |= {name: only(reason=f"use {other}") for name, other in (instead or {}).items()}
    fields: Any = {name: (Annotated[Any, kind], None) for name, kind in kinds.items()}
    fields |= {name: (Any, given(None, "Accepted without effect.")) for name in labels.split()}
    return extended(fields)


def extended(fields: Mapping[str, tuple[Any, Any]]) -> Callable[[type[B]], type[B]]:
    """A model with more fields: their types and defaults, as pydantic's `create_model` has them."""
    definitions: Any = fields

    def make(model: type[B]) -> type[B]:
        name, module, doc = model.__name__, model.__module__, model.__doc__
        return create_model(name, __base__=model, __module__=module, __doc__=doc, **definitions)

    return make


# ---- numbers and switches ------------------------------------------------------------------------------------------


def _whole(value: Any) -> Any:
    """5.0 is an integer, too, as in JSON Schema; but not what may have lost its last digits."""
    return int(value) if type(value) is float and value.is_integer() and abs(value) < _LARGEST_EXACT else value


def integer(low: int = LEAST_INT, high: int | Limit = MOST_INT) -> Kind:
    """Both bounds are included."""

    def most(settings: FrontSettings) -> int:
        return high(settings) if callable(high) else high

    def read(value: Any, settings: FrontSettings) -> int:
        number = _whole(value)
        if type(number) is not int or not low <= number <= most(settings):
            raise ValueError
        return number

    return Kind(read, lambda settings: {"type": "integer", "minimum": low, "maximum": most(settings)})


def _spelled(value: Any, settings: FrontSettings) -> bool:
    found = _SPELLED.get(value.strip().lower()) if isinstance(value, str) else value
    if type(found) is not bool:
        raise ValueError
    return found


_NAME: Final = {"type": "string", "pattern": r"^\s*([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])\s*$"}
Switch = Annotated[bool, Kind(_spelled, lambda _: {"anyOf": [{"type": "boolean"}, _NAME], WORDS: "true or false"})]
"""A boolean, or its name."""


# ---- texts and token ids -------------------------------------------------------------------------------------------


def _stops(value: Any, settings: FrontSettings) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or len(values) > MAX_STOPS:
        raise ValueError
    if not all(isinstance(one, str) and 1 <= len(one) <= MAX_STOP_LENGTH for one in values):
        raise ValueError
    return tuple(values)


def _stops_schema(settings: FrontSettings) -> Schema:
    one = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_LENGTH}
    words = f"a string or up to {MAX_STOPS} strings, each of 1 to {MAX_STOP_LENGTH} characters"
    return {"anyOf": [one, {"type": "array", "items": one, "maxItems": MAX_STOPS}], WORDS: words}


StopStrings = Annotated[tuple[str, ...], Kind(_stops, _stops_schema)]


def max_biased(settings: FrontSettings) -> int:
    """Of tokens with a bias and tokens that end the answer, together."""
    return SamplingLimits(settings.vocab_size, settings.max_length).max_biased_tokens


def token_id(settings: FrontSettings) -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": settings.vocab_size - 1}


def token_ids(most: Limit) -> Kind:
    """A list of up to `most`."""

    def read(value: Any, settings: FrontSettings) -> array[int]:
        if isinstance(value, list) and len(value) > most(settings):
            wrong(f"has {len(value)} token ids; at most {most(settings)} are allowed")
        ids = array("i") if value == [] else as_token_ids(value, settings.vocab_size)
        if ids is None:
            raise ValueError
        return ids

    def schema(settings: FrontSettings) -> Schema:
        words = f"a list of token ids in [0, {settings.vocab_size - 1}]"
        return {"type": "array", "items": token_id(settings), "maxItems": most(settings), WORDS: words}

    return Kind(read, schema)


def as_token_ids(value: Any, vocab_size: int) -> array[int] | None:
    """A list of at least one token id, else None. Long ones are checked in pieces, so that other threads can run in
    between."""
    if not isinstance(value, list) or not value:
        return None
    ids = array("i")
    for start in range(0, len(value), _PIECE):
        piece = value[start : start + _PIECE]
        kinds = set(map(type, piece))
        if not kinds <= {int, float}:  # a bool is not a token id
            return None
        try:
            ids.extend(array("i", map(_whole, piece) if float in kinds else piece))
        except (OverflowError, TypeError):  # too large, or with a fraction
            return None
    found = np.asarray(ids)
    return ids if found.min() >= 0 and found.max() < vocab_size else None


def why_too_long(characters: int, settings: FrontSettings, whose: str = "prompt has") -> str:
    """Of a prompt that has more characters than can ever fit: it need not be tokenized. Empty if it may fit."""
    most = settings.prompt_limit_chars
    told = f"your {whose} {characters} characters, of which at most {most} are allowed"
    return too_long(settings.max_length, told) if characters > most else ""


def read_text(value: Any, settings: FrontSettings) -> str:
    """A prompt, unless it is too long."""
    problem = why_too_long(len(value), settings) if isinstance(value, str) else None
    if problem is None:
        raise ValueError
    if problem:
        refuse(problem, TOO_LONG)
    return str(value)


TextPrompt = Annotated[str, Kind(read_text, lambda _: {"type": "string"})]
