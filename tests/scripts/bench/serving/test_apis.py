"""Bodies that are sent, and lines that are read, of every API."""

from __future__ import annotations

import json

import pytest

from scripts.bench.serving.apis import APIS, Ask, error_message, read_answer
from scripts.bench.serving.load import Outcome
from scripts.lab.http import Reply

ASK = Ask("hello", 9, "tiny", 0.0, True, {"top_k": 5})


def test_llm_servings_body_is_that_of_its_load_client():
    assert APIS["llm-serving"].body(ASK) == {
        "inputs": "hello",
        "parameters": {
            "do_sample": False,
            "max_new_tokens": 9,
            "return_full_text": True,
            "ignore_eos": True,
            "top_k": 5,
        },
        "stream": True,
    }
    assert not APIS["llm-serving"].keep_alive


def test_openais_bodies():
    completion, chat = APIS["openai"].body(ASK), APIS["openai-chat"].body(ASK)
    common = {
        "model": "tiny",
        "max_tokens": 9,
        "temperature": 0.0,
        "stream": True,
        "ignore_eos": True,
        "top_k": 5,
        "stream_options": {"include_usage": True},
    }
    assert completion == common | {"prompt": "hello"}
    assert chat == common | {"messages": [{"role": "user", "content": "hello"}]}
    assert APIS["vllm"] is APIS["openai"]


def outcome(lines, status=200, step_ns=10_000_000, **more):
    """Lines that come every 10 ms after a start at 1 s."""
    times = [1_000_000_000 + step_ns * i for i in range(1, len(lines) + 1)]
    return Outcome(prompt_tokens=4, started_ns=1_000_000_000, reply=Reply(status, times, list(lines)), **more)


def token_line(text):
    token = {"id": 1, "logprob": -0.1, "special": not text, "text": text}
    data = {"details": None, "generated_text": text, "tokens": token, "top_tokens": [token]}
    return json.dumps({"event": "message", "retry": 30000, "data": data}).encode()


def last_line(text, tokens):
    data = {"generated_text": text, "finish_reason": "length", "generated_tokens": tokens, "tokens": []}
    return json.dumps({"event": "message", "retry": 30000, "data": data}).encode()


def test_llm_servings_stream():
    lines = [token_line("he"), token_line(""), token_line("llo"), last_line("hello", 3)]
    answer = read_answer(outcome(lines), APIS["llm-serving"], 1.0)
    assert answer.success
    assert answer.text == "hello"  # the last line repeats it, and is no token
    assert (answer.output_tokens, answer.prompt_tokens, answer.finish_reason) == (3, 4, "length")
    assert answer.ttft == pytest.approx(0.010)
    assert answer.itl == pytest.approx((0.010, 0.010))
    assert answer.latency == pytest.approx(0.040)


def test_llm_servings_other_protocol():
    lines = [b"data:" + json.dumps(json.loads(token_line("x"))["data"]).encode()]
    assert read_answer(outcome(lines), APIS["llm-serving"], 1.0).text == "x"


def chunk(delta, reason=None, **more):
    return (
        b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}).encode()
    )


def test_chat_does_not_count_the_role_or_the_end_as_tokens():
    lines = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "he"}),
        chunk({"content": "llo"}),
        chunk({}, "stop"),
        b'data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3}}',
        b"data: [DONE]",
    ]
    answer = read_answer(outcome(lines), APIS["openai-chat"], 1.0)
    assert (answer.text, answer.finish_reason) == ("hello", "stop")
    assert answer.ttft == pytest.approx(0.020)
    assert answer.itl == pytest.approx((0.010,))
    assert answer.latency == pytest.approx(0.040)  # until the end was told, not until [DONE]
    assert (answer.prompt_tokens, answer.output_tokens) == (12, 3)


def test_a_role_that_comes_with_text_is_a_token():
    answer = read_answer(outcome([chunk({"role": "assistant", "content": "x"})]), APIS["openai-chat"], 1.0)
    assert (answer.ttft, answer.output_tokens) == (pytest.approx(0.010), 1)


def test_the_time_scale_applies_to_every_time():
    began = {"start_s": 2.0, "queue_s": 0.5, "late_s": 0.001}
    answer = read_answer(outcome([token_line("a"), token_line("b")], **began), APIS["llm-serving"], 8.0)
    assert answer.ttft == pytest.approx(0.08)
    assert answer.itl == pytest.approx((0.08,))
    assert answer.latency == pytest.approx(0.16)
    assert (answer.start_time, answer.queue_time, answer.lateness) == pytest.approx((16.0, 4.0, 0.008))


@pytest.mark.parametrize(
    ("api", "lines", "status", "error"),
    [
        ("openai", [b'{"error": {"message": "too long", "type": "x"}}'], 400, "HTTP 400: too long"),
        ("openai", [b"<html>"], 502, "HTTP 502: <html>"),
        ("openai", [], 503, "HTTP 503: "),
        ("openai", [b"data: [DONE]"], 200, "no token came"),
        ("openai", [b"data: {broken"], 200, "an answer that openai does not give"),
        ("openai", [b'data: {"choices": [7]}'], 200, "an answer that openai does not give"),
        ("openai", [b'data: {"error": {"message": "the model failed"}}'], 200, "the model failed"),
        ("llm-serving", [token_line("x"), b'{"data": {"error": {"message": "gone"}}}'], 200, "gone"),
        ("llm-serving", [b'{"generated": 1}'], 200, "an answer that llm-serving does not give"),
    ],
)
def test_answers_that_are_failures(api, lines, status, error):
    answer = read_answer(outcome(lines, status), APIS[api], 1.0)
    assert not answer.success
    assert answer.error.startswith(error)


def test_no_reply_is_a_failure():
    answer = read_answer(Outcome(None, error="connection refused"), APIS["openai"], 1.0)
    assert (answer.success, answer.error) == (False, "connection refused")


def test_error_messages_of_all_kinds():
    assert error_message(b'{"error": "busy"}') == "busy"
    assert error_message(b'{"message": "no"}') == "no"
    assert error_message(b"[1]") == "[1]"
