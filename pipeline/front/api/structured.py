"""Structured output: what an answer must look like, in the forms of OpenAI, vLLM, llama.cpp and TGI.

All of them become one canonical text (`model.grammar`), which is part of the request from then on. What can't be
enforced in full is refused, with the keyword's name.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

import msgspec
import orjson

from model.grammar import GrammarError, check, grammar_text
from pipeline.front.api.body import Body, Problem
from pipeline.front.api.fields import Kind, extended, wrong
from pipeline.front.api.json_body import LARGE_BODY
from pipeline.front.api.schema import WORDS, Schema
from pipeline.front.delivery.job import Form, Job
from pipeline.front.http.errors import ApiError
from pipeline.front.http.exchange import Exchange
from pipeline.front.http.worker import Worker
from pipeline.front.settings import FrontSettings
from pipeline.stats import Counters, FrontCounter
from pipeline.wire.request import Request

_MOST_KEPT: Final = 64  # texts, each of up to 400 KB, and refusals
_MOST_TEXT: Final = 8 << 20  # characters of a request's grammar, in all of its prompts together

log = logging.getLogger("ringserve.front")


# ---- the forms in which clients say it ---------------------------------------------------------------------------


def _object(value: Any) -> dict[str, Any]:
    """Without members that are null."""
    return {name: one for name, one in _is(dict, value).items() if one is not None}


def _is(kind: type, value: Any) -> Any:
    if type(value) is not kind or (kind is not dict and not value):
        raise ValueError
    return value


def _closed(members: dict[str, Any], inside: str, *names: str) -> None:
    for name in members.keys() - set(names):
        wrong(f"is not supported; expected {', '.join(names) or 'nothing'}", f"{inside}.{name}")


def _schema(parameter: str, value: Any) -> Form:
    """A JSON schema, or its text."""
    return Form(parameter, "json_schema", value if type(value) in (dict, bool) else _is(str, value))


def _regex(parameter: str, value: Any) -> Form:
    return Form(parameter, "regex", _is(str, value))


def _choice(parameter: str, value: Any) -> Form:
    if not all(type(one) is str for one in _is(list, value)):
        raise ValueError
    return Form(parameter, "choice", value)


def _grammar(parameter: str, value: Any) -> Form:
    """In Lark's syntax, or in that of GBNF and EBNF."""
    return Form(parameter, "gbnf" if "::=" in _is(str, value) else "lark", value)


def _json_object(parameter: str, value: Any) -> Form:
    _is(bool, value)
    return Form(parameter, "json_object")


_READERS: Final = {
    "json": _schema,
    "regex": _regex,
    "choice": _choice,
    "grammar": _grammar,
    "json_object": _json_object,
}
_TEXT: Final[Schema] = {"type": "string", "minLength": 1}
_JSON: Final[Schema] = {"anyOf": [{"type": "object"}, {"type": "boolean"}, _TEXT]}
_SCHEMAS: Final[dict[str, Schema]] = {
    "json": _JSON,
    "regex": _TEXT,
    "choice": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    "grammar": _TEXT,
    "json_object": {"const": True},
}


def _members(required: tuple[str, ...], *, absent: tuple[Any, ...] = (None,), **known: Schema) -> Schema:
    """An object with these members, and others only if they count as absent."""
    rest = {"enum": list(absent)}
    return {"type": "object", "properties": known, "required": list(required), "additionalProperties": rest}


def _response_format(value: Any, settings: FrontSettings) -> Form | None:
    """OpenAI's; llama.cpp has a schema beside "json_object"."""
    members = _object(value)
    kind = members.pop("type", None)
    if kind == "text" or (kind is None and not members):
        _closed(members, "")
        return None
    if kind == "json_object":
        _closed(members, "", "schema")
        schema = members.get("schema")
        return Form("response_format", kind) if schema is None else _schema("response_format", schema)
    if kind != "json_schema":
        raise ValueError
    _closed(members, "", "json_schema")
    return _named_schema("response_format", _object(members.get("json_schema")), ".json_schema")


def _named_schema(parameter: str, members: dict[str, Any], inside: str) -> Form:
    _closed(members, inside, "schema", "name", "strict", "description")
    return _schema(parameter, members.get("schema"))


