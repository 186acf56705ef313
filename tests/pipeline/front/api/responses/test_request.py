"""/v1/responses: what a request asks for, what is refused and how, and which chat its items are."""

from __future__ import annotations

import dataclasses

import orjson
import pytest

from model.demo import DEMO_DIR
from model.response import choose_format
from model.tokenizer import load_tokenizer
from pipeline.front.api.body import Reading
from pipeline.front.api.chat.tools import Tool
from pipeline.front.api.openai.body import read_openai
from pipeline.front.api.responses.request import LOGPROBS, ResponsesRequest, parse_responses
from pipeline.front.delivery.job import Form
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings
from tests.pipeline.front.api.responses.events import IDENTITY
from tests.pipeline.front.conftest import DEFAULTS

TOKENIZER = load_tokenizer(DEMO_DIR)
SETTINGS = FrontSettings(**DEFAULTS)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "name": "weather", "description": "Now.", "parameters": SCHEMA, "strict": True}
SHELL = {"type": "custom", "name": "shell"}
TOOLED = FrontSettings(**DEFAULTS, response_format=choose_format(TOKENIZER, "hermes", "think"))
USER = {"role": "user", "content": "x"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "a", "name": "weather", "arguments": '{"city": "Rome"}',
        "status": "completed"}  # fmt: skip
RESULT = {"type": "function_call_output", "call_id": "a", "output": "Rain."}


def asked(**body):
    return read_openai(ResponsesRequest, {"input": "x", **body}, Reading(SETTINGS))


def messages(*items, **body):
    return list(asked(input=list(items), **body).chat().messages)


def params(**body):
    (part,) = parse_responses({"input": "x", **body}, IDENTITY, TOKENIZER, Reading(SETTINGS)).parts
    return part.params


def problem(**body):
    with pytest.raises(ApiError) as caught:
        parse_responses({"input": "x", **body}, IDENTITY, TOKENIZER, Reading(SETTINGS))
    assert caught.value.status == 400
    return caught.value.message


def called(call_id, name, arguments):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


# ---- what a request asks for ---------------------------------------------------------------------------------------


def test_defaults():
    found = params()
    sampling = found.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.logprobs) == (1, 1, 0, None)
    assert (found.max_tokens, found.open_ended) == (SETTINGS.max_length, True)
    assert not parse_responses({"input": "x"}, IDENTITY, TOKENIZER, Reading(SETTINGS)).streamed


def test_how_tokens_are_chosen():
    found = params(temperature=0.5, top_p=0.25, top_k=7, seed=3, repetition_penalty=1.5, max_output_tokens=9,
                   stop="a", min_tokens=2)  # fmt: skip
    sampling = found.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0.5, 0.25, 7, 3)
    assert (sampling.repetition_penalty, sampling.min_tokens) == (1.5, 2)
    assert (found.max_tokens, found.open_ended, found.stop) == (9, False, ("a",))


def test_log_probabilities():
    assert params(include=[LOGPROBS]).sampling.logprobs == 0
    assert params(include=[LOGPROBS], top_logprobs=3).sampling.logprobs == 3
    with pytest.raises(ApiError, match="the front has no tokenizer"):
        parse_responses({"input": "x", "include": [LOGPROBS]}, IDENTITY, None, Reading(SETTINGS))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ({}, None),
        ({"verbosity": "low"}, None),
        ({"format": {"type": "text"}}, None),
        ({"format": {"type": "json_object"}}, Form("text.format", "json_object")),
        ({"format": {"type": "json_schema", "name": "x", "strict": True, "schema": SCHEMA}},
         Form("text.format", "json_schema", SCHEMA)),
    ],
)  # fmt: skip
def test_the_form_of_the_text(text, form):
    assert asked(text=text).chat().form == form


