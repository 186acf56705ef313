"""Which format a checkpoint has."""

from __future__ import annotations

import pytest

from model.errors import TokenizerError
from model.response.format import Mark, Syntax
from model.response.presets import REASONING, TOOLS, choose_format
from tests.model.response.reading import FIRST_ID, TEMPLATES, Vocabulary

HERMES = '<tool_call>\n{"name": <function-name>, "arguments": <args>}\n</tool_call> <|im_start|>assistant\n'
TEMPLATE_SIGNS = {
    HERMES: "hermes",
    HERMES + "{% if '</think>' in content %}": "hermes+think",
    "<tool_call>\n<function=example>": "qwen3_coder",
    "[AVAILABLE_TOOLS] [TOOL_CALLS] [INST]": "mistral",
    "[TOOL_CALLS] [THINK] [/THINK]": "mistral+mistral_think",
    '<|start_header_id|> {"name": function name, "parameters": dictionary': "llama3_json",
    "<|header_start|> [func_name1(params_name1=params_value1)]": "llama_pythonic",
    "content.split('</think>')": "think",
}


def tokenizer(chat_template=None, response_template=None, added=()):
    vocabulary = Vocabulary(*added)
    vocabulary.chat_templates, vocabulary.response_template = chat_template or "", response_template
    return vocabulary


@pytest.mark.parametrize(("source", "name"), TEMPLATE_SIGNS.items())
def test_the_chat_template_shows_it(source, name):
    assert choose_format(tokenizer(source), "auto", "auto").name == name


@pytest.mark.parametrize(
    "source",
    [None, "", "{{ messages[0].content }}", '{"parameters": 3}', "<tool_call>{name}\n<arg_key> tc.arguments"],
)
def test_of_most_checkpoints_answers_are_text(source):
    assert choose_format(tokenizer(source), "auto", "auto") is None


def test_none_is_none():
    assert choose_format(tokenizer(HERMES, TEMPLATES["qwen3"]), "none", "none") is None


def test_the_checkpoints_own_comes_before_the_chat_templates():
    chosen = choose_format(tokenizer("[TOOL_CALLS]", TEMPLATES["cohere"]), "auto", "auto")
    assert chosen.name == "response_template"
    assert chosen.calls[0].syntax is Syntax.JSON_LIST
    assert chosen.text_opens == (Mark("<|START_RESPONSE|>"),)


def test_each_part_can_be_named():
    chosen = choose_format(tokenizer("", TEMPLATES["qwen3"]), "mistral", "auto")
    assert (chosen.calls[0].opens, chosen.reasoning.opens) == ((Mark("[TOOL_CALLS]"),), (Mark("<think>"),))
    assert chosen.id_length == 9
    chosen = choose_format(tokenizer("", TEMPLATES["qwen3"]), "auto", "none")
    assert (chosen.calls[0].opens, chosen.reasoning) == ((Mark("<tool_call>"),), None)


def test_a_template_that_nobody_asks_for_may_be_unusable():
    assert choose_format(tokenizer("", {"fields": {}}), "hermes", "think").name == "hermes+think"
    with pytest.raises(TokenizerError, match="response_template: fields"):
        choose_format(tokenizer("", {"fields": {}}), "hermes", "auto")


@pytest.mark.parametrize(("tool", "reasoning"), [("hermse", "auto"), ("auto", "hermes")])
def test_an_unknown_name_is_told_with_the_known_ones(tool, reasoning):
    with pytest.raises(TokenizerError, match=r"(tool format 'hermse'|reasoning format 'hermes') .* auto, none, "):
        choose_format(tokenizer(), tool, reasoning)


def test_marks_that_are_one_added_token_are_that_token():
    chosen = choose_format(tokenizer(HERMES, added=["<eos>", "<tool_call>", "<think>"]), "auto", "think")
    assert chosen.calls[0].opens == (Mark("<tool_call>", FIRST_ID + 1),)
    assert chosen.calls[0].closes == (Mark("</tool_call>"),)
    assert chosen.reasoning.opens == (Mark("<think>", FIRST_ID + 2),)
    assert chosen.shown_ids == {FIRST_ID + 1, FIRST_ID + 2}


def test_special_tokens_within_a_mark_are_shown():
    added = ["<|channel|>", "<|message|>", "<|end|>", "<|start|>"]
    chosen = choose_format(tokenizer("", TEMPLATES["gpt_oss"], added), "auto", "auto")
    assert chosen.shown_ids == {FIRST_ID, FIRST_ID + 1, FIRST_ID + 2}


def test_anchors_are_those_that_the_chat_template_writes():
    assert choose_format(tokenizer(HERMES), "auto", "auto").anchors == ("<|im_start|>assistant\n",)
    assert choose_format(tokenizer("[TOOL_CALLS] [/INST]"), "auto", "auto").anchors == ("[/INST]",)


@pytest.mark.parametrize("name", [*TOOLS, *REASONING])
def test_every_preset_can_be_chosen(name):
    chosen = choose_format(tokenizer(), name if name in TOOLS else "none", name if name in REASONING else "none")
    assert chosen.name == name
