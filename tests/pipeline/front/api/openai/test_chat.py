"""OpenAI's /v1/chat/completions: what becomes of messages, parameters, refusals. Its forms are in golden/."""

from __future__ import annotations

import json

import pytest

from model.demo import DEMO_DIR
from model.tokenizer import load_tokenizer
from tests.pipeline.front.api.openai.test_completions import events

TOKENIZER = load_tokenizer(DEMO_DIR)
CONVERSATION = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "Hé 🦙 <|user|> {{ 7 * 7 }}"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "chatting"},
]


def ask(served, messages=CONVERSATION, **body):
    return served.http.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 1, **body})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {"add_generation_prompt": True}),
        ({"add_generation_prompt": False}, {"add_generation_prompt": False}),
        ({"continue_final_message": True}, {"continue_final_message": True}),
    ],
)
def test_the_prompt_is_what_transformers_makes_of_the_messages(shared, fields, options):
    from transformers import PreTrainedTokenizerFast

    reference = PreTrainedTokenizerFast.from_pretrained(DEMO_DIR)
    assert ask(shared, **fields).status_code == 200
    seen = shared.submitted("chatting")
    assert seen["prompt"] == reference.apply_chat_template(CONVERSATION, tokenize=False, **options)
    assert seen["add_special"] is False
    ours = TOKENIZER.encode(seen["prompt"], add_special=False)
    assert ours == reference.encode(seen["prompt"], add_special_tokens=False)
    assert ours.count(TOKENIZER.bos_id) == 1


def test_parts_of_type_text_are_joined_by_line_ends_as_in_vllm(shared):
    parts = [{"type": "text", "text": "joined"}, {"type": "text", "text": "by lines"}]
    ask(shared, [{"role": "user", "content": parts}])
    assert shared.submitted("joined")["prompt"] == "<s><|user|>joined\nby lines</s><|assistant|>"


def test_an_answer_can_be_sent_back_as_it_came(shared):
    message = ask(shared).json()["choices"][0]["message"]
    history = [{"role": "user", "content": "a"}, message | {"tool_calls": None, "annotations": []}]
    assert ask(shared, [*history, {"role": "user", "content": "b"}]).status_code == 200


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_either_name_of_the_limit(shared, name):
    answer = shared.chat("limited a b c", **{name: 3}).json()
    assert answer["usage"]["completion_tokens"] == 3
    assert not shared.submitted("limited")["open_ended"]
    error = shared.chat("x @refuse=400:max_tokens y", **{name: 3}).json()["error"]
    assert error["param"] == name
    assert shared.chat("a", max_tokens=3, max_completion_tokens=3).status_code == 200


def test_without_a_limit_the_model_s_counts(shared):
    shared.chat("unlimited @after=1 x")
    seen = shared.submitted("unlimited")
    assert (seen["max_tokens"], seen["open_ended"]) == (4096, True)


def test_parameters_arrive(shared):
    shared.chat(
        "arriving", max_tokens=9, temperature=0.3, top_p=0.8, top_k=5, seed=4, stop=["x", "y"], logit_bias={"7": -5},
        min_tokens=2, ignore_eos=True, stop_token_ids=[9], include_stop_str_in_output=True, skip_special_tokens=False,
        logprobs=True, top_logprobs=3, user="someone",
    )  # fmt: skip
    seen = shared.submitted("arriving")
    wanted = {
        "temperature": 0.3, "top_p": 0.8, "top_k": 5, "seed": 4, "stop": ["x", "y"], "logit_bias": {"7": -5},
        "min_tokens": 2, "ignore_eos": True, "stop_token_ids": [9], "include_stop": True, "skip_special": False,
        "logprobs": 3, "add_special": False,
    }  # fmt: skip
    assert {key: seen[key] for key in wanted} == wanted