def _text_format(value: Any, settings: FrontSettings) -> Form | None:
    """That of /v1/responses: a schema stands beside its type."""
    members = _object(value)
    kind = members.pop("type", None)
    if kind == "json_schema":
        return _named_schema("text.format", members, "")
    if kind not in ("text", "json_object"):
        raise ValueError
    _closed(members, "")
    return None if kind == "text" else Form("text.format", kind)


_NAMED_SCHEMA: Final = _members(("schema",), schema=_JSON, name={}, strict={}, description={})
_TEXT_FORMAT: Final[Schema] = {
    "anyOf": [
        _members(("type",), type={"enum": ["text", "json_object"]}),
        _members(("type", "schema"), type={"const": "json_schema"}, schema=_JSON, name={}, strict={}, description={}),
    ]
}
_RESPONSE_FORMAT: Final[Schema] = {
    "anyOf": [
        _members((), type={"enum": ["text", None]}),
        _members(("type",), type={"const": "json_object"}, schema={"anyOf": [*_JSON["anyOf"], {"type": "null"}]}),
        _members(("type", "json_schema"), type={"const": "json_schema"}, json_schema=_NAMED_SCHEMA),
    ]
}


def _structured_outputs(value: Any, settings: FrontSettings) -> Form | None:
    members = {name: one for name, one in _object(value).items() if one is not False}
    _closed(members, "", *_READERS)
    if len(members) > 1:
        wrong(f"has {' and '.join(members)}; expected one of them")
    return next((_READERS[name](f"structured_outputs.{name}", one) for name, one in members.items()), None)


def _tgi_grammar(value: Any, settings: FrontSettings) -> Form:
    members = _object(value)
    if members.keys() != {"type", "value"}:
        raise ValueError
    kind, inner = members["type"], members["value"]
    if kind not in ("json", "json_schema", "regex"):
        raise ValueError
    if kind == "json_schema" and isinstance(inner, dict) and isinstance(inner.get("schema"), dict):
        inner = inner["schema"]  # with a name beside it
    return _regex("grammar", inner) if kind == "regex" else _schema("grammar", inner)


_TGI: Final[Schema] = {
    "anyOf": [
        _members(("type", "value"), type={"enum": ["json", "json_schema"]}, value=_JSON),
        _members(("type", "value"), type={"const": "regex"}, value=_TEXT),
    ]
}


def _field(read: Callable[[Any, FrontSettings], Form | None], schema: Schema, words: str) -> Any:
    stated: Schema = {**schema, "description": f"The form of the answer: {words}.", WORDS: words}
    return Annotated[Form | None, Kind(read, lambda _: stated)]


def _named(parameter: str, name: str, words: str) -> Any:
    """A parameter whose value is that of `name` in vLLM's `structured_outputs`."""
    return _field(lambda value, _: _READERS[name](parameter, value), _SCHEMAS[name], words)


def _ollama_format(value: Any, settings: FrontSettings) -> Form:
    return Form("format", "json_object") if value == "json" else _schema("format", _is(dict, value))


OllamaFormat = _field(_ollama_format, {"anyOf": [{"const": "json"}, {"type": "object"}]}, '"json", or a JSON schema')
TextFormat = _field(
    _text_format, _TEXT_FORMAT, 'an object of type "text", "json_object", or "json_schema" with a schema'
)


def _schema_format(parameter: str) -> Any:
    """Anthropic's."""

    def read(value: Any, settings: FrontSettings) -> Form:
        members = _object(value)
        if members.pop("type", None) != "json_schema":
            raise ValueError
        _closed(members, "", "schema")
        return _schema(parameter, _is(dict, members.get("schema")))

    members = _members(("type", "schema"), type={"const": "json_schema"}, schema={"type": "object"})
    return _field(read, members, 'an object of type "json_schema" with a schema')


