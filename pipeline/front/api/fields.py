"""Kinds of parameters that pydantic has no type for. Validators raise ValueError for what the schema forbids, and the
error then says what it allows; what else is to be said comes from `refuse`."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, NoReturn

import numpy as np
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from model.sampling import SamplingLimits
from pipeline.front.api.body import REFUSED, shown
from pipeline.front.api.schema import LEAST_INT, MADE, MOST_INT, WORDS, Schema
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import MAX_STOP_LENGTH, MAX_STOPS, TOO_LONG

_PIECE: Final = 1 << 14  # token ids that are checked without a pause
_SPELLED: Final = {"true": True, "false": False}  # clients of llm-serving send Python's True and False as strings

Limit = Callable[[FrontSettings], int]


def refuse(message: str, kind: str = REFUSED, *, parameter: str | None = None) -> NoReturn:
    """Raises an error with this message, of this parameter if it is another than the one that is read."""
    raise PydanticCustomError(kind, message, {"parameter": parameter})


@dataclass(frozen=True, slots=True)
class Kind:
    """`read` gets a value and the settings, and returns what the model holds; `schema` is of what it accepts."""

    read: Callable[[Any, FrontSettings], Any]
    schema: Callable[[FrontSettings], Schema]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(lambda value, info: self.read(value, info.context))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        return {MADE: self.schema}


# ---- numbers and switches ------------------------------------------------------------------------------------------


def _whole(value: Any) -> Any:
    """5.0 is an integer, too, as in JSON Schema; but not what stands for an integer beyond 64 bits, without its last
    digits."""
    return int(value) if type(value) is float and value.is_integer() and abs(value) < 2**63 else value


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
    if not isinstance(found, bool):
        raise ValueError  # noqa: TRY004 - pydantic knows no TypeError
    return found


Switch = Annotated[
    bool,
    Kind(
        _spelled,
        lambda _: {
            "anyOf": [
                {"type": "boolean"},
                {"type": "string", "pattern": r"^\s*([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])\s*$"},
            ],
            WORDS: "true or false",
        },
    ),
]
"""A boolean, or its name."""


# ---- what is known, but not supported ------------------------------------------------------------------------------


def only(*allowed: Any, meaning: str = "") -> Kind:
    """At these values, or left out."""

    def read(value: Any, settings: FrontSettings) -> Any:
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            raise ValueError
        return value

    words = (" or ".join(map(shown, allowed)) or "no value") + ": other values are not supported"
    about = meaning or ("Supported at this value only." if allowed else "Not supported.")
    return Kind(read, lambda _: {"enum": list(allowed), "description": about, WORDS: words})


Unsupported = Annotated[Any, only()]
Off = Annotated[Any, only(False)]
On = Annotated[Any, only(True)]
EmptyList = Annotated[Any, only([])]
EmptyObject = Annotated[Any, only({})]


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


def token_id(settings: FrontSettings) -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": settings.vocab_size - 1}


def max_biased(settings: FrontSettings) -> int:
    """Of tokens with a bias and tokens that end the answer, together."""
    return SamplingLimits(settings.vocab_size, settings.max_length).max_biased_tokens


def read_token_ids(value: Any, settings: FrontSettings, most: int | None = None) -> array[int]:
    """Raises ValueError, also for more than `most`."""
    if not isinstance(value, list) or len(value) > (len(value) if most is None else most):
        raise ValueError
    ids = as_token_ids(value, settings.vocab_size) if value else array("i")
    if ids is None:
        raise ValueError
    return ids


def token_ids_schema(settings: FrontSettings, **more: Any) -> Schema:
    words = f"a list of token ids in [0, {settings.vocab_size - 1}]"
    return {"type": "array", "items": token_id(settings), WORDS: words, **more}


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


def too_long(text: str, settings: FrontSettings) -> str:
    """What is wrong with a prompt that has more characters than can ever fit: it need not be tokenized."""
    most = settings.prompt_limit_chars
    if len(text) <= most:
        return ""
    allowed = f"at most {most} characters and {settings.max_prompt} tokens are allowed"
    return f"the prompt has {len(text)} characters; {allowed}"


def limited(text: str, settings: FrontSettings) -> str:
    """The prompt, unless it is too long."""
    problem = too_long(text, settings)
    if problem:
        refuse(problem, TOO_LONG)
    return text


def _text_prompt(value: Any, settings: FrontSettings) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - pydantic knows no TypeError
    return limited(value, settings)


TextPrompt = Annotated[str, Kind(_text_prompt, lambda _: {"type": "string"})]
