"""Requests of /v1/messages: what becomes of them, and what is refused and how."""

from __future__ import annotations

import dataclasses

import pytest
from anthropic.types import message_count_tokens_params, message_create_params
from anthropic.types.beta import message_count_tokens_params as beta_count_params
from anthropic.types.beta import message_create_params as beta_create_params

from model.demo import DEMO_DIR
from model.response import choose_format
from model.tokenizer import load_tokenizer
from pipeline.front.api.anthropic.blocks import Turn, messages_of
from pipeline.front.api.anthropic.request import CountRequest, MessagesRequest, parse_count, parse_messages
from pipeline.front.api.body import Reading, read
from pipeline.front.api.chat.tools import Tool, ToolUse
from pipeline.front.delivery.job import Form, Identity
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings
from tests.pipeline.front.conftest import DEFAULTS

IDENTITY = Identity("0" * 32, 1795890551)
TOKENIZER = load_tokenizer(DEMO_DIR)
SETTINGS = FrontSettings(**DEFAULTS, response_format=choose_format(TOKENIZER, "hermes", "think"))
USER = {"role": "user", "content": "x"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"name": "weather", "description": "Of a city.", "input_schema": SCHEMA}
USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}
CALL = {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}


def messages(settings=SETTINGS, tokenizer=TOKENIZER, **body):
    body = {"messages": [USER], "max_tokens": 5} | body
    return parse_messages(body, IDENTITY, tokenizer, Reading(settings))


def asked(**body):
    return read(MessagesRequest, {"messages": [USER], "max_tokens": 5} | body, Reading(SETTINGS), status=400)


def problem(**body):
    with pytest.raises(ApiError) as caught:
        messages(**body)
    assert caught.value.status == 400
    return caught.value.message


def chat(*turns, system=""):
    """Messages for the template."""
    every = [Turn.model_validate(turn, context=Reading(SETTINGS)) for turn in turns]
    return messages_of(every, system)


def text(content):
    return {"type": "text", "text": content}


# ---- messages ------------------------------------------------------------------------------------------------------


def test_texts_and_blocks():
    turns = [USER, {"role": "assistant", "content": [text("a"), text("b")]}, {"role": "user", "content": [text("c")]}]
    assert chat(*turns) == [USER, {"role": "assistant", "content": "a\nb"}, {"role": "user", "content": "c"}]


def test_a_turn_of_tools():
    turns = [
        USER,
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"}, {"type": "redacted_thinking", "data": "d"},
            text("Let me see."), USE]},
        {"role": "user", "content": [
            text("And?"), RESULT, RESULT | {"is_error": True, "content": [text("a"), text("b")]},
            {"type": "tool_result", "tool_use_id": "toolu_2"}]},
    ]  # fmt: skip
    assert chat(*turns) == [
        USER,
        {"role": "assistant", "content": "Let me see.", "reasoning_content": "Hm.", "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny", "tool_call_id": "toolu_1"},
        {"role": "tool", "content": "Error: a\nb", "tool_call_id": "toolu_1"},
        {"role": "tool", "content": "", "tool_call_id": "toolu_2"},
        {"role": "user", "content": "And?"},
    ]


def test_results_alone_are_no_user_s_message():
    assert [one["role"] for one in chat({"role": "user", "content": [RESULT]})] == ["tool"]


def test_messages_of_one_role_are_one():
    turns = [USER, USER, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": [USE]}]
    user, assistant = chat(*turns)
    assert user["content"] == "x\nx"
    assert (assistant["content"], assistant["tool_calls"]) == ("a", [CALL])


def test_the_system_prompt():
    system = {"role": "system", "content": "Be brief."}
    assert chat(USER, system="Be brief.") == chat(system, USER) == [system, USER]
    assert chat(system, USER, system="Be kind.")[0]["content"] == "Be kind.\nBe brief."
    reminder = "<system-reminder>\nBe brief.\n</system-reminder>"
    assert chat(USER, system, USER) == [{"role": "user", "content": f"x\n{reminder}\nx"}]
    assert chat({"role": "user", "content": [RESULT]}, system)[1:] == [{"role": "user", "content": reminder}]
    assert asked(system=[text("a") | {"cache_control": {"type": "ephemeral"}}, text("b")]).system == "a\nb"


def test_what_claude_code_writes_for_its_bill_is_no_part_of_the_prompt():
    billing = "x-anthropic-billing-header: cc_version=2.1; cch=fa690;"
    system = asked(system=[text(billing), text("You are helpful.")]).system
    assert chat(USER, system=system) == [{"role": "system", "content": "You are helpful."}, USER]
    assert chat(USER, system=billing) == [USER]


def test_a_request_of_claude_code():
    """In the form of version 2.1 (October 2026), whose parameters are all known; texts are cut."""
    hint = {"cache_control": {"type": "ephemeral"}}
    billing = text("x-anthropic-billing-header: cc_version=2.1.197.84c; cc_entrypoint=sdk-cli;")
    body = {
        "model": "tiny", "max_tokens": 32000, "stream": True, "metadata": {"user_id": "{}"}, "tools": [TOOL],
        "system": [billing, text("You are an agent.") | hint, text("\nBe brief.") | hint],
        "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "messages": [
            {"role": "user", "content": [text("<system-reminder>…</system-reminder>"), text("What is in a.txt?")]},
            {"role": "system", "content": "There are agents."},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, USE]},
            {"role": "user", "content": [RESULT | hint]},
        ],
    }  # fmt: skip
    (part,) = messages(**body, tool_choice={"type": "auto"}).parts
    assert "billing" not in part.prompt
    assert all(one in part.prompt for one in ("You are an agent.", "There are agents.", "sunny"))
    assert (part.params.max_tokens, part.params.open_ended) == (4096, True)


