"""/v1/messages over HTTP: a stream, counts, and errors in Anthropic's form wherever they come from."""

from __future__ import annotations

import anthropic
import pytest

from tests.pipeline.front.api.anthropic.test_answer import accumulated, parsed

PATHS = ("/v1/messages", "/v1/messages/count_tokens")
KEY = "sk-alice-0123456789"


def asked(content, **body):
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 4, **body}


def test_a_stream(shared):
    answer = shared.http.post("/v1/messages", json=asked("a b", stream=True), headers={"x-request-id": "mine"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert answer.headers["request-id"] == answer.headers["x-request-id"] == "mine"
    message = accumulated(parsed(answer.content))
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 4)
    whole = shared.http.post("/v1/messages", json=asked("a b")).json()
    assert whole["content"] == [{"type": "text", "text": message.content[0].text}]


def test_the_package_as_it_is(shared):
    with anthropic.Anthropic(api_key="none", base_url=shared.url, max_retries=0) as client:
        with client.messages.stream(model="tiny", **asked("a b")) as stream:
            text = "".join(stream.text_stream)
        assert client.messages.create(model="tiny", **asked("a b")).content[0].text == text
        messages = asked("a b")["messages"]
        assert client.beta.messages.count_tokens(model="tiny", messages=messages).input_tokens > 0
        with pytest.raises(anthropic.NotFoundError) as caught:
            client.messages.create(model="claude", **asked("a"))
        assert (caught.value.type, caught.value.request_id) == ("not_found_error", caught.value.body["request_id"])


@pytest.mark.parametrize("content", ["x", "x " * 5000])
def test_a_count(shared, content):
    """In the event loop, and in a thread."""
    body = {"messages": [{"role": "user", "content": content}]}
    tokens = shared.http.post("/tokenize", json=body).json()["count"]
    answer = shared.http.post("/v1/messages/count_tokens", json=body | {"max_tokens": 4})
    assert (answer.status_code, answer.json()) == (200, {"input_tokens": tokens})
    assert tokens > len(content.split())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind", "message"),
    [
        ("POST", "/v1/messages", asked("x", model="gpt"), 404, "not_found_error", "the model 'gpt' does not exist"),
        ("POST", "/v1/messages", asked(5), 400, "invalid_request_error", "messages[0].content is 5, expected"),
        ("POST", "/v1/messages", asked("a @refuse=400:prompt b"), 400, "invalid_request_error", "refused as asked"),
        ("POST", "/v1/messages", asked("a @refuse=429:prompt b"), 529, "overloaded_error", "refused as asked"),
        ("POST", "/v1/messages", asked("a @refuse=503:prompt b"), 503, "api_error", "refused as asked"),
        ("POST", "/v1/messages", asked("x" * 5_000_000), 413, "request_too_large", "the body is larger than"),
        ("POST", "/v1/messages/batches", {}, 404, "not_found_error", "unknown path: /v1/messages/batches"),
        *(("GET", path, None, 405, "invalid_request_error", "GET is not allowed here; use POST") for path in PATHS),
        *(("POST", path, {}, 400, "invalid_request_error", "messages is missing") for path in PATHS),
        *(("POST", path, [], 400, "invalid_request_error", "object") for path in PATHS),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_errors(shared, method, path, body, status, kind, message):
    answer = shared.http.request(method, path, json=body)
    told = answer.json()
    assert answer.status_code == status, told
    assert (told["type"], told["error"]["type"]) == ("error", kind)
    assert message in told["error"]["message"]
    assert told["request_id"] == answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (status in (503, 529))


def test_an_error_behind_the_begin_of_a_stream(shared):
    answer = shared.http.post("/v1/messages", json=asked("a @after=2 @reason=failed b", stream=True))
    events = parsed(answer.content)
    assert answer.status_code == 200
    assert events[-1]["type"] == "error"
    assert events[-1]["error"]["type"] == "api_error"


def test_keys(serve):
    served = serve(api_keys=[KEY])
    for path in PATHS:
        for header in ({}, {"x-api-key": "sk-other"}):
            refused = served.http.post(path, json=asked("x"), headers=header)
            assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
        for header in ({"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}):
            assert served.http.post(path, json=asked("x"), headers=header).status_code == 200


def test_a_silent_stream_is_pinged(serve):
    served = serve(stream_ping_s=0.05)
    with served.http.stream("POST", "/v1/messages", json=asked("a @hang b", stream=True)) as answer:
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(2)] == ["event: ping", 'data: {"type":"ping"}']