def test_logprobs(shared):
    def token(token_id, logprob):
        data = TOKENIZER.token_bytes(token_id)
        return {"token": data.decode(errors="replace"), "logprob": logprob, "bytes": list(data)}

    def asked(**body):
        return shared.chat("a b", max_tokens=2, **body)

    best = [token(7, -0.5), token(8, -1.0)]
    content = [{**token(100 + i, -0.25 * (i + 1)), "top_logprobs": best} for i in range(2)]
    options = {"logprobs": True, "top_logprobs": 2}
    assert asked(**options).json()["choices"][0]["logprobs"] == {"content": content, "refusal": None}
    chunks = [chunk["choices"][0] for chunk in events(asked(**options, stream=True))]
    assert [token for chunk in chunks if chunk["logprobs"] for token in chunk["logprobs"]["content"]] == content
    without = asked(logprobs=True).json()["choices"][0]["logprobs"]["content"]
    assert [token["top_logprobs"] for token in without] == [[], []]
    assert asked(logprobs=False, top_logprobs=0).json()["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(("reason", "said"), [("length", "length"), ("eos", "stop"), ("stop", "stop")])
def test_finish_reasons(shared, reason, said):
    content = f"a @after=2 @reason={reason} b"
    assert shared.chat(content).json()["choices"][0]["finish_reason"] == said
    chunks = [chunk["choices"][0] for chunk in events(shared.chat(content, stream=True))]
    assert [chunk["finish_reason"] for chunk in chunks] == [None, None, None, said]
    assert chunks[0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["delta"] == {}


MESSAGE = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("messages", "name"),
    [
        (None, "messages"), ([], "messages"), ("hello", "messages"), ({"role": "user"}, "messages"),
        (["hello"], "messages[0]"), ([MESSAGE, {"content": "x"}], "messages[1].role"),
        ([{"role": 5, "content": "x"}], "messages[0].role"), ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"text": "x"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "messages[0].content[0].type"),
        ([{**MESSAGE, "tool_calls": [{"id": "x"}]}], "messages[0].tool_calls[0].function"),
        ([{**MESSAGE, "weight": 1}], "messages[0].weight"), ([{"role": "clown", "content": "x"}], "messages"),
        ([MESSAGE] * 4001, "messages"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_messages(shared, messages, name):
    answer = ask(shared, messages)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function"), ({"functions": [{"name": "f"}]}, "functions"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"top_logprobs": 2}, "top_logprobs"), ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": 2}, "logprobs"), ({"max_tokens": 2, "max_completion_tokens": 3}, "max_tokens"),
        ({"max_completion_tokens": 0, "max_tokens": None}, "max_completion_tokens"),
        ({"max_tokens": 4097}, "max_tokens"),
        ({"min_tokens": 2}, "min_tokens"), ({"n": 0}, "n"), ({"modalities": ["text", "audio"]}, "modalities"),
        ({"stream_options": {"include_usage": True}},
        "stream_options"),
        ({"add_generation_prompt": True, "continue_final_message": True}, "continue_final_message"),
        ({"chat_template_kwargs": {"bos_token": "x"}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"), ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"prompt": "x"}, "prompt"), ({"echo": True}, "echo"), ({"suffix": "x"}, "suffix"),
        ({"documents": [{"text": "x"}]}, "documents"), ({"reasoning_effort": 1}, "reasoning_effort"),
    ],
)  # fmt: skip
def test_a_parameter_is_honoured_or_refused(shared, body, name):
    answer = ask(shared, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


@pytest.mark.parametrize(
    "body",
    [
        {"max_tokens": 4096}, {"temperature": 0}, {"temperature": 2}, {"top_p": 1}, {"n": 100},
        {"logprobs": True, "top_logprobs": 20}, {"chat_template_kwargs": {"enable_thinking": False}},
        {"tools": [], "tool_choice": "none", "functions": None, "parallel_tool_calls": True, "modalities": ["text"],
         "response_format": {"type": "text"}, "reasoning_effort": None, "service_tier": "auto", "store": False,
         "metadata": {"a": "b"}, "safety_identifier": "x", "prompt_cache_key": "y", "logit_bias": None},
    ],
)  # fmt: skip
def test_legal_extremes_and_defaults(shared, body):
    assert shared.chat("x @after=1 y", **body).status_code == 200


def test_faults_of_the_prompt_are_those_of_the_messages(shared):
    error = shared.chat("x @refuse=400:prompt y").json()["error"]
    assert (error["param"], error["type"]) == ("messages", "invalid_request_error")


def test_a_model_without_a_template_says_so(serve, tmp_path):
    config = json.loads((DEMO_DIR / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").symlink_to(DEMO_DIR / "tokenizer.json")
    served = serve(tokenizer=str(tmp_path))
    error = served.chat("x").json()["error"]
    assert error["param"] == "messages"
    assert (
        "no chat template; use /v1/completions, or set pipeline.chat_template in the server's configuration"
        in error["message"]
    )
    assert served.complete("a", max_tokens=1).status_code == 200


def test_what_a_client_names_is_given_to_the_template(serve, tmp_path):
    config = json.loads((DEMO_DIR / "tokenizer_config.json").read_text())
    config["chat_template"] = "{{ bos_token }}{{ mood | default('calm') }} {{ messages[-1].content }}"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").symlink_to(DEMO_DIR / "tokenizer.json")
    served = serve(tokenizer=str(tmp_path))
    served.chat("kind", max_tokens=1)
    served.chat("other", max_tokens=1, chat_template_kwargs={"mood": "glad"})
    assert [served.submitted(word)["prompt"] for word in ("kind", "other")] == ["<s>calm kind", "<s>glad other"]
