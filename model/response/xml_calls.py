"""Calls with one element per parameter, whose values become JSON by the types that the tool declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.response.format import Calls, Mark
from model.response.json_values import dumped, is_utf8, parsed
from model.response.named_calls import expect, read_name
from model.response.output import CallOutput, NotACallError
from model.response.tape import Search, Steps, Tape

_JSON_TYPES: dict[str, type] = {"object": dict, "array": list, "boolean": bool, "number": float, "integer": float}
_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}


def read_xml(call: CallOutput, form: Calls, closes: Search) -> Steps[None]:
    """Parameter by parameter; what stands between them means nothing. Raises NotACallError at what is no call."""
    name = yield from read_name(call, form)
    call.begin(name)
    begin, value_end = form.parameter[0].strip(), form.parameter[2].strip()
    key_end, *before_value = form.parameter[1].split()
    end = [Mark(form.arguments_end.strip())] if form.arguments_end else []
    search = Search([Mark(begin), *end, *closes.marks])
    value_search = Search([Mark(value_end), *(mark for mark in closes.marks if mark.token_id is not None)])
    types, before = _types(call.tools, name), "{"
    while (yield from _text_until(call.tape, search))[1] == begin:
        key = (yield from _text_until(call.tape, Search([Mark(key_end)])))[0].strip()
        yield from expect(call.tape, before_value)
        text, mark = yield from _text_until(call.tape, value_search)
        if mark != value_end:
            call.tape.put_back(len(mark))
            raise NotACallError
        call.add_arguments(f"{before}{dumped(key)}: {_value(_unwrapped(text), types.get(key), form)}")
        call.has_arguments, before = True, ", "
    if call.has_arguments:
        call.add_arguments("}")
    call.end()


def _text_until(tape: Tape, search: Search) -> Steps[tuple[str, str]]:
    """With the text of the mark. Raises NotACallError where none comes any more."""
    parts: list[str] = []
    while True:
        text, mark = yield from tape.until(search)
        parts.append(text)
        if mark is not None:
            return "".join(parts), mark.text
        if not text:
            raise NotACallError


def _unwrapped(value: str) -> str:
    """Models write a new line on each side; other blanks may belong to the value."""
    return value.removeprefix("\r").removeprefix("\n").removesuffix("\n").removesuffix("\r")


def _types(tools: Mapping[str, Any], name: str) -> dict[str, frozenset[str]]:
    """Of parameters of which they are known."""
    schema = tools.get(name)
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping):
        return {}
    return {key: types for key, one in properties.items() if (types := frozenset(declared_types(one)))}


def declared_types(schema: Any) -> list[str]:
    """That a schema names, as far as one can see at once."""
    if not isinstance(schema, Mapping):
        return []
    kind = schema.get("type")
    types = [kind] if isinstance(kind, str) else _texts(kind)
    for word in ("anyOf", "oneOf"):
        types += _texts([branch.get("type") for branch in _listed(schema.get(word)) if isinstance(branch, Mapping)])
    return types or (["string"] if _texts(schema.get("enum")) else [])


def _listed(value: Any) -> list[Any]:
    """Of a schema that nobody has checked."""
    return value if isinstance(value, list) else []


def _texts(value: Any) -> list[str]:
    return [one for one in _listed(value) if isinstance(one, str)]


def _value(text: str, types: frozenset[str] | None, form: Calls) -> str:
    """As JSON."""
    written = text.strip()
    if types is None:
        return written if form.json_values and _is_json(written) else dumped(text)
    written = written if types.isdisjoint({"boolean", "null"}) else _PYTHON_WORDS.get(written, written)
    if "null" in types and written == "null":
        return written
    if "string" in types:
        return dumped(text)
    return written if any(_is_of(parsed(written), one) for one in types) and is_utf8(written) else dumped(text)


def _is_json(text: str) -> bool:
    return (text == "null" or parsed(text) is not None) and is_utf8(text)


def _is_of(value: Any, type_name: str) -> bool:
    wanted = _JSON_TYPES.get(type_name)
    is_fraction = isinstance(value, float) and not value.is_integer()
    return wanted is not None and isinstance(value, wanted) and not (type_name == "integer" and is_fraction)