def test_tools():
    rules = {"type": "grammar", "syntax": "regex", "definition": "a+"}
    tools = [
        WEATHER,
        SHELL,
        SHELL | {"name": "patch", "format": rules},
        SHELL | {"name": "x", "format": {"type": "text"}},
    ]
    use = asked(tools=tools, parallel_tool_calls=False, tool_choice={"type": "custom", "name": "shell"}).tool_use
    assert use.tools == (
        Tool("weather", "Now.", SCHEMA, strict=True), Tool("shell", custom=True),
        Tool("patch", custom=True, grammar=("regex", "a+")), Tool("x", custom=True),
    )  # fmt: skip
    assert (use.name, use.parallel, use.guaranteed) == ("shell", False, True)


def test_tools_of_a_namespace():
    """The model sees one tool each; what they have in common stands before the first."""
    inner = [WEATHER, {"type": "function", "name": "stars"}, SHELL]
    group = {"type": "namespace", "name": "sky", "description": "Of the sky.", "tools": inner}
    use = asked(tools=[group, WEATHER], tool_choice={"type": "function", "name": "sky.stars"}).tool_use
    assert [tool.name for tool in use.tools] == ["sky.weather", "sky.stars", "sky.shell", "weather"]
    assert [tool.description for tool in use.tools] == ["Of the sky.\n\nNow.", "", "", "Now."]
    assert [tool.custom for tool in use.tools] == [False, False, True, False]
    assert use.callable[0].name == "sky.stars"


def test_a_tool_choice_that_allows_some():
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]}
    use = asked(tools=[WEATHER, SHELL], tool_choice=allowed).tool_use
    assert ([tool.name for tool in use.callable], use.guaranteed) == (["weather"], True)


def test_effort_and_variables_are_for_the_template():
    chat = asked(reasoning={"effort": "low", "summary": "auto"}, chat_template_kwargs={"a": 1}).chat()
    assert (chat.effort, chat.variables, chat.parameter) == ("low", {"a": 1}, "input")


def test_what_clients_send_that_changes_nothing():
    asked(
        store=False, background=False, truncation="disabled", include=["reasoning.encrypted_content"], n=1,
        user="u", safety_identifier="s", prompt_cache_key="k", prompt_cache_retention="24h", service_tier="auto",
        metadata={"a": "b"}, max_tool_calls=3, stream=True, stream_options={"include_obfuscation": False},
        previous_response_id=None, client_metadata={"a": "b"},
    )  # fmt: skip


