"""Structured output of a whole server, whose stages are killed meanwhile."""

from __future__ import annotations

import concurrent.futures
import json

import httpx
import jsonschema
import pytest

from tests.server.launched import wait_until
from tests.server.supervised import LONG_S, Supervised

pytest.importorskip("llguidance")
SCHEMA = {
    "type": "object",
    "properties": {
        "lines": {"type": "array", "minItems": 3, "maxItems": 4, "items": {"type": "string", "maxLength": 20}},
        "sum": {"type": "integer", "minimum": 0, "maximum": 999},
    },
    "required": ["lines", "sum"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "lines", "schema": SCHEMA}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Supervised(tmp_path_factory.mktemp("grammars"), ("pipeline.runner.cost_model.fixed_ms=10",))
    yield server
    server.stop()


def ask(server, seed, tokens=None):
    """Texts, reasons and log-probabilities of two choices; `tokens` counts what came so far."""
    body = {"prompt": f"Lines of {seed}:", "n": 2, "seed": seed, "max_tokens": 300, "temperature": 1.0, "logprobs": 1,
            "response_format": FORMAT, "stream": True}  # fmt: skip
    answers = [["", None, []] for _ in range(2)]
    with httpx.stream("POST", server.base + "/v1/completions", json=body, timeout=LONG_S) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: {"):
                (choice,) = json.loads(line[6:])["choices"]
                answer = answers[choice["index"]]
                answer[0] += choice["text"]
                answer[1] = choice["finish_reason"] or answer[1]
                answer[2] += choice["logprobs"]["token_logprobs"]
                if tokens is not None:
                    tokens.append(1)
    return answers


def test_answers_are_valid_and_the_same_whichever_stage_is_killed_meanwhile(server):
    undisturbed = [ask(server, seed) for seed in range(1, 5)]
    for answers in undisturbed:
        for text, reason, _ in answers:
            assert reason == "stop", text
            jsonschema.validate(json.loads(text), SCHEMA)
    tokens = []
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, server, seed, tokens) for seed in range(1, 5)]
        for stage in ("sampling", "inference", "preprocess"):
            seen = len(tokens)
            wait_until(lambda seen=seen: len(tokens) > seen + 20, "no tokens came", LONG_S)
            server.kill(stage)
        assert [one.result() for one in asked] == undisturbed


TEXT = {"type": "string", "minLength": 20, "maxLength": 40}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}}}
    for name, properties in {"note": {"text": TEXT}, "add": {"a": {"type": "integer"}}}.items()
]  # fmt: skip


def call(server, seed, tokens=None):
    """Of two choices: names and arguments of their calls, reason, and log-probabilities."""
    body = {"messages": [{"role": "user", "content": f"Call for {seed}."}], "n": 2, "seed": seed, "max_tokens": 150,
            "tools": TOOLS, "tool_choice": "required", "logprobs": True, "stream": True}  # fmt: skip
    answers = [[[], None, []] for _ in range(2)]
    with httpx.stream("POST", server.base + "/v1/chat/completions", json=body, timeout=LONG_S) as stream:
        assert stream.status_code == 200
        for line in stream.iter_lines():
            if line.startswith("data: {"):
                (choice,) = json.loads(line[6:])["choices"]
                answer = answers[choice["index"]]
                for part in choice["delta"].get("tool_calls", ()):
                    if "id" in part:
                        answer[0].append([part["function"]["name"], ""])
                    answer[0][part["index"]][1] += part["function"]["arguments"]
                assert not choice["delta"].get("content")
                answer[1] = choice["finish_reason"] or answer[1]
                if choice["logprobs"]:
                    answer[2] += [token["logprob"] for token in choice["logprobs"]["content"]]
                if tokens is not None:
                    tokens.append(1)
    return answers


def test_calls_are_valid_and_the_same_whichever_stage_is_killed_meanwhile(server):
    undisturbed = [call(server, seed) for seed in range(1, 5)]
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    for answers in undisturbed:
        for calls, reason, logprobs in answers:
            assert reason in ("tool_calls", "length")
            assert calls
            for name, arguments in calls if reason == "tool_calls" else calls[:-1]:
                jsonschema.validate(json.loads(arguments), schemas[name])
            assert len(logprobs) > 10
    tokens = []
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(call, server, seed, tokens) for seed in range(1, 5)]
        for stage in ("inference", "sampling", "preprocess"):
            seen = len(tokens)
            wait_until(lambda seen=seen: len(tokens) > seen + 20, "no tokens came", LONG_S)
            server.kill(stage)
        assert [one.result() for one in asked] == undisturbed


def test_what_it_cost_is_counted(server):
    assert server.metric("ringserve_grammars_total") >= 8
    assert server.metric("ringserve_grammar_compiles_total") >= 16
    assert server.metric("ringserve_grammar_masks_total") > 100
    assert 0 < server.metric("ringserve_grammar_mask_seconds_total") < 60
