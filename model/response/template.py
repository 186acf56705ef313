"""A checkpoint's `response_template` (tokenizer_config.json; read by transformers from 5.13 on) as a response format.

What the reader could not execute faithfully is refused at load. It deviates where a server must: a call of a tool
that was not offered is text, text is given out with the blanks around it, parts that come twice are joined, and
without a `content` field what is outside of the other fields is the text, which transformers drops.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from model.errors import TokenizerError
from model.response.format import Calls, Mark, Reasoning, ResponseFormat, Syntax
from model.response.pattern import Gap, Group, Part, Sequence, refusal, translate
from model.response.transform import call_keys

_REASONING = ("reasoning_content", "thinking", "reasoning")
_TOP_KEYS = frozenset({"version", "defaults", "fields", "start_anchor", "start_anchor_pattern"})
_MARK_KEYS = ("open", "open_pattern", "close", "close_pattern")
_CONTENT_KEYS = ("content", "content_args", "repeats", "optional", "join", "transform", "transform_each")
_FIELD_KEYS = frozenset({*_MARK_KEYS, *_CONTENT_KEYS})
Field = Mapping[str, Any]


def read_template(template: Any) -> ResponseFormat:
    """Its marks have no token ids yet. Raises TokenizerError, which says what can't be executed and where."""
    _check_object("response_template", template, _TOP_KEYS)
    if template.get("version", 1) != 1:
        raise _refused("version", f"is {template['version']!r}; 1 is known")
    fields = template.get("fields")
    if not isinstance(fields, Mapping) or not fields:
        raise _refused("fields", "must be an object with fields such as content, reasoning_content and tool_calls")
    for name, field in fields.items():
        _check_object(f"fields.{name}", field, _FIELD_KEYS)
        if not isinstance(field.get("content_args", {}), Mapping):
            raise _refused(f"fields.{name}.content_args", "must be an object")
    reasoning = [name for name in fields if name in _REASONING]
    if others := [name for name in fields if name not in (*reasoning[:1], "content", "tool_calls")]:
        known = f"content, tool_calls and one of {', '.join(_REASONING)}"
        raise _refused(f"fields.{others[0]}", f"can't be given out; fields are {known}")
    content: Field = fields.get("content", {})
    return ResponseFormat(
        name="response_template",
        reasoning=_reasoning(f"fields.{reasoning[0]}", fields[reasoning[0]]) if reasoning else None,
        calls=(_calls("fields.tool_calls", fields["tool_calls"]),) if "tool_calls" in fields else (),
        ends=_text_marks("fields.content", content, "close"),
        text_opens=_text_marks("fields.content", content, "open"),
        anchors=tuple(_only(one, "start_anchor") for one in _sequences("", template, "start_anchor")),
    )


def _refused(where: str, reason: str) -> TokenizerError:
    return TokenizerError(f"response_template: {where} {reason}")


def _check_object(where: str, value: Any, known: frozenset[str]) -> None:
    if not isinstance(value, Mapping):
        raise _refused(where, f"must be an object, not {type(value).__name__}")
    if unknown := sorted(set(value) - known):
        raise _refused(f"{where}.{unknown[0]}", f"is unknown; there are {', '.join(sorted(known))}")


def _sequences(where: str, field: Field, key: str) -> list[Sequence]:
    """Of `key`, which has literals, or of its pattern."""
    where = f"{where}.{key}" if where else key
    literals, pattern = field.get(key), field.get(f"{key}_pattern")
    if literals is not None and pattern is not None:
        raise _refused(where, f"and {key}_pattern can't both be there")
    if pattern is not None:
        if not isinstance(pattern, str):
            raise _refused(f"{where}_pattern", "must be a string")
        return translate(pattern, f"{where}_pattern")
    texts = [literals] if isinstance(literals, str) else literals or []
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise _refused(where, "must be a string or a list of strings, none of them empty")
    return [(text,) for text in texts]


def _only(parts: Iterable[Part], where: str) -> str:
    """The one literal, blanks around it dropped."""
    literals = [part for part in parts if part is not Gap.BLANKS]
    if len(literals) != 1 or not isinstance(literals[0], str):
        raise refusal(where, _shown(parts), "it is more than one literal")
    return literals[0]


def _shown(parts: Iterable[Part]) -> str:
    return "".join(part if isinstance(part, str) else f"<{getattr(part, 'name', '')}>" for part in parts)


def _marks(where: str, sequences: list[Sequence]) -> tuple[Mark, ...]:
    return tuple(Mark(_only(one, where)) for one in sequences)


def _closes(where: str, field: Field) -> list[Sequence]:
    """Without the end of the answer, which closes everything."""
    found = _sequences(where, field, "close")
    return [kept for one in found if (kept := tuple(part for part in one if part is not Gap.END))]


def _text_marks(where: str, field: Field, key: str) -> tuple[Mark, ...]:
    _check_text(where, field)
    found = _closes(where, field) if key == "close" else _sequences(where, field, key)
    return _marks(f"{where}.{key}", found)


def _check_text(where: str, field: Field) -> None:
    if field.get("content", "text") != "text":
        raise _refused(f"{where}.content", f"is {field['content']!r}; text is known there")
    if field.get("transform") is not None:
        raise _refused(f"{where}.transform", "can't be applied to text")
    if field.get("content_args", {}).get("strip", True) is not True:
        raise _refused(f"{where}.content_args.strip", "must be true")
    if (field.get("repeats") or field.get("join")) and field.get("join") != "":
        raise _refused(f"{where}.repeats", 'needs "join": "", since parts of a text are given out one after another')


