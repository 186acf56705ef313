"""Response templates of checkpoints: read as transformers reads them (data/responses.json), or refused."""

from __future__ import annotations

import copy
import json
from random import Random

import pytest

from model.errors import TokenizerError
from model.response.format import Kind, Mark, Syntax
from model.response.opened import initial_state
from model.response.presets import with_ids
from model.response.template import read_template
from tests.model.response.reading import CASES, ORDINARY, TEMPLATES, Vocabulary, delayed, marks_of, read, text, tokens

REASONING = ("reasoning_content", "thinking")


def message_of(pieces):
    """As transformers has it; but text is given out with the blanks at its end."""
    message, calls = {"role": "assistant"}, []
    for kind, part in pieces:
        if kind is Kind.CALL_BEGIN:
            calls.append({"name": part, "arguments": ""})
        elif kind is Kind.CALL_ARGUMENTS:
            calls[-1]["arguments"] += part
        elif kind is not Kind.CALL_END:
            name = "content" if kind is Kind.TEXT else "reasoning"
            message[name] = (message.get(name, "") + part).strip()
    functions = [{**call, "arguments": json.loads(call["arguments"])} for call in calls]
    return message | ({"tool_calls": [{"type": "function", "function": one} for one in functions]} if calls else {})


@pytest.mark.parametrize("case", CASES, ids=[case["template"] for case in CASES])
def test_reads_what_transformers_reads(case):
    plain = read_template(TEMPLATES[case["template"]])
    rng = Random(case["text"])
    expected = {"reasoning" if name in REASONING else name: value for name, value in case["message"].items()}
    for format in (plain, with_ids(plain, Vocabulary(*(mark.text for mark in marks_of(plain))))):
        opened = initial_state(format, case["prefix"])
        for _ in range(5):
            stream = delayed(tokens(format, case["text"], rng), rng)
            assert message_of(read(format, stream, opened=opened)) == expected


def test_what_stands_around_a_name_and_a_value():
    (form,) = read_template(TEMPLATES["qwen3_5"]).calls
    assert form.syntax is Syntax.XML
    assert (form.opens, form.closes) == ((Mark("<tool_call>"),), (Mark("</tool_call>"),))
    assert (form.name_begin, form.name_end, form.arguments_end) == ("<function=", ">", "</function>")
    assert form.parameter == ("<parameter=", ">", "</parameter>")
    assert form.json_values


def test_without_a_field_for_it_text_is_not_lost():
    template = copy.deepcopy(TEMPLATES["qwen3"])
    del template["fields"]["content"]
    assert read(read_template(template), [("<think>a</think> b", ORDINARY)])[1:] == text("b")


def changed(path: str, value: object, name: str = "qwen3"):
    template = copy.deepcopy(TEMPLATES[name])
    *keys, last = path.split("/")
    target = template
    for key in keys:
        target = target[key]
    if value is None:
        target.pop(last)
    else:
        target[last] = value
    return template


