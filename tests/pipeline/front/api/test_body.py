"""What a client is told about a body: every problem, where it is, and what would be right."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from pipeline.front.api.body import Reading, read
from pipeline.front.api.llm_serving.request import GenerateRequest
from pipeline.front.api.openai.chat import ChatRequest
from pipeline.front.api.openai.completions import CompletionRequest
from pipeline.front.api.tokenize_routes import DetokenizeRequest
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings

SETTINGS = FrontSettings(
    model_name="tiny",
    vocab_size=500,
    max_length=64,
    max_prompt=60,
    max_rows=2,
    max_queue=200,
    unknown_parameters="refuse",
)
USER = {"role": "user", "content": "x"}


def refused(kind, body):
    with pytest.raises(ApiError) as caught:
        read(kind, body, Reading(SETTINGS), status=400)
    return caught.value


def completion(**body):
    return refused(CompletionRequest, {"prompt": "x", **body})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"max_tokens": 65}, "This model's maximum context length is 64 tokens. However, you requested 65 tokens in "
         "the completion. Please reduce the length of the completion."),
        ({"max_tokens": 5.5}, "max_tokens is 5.5, expected an integer in [0, 64], or -1 for no limit"),
        ({"max_tokens": "5"}, "max_tokens is '5', expected an integer in [0, 64], or -1 for no limit"),
        ({"max_tokens": 0}, "max_tokens is 0, expected at least 1 unless echo is true or "
         "prompt_logprobs is given"),
        ({"top_k": True}, "top_k is True, expected an integer of at least -1"),
        ({"seed": 1 << 70}, "seed is 1180591620717411303424, expected an integer"),
        ({"temperature": "hot"}, "temperature is 'hot', expected a number of at least 0"),
        ({"temperature": True}, "temperature is True, expected a number of at least 0"),
        ({"top_p": -0.1}, "top_p is -0.1, expected a number in [0, 1]"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0, expected a number in [1e-09, 1e+09]"),
        ({"stream": 1}, "stream is 1, expected true or false"),
        ({"stop": [""]}, "stop is [''], expected a string or up to 64 strings, each of 1 to 1024 characters"),
        ({"stop_token_ids": [500]}, "stop_token_ids is [500], expected a list of token ids in [0, 499]"),
        ({"logit_bias": {"7": 101}}, "logit_bias[7] is 101, expected a number in [-100, 100]"),
        ({"n_predict": 5}, "n_predict is 5, expected no value: use max_tokens"),
        ({"stop_token_ids": [1] * 1025}, "stop_token_ids has 1025 token ids; at most 1024 are allowed"),
        ({"suffix": "x"}, "suffix is 'x', expected '': text can't be inserted before a suffix"),
        ({"cache_salt": "{x}"}, "cache_salt is '{x}', expected no value: other values are not supported"),
        ({"temprature": 1}, "unknown parameter 'temprature'; did you mean 'temperature'?"),
        ({"seed": 2.0**53}, "seed is 9007199254740992.0, expected an integer"),
        ({"stream_options": {"include_usage": None}}, "stream_options is only allowed with stream: true"),
        ({"stream": True, "stream_options": {"include_usag": True}},
         "unknown parameter 'include_usag'; did you mean 'include_usage'?"),
    ],
)  # fmt: skip
def test_one_problem_of_a_completion(body, message):
    assert completion(**body).message == message


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages is [], expected a list of at least one message, an object with a role and a content"),
        ([USER, {"role": "", "content": 1}], "messages[1].role is '', expected a string of at least 1 character; "
         "messages[1].content is 1, expected a string or a list of text parts"),
        ([{"role": "system", "content": None}, USER],
         "messages[0].content is missing: expected a string or a list of text parts"),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url", "text": ""}]}],
         "messages[0].content[1].type is 'image_url', expected a part of type 'text'; the model reads text only"),
        ([USER | {"nam": "y"}], "unknown parameter 'messages[0].nam'; did you mean 'name'?"),
        ([USER | {"name": 1}], "messages[0].name is 1, expected a string"),
        ([USER | {"content": []}], "messages[0].content is missing: expected a string or a list of text parts"),
        ([USER] * 61, "This model's maximum context length is 64 tokens. However, there are 61 messages, and a "
         "prompt has at most 60 tokens. Please reduce the length of the prompt."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_messages_is_told_with_its_place(messages, message):
    assert refused(ChatRequest, {"messages": messages}).message == message


def test_all_problems_are_told_at_once():
    error = completion(max_tokens=-2, temperature=-1, temprature=1)
    assert error.parameter == "temperature"
    assert error.message == (
        "temperature is -1, expected a number of at least 0; max_tokens is -2, expected an integer in [0, 64], "
        "or -1 for no limit; "
        "unknown parameter 'temprature'; did you mean 'temperature'?"
    )


def test_a_literal_is_told_with_its_values():
    body = {"inputs": "x", "parameters": {"return_protocol": "xml"}}
    assert refused(GenerateRequest, body).message == "return_protocol is 'xml', expected 'sse' or 'raw'"


def test_a_client_sees_that_its_prompt_is_too_long_whatever_else_is_wrong():
    settings = dataclasses.replace(SETTINGS, prompt_limit_chars=10)
    with pytest.raises(ApiError) as caught:
        read(CompletionRequest, {"temperature": -1, "prompt": "x" * 11}, Reading(settings), status=400)
    assert (caught.value.code, caught.value.parameter) == ("context_length_exceeded", "temperature")


def test_parts_are_read_as_by_their_model_and_their_faults_told():
    """Thousands of plain ones take a shorter way."""
    plain = [{"type": "text", "text": "x", "cache_control": {}}, {"type": "text", "text": ""}]
    for parts in (plain, [*plain, {"type": "text", "text": "y", "other": 1.5}]):
        chat = read(ChatRequest, {"messages": [{"role": "user", "content": parts}]}, Reading(SETTINGS), status=400)
        assert chat.messages[0].content == "\n".join(part["text"] for part in parts)
    for wrong in ({"type": "text"}, {"type": "text", "text": 1}, {"type": "image_url", "text": "x"}, "x", None):
        assert (
            "messages[0].content[2]"
            in refused(ChatRequest, {"messages": [{"role": "user", "content": [*plain, wrong]}]}).message
        )


def test_all_that_parameters_demand_of_one_another_is_told_at_once():
    error = completion(min_tokens=20, best_of=2, prompt_logprobs=1, stream=True)
    assert [part.split(" ")[0] for part in error.message.split("; ")] == ["prompt_logprobs", "min_tokens", "best_of"]


def test_of_many_problems_some_are_told():
    wrong = {f"k{number}": "x" * 10**5 for number in range(20)}
    assert completion(**wrong).message.endswith("; unknown parameter 'k4'; and 15 more problems")
    assert len(completion(**wrong).message) < 1000


def test_of_very_many_unknown_parameters_none_makes_a_known_one_missing():
    wrong = {f"k{number}": number for number in range(130_000)}
    error = refused(CompletionRequest, {**wrong, "prompt": "x"})
    assert error.message.startswith("unknown parameter 'k0'")
    assert "missing" not in error.message


@pytest.mark.parametrize("five", [5, 5.0])
def test_a_float_without_a_fraction_is_an_integer(five):
    body = {"prompt": [[five, 6], [7]], "max_tokens": five, "stop_token_ids": [five], "seed": five, "n": five}
    asked = read(CompletionRequest, body, Reading(SETTINGS), status=400)
    assert [list(prompt) for prompt in asked.prompt] == [[5, 6], [7]]
    got = (asked.max_tokens, *asked.stop_token_ids, asked.seed, asked.n)
    assert got == (5,) * 4
    assert set(map(type, got)) == {int}


@pytest.mark.parametrize("tokens", [[1.5], [True], ["1"], [2**40], [-1], [None], "12", {"1": 1}, 5])
def test_what_is_no_list_of_token_ids(tokens):
    message = refused(DetokenizeRequest, {"tokens": tokens}).message
    assert message.endswith("expected a list of token ids in [0, 499]")


def test_null_counts_as_absent_wherever_it_stands():
    body = {"inputs": "x", "stream": None, "nonsense": None, "parameters": {"top_k": None, "nonsense": None}}
    asked = read(GenerateRequest, body, Reading(SETTINGS), status=422)
    assert asked == read(GenerateRequest, {"inputs": "x"}, Reading(SETTINGS), status=422)


def test_names_of_pydantic_reach_no_client():
    bodies = ({"prompt": 5, "n": [], "metadata": 1, "stream_options": 5}, {"logit_bias": {"x": 1}, "echo": "yes"})
    for body in bodies:
        message = refused(CompletionRequest, {"prompt": "x", **body}).message
        assert not any(word in message for word in ("pydantic", "Input should", "type=", "input_value", "http"))


def test_limits_are_those_that_hold_now():
    """A reload changes the settings."""
    settings = FrontSettings(model_name="m", vocab_size=9, max_length=64, max_prompt=60, max_rows=2, max_queue=2)
    settings.max_queue = 100
    assert read(CompletionRequest, {"prompt": "x", "n": 100}, Reading(settings), status=400).n == 100
    with pytest.raises(ApiError, match=r"n is 101, expected an integer in \[1, 100\]"):
        read(CompletionRequest, {"prompt": "x", "n": 101}, Reading(settings), status=400)


def test_while_very_many_messages_are_read_other_threads_run():
    """They are read in a thread, beside the event loop: validators in Python let it have the GIL."""
    settings = FrontSettings(
        model_name="m", vocab_size=9, max_length=10**6, max_prompt=10**6, max_rows=2, max_queue=2
    )
    body = {"messages": [USER] * 100_000}
    reader = threading.Thread(target=lambda: read(ChatRequest, body, Reading(settings), status=400))
    reader.start()
    turns = 0
    while reader.is_alive():
        reader.join(0.001)
        turns += 1
    assert turns > 2