def _reasoning(where: str, field: Field) -> Reasoning:
    opens = _sequences(where, field, "open")
    if not opens:
        raise _refused(f"{where}.open", "is missing; what is reasoning could not be told from text")
    marked = [one for one in opens if one != (Gap.START,)]
    return Reasoning(
        opens=_marks(f"{where}.open", marked),
        closes=_text_marks(where, field, "close"),
        at_start=len(marked) < len(opens),
    )


def _calls(where: str, field: Field) -> Calls:
    opens = _sequences(where, field, "open")
    if not opens:
        raise _refused(f"{where}.open", "is missing; calls without a mark are known from the presets only")
    capture = next((part for one in opens for part in one if isinstance(part, Group)), None)
    keys = call_keys(f"{where}.transform", field, capture.name if capture else None)
    arguments_end, closes = _call_closes(where, field)
    if capture is None:
        syntax = Syntax.JSON_LIST if field.get("transform_each") else Syntax.JSON
        _check_content(where, field, "json")
        return Calls(_marks(f"{where}.open", opens), closes, syntax, name_key=keys[0], arguments_key=keys[1])
    if len(opens) > 1:
        raise refusal(f"{where}.open_pattern", field["open_pattern"], "the name is in one of several alternatives")
    mark, begin, end, skips = _around_name(f"{where}.open_pattern", field["open_pattern"], opens[0])
    is_xml = field.get("content") == "xml-inline"
    if not is_xml:
        _check_content(where, field, "json")
    return Calls(
        opens=(Mark(mark),),
        closes=closes,
        syntax=Syntax.XML if is_xml else Syntax.JSON_ARGUMENTS,
        name_begin=begin,
        name_end=end,
        name_skips=skips,
        arguments_end=arguments_end,
        parameter=_parameter(where, field["content_args"]) if is_xml else ("", "", ""),
        json_values=is_xml and _has_json_values(where, field["content_args"]),
    )


def _call_closes(where: str, field: Field) -> tuple[str, tuple[Mark, ...]]:
    """What ends the arguments, where the pattern has it before the closing mark, and the marks."""
    closes = _closes(where, field)
    literals = [[part for part in one if part is not Gap.BLANKS] for one in closes]
    if len(literals) == 1 and len(literals[0]) == 2 and isinstance(literals[0][0], str):
        return literals[0][0], (Mark(_only(literals[0][1:], f"{where}.close")),)
    return "", _marks(f"{where}.close", closes)


def _check_content(where: str, field: Field, wanted: str) -> None:
    if field.get("content", "text") != wanted:
        raise _refused(
            f"{where}.content", f"is {field.get('content', 'text')!r}; json and xml-inline are known there"
        )
    for key, value in field.get("content_args", {}).items():
        if value and key != "allow_non_json":
            raise _refused(f"{where}.content_args.{key}", "asks for JSON that is none; it can't be passed on")


def _around_name(where: str, pattern: str, parts: Sequence) -> tuple[str, str, str, bool]:
    """The opening mark, what stands before the name and behind it, and whether anything may stand in between."""
    index = next(index for index, part in enumerate(parts) if isinstance(part, Group))
    before = [part for part in parts[:index] if part is not Gap.BLANKS]
    behind = list(parts[index + 1 :])
    skips = behind[:1] == [Gap.ANYTHING]
    literals = before + [part for part in behind[skips:] if part is not Gap.BLANKS]
    if not before or not behind or not all(isinstance(part, str) for part in literals):
        raise refusal(where, pattern, "the name must stand between literals")
    texts = [part for part in literals if isinstance(part, str)]
    if skips and len(before) == len(texts):
        raise refusal(where, pattern, "a literal must end what is skipped")
    return texts[0], " ".join(texts[1 : len(before)]), " ".join(texts[len(before) :]), skips


def _parameter(where: str, arguments: Mapping[str, Any]) -> tuple[str, str, str]:
    where = f"{where}.content_args.tag_pattern"
    pattern = arguments.get("tag_pattern")
    if not isinstance(pattern, str):
        raise _refused(where, "must be a string")
    (parts, *others) = translate(pattern, where)
    shape = [part for part in parts if part is not Gap.BLANKS]
    groups = [(index, part) for index, part in enumerate(shape) if isinstance(part, Group)]
    if others or [part.name for _, part in groups] != ["key", "value"]:
        raise refusal(where, pattern, "it must have a group 'key' and then one 'value'")
    (key, _), (value, group) = groups
    around = shape[:key], shape[key + 1 : value], shape[value + 1 :]
    texts = [" ".join(part for part in between if isinstance(part, str)) for between in around]
    if not all(texts) or any(not isinstance(part, str) for between in around for part in between):
        raise refusal(where, pattern, "key and value must stand between literals")
    if group.body not in (".*?", "[\\s\\S]*?"):
        raise refusal(where, pattern, "the value must be anything up to its end")
    return texts[0], texts[1], texts[2]


def _has_json_values(where: str, arguments: Mapping[str, Any]) -> bool:
    if arguments.get("merge_duplicates"):
        raise _refused(f"{where}.content_args.merge_duplicates", "is not supported")
    parser = arguments.get("value_parser", {"name": "text"})
    if parser in ({"name": "text"}, {"name": "text", "args": {}}):
        return False
    if parser != {"name": "json", "args": {"allow_non_json": True}}:
        raise _refused(f"{where}.content_args.value_parser", f"is {parser!r}; text, or json that allows it, is known")
    return True