LOOKAHEAD = r"(?=[\s\S]*?</think>)"  # of DeepSeek's distilled models and Nemotron
PYTHONIC = r"(?:<\|tool_call_start\|>\[|,\s*)(?P<name>\w+)\("  # of LFM 2.5
INKLING = r"(?:<\|message_model\|>)?[^<]*<\|content_text\|>"
GEMMA = {"string_delims": [['<|"|>', '<|"|>']], "unquoted_keys": True}


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ([], "response_template must be an object"),
        ({}, "fields must be an object"),
        (changed("version", 2), "version is 2"),
        (changed("fields/content/opens", "x"), "fields.content.opens is unknown"),
        (changed("fields/citations", {"open": "x"}), "fields.citations can't be given out"),
        (changed("fields/thinking", {"open": "x"}), "fields.thinking can't be given out"),
        (changed("fields/content", "x"), "fields.content must be an object"),
        (changed("fields/content/content", "int"), "fields.content.content is 'int'"),
        (changed("fields/content/content_args", {"strip": False}), "fields.content.content_args.strip must be true"),
        (changed("fields/content/content_args", []), "fields.content.content_args must be an object"),
        (changed("fields/content/repeats", True), "fields.content.repeats needs"),
        (changed("fields/content/close", "x"), "fields.content.close and close_pattern can't both"),
        (changed("fields/content/close_pattern", 3), "fields.content.close_pattern must be a string"),
        (changed("fields/reasoning_content/open", [""]), "fields.reasoning_content.open must be a string"),
        (changed("fields/reasoning_content/open", None), "fields.reasoning_content.open is missing"),
        (changed("fields/tool_calls/open", None), "fields.tool_calls.open is missing"),
        (changed("fields/tool_calls/content", "kv-lines"), "fields.tool_calls.content is 'kv-lines'"),
        (changed("fields/tool_calls/content_args", GEMMA), "fields.tool_calls.content_args.string_delims asks"),
        (changed("fields/tool_calls/transform", None), "fields.tool_calls.transform is None"),
        (changed("fields/tool_calls/transform", {"function": {"name": "{a}"}}), "fields.tool_calls.transform is"),
        (TEMPLATES["ernie"] | {"start_anchor_pattern": "a"}, "start_anchor and start"),
        (
            changed("fields/content/open_pattern", INKLING),
            f"fields.content.open_pattern is {INKLING!r}: '?[^<]*",
        ),
        (
            changed("fields/tool_calls/open_pattern", PYTHONIC, "llama3"),
            "the name is in one of several alternatives",
        ),
        (
            changed("fields/tool_calls/open_pattern", r"<\|tool_call>(?P<name>.*?)", "llama3"),
            "the name must stand between literals",
        ),
        (
            changed("fields/tool_calls/content_args/tag_pattern", r"<(?P<key>\w+)>(?P<value>[^<]*)</a>", "qwen3_5"),
            "the value must be anything",
        ),
        (
            changed("fields/tool_calls/content_args/merge_duplicates", True, "qwen3_5"),
            "merge_duplicates is not supported",
        ),
        (
            changed("fields/tool_calls/content_args/value_parser", {"name": "int"}, "qwen3_5"),
            "value_parser is {'name': 'int'}",
        ),
    ],
)
def test_what_can_not_be_executed_is_refused_by_name(template, told):
    with pytest.raises(TokenizerError) as caught:
        read_template(template)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "rest"),
    [
        (LOOKAHEAD, "(?="),
        (r"a+", "+"),
        (r"(a|b)", "(a|b)"),
        (r"(?:a)*", "*"),
        (r"[ab]", "[ab]"),
        (r"\d", "\\d"),
        (r"a{2}", "{2}"),
        (r"(?P=name)", "(?P="),
        (r"a)", ")"),
        (r"(?i)a", "(?i)"),
        (r"(?:a", "not closed"),
        (r"(?:a|b)" * 6, "alternatives"),
        ("(?:" * 5000, "(?:"),
    ],
)
def test_a_pattern_that_is_more_than_literals_is_refused(pattern, rest):
    template = changed("fields/reasoning_content/close_pattern", pattern)
    with pytest.raises(TokenizerError, match=r"fields\.reasoning_content\.close_pattern is ") as caught:
        read_template(template)
    assert rest in str(caught.value)


def test_alternatives_and_blanks_are_literals():
    template = changed("fields/content/close_pattern", r"\s*(?:<\|a\|>|<b>\n+|(?:c|d e))\s*|$")
    assert read_template(template).ends == tuple(map(Mark, ("<|a|>", "<b>", "c", "d e")))


def test_an_anchor_may_be_a_pattern():
    template = changed("start_anchor", None) | {"start_anchor_pattern": r"(?:<\|turn>model\n|<tool_response\|>)"}
    assert read_template(template).anchors == ("<|turn>model\n", "<tool_response|>")


def test_the_name_of_a_call_may_be_in_keys_of_its_content():
    transform = {"id": "{content.id}", "name": "{content.tool}", "arguments": "{content.args}"}
    (form,) = read_template(changed("fields/tool_calls/transform", transform)).calls
    assert (form.syntax, form.name_key, form.arguments_key) == (Syntax.JSON, "tool", "args")