def test_a_last_message_of_the_assistant_is_continued():
    (part,) = messages(messages=[USER, {"role": "assistant", "content": "The answer is ("}]).parts
    assert part.prompt.endswith("The answer is (")
    (part,) = messages().parts
    assert part.prompt == TOKENIZER.apply_chat_template([USER])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (5, "messages[0].content is 5, expected a string or a list of blocks"),
        (["x"], "messages[0].content[0] is 'x', expected an object of type text, tool_use, tool_result, thinking or "
         "redacted_thinking"),
        ([{"text": "x"}], "messages[0].content[0].type is missing: expected text, tool_use"),
        ([{"type": "image", "source": {}}], "messages[0].content[0].type is 'image', expected text, tool_use, "
         "tool_result, thinking or redacted_thinking: the model reads text only"),
        ([{"type": "document"}], ": the model reads text only"),
        ([{"type": "server_tool_use"}], ": tools that the server itself would run are not supported"),
        ([{"type": "text"}], "messages[0].content[0].text is missing: expected a string"),
        ([{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "image"}]}],
         "messages[0].content[0].content[0].type is 'image', expected text: the model reads text only"),
        ([text("a"), USE],
         "messages[0].content[1] is a block of type tool_use, which only a message of the role assistant may have"),
        ([{"type": "thinking", "thinking": "x"}], "which only a message of the role assistant may have"),
    ],
)  # fmt: skip
def test_contents_that_are_refused(content, message):
    assert message in problem(messages=[{"role": "user", "content": content}])


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "messages is [], expected a list of at least one message"),
        ([USER | {"role": "tool"}], "messages[0].role is 'tool', expected 'user' or 'assistant' or 'system'"),
        ([{"role": "assistant", "content": [RESULT]}], "which only a message of the role user may have"),
        ([USER, {"role": "assistant", "content": [text("a"), USE]}], "the last message calls tools"),
    ],
)
def test_messages_that_are_refused(turns, message):
    assert message in problem(messages=turns)


# ---- tools ---------------------------------------------------------------------------------------------------------

WEATHER = Tool("weather", "Of a city.", SCHEMA)


@pytest.mark.parametrize(
    ("choice", "use"),
    [
        (None, ToolUse((WEATHER,))),
        ({"type": "auto"}, ToolUse((WEATHER,))),
        ({"type": "any"}, ToolUse((WEATHER,), "required")),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolUse((WEATHER,), "required", parallel=False)),
        ({"type": "tool", "name": "weather"}, ToolUse((WEATHER,), name="weather")),
        ({"type": "none"}, ToolUse((WEATHER,), "none")),
    ],
)
def test_tool_choice(choice, use):
    hints = {"type": "custom", "cache_control": {"type": "ephemeral"}, "eager_input_streaming": True}
    assert asked(tools=[TOOL | hints], tool_choice=choice).tool_use == use


def test_strict_tools():
    assert asked(tools=[TOOL | {"strict": True, "type": None}]).tool_use.tools[0].bound


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
         "tools[0].type is 'web_search_20250305', expected custom: tools that only Anthropic's servers"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema is missing: expected an object"),
        ({"tools": [TOOL, TOOL]}, "tools has two tools with the name 'weather'"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f"}}, "tool_choice names 'f', which is"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name is missing"),
        ({"tools": [TOOL], "tool_choice": {"type": "required"}},
         "tool_choice.type is 'required', expected auto, any, tool or none"),
        ({"tool_choice": {"type": "any"}}, "tool_choice demands a call, but tools has no tool"),
    ],
)  # fmt: skip
def test_tools_that_are_refused(body, message):
    assert message in problem(**body)


# ---- everything else -----------------------------------------------------------------------------------------------