def test_a_request_of_codex():
    """Of codex-cli 0.171, made short: every parameter of it is known, and so is what it has in items and tools."""
    part = {"type": "input_text", "text": "x"}
    call = CALL | {"namespace": "multi_agent_v1", "name": "wait_agent", "arguments": "{}"}
    goal = {"type": "function", "name": "get_goal", "description": "x", "strict": False, "parameters": SCHEMA}
    agents = {
        "type": "namespace",
        "name": "multi_agent_v1",
        "description": "x",
        "tools": [goal | {"name": "wait_agent"}],
    }
    request = asked(
        model="tiny",
        input=[
            *({"type": "message", "id": "m", "role": role, "content": [part]} for role in ("developer", "user")),
            call,
            {"type": "function_call_output", "id": "fco_1", "call_id": "a", "output": "x"},
        ],
        tools=[goal, agents], tool_choice="auto", parallel_tool_calls=True, reasoning={"summary": "auto"},
        store=False, include=["reasoning.encrypted_content"], prompt_cache_key="k", client_metadata={"a": "b"},
        stream=True,
    )  # fmt: skip
    assert [tool.name for tool in request.tool_use.tools] == ["get_goal", "multi_agent_v1.wait_agent"]
    assert [message["role"] for message in request.chat().messages] == ["developer", "user", "assistant", "tool"]


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"store": True}, "store is True, expected False: answers are not stored here; leave it out"),
        ({"previous_response_id": "resp_1"},
         "previous_response_id is 'resp_1', expected no value: answers are not stored here; send the items of "
         "earlier turns as input"),
        ({"conversation": "c"}, "conversation is 'c', expected no value: answers are not stored here"),
        ({"background": "yes"}, "background is 'yes', expected true or false"),
        ({"prompt": {"id": "p"}}, "prompts are not stored here; send instructions and input"),
        ({"truncation": "auto"}, "truncation is 'auto', expected 'disabled': input that is too long is refused, not"),
        ({"tools": [{"type": "web_search"}]},
         "tools[0].type is 'web_search', expected function, custom or namespace: the server can't search; leave "
         'it out (Codex: web_search = "disabled")'),
        ({"tools": [{"type": "file_search"}]}, "tools that the server itself would run are not supported"),
        ({"tools": [WEATHER, {"name": "x"}]}, "tools[1].type is missing: expected function, custom or namespace"),
        ({"tools": [{"type": "namespace", "name": "a", "tools": [{"type": "namespace"}]}]},
         "tools[0].tools[0].type is 'namespace', expected function or custom"),
        ({"tools": [WEATHER, WEATHER]}, "tools has two tools with the name 'weather'"),
        ({"tools": [SHELL | {"format": {"type": "grammar", "syntax": "lark"}}]},
         "tools[0].format.definition is missing: expected a string of at least 1 character"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools[0].name is missing"),
        ({"tool_choice": "required"}, "tool_choice demands a call, but tools has no tool"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice names 'x', which is not in tools (none)"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice is {'type': 'file_search'}, expected none, auto"),
        ({"include": ["file_search_call.results"]}, "include[0] is 'file_search_call.results', expected 'message"),
        ({"top_logprobs": 2}, "top_logprobs is 2, expected 0 unless include has message.output_text.logprobs"),
        ({"text": {"format": {"type": "xml"}}}, "text.format is {'type': 'xml'}, expected an object of type"),
        ({"text": {"format": {"type": "json_schema", "schema": {}, "x": 1}}}, "text.format.x is not supported"),
        ({"text": {"format": {"type": "json_object"}}, "guided_regex": "a"},
         "guided_regex and text.format are given, but an answer has one form only"),
        ({"max_tokens": 5}, "max_tokens is 5, expected no value: use max_output_tokens"),
        ({"response_format": {"type": "text"}}, "expected no value: use text.format"),
        ({"messages": [USER]}, "expected no value: use input"),
        ({"n": 2}, "n is 2, expected 1"),
        ({"metadata": {"a": 5}}, "metadata.a is 5, expected a string"),
        ({"min_tokens": 5, "max_output_tokens": 4}, "min_tokens is 5, expected an integer in [0, 4]"),
        ({"stream_options": {"include_usage": True}, "stream": True}, "the last event has it"),
        ({"reasoning": {"efort": "low"}}, "unknown parameter 'reasoning.efort'; did you mean 'effort'?"),
    ],
)  # fmt: skip
def test_what_is_refused(body, message):
    assert message in problem(**body)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (5, "input is 5, expected a string or a list of at least one item"),
        ([], "input is [], expected a string or a list of at least one item"),
        ([5], "input[0] is 5, expected an object of type message, function_call"),
        ([{"content": "x"}], "input[0].type is missing: expected message, function_call"),
        ([USER, {"type": "item_reference", "id": "m"}],
         "reasoning or agent_message: answers are not stored here; send the item itself"),
        ([{"type": "web_search_call"}], "items of tools that the server itself would run are not supported"),
        ([{"role": "tool", "content": "x"}], "input[0].role is 'tool', expected 'user' or 'assistant' or"),
        ([{"role": "user"}], "input[0].content is missing: expected a string or a list of text parts"),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}],
         "input[0].content[0].type is 'input_image', expected input_text, output_text, text or refusal: the model"),
        ([{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0].text is missing"),
        ([CALL | {"call_id": ""}], "input[0].call_id is '', expected a string of at least 1 character"),
        ([CALL | {"arguments": 5}], "input[0].arguments is 5, expected a text of JSON, or the object itself"),
        ([RESULT | {"output": None}], "input[0].output is missing: expected a string or a list of text parts"),
        ([RESULT | {"outptu": "x"}], "unknown parameter 'input[0].outptu'; did you mean 'output'?"),
    ],
)  # fmt: skip
def test_input_that_is_refused(items, message):
    assert message in problem(input=items)


