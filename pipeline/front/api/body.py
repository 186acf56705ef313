"""The body of a request: a pydantic model, from which its parsing, its errors and its OpenAPI schema come.

Whatever is known takes effect, or is refused; nothing is clamped. What no API here knows is ignored, and told to the
client, or refused: see `pipeline.unknown_parameters`. null counts as absent, as in OpenAI's API. The context of
validation is a `Reading`, with the front's settings, whose limits are those of the model that is served.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError, ValidationInfo, model_validator
from pydantic_core import CoreSchema, ErrorDetails

from pipeline.front.api.schema import MADE, Schema, in_words, names_at, nullable, schema_at
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import TOO_LONG

_SHOWN: Final = 80  # characters of a value, in an error
_TOLD: Final = 5  # problems, in an error
_UNKNOWN: Final = 32  # unknown keys that are looked at, of an object
WARN: Final = "warn"
_INVISIBLE: Final = ("parameters", "stream_options")  # their members are named as if they stood outside

REFUSED: Final = "refused"
WRONG: Final = "wrong"
"""Types of errors whose message is told: as it is, or behind the place. Of others it is told what would be right."""

Problem = tuple[str, str]
"""A parameter, and what is wrong with it."""


@dataclass(slots=True)
class Reading:
    """Of one request. `unknown`: parameters that were ignored, and the nearest known one of each, or nothing.
    `timed`: times are wanted in the answer's usage."""

    settings: FrontSettings
    timed: bool = False
    unknown: dict[str, str] = field(default_factory=dict)


class Body(BaseModel):
    """An object from a client."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    ABSENT: ClassVar[tuple[Any, ...]] = (None,)
    """Values that count as left out, of whatever key."""

    PLACE: ClassVar[str] = ""
    """Stands before the names of unknown keys."""

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        """What one parameter demands of another, and does not get."""
        yield from ()

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any, info: ValidationInfo) -> Any:
        """Without what counts as absent, and without unknown keys if these are ignored. Else a few of them are kept,
        to be refused."""
        if not isinstance(values, dict):
            return values
        given = {key: value for key, value in values.items() if value is not None and value not in cls.ABSENT}
        fields, reading = cls.__pydantic_fields__, info.context
        if reading is not None and not given.keys() <= fields.keys() and cls.model_config["extra"] == "forbid":
            unknown = [key for key in given if key not in fields]
            ignored = reading.settings.unknown_parameters == WARN
            for key in unknown if ignored else unknown[_UNKNOWN:]:
                del given[key]
            if ignored:
                cls._note(reading, unknown)
        return given

    @classmethod
    def _note(cls, reading: Reading, unknown: list[str]) -> None:
        for key in unknown[: _UNKNOWN - len(reading.unknown)]:
            reading.unknown[cls.PLACE + cut(key)] = _nearest(key, list(cls.__pydantic_fields__))

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        reference = handler(core)
        schema = handler.resolve_ref_schema(reference)
        needed = schema.get("required", ())
        for name, one in schema["properties"].items():
            schema["properties"][name] = one if name in needed else nullable(one, cls.ABSENT)
        if cls.model_config["extra"] == "forbid":
            schema["additionalProperties"] = {MADE: lambda settings: _additional(settings, cls.ABSENT)}
        return reference


B = TypeVar("B", bound=Body)


def _additional(settings: FrontSettings, absent: tuple[Any, ...]) -> Schema:
    return {} if settings.unknown_parameters == WARN else {"enum": list(absent)}


def read(kind: type[B], values: Any, reading: Reading, *, status: int) -> B:
    """Raises ApiError with `status` (that of the API for an invalid parameter), which tells of all problems."""
    settings = reading.settings
    try:
        body = kind.model_validate(values, context=reading)
    except ValidationError as error:
        details = error.errors(include_url=False)
        too_long = any(one["type"] == TOO_LONG for one in details)
        told = [_problem(kind, one, settings) for one in details[:_TOLD]]  # there may be thousands
        raise _refusal(told, len(details), status, too_long=too_long) from None
    problems = list(body.conflicts(settings))
    if problems:
        raise _refusal(problems[:_TOLD], len(problems), status)
    return body


def _refusal(problems: list[Problem], count: int, status: int, *, too_long: bool = False) -> ApiError:
    """`problems`: the first of `count`. A client that can shorten its prompt must see that this is needed, whatever
    else is wrong."""
    told = "; ".join([message for _, message in problems])
    more = f"; and {count - _TOLD} more problems" if count > _TOLD else ""
    return ApiError(status, told + more, parameter=problems[0][0], code=TOO_LONG if too_long else None)


def _problem(kind: type[Body], error: ErrorDetails, settings: FrontSettings) -> Problem:
    """What pydantic found: where, what is there, and what would be right."""
    inside = error["loc"]
    place = _place(inside)
    if error["type"] in (REFUSED, TOO_LONG):
        return place, error["msg"]
    if error["type"] == WRONG:
        place += error["ctx"]["inside"]
        return place, f"{place} {error['msg']}"
    if error["type"] == "extra_forbidden":
        known = names_at(kind, inside[:-1], settings)
        near = _nearest(str(inside[-1]), known)
        return place, f"unknown parameter {shown(place)}" + (f"; did you mean {near!r}?" if near else "")
    wanted = in_words(schema_at(kind, inside, settings))
    if error["type"] == "missing":
        return place, f"{place} is missing: expected {wanted}"
    return place, f"{place} is {shown(error['input'])}, expected {wanted}"


def _place(inside: tuple[int | str, ...]) -> str:
    """`messages[2].content`."""
    outer = len(inside) > 1 and inside[0] in _INVISIBLE
    parts = [f"[{one}]" if isinstance(one, int) else f".{cut(one)}" for one in inside[outer:]]
    return "".join(parts).removeprefix(".")


def _nearest(name: str, known: list[str]) -> str:
    """Of the known names, if one is near."""
    near = difflib.get_close_matches(name, known, n=1) if len(name) <= _SHOWN else []
    return near[0] if near else ""


def shown(value: Any) -> str:
    """A client's value, cut to the length that an error message shows; it may be large, or nested deeply."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = _SHOWN
    return cut(short.repr(value))


def cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