def test_how_tokens_are_chosen():
    body = {"temperature": 0.5, "top_k": 7, "top_p": 0.4, "stop_sequences": ["a", "b"]}
    (part,) = messages(**body).parts
    sampling = part.params.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.5, 7, 0.4)
    assert (part.params.stop, part.params.max_tokens, part.add_special) == (("a", "b"), 5, False)
    own = dataclasses.replace(SETTINGS, sampling_defaults={"temperature": 0.6, "top_k": 5, "min_p": 0.1})
    sampling = messages(own, top_k=7).parts[0].params.sampling
    assert (sampling.temperature, sampling.top_k, sampling.min_p) == (0.6, 7, 0.1)


@pytest.mark.parametrize(("wanted", "most"), [(5, 5), (32000, 4096)])
def test_an_answer_may_end_with_the_context(wanted, most):
    """Clients ask for as much as Anthropic's models write, whatever fits here."""
    params = messages(max_tokens=wanted).parts[0].params
    assert (params.max_tokens, params.open_ended) == (most, True)


@pytest.mark.parametrize("value", [None, 0, -1, 1.5, "5"])
def test_max_tokens_is_needed(value):
    assert "max_tokens" in problem(max_tokens=value)


THINKING = "{{ enable_thinking }}{% for one in messages %}{{ one.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("thinking", "prompt"),
    [
        (None, "x"),
        ({"type": "enabled", "budget_tokens": 2000}, "Truex"),
        ({"type": "adaptive", "display": "summarized"}, "Truex"),
        ({"type": "disabled"}, "Falsex"),
    ],
)
def test_the_template_s_switch(thinking, prompt, tmp_path):
    (tmp_path / "switch.jinja").write_text(THINKING)
    switched = load_tokenizer(DEMO_DIR, chat_template=tmp_path / "switch.jinja")
    assert messages(tokenizer=switched, thinking=thinking).parts[0].prompt == prompt
    assert messages(thinking=thinking).parts[0].prompt == TOKENIZER.apply_chat_template([USER])


def test_thinking_is_shown_unless_the_client_says_no():
    assert [asked(thinking=one).thinks for one in (
        None, {"type": "adaptive"}, {"type": "disabled"}, {"type": "enabled", "display": "omitted"},
    )] == [True, True, False, False]  # fmt: skip


def test_the_form_of_an_answer():
    form = {"type": "json_schema", "schema": SCHEMA}
    assert asked(output_config={"format": form, "effort": "low"}).form == Form(
        "output_config.format", "json_schema", SCHEMA
    )
    assert asked(output_format=form).form == Form("output_format", "json_schema", SCHEMA)
    assert asked().form is None
    assert "expected an object of type" in problem(output_config={"format": {"type": "text"}})
    assert "both given" in problem(output_format=form, output_config={"format": form})


LABELS = {
    "metadata": {"user_id": "u"}, "service_tier": "auto", "cache_control": {"type": "ephemeral"}, "mcp_servers": [],
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}, "speed": "fast",
    "betas": ["x"], "container": None,
}  # fmt: skip


@pytest.mark.parametrize("label", LABELS.items())
def test_labels_are_taken(label):
    assert messages(**dict([label])).parts == messages().parts


@pytest.mark.parametrize(
    "parameter",
    [
        {"container": "c"}, {"mcp_servers": [{"name": "x"}]}, {"thread": {"type": "create"}}, {"seed": 1},
        {"context_management": {"edits": [{"type": "compact_20260112"}]}}, {"thinking": {"type": "always"}},
    ],
)  # fmt: skip
def test_what_would_change_the_answer_is_refused_by_name(parameter):
    (name,) = parameter
    assert name in problem(**parameter)


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        (message_create_params.MessageCreateParamsBase, MessagesRequest),
        (beta_create_params.MessageCreateParamsBase, MessagesRequest),
        (message_count_tokens_params.MessageCountTokensParams, CountRequest),
        (beta_count_params.MessageCountTokensParams, CountRequest),
    ],
)
def test_every_parameter_of_anthropic_s_is_known(kind, known):
    assert not kind.__annotations__.keys() - known.model_fields.keys()


def test_names_of_the_model():
    for name in ("tiny", "llama2", None):
        assert messages(model=name)
    with pytest.raises(ApiError, match="this server has tiny") as caught:
        messages(model="claude", messages=5)
    assert caught.value.status == 404


def test_a_count_is_of_the_same_prompt():
    body = {"messages": [USER, {"role": "assistant", "content": "a"}], "system": "s", "tools": [TOOL],
            "tool_choice": {"type": "any"}}  # fmt: skip
    count = parse_count(body, TOKENIZER, Reading(SETTINGS))
    (part,) = messages(**body).parts
    assert (count.text, count.plain) == (part.prompt, part.plain)
    assert parse_count(body | {"max_tokens": 5, "stream": True}, TOKENIZER, Reading(SETTINGS)).text == part.prompt