def test_more_items_than_tokens():
    assert "items, and a prompt has at most 4000 tokens" in problem(input=[USER] * 4001)
    assert "characters, of which at most" in problem(input="x" * (SETTINGS.prompt_limit_chars + 1))


def deep(levels):
    return orjson.loads(b'{"a":' * levels + b"{}" + b"}" * levels)


@pytest.mark.parametrize("levels", [300, 1000])
def test_what_has_too_many_levels_to_be_written_again(levels):
    """It could be read."""
    value = deep(levels)
    assert problem(text={"format": {"type": "json_schema", "schema": value}}) == "text has too many levels"
    assert problem(reasoning={"summary": value}) == "reasoning has too many levels"
    with pytest.raises(ApiError, match=r"too many levels|maximum recursion depth"):
        parse_responses(
            {"input": "x", "tools": [WEATHER | {"parameters": value}]}, IDENTITY, TOKENIZER, Reading(TOOLED)
        )


@pytest.mark.parametrize("arguments", [deep(1000), '{"a":' * 1000 + "1" + "}" * 1000])
def test_arguments_with_more_levels_than_a_template_can_write(arguments):
    assert problem(input=[CALL | {"arguments": arguments}]) == "the arguments of a call have too many levels"


def test_another_model():
    with pytest.raises(ApiError) as caught:
        parse_responses({"model": "gpt", "input": 5}, IDENTITY, TOKENIZER, Reading(SETTINGS))
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_an_unknown_member_of_an_item_is_ignored_where_it_is_to_be():
    reading = Reading(dataclasses.replace(SETTINGS, unknown_parameters="warn"))
    read_openai(ResponsesRequest, {"input": [USER | {"contnet": 1}], "tools": [SHELL | {"nmae": 1}]}, reading)
    assert reading.unknown == {"input[].contnet": "content", "tools[].nmae": "name"}


# ---- items as messages ---------------------------------------------------------------------------------------------


def test_a_text_is_a_message_of_the_user():
    assert asked().chat().messages == [USER]


def test_parts():
    answer = {"type": "output_text", "text": "b", "annotations": [], "logprobs": []}
    parts = [{"type": "input_text", "text": "a"}, answer, {"type": "refusal", "refusal": "c"}]
    assert messages({"type": "message", "role": "user", "content": parts}) == [USER | {"content": "a\nb\nc"}]


def test_system_messages_in_front_are_one():
    """Many templates take one, and in front only; of a later one they decide themselves."""
    system, developer = ({"role": role, "content": role} for role in ("system", "developer"))
    one = {"role": "system", "content": "Be brief.\n\nsystem\n\ndeveloper"}
    assert messages(system, developer, USER, developer, instructions="Be brief.") == [one, USER, developer]
    assert messages(USER, instructions="Be brief.") == [{"role": "system", "content": "Be brief."}, USER]
    assert messages(developer, USER) == [developer, USER]


