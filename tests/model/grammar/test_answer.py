"""Whole answers by a grammar: whatever a model's logits are, calls are valid, and free text spells no mark."""

from __future__ import annotations

import json
import re

import jsonschema
import numpy as np
import pytest
import tokenizers

from model.demo import DEMO_DIR
from model.grammar import (
    AnswerShape,
    GrammarError,
    Grammars,
    ReasoningShape,
    ToolShape,
    Vocabulary,
    check,
    grammar_text,
)
from model.response import RAW, TOOLS, Kind, Opened, ResponseReader, choose_format
from model.tokenizer import IncrementalDetokenizer, load_tokenizer

pytest.importorskip("llguidance")
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "unit": {"enum": ["c", "f"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "now": {"type": "boolean"},
    },
    "required": ["city"],
    "additionalProperties": False,
}
NOTE = {
    "type": "object",
    "properties": {"tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,5}$"}, "maxItems": 3}},
    "required": ["tags"],
    "additionalProperties": False,
}
ORDERS = (ToolShape("get_weather", WEATHER), ToolShape("note", NOTE), ToolShape("any", None))
SCHEMAS = {tool.name: tool.parameters for tool in ORDERS}
MARKS = ("<tool_call>", "</tool_call>", "<think>", "</think>", "[TOOL_CALLS]", "<|python_tag|>", "<|python_end|>")


class Model:
    """Random logits over a vocabulary, in which the ends of things are likely."""

    def __init__(self, tokenizer):
        self.tokenizer, self.size = tokenizer, tokenizer.vocab_size
        self.vocabulary = Vocabulary(tokenizer, self.size, [2])
        self.grammars = Grammars(self.vocabulary, most=64)
        self.rng, self.bias = np.random.default_rng(1), np.zeros(self.size, np.float32)
        for token in range(self.size):
            text = tokenizer.token_bytes(token)
            self.bias[token] = 6 * bool(text and all(byte in b'"}],:)<>/' for byte in text))
        self.bias[2] = 8
        self.noise = self.rng.gumbel(size=(64, self.size)).astype(np.float32) + self.bias

    def allowed(self, matcher):
        mask = np.zeros_like(self.vocabulary.known)
        matcher.fill(mask)
        assert not matcher.error
        return np.unpackbits(mask.view(np.uint8), bitorder="little")[: self.size].astype(bool)

    def walk(self, text, begin="", most=250):
        """The ids of an answer that begins so; None if it has no end."""
        matcher, ids = self.grammars.matcher(text), self.tokenizer.encode(begin, add_special=False)
        assert matcher.replay(ids), matcher.error
        while len(ids) < most:
            allowed = self.allowed(matcher)
            assert allowed.any()
            token = int(np.argmax(np.where(allowed, self.noise[self.rng.integers(64)], -np.inf)))
            if token == 2:
                return ids
            assert matcher.take(token)
            ids.append(token)
            if matcher.stopped:
                return ids
        return None

    def answer(self, text, begin=""):
        """One that has an end."""
        return next(ids for _ in range(50) if (ids := self.walk(text, begin)) is not None)

    def text(self, ids):
        return self.tokenizer.decode(ids, skip_special=False)


def with_tokens(folder, texts):
    """The demo model's tokenizer, in which each of these texts is one token."""
    tokenizer = tokenizers.Tokenizer.from_file(str(DEMO_DIR / "tokenizer.json"))
    tokenizer.add_special_tokens(list(texts))
    tokenizer.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder)


@pytest.fixture(scope="module", params=["text", "tokens"])
def model(request, tmp_path_factory):
    """Its marks are text, or tokens of their own."""
    own = request.param == "tokens"
    return Model(with_tokens(tmp_path_factory.mktemp("own"), MARKS) if own else load_tokenizer(DEMO_DIR))


def shape(model, name="hermes", reasoning="none", **more):
    chosen = choose_format(model.tokenizer, name, "think" if reasoning != "none" else "none")
    return AnswerShape(chosen, ReasoningShape(reasoning), **{"tools": ORDERS, **more})


def pieces(model, asked, ids, tools=SCHEMAS):
    opened = Opened.REASONING if asked.reasoning is ReasoningShape.OPEN else Opened.NOTHING
    reader = ResponseReader(asked.format, tools=tools, opened=opened)
    detokenizer = IncrementalDetokenizer(model.tokenizer, skip_special=False)
    found = [piece for token in ids for piece in reader.push(detokenizer.push(token), token)]
    return found + reader.finish()


def calls(found):
    """Names and arguments of complete calls, and the text around them."""
    made, text = [], ""
    for kind, part in found:
        if kind is Kind.CALL_BEGIN:
            made.append([part, ""])
        elif kind is Kind.CALL_ARGUMENTS:
            made[-1][1] += part
        elif kind is Kind.TEXT:
            text += part
    assert sum(kind is Kind.CALL_END for kind, _ in found) == len(made)
    return [(name, json.loads(arguments)) for name, arguments in made], text


def compiled(asked):
    text = grammar_text("answer", asked)
    check(text)
    return text


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