OutputConfigFormat = _schema_format("output_config.format")
OutputFormat = _schema_format("output_format")
TgiGrammar = _field(_tgi_grammar, _TGI, 'an object with a type, "json" or "regex", and a value')
_VLLM: Final[Schema] = {
    "anyOf": [
        _members((), absent=(None, False)),
        *(_members((name,), absent=(None, False), **{name: schema}) for name, schema in _SCHEMAS.items()),
    ]
}
_PARAMETERS: Final[dict[str, Any]] = {
    "response_format": _field(
        _response_format,
        _RESPONSE_FORMAT,
        'an object of type "text", "json_object", or "json_schema" with json_schema.schema',
    ),
    "structured_outputs": _field(_structured_outputs, _VLLM, f"an object with one of {', '.join(_READERS)}"),
    "guided_json": _named("guided_json", "json", "a JSON schema"),
    "guided_regex": _named("guided_regex", "regex", "a regular expression"),
    "guided_choice": _named("guided_choice", "choice", "a list of strings"),
    "guided_grammar": _named("guided_grammar", "grammar", "a grammar in Lark's or GBNF's syntax"),
    "grammar": _named("grammar", "grammar", "a grammar in GBNF's or Lark's syntax"),  # llama.cpp's
    "json_schema": _named("json_schema", "json", "a JSON schema"),  # llama.cpp's
}
_NAMES: Final = frozenset(_PARAMETERS)


@extended({name: (kind, None) for name, kind in _PARAMETERS.items()})
class StructuredBody(Body):
    """At most one of its parameters may be given."""

    @property
    def forms(self) -> list[Form]:
        """That were asked for."""
        given = [getattr(self, name) for name in sorted(self.model_fields_set & _NAMES)]
        return [form for form in given if form is not None]

    @property
    def form(self) -> Form | None:
        return next(iter(self.forms), None)

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from super().conflicts(settings)
        names = [form.parameter for form in self.forms]
        if len(names) > 1:
            yield names[1], f"{' and '.join(names)} are given, but an answer has one form only"


# ---- what becomes of them ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Made:
    """A canonical text, or why there is none."""

    text: str = ""
    refusal: str = ""


_TOO_DEEP: Final = _Made(refusal="it has too many levels, beyond the limit max_depth")


class GrammarTexts:
    """Canonical texts, made and checked in a thread; those that many requests have in common are made once."""

    def __init__(self, parser: Worker, counters: Counters) -> None:
        self._parser, self._counters = parser, counters
        self._kept: OrderedDict[bytes, _Made] = OrderedDict()  # by digest

    async def constrain(self, exchange: Exchange, job: Job) -> Job:
        """The job, with its grammar in the parameters of all its parts. Raises ApiError 400."""
        form = job.form
        if form is None:
            return job
        self._counters.add(FrontCounter.GRAMMARS)
        digest = _digest(form) if exchange.body_bytes < LARGE_BODY else None  # else in the thread
        made = self._kept.get(digest) if digest else None
        if made is None:
            made = await self._parser.run(exchange, lambda: self._make(form, digest))
        if made.refusal:
            self._counters.add(FrontCounter.GRAMMARS_REFUSED)
            raise ApiError(400, f"{form.parameter}: {made.refusal}", parameter=form.parameter)
        if len(job.parts) * len(made.text) > _MOST_TEXT:
            message = (
                f"{form.parameter}: it is too large for {len(job.parts)} prompts in one request; send fewer at once"
            )
            raise ApiError(400, message, parameter=form.parameter)
        return replace(job, parts=tuple(replace(part, params=_with(part.params, made.text)) for part in job.parts))

    def _make(self, form: Form, digest: bytes | None) -> _Made:
        if digest is None:
            digest = _digest(form)
        if not digest:
            return _TOO_DEEP
        if (known := self._kept.get(digest)) is not None:
            return known
        try:
            made = _Made(grammar_text(form.kind, form.value))
            check(made.text)
        except GrammarError as error:
            made = _Made(refusal=str(error))
        except ModuleNotFoundError as error:
            return _Made(refusal=str(error))
        except Exception:  # whatever a schema makes a library raise concerns its request only
            log.exception("%s could not be made into a grammar", form.parameter)
            made = _Made(refusal="it can't be read")
        self._kept[digest] = made
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return made


def _digest(form: Form) -> bytes:
    """Of what is asked for; empty if it has too many levels for that."""
    with contextlib.suppress(orjson.JSONEncodeError):
        return hashlib.blake2b(orjson.dumps((form.kind, form.value)), digest_size=16).digest()
    return b""


def _with(params: Request, text: str) -> Request:
    return msgspec.structs.replace(params, sampling=msgspec.structs.replace(params.sampling, grammar=text))