def test_a_turn_of_the_assistant_is_one_message():
    """With its results behind it: chat templates know no other order."""
    thoughts = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    text = {"role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}], "status": "completed"}
    found = messages(
        USER, thoughts, text, CALL, CALL | {"call_id": "b"}, RESULT, RESULT | {"call_id": "b"}, thoughts, text
    )
    calls = [called(name, "weather", {"city": "Rome"}) for name in ("a", "b")]
    results = [{"role": "tool", "content": "Rain.", "tool_call_id": name} for name in ("a", "b")]
    first = {"role": "assistant", "content": "Let me see.", "reasoning_content": "Hm.", "tool_calls": calls}
    last = {"role": "assistant", "content": "Let me see.", "reasoning_content": "Hm."}
    assert found == [USER, first, *results, last]


def test_calls_in_turn_are_messages_in_turn():
    found = messages(CALL, RESULT, CALL | {"call_id": "b"}, RESULT | {"call_id": "b"})
    assert [message["role"] for message in found] == ["assistant", "tool"] * 2


def test_a_text_behind_a_call_is_of_its_message():
    """The result has to follow the calls."""
    text = {"role": "assistant", "content": "Wait."}
    call, result = messages(CALL, text, RESULT)
    assert (call["content"], len(call["tool_calls"]), result["role"]) == ("Wait.", 1, "tool")


def test_texts_in_turn_are_messages_in_turn():
    texts = [{"role": "assistant", "content": content} for content in ("a", "b")]
    assert messages(*texts) == texts


def test_reasoning_without_a_text_is_nothing():
    """So do clients send it that may not see it."""
    hidden = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "aGk="}
    assert messages(USER, hidden) == [USER]
    (_, answer) = messages(USER, hidden, {"role": "assistant", "content": "a"})
    assert "reasoning_content" not in answer


def test_custom_calls():
    call = {"type": "custom_tool_call", "call_id": "a", "name": "shell", "input": 'echo "a"'}
    output = {"type": "custom_tool_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "a"}]}
    assistant, result = messages(call, output)
    assert assistant["tool_calls"] == [called("a", "shell", {"input": 'echo "a"'})]
    assert result == {"role": "tool", "content": "a", "tool_call_id": "a"}


def test_calls_of_a_namespace():
    (call,) = messages(CALL | {"namespace": "sky"})
    assert call["tool_calls"] == [called("a", "sky.weather", {"city": "Rome"})]


def test_what_one_agent_tells_another():
    """Codex sends it; where no server encrypts it, what is called so is a text."""
    parts = [{"type": "input_text", "text": "Payload:"}, {"type": "encrypted_content", "encrypted_content": "Go."}]
    item = {"type": "agent_message", "author": "/root", "recipient": "/root/a", "content": parts}
    assert messages(item) == [USER | {"content": "Payload:\nGo."}]


def test_the_prompt():
    (part,) = parse_responses(
        {"input": "x", "instructions": "Be brief."}, IDENTITY, TOKENIZER, Reading(SETTINGS)
    ).parts
    wanted = TOKENIZER.apply_chat_template([{"role": "system", "content": "Be brief."}, USER])
    assert (part.prompt, part.add_special) == (wanted, False)


def test_errors_of_later_have_the_client_s_names():
    writer = parse_responses({"input": "x"}, IDENTITY, TOKENIZER, Reading(SETTINGS)).writer
    names = {
        name: writer.translate(ApiError(400, "", parameter=name)).parameter for name in ("prompt", "max_tokens", "x")
    }
    assert names == {"prompt": "input", "max_tokens": "max_output_tokens", "x": "x"}


def test_the_answer_repeats_what_was_asked_for():
    body = {
        "input": "x", "instructions": "Be brief.", "temperature": 0, "metadata": {"a": "b"},
        "text": {"verbosity": "low"}, "reasoning": {"effort": "low", "summary": "auto"},
        "max_output_tokens": 5, "model": "llama2",
    }  # fmt: skip
    found = asked(**body).repeated(body, params(temperature=0), "tiny")
    same = ("instructions", "temperature", "metadata", "reasoning", "max_output_tokens")
    assert {name: found[name] for name in same} == {name: body[name] for name in same}
    assert (found["model"], found["text"]) == ("tiny", {"verbosity": "low", "format": {"type": "text"}})
    assert (found["tools"], found["tool_choice"], found["store"]) == ([], "auto", False)
