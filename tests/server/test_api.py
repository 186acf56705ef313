"""/openapi.json against a whole server: answers are as it describes them, and schemathesis finds nothing wrong.

That the document and the parsers agree on requests is shown in tests/pipeline/front/api/test_openapi.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from jsonschema import Draft202012Validator

from scripts.verify.fuzz.server import at_rest, complaints, fuzzed_server
from tests.examples import EXPLORING

PROMPT = "What is a ring?"
CHAT = [{"role": "user", "content": PROMPT}]
FEWER = "--seed", "1", "--max-examples", "5", "--phases", "fuzzing,stateful"
"""Without 12,000 requests on the borders of each value, which tests/pipeline/front/api/test_openapi.py tries, too."""
CASES = ("--max-examples", "30") if EXPLORING else FEWER
COMPLETE, TALK, GENERATE = "/v1/completions", "/v1/chat/completions", "/models/llama2/generate"
RESPOND = "/v1/responses"
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
OLLAMA, OLLAMA_PROMPT = "/api/chat", "/api/generate"
FEW = {"num_predict": 3}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with fuzzed_server(tmp_path_factory.mktemp("api")) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def document(client):
    return client.get("/openapi.json").json()


def check(document, schema, instance):
    Draft202012Validator({**schema, "components": document["components"]}).validate(instance)


def described(document, method, path, status):
    """The response, with its reference followed."""
    response = document["paths"][path][method.lower()]["responses"][str(status)]
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    return response


ANSWERS = [
    ("POST", GENERATE, {"inputs": PROMPT, "parameters": {"max_new_tokens": 3}}, 200),
    ("POST", "/models/llama2", {"inputs": PROMPT, "parameters": {"max_new_tokens": 3, "seed": 7}}, 200),
    ("POST", COMPLETE, {"prompt": PROMPT, "max_tokens": 3}, 200),
    ("POST", COMPLETE, {"prompt": [PROMPT, "x"], "max_tokens": 3, "logprobs": 2, "n": 2}, 200),
    ("POST", COMPLETE, {"prompt": [PROMPT, "x"], "max_tokens": 0, "logprobs": 2, "n": 2, "echo": True,
                        "prompt_logprobs": 3}, 200),
    ("POST", TALK, {"messages": CHAT, "max_tokens": 3, "prompt_logprobs": 0}, 200),
    ("POST", GENERATE, {"inputs": PROMPT, "parameters": {"max_new_tokens": 3, "details": True,
                                                         "decoder_input_details": True}}, 200),
    ("POST", TALK, {"messages": CHAT, "max_tokens": 3}, 200),
    ("POST", TALK, {"messages": CHAT, "max_tokens": 3, "logprobs": True, "top_logprobs": 2, "n": 2}, 200),
    ("POST", RESPOND, {"input": PROMPT, "max_output_tokens": 3}, 200),
    ("POST", RESPOND, {"input": CHAT, "top_logprobs": 2, "include": ["message.output_text.logprobs"],
                       "metadata": {"a": "b"}, "max_output_tokens": 3}, 200),
    ("POST", MESSAGES, {"messages": CHAT, "max_tokens": 3}, 200),
    ("POST", COUNT, {"messages": CHAT}, 200),
    ("POST", "/tokenize", {"prompt": PROMPT}, 200),
    ("POST", "/tokenize", {"messages": CHAT, "return_token_strs": True}, 200),
    ("POST", "/detokenize", {"tokens": [300, 301]}, 200),
    ("POST", GENERATE, {"inputs": PROMPT, "parameters": {"top_p": 7}}, 422),
    ("POST", GENERATE, {"inputs": "x" * 5000}, 422),
    ("POST", COMPLETE, {"prompt": PROMPT, "max_tokens": 128}, 400),
    ("POST", TALK, {"messages": []}, 400),
    ("POST", RESPOND, {"input": PROMPT, "store": True}, 400),
    ("POST", MESSAGES, {"messages": CHAT}, 400),
    ("POST", MESSAGES, {"messages": [{"role": "user", "content": PROMPT * 20}], "max_tokens": 3}, 400),
    ("POST", COUNT, {"messages": CHAT, "model": "other"}, 404),
    ("POST", COMPLETE, {"prompt": PROMPT, "model": "other"}, 404),
    ("POST", OLLAMA, {"messages": CHAT, "options": FEW, "stream": False}, 200),
    ("POST", OLLAMA, {"stream": False}, 200),
    ("POST", OLLAMA_PROMPT, {"prompt": PROMPT, "options": FEW, "stream": False, "logprobs": True}, 200),
    ("POST", "/api/show", {}, 200),
    ("POST", OLLAMA, {"messages": CHAT, "options": {"top_p": 7}}, 400),
    ("POST", OLLAMA_PROMPT, {"prompt": PROMPT * 20, "raw": True}, 400),
    ("POST", "/api/show", {"model": "other"}, 404),
    ("POST", "/tokenize", {"prompt": PROMPT, "pad": "x" * 200_000}, 413),
    *(("GET", path, None, 200) for path in ("/v1/models", "/version", "/health", "/ready", "/openapi.json")),
    *(("GET", f"/api/{what}", None, 200) for what in ("tags", "ps", "version")),
    *(("GET", path, None, 200) for path in ("/ping", "/load", "/tokenizer_info", "/v1/usage")),
    *(("GET", f"/serving/get_{what}", None, 200) for what in ("bs", "request_numbers", "serverd_model_info")),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status"), ANSWERS)
def test_an_answer_is_as_described(client, document, method, path, body, status):
    answer = client.request(method, path, json=body)
    assert answer.status_code == status
    response = described(document, method, path, status)
    check(document, response["content"]["application/json"]["schema"], answer.json())
    for name, header in response.get("headers", {}).items():
        assert name.lower() in answer.headers or "if it had the header" in header.get("description", "")


def test_one_model(client, document):
    for name, status in (("emulated", 200), ("other", 404)):
        response = described(document, "GET", "/v1/models/{model}", status)
        answer = client.get(f"/v1/models/{name}")
        assert answer.status_code == status
        check(document, response["content"]["application/json"]["schema"], answer.json())


STREAMS = [
    ("/models/llama2/generate_stream", {"inputs": PROMPT, "parameters": {"max_new_tokens": 3}}),
    ("/models/llama2", {"inputs": PROMPT, "parameters": {"max_new_tokens": 3, "return_full_text": True},
                        "stream": True}),
    (COMPLETE, {"prompt": PROMPT, "max_tokens": 3, "stream": True}),
    (COMPLETE, {"prompt": [PROMPT, "x"], "max_tokens": 3, "stream": True, "logprobs": 1, "n": 2,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
    (COMPLETE, {"prompt": PROMPT, "max_tokens": 3, "stream": True, "logprobs": 1, "echo": True}),
    (TALK, {"messages": CHAT, "max_tokens": 3, "stream": True}),
    (TALK, {"messages": CHAT, "max_tokens": 3, "stream": True, "logprobs": True, "top_logprobs": 1,
            "stream_options": {"include_usage": True}}),
    (RESPOND, {"input": PROMPT, "max_output_tokens": 3, "stream": True}),
    (RESPOND, {"input": CHAT, "top_logprobs": 2, "include": ["message.output_text.logprobs"], "max_output_tokens": 3,
               "stream": True}),
    (MESSAGES, {"messages": CHAT, "max_tokens": 3, "stream": True}),
    (OLLAMA, {"messages": CHAT, "options": FEW}),
    (OLLAMA_PROMPT, {"prompt": PROMPT, "options": FEW, "logprobs": True, "top_logprobs": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), STREAMS)
def test_every_event_of_a_stream_is_as_described(client, document, path, body):
    answer = client.post(path, json=body)
    kind = "application/x-ndjson" if path.startswith("/api/") else "text/event-stream"
    content = described(document, "POST", path, 200)["content"][kind]
    assert answer.headers["content-type"].startswith(kind)
    named = [line for line in answer.text.splitlines() if line and not line.startswith("event: ")]
    lines = [line.removeprefix("data: ") for line in named]
    events = [json.loads(line) for line in lines if line != "[DONE]"]
    assert len(events) >= 3
    for event in events:
        check(document, content["x-ringserve-event"], event)


def test_a_wrong_answer_would_be_noticed(client, document):
    answer = client.post(COMPLETE, json={"prompt": PROMPT, "max_tokens": 1}).json()
    schema = {"$ref": "#/components/schemas/Completion"}
    for spoil in (
        answer | {"object": "x"},
        answer | {"more": 1},
        {**answer, "choices": [{}]},
        answer | {"usage": None},
    ):
        validator = Draft202012Validator({**schema, "components": document["components"]})
        assert not validator.is_valid(spoil)


def test_a_prompt_at_the_limit_and_one_beyond(client):
    """Of tokens, and of characters, of which 16 per token are allowed, and 4096 at least."""
    body = {"max_tokens": 1}
    for count, status in ((100, 200), (101, 400)):
        assert client.post(COMPLETE, json=body | {"prompt": [300] * count}).status_code == status
    too_long = client.post(COMPLETE, json=body | {"prompt": "x" * 4096}).json()["error"]
    refused = client.post(COMPLETE, json=body | {"prompt": "x" * 4097}).json()["error"]
    assert "tokens, of which at most 100 are allowed" in too_long["message"]
    assert "4097 characters, of which at most 4096" in refused["message"]
    assert (too_long["param"], refused["param"]) == ("prompt", "prompt")


def test_schemathesis(server, tmp_path):
    """What is allowed and what is forbidden, on every path but those that take their time, and of an adapter's only
    the first."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"http://127.0.0.1:{server.port}/openapi.json",
               *CASES, "--exclude-path", "/live", "--exclude-path", "/debug/trace",
               "--exclude-path", "/admin/weights",
               "--exclude-path-regex", "^/models/.adapter./",
               "--exclude-checks", "positive_data_acceptance", "--no-color"]  # fmt: skip
    fine = 'expected-statuses = ["2xx", "3xx", "4xx", "504"]'  # a request may allow itself a millisecond
    (tmp_path / "schemathesis.toml").write_text(f"[checks.not_a_server_error]\n{fine}\n")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert "Tested: 37" in done.stdout
    before = at_rest(server)
    assert before.descriptors < 100
    assert not complaints(server)
