"""OpenAI's /v1/completions and /v1/models: golden answers, parameters, refusals."""

from __future__ import annotations

import json
import re

import pytest


def events(answer):
    parts = answer.text.split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data: ") for part in parts)
    assert parts.pop() == "data: [DONE]"
    return [json.loads(part.removeprefix("data: ")) for part in parts]


def masked(text):
    return re.sub(r'"created":\d+', '"created":0', re.sub(r"cmpl-[0-9a-f]{16}", "cmpl-X", text))


def test_golden_answer(shared):
    answer = shared.complete("it was a", max_tokens=3, model="tiny")
    assert answer.headers["content-type"] == "application/json"
    assert masked(answer.text) == (
        '{"id":"cmpl-X","object":"text_completion","created":0,"model":"tiny","choices":[{"index":0,'
        '"text":"it was a","logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":5,'
        '"completion_tokens":3,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":2}}}'
    )


def test_golden_stream(shared):
    answer = shared.complete("it was", max_tokens=2, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    head = 'data: {"id":"cmpl-X","object":"text_completion","created":0,"model":"tiny","choices":['
    assert masked(answer.text) == (
        f'{head}{{"index":0,"text":"it","logprobs":null,"finish_reason":null}}]}}\n\n'
        f'{head}{{"index":0,"text":" was","logprobs":null,"finish_reason":"length"}}]}}\n\n'
        "data: [DONE]\n\n"
    )


def test_usage_in_the_stream(shared):
    *chunks, last = events(shared.complete("a b", max_tokens=3, stream=True, stream_options={"include_usage": True}))
    assert len(chunks) == 3
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 8
    assert "usage" not in events(shared.complete("a b", max_tokens=1, stream=True))[0]


@pytest.mark.parametrize(("reason", "said"), [("length", "length"), ("eos", "stop"), ("stop", "stop")])
def test_finish_reasons(shared, reason, said):
    prompt = f"a @after=2 @reason={reason}"
    assert shared.complete(prompt).json()["choices"][0]["finish_reason"] == said
    assert [chunk["choices"][0]["finish_reason"] for chunk in events(shared.complete(prompt, stream=True))] == [
        None,
        said,
    ]


def test_logprobs(shared):
    logprobs = shared.complete("a b", max_tokens=2, logprobs=2).json()["choices"][0]["logprobs"]
    assert logprobs == {
        "text_offset": [0, 1],
        "token_logprobs": [-0.25, -0.5],
        "tokens": ["t100", "t101"],
        "top_logprobs": [{"t7": -0.5, "t8": -1.0, "t100": -0.25}, {"t7": -0.5, "t8": -1.0, "t101": -0.5}],
    }
    streamed = [
        chunk["choices"][0]["logprobs"]
        for chunk in events(shared.complete("a b", max_tokens=2, logprobs=2, stream=True))
    ]
    assert {name: [value for chunk in streamed for value in chunk[name]] for name in logprobs} == logprobs
    assert shared.complete("a", max_tokens=1, logprobs=0).json()["choices"][0]["logprobs"]["top_logprobs"] == [None]


@pytest.mark.parametrize("prompt", [[5, 6], [[5, 6]]])
def test_token_ids(shared, prompt):
    assert shared.complete(prompt, max_tokens=2).json()["choices"][0]["text"] == "<5> <6>"


def test_a_list_of_one_prompt(shared):
    assert shared.complete(["x y"], max_tokens=2).json()["choices"][0]["text"] == "x y"


@pytest.mark.parametrize("stream", [True, False])
def test_echo(shared, stream):
    answer = shared.complete("say it", max_tokens=2, echo=True, stream=stream)
    choices = [chunk["choices"][0] for chunk in (events(answer) if stream else [answer.json()])]
    assert "".join(choice["text"] for choice in choices) == "say itsay it"


def test_parameters_arrive(shared):
    shared.complete("arriving", max_tokens=1, temperature=0.3, logit_bias={"7": -5, "9": 1.5}, stop="s", seed=-1,
                    user="u", top_k=4, ignore_eos=True, n=1, best_of=1, suffix=None)  # fmt: skip
    seen = shared.peer.expect("submit")
    while seen["prompt"] != "arriving":
        seen = shared.peer.expect("submit")
    wanted = {"temperature": 0.3, "logit_bias": {"7": -5, "9": 1.5}, "stop": ["s"], "top_k": 4}
    assert {key: seen[key] for key in wanted} == wanted
    assert seen["seed"] >= 0  # -1 and none: the front draws one


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"n": 2}, "n"), ({"best_of": 3}, "best_of"), ({"suffix": "x"}, "suffix"), ({"max_tokens": 0},
        "max_tokens"),
        ({"max_tokens": 9999}, "max_tokens"), ({"temperature": -0.1}, "temperature"), ({"logprobs": 21},
        "logprobs"),
        ({"logprobs": True}, "logprobs"), ({"logit_bias": {"x": 1}}, "logit_bias"), ({"logit_bias": {"1": 200}},
        "logit_bias[1]"),
        ({"logit_bias": {"1000": 1}}, "logit_bias"), ({"stop": [""]}, "stop"), ({"stop": 5}, "stop"), ({"echo": 1},
        "echo"),
        ({"echo": True, "logprobs": 1}, "echo"), ({"stream": "True"}, "stream"), ({"stream_options": {},
        "stream": True, "x": 1}, "x"),
        ({"stream_options": {"include_usage": True}}, "stream_options"), ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"), ({"prompt": [1, 1000]}, "prompt"), ({"prompt": [1, True]}, "prompt"),
        ({"prompt": 5}, "prompt"), ({"seed": "x"}, "seed"), ({"user": 5}, "user"), ({"tools": []}, "tools"),
    ],
)  # fmt: skip
def test_a_parameter_is_honoured_or_refused(shared, body, name):
    answer = shared.http.post("/v1/completions", json={"prompt": "x", **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_another_model(shared):
    answer = shared.complete("x", model="gpt-4")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
    assert "tiny" in answer.json()["error"]["message"]


def test_refusals_from_behind(shared):
    answer = shared.complete("@refuse=400:prompt")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


def test_a_stream_that_fails(shared):
    *chunks, last = events(shared.complete("a b @after=3 @reason=failed", stream=True))
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["a", " b"]
    assert last["error"]["type"] == "server_error"


def test_models(shared):
    models = shared.http.get("/v1/models").json()
    assert models["object"] == "list"
    assert [(model["id"], model["object"], model["max_model_len"]) for model in models["data"]] == [
        ("tiny", "model", 4096)
    ]
