"""Whole answers by a grammar: whatever a model's logits are, calls are valid, and free text spells no mark."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from model.grammar import AnswerShape, GrammarError, ToolShape, grammar_text
from model.response import RAW, TOOLS, Kind, Mark, Opened, choose_format
from model.response.presets import with_ids
from tests.model.grammar.answers import NOTE, ORDERS, SCHEMAS, WEATHER, calls, compiled, pieces, shape

pytest.importorskip("llguidance")


@pytest.mark.parametrize("name", TOOLS)
@pytest.mark.parametrize("most", [None, 1])
def test_calls_that_are_demanded_are_valid_and_nothing_else_is_there(model, name, most):
    asked = shape(model, name, least=1, most=most)
    text = compiled(asked)
    for _ in range(8):
        ids = model.answer(text)
        made, around = calls(pieces(model, asked, ids))
        assert made, model.text(ids)
        assert not around
        assert most is None or len(made) == most
        for tool, arguments in made:
            jsonschema.validate(arguments, SCHEMAS[tool] or {"type": "object"})


def test_what_hermes_calls_look_like(model):
    """Without the reader."""
    text = compiled(shape(model, least=1, most=1, tools=ORDERS[:1]))
    for _ in range(10):
        ids = model.answer(text)
        found = re.fullmatch(r"<tool_call>\s*(\{.*\})\s*</tool_call>", model.text(ids), re.DOTALL)
        call = json.loads(found[1])
        assert list(call) == ["name", "arguments"]
        jsonschema.validate(call["arguments"], WEATHER)


@pytest.mark.parametrize("name", TOOLS)
def test_from_the_opening_mark_on_a_call_is_valid(model, name):
    asked = shape(model, name, text=True)
    text = compiled(asked)
    form = asked.format.calls[0]
    begin = "" if form.bare else f"First some text. {form.opens[0].text}"
    lead = "{" if name == "llama3_json" else "[" if form.bare else ""
    for _ in range(6):
        ids = model.answer(text, begin + lead)
        made, around = calls(pieces(model, asked, ids))
        assert made
        assert form.bare or around.startswith("First some text.")
        for tool, arguments in made:
            jsonschema.validate(arguments, SCHEMAS[tool] or {"type": "object"})


def test_a_mark_in_text_begins_a_call(model):
    """Whether it is one token or several: behind it only a call can follow."""
    asked = shape(model, text=True, tools=ORDERS[:1])
    matcher = model.grammars.matcher(compiled(asked))
    assert matcher.replay(model.tokenizer.encode("hello <tool", add_special=False))
    assert matcher.may_end
    matcher = model.grammars.matcher(compiled(asked))
    assert matcher.replay(model.tokenizer.encode("hello <tool_call>", add_special=False))
    assert not matcher.may_end
    texts = {model.text([token]) for token in np.flatnonzero(model.allowed(matcher))}
    assert texts <= {"{", "\n", " ", "\t", "\r", '{"', "\r\n", ' {"', " {"}


def test_text_alone_is_an_answer_and_one_call_is_the_last(model):
    asked = shape(model, text=True, most=1)
    text = compiled(asked)
    ids = model.answer(text)
    assert calls(pieces(model, asked, ids))[0] == []
    for _ in range(5):
        ids = model.answer(text, "So: <tool_call>")
        made, around = calls(pieces(model, asked, ids))
        assert (len(made), around) == (1, "So:")
        assert model.text(ids).endswith("</tool_call>")


@pytest.mark.parametrize("reasoning", ["may", "open"])
def test_reasoning_comes_first(model, reasoning):
    asked = shape(model, reasoning=reasoning, least=1, most=1)
    text = compiled(asked)
    begin = "Hm, </tool> or {so}.</think>\n\n"
    ids = model.answer(text, begin if reasoning == "open" else "<think>" + begin)
    found = pieces(model, asked, ids)
    assert "".join(part for kind, part in found if kind is Kind.REASONING) == "Hm, </tool> or {so}."
    assert len(calls(found)[0]) == 1
    matcher = model.grammars.matcher(text)
    straight = matcher.replay(model.tokenizer.encode('<tool_call>{"name"', add_special=False))
    assert straight == (reasoning == "may") or reasoning == "open"  # inside of the reasoning it is text


def test_a_text_with_a_form_may_stand_in_place_of_calls(model):
    body = ("json_schema", {"type": "object", "properties": {"x": {"enum": [1, 2]}}, "required": ["x"],
                            "additionalProperties": False})  # fmt: skip
    asked = shape(model, body=body)
    text, kinds = compiled(asked), set()
    for begin in ("", "{", "<tool_call>"):
        ids = model.answer(text, begin)
        made, around = calls(pieces(model, asked, ids))
        assert bool(made) != bool(around)
        assert made or json.loads(around)["x"] in (1, 2)
        kinds.add(bool(made))
    assert kinds == {True, False}


@pytest.mark.parametrize(
    ("kind", "value", "example"),
    [
        ("regex", "[ab]{3}", "aba"),
        ("choice", ["yes", "no"], "no"),
        ("lark", 'start: "x"+', "xx"),
        ("json_object", None, "{}"),
    ],
)
def test_forms_hold_behind_reasoning(model, kind, value, example):
    text = compiled(shape(model, reasoning="may", tools=(), body=(kind, value)))
    for lead in ("", "<think>well</think>\n"):
        matcher = model.grammars.matcher(text)
        assert matcher.replay(model.tokenizer.encode(lead + example, add_special=False)), matcher.error
        assert matcher.may_end
    assert not model.grammars.matcher(text).replay(model.tokenizer.encode("well", add_special=False))


def with_marked_text(model):
    """A format in which text stands between marks, and what stands outside of them is no part of the answer."""
    hermes = choose_format(model.tokenizer, "hermes", "none")
    return with_ids(replace(hermes, text_opens=(Mark("<say>"),), ends=(Mark("</say>"),)), model.tokenizer)


def test_a_form_stands_behind_the_mark_of_texts(model):
    body = ("json_schema", {"type": "object", "properties": {"x": {"enum": [1, 2]}}, "required": ["x"]})
    for opened in (Opened.NOTHING, Opened.TEXT):
        asked = AnswerShape(with_marked_text(model), opened, body=body)
        for _ in range(3):
            made, around = calls(pieces(model, asked, model.answer(compiled(asked))))
            assert not made
            assert json.loads(around)["x"] in (1, 2)


def test_marked_text_may_stand_around_calls(model):
    asked = AnswerShape(with_marked_text(model), tools=ORDERS, text=True)
    text = compiled(asked)
    for begin in ("<say>Well.</say>", "<say>Well.</say><tool_call>"):
        ids = model.answer(text, begin)
        made, around = calls(pieces(model, asked, ids))
        assert around.startswith("Well.")
        assert made or not begin.endswith("<tool_call>")


@pytest.mark.parametrize("name", TOOLS)
def test_calls_within_a_text_that_goes_on_have_their_mark(model, name):
    """Without one they would be a part of it."""
    for more in ({"least": 1}, {"text": True}):
        asked = shape(model, name, opened=Opened.TEXT, **more)
        begin = "" if "least" in more else f", that is: {asked.format.calls[0].opens[0].text}"
        for _ in range(3):
            made, around = calls(pieces(model, asked, model.answer(compiled(asked), begin)))
            assert made
            assert around.startswith(", that is:" if begin else "")


def test_a_custom_tool_gets_the_text_that_its_grammar_allows(model):
    tools = (
        ToolShape("patch", {}, ("lark", 'start: ("add " /[a-z]{1,5}/ "\\n")+')),
        ToolShape("pick", {}, ("regex", "[0-9]{2}")),
    )
    asked = shape(model, tools=tools, least=1, most=1)
    text, seen = compiled(asked), set()
    for _ in range(12):
        ids = model.answer(text)
        ((name, arguments),), around = calls(pieces(model, asked, ids, {"patch": RAW, "pick": RAW}))
        pattern = r"(add [a-z]{1,5}\n)+" if name == "patch" else "[0-9]{2}"
        assert re.fullmatch(pattern, arguments["input"])
        assert not around
        seen.add(name)
    assert seen == {"patch", "pick"}


def test_an_answer_goes_on_from_any_of_its_tokens(model):
    """As after a restart."""
    text = compiled(shape(model, reasoning="may", least=1))
    ids = model.answer(text, "<think>So.</think>")
    for cut in range(0, len(ids), 3):
        went, resumed = model.grammars.matcher(text), model.grammars.matcher(text, fresh=True)
        assert all(went.take(token) for token in ids[:cut])
        assert resumed.replay(ids[:cut])
        assert (model.allowed(went) == model.allowed(resumed)).all()


HOSTILE = ['a"b', "a\\", "a\nb", "/(.|\\n)*/", '"} | start', "é 😀", "%json {}", "<[2]>"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_only_names(model, name):
    asked = shape(model, tools=(ToolShape(name, NOTE),), least=1, most=1)
    text = compiled(asked)
    for _ in range(4):
        ids = model.answer(text)
        (call,), around = calls(pieces(model, asked, ids, {name: NOTE}))
        assert (call[0], around) == (name, "")


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}, "uniqueItems"),
        ({"type": "array"}, "arguments are an object"),
        ([], "must be a JSON schema"),
        ({"type": "object", "not": {}}, "not"),
    ],
)
def test_what_cannot_be_enforced_is_refused_and_its_tool_named(model, schema, told):
    with pytest.raises(GrammarError, match=f"of the tool 'bad', .*{told}"):
        grammar_text("answer", shape(model, tools=(ORDERS[0], ToolShape("bad", schema)), least=1))


def test_a_text_that_cannot_be_guaranteed_is_not_blamed_on_tools(model):
    body = ("json_schema", {"not": {}})
    with pytest.raises(GrammarError, match=r"^of the answer's text, .*not"):
        grammar_text("answer", shape(model, body=body))
    with pytest.raises(GrammarError, match=r"^#/not: "):
        grammar_text("answer", shape(model, reasoning="may", tools=(), body=body))


@pytest.mark.parametrize(
    ("form", "schema", "told"),
    [
        ("qwen3_coder", {"properties": {"a": {"type": "string", "pattern": "(^a)|b"}}}, "pattern"),
        ("qwen3_coder", {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}}, r"\$ref"),
        ("llama_pythonic", {"properties": {"a-b": {"type": "string"}}}, "argument's name"),
        (
            "llama_pythonic",
            {"properties": {"a": {"type": "object", "properties": {"b": {"type": "null"}}, "minProperties": 1}}},
            "minProperties",
        ),
    ],
)
def test_what_a_form_of_calls_has_no_place_for_is_refused(model, form, schema, told):
    with pytest.raises(GrammarError, match=told):
        grammar_text("answer", shape(model, form, tools=(ToolShape("f", schema),), least=1))


def test_many_tools_are_one_grammar(model):
    tools = tuple(ToolShape(f"tool_{index}", WEATHER) for index in range(64))
    asked = shape(model, tools=tools, least=1, most=1)
    ids = model.answer(compiled(asked))
    ((name, _),), _ = calls(pieces(model, asked, ids, {tool.name: WEATHER for tool in tools}))
    assert name.startswith("tool_")
