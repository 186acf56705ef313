"""The body of a request: a pydantic model, from which its parsing, its errors and its OpenAPI schema come.

Whatever a body holds takes effect or is refused; nothing is clamped or ignored. null counts as absent, as in OpenAI's
API. The context of validation is the front's settings, whose limits are those of the model that is served.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator
from typing import Any, ClassVar, Final, TypeVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, ErrorDetails

from pipeline.front.api.schema import Schema, in_words, names_at, nullable, schema_at
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import TOO_LONG

_SHOWN: Final = 80  # characters of a value, in an error
_TOLD: Final = 5  # problems, in an error
_UNKNOWN: Final = 32  # keys that are looked at
_INVISIBLE: Final = ("parameters", "stream_options")  # their members are named as if they stood outside

REFUSED: Final = "refused"
WRONG: Final = "wrong"
"""Types of errors whose message is told: as it is, or behind the place. Of others it is told what would be right."""

Problem = tuple[str, str]
"""A parameter, and what is wrong with it."""


class Body(BaseModel):
    """An object from a client."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    ABSENT: ClassVar[tuple[Any, ...]] = (None,)
    """Values that count as left out, of whatever key."""

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        """What one parameter demands of another, and does not get."""
        yield from ()

    @model_validator(mode="before")
    @classmethod
    def _without_what_counts_as_absent(cls, values: Any) -> Any:
        """Of very many unknown keys a few are kept, to be refused."""
        if not isinstance(values, dict):
            return values
        given = {key: value for key, value in values.items() if value is not None and value not in cls.ABSENT}
        if len(given) > _UNKNOWN + len(cls.model_fields):
            unknown = [key for key in given if key not in cls.model_fields]
            for key in unknown[_UNKNOWN:]:
                del given[key]
        return given

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        reference = handler(core)
        schema = handler.resolve_ref_schema(reference)
        needed = schema.get("required", ())
        for name, one in schema["properties"].items():
            schema["properties"][name] = one if name in needed else nullable(one, cls.ABSENT)
        if cls.model_config["extra"] == "forbid":
            schema["additionalProperties"] = {"enum": list(cls.ABSENT)}
        return reference


B = TypeVar("B", bound=Body)


def read(kind: type[B], values: Any, settings: FrontSettings, *, status: int) -> B:
    """Raises ApiError with `status` (that of the API for an invalid parameter), which tells of all problems."""
    try:
        body = kind.model_validate(values, context=settings)
    except ValidationError as error:
        details = error.errors(include_url=False)
        too_long = any(one["type"] == TOO_LONG for one in details)
        raise _refusal([_problem(kind, one, settings) for one in details], status, too_long=too_long) from None
    problems = list(body.conflicts(settings))
    if problems:
        raise _refusal(problems, status)
    return body


def _refusal(problems: list[Problem], status: int, *, too_long: bool = False) -> ApiError:
    """A client that can shorten its prompt must see that this is needed, whatever else is wrong."""
    told = "; ".join([message for _, message in problems[:_TOLD]])
    more = f"; and {len(problems) - _TOLD} more problems" if len(problems) > _TOLD else ""
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
        return place, f"unknown parameter {shown(place)}{_nearest(str(inside[-1]), known)}"
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
    near = difflib.get_close_matches(name, known, n=1) if len(name) <= _SHOWN else []
    return f"; did you mean {near[0]!r}?" if near else ""


def shown(value: Any) -> str:
    """A client's value, cut to the length that an error message shows; it may be large, or nested deeply."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = _SHOWN
    return cut(short.repr(value))


def cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
