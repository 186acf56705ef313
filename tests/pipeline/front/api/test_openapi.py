"""/openapi.json is true: whatever a schema allows is understood, and whatever it forbids is refused.

Here the document is held against the router and the parsers; against a whole server in tests/server/test_api.py.
Not covered here: what one parameter demands of another, which is told in words.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import validate

from model.demo import DEMO_DIR
from model.response import choose_format
from model.tokenizer import load_tokenizer
from pipeline.front.api.admin_routes import WEIGHTS, WeightsRequest
from pipeline.front.api.anthropic.request import parse_count, parse_messages
from pipeline.front.api.body import Reading, read
from pipeline.front.api.cancel_routes import CANCEL_PATHS
from pipeline.front.api.llm_serving.request import parse_llm_serving
from pipeline.front.api.node_routes import NODES, NodeRoutes
from pipeline.front.api.ollama.request import parse_ollama_chat, parse_ollama_generate, read_ollama
from pipeline.front.api.ollama.routes import OllamaShow
from pipeline.front.api.openai.chat import parse_chat
from pipeline.front.api.openai.completions import parse_completion
from pipeline.front.api.openapi import openapi_document
from pipeline.front.api.responses.request import parse_responses
from pipeline.front.api.stream_routes import STREAM_PATHS
from pipeline.front.api.tokenize_routes import TokenizeRoutes
from pipeline.front.app import Front
from pipeline.front.delivery.job import Identity
from pipeline.front.http.access import ApiKeys
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings, LinkSettings
from tests.examples import examples

TOOL = {"type": "function", "function": {"name": "f"}}
INPUT_TOOL = {"name": "f", "input_schema": {"type": "object"}}
IDENTITY = Identity("0" * 32, 0)
TOKENIZER = load_tokenizer(DEMO_DIR)
SETTINGS = FrontSettings(
    model_name="tiny",
    vocab_size=500,
    max_length=64,
    max_prompt=60,
    max_rows=2,
    max_queue=200,
    unknown_parameters="refuse",
    response_format=choose_format(TOKENIZER, "hermes", "think"),
)
EVENTS = ("GenerateEvent", "CompletionEvent", "ChatEvent")  # of which a stream's description speaks in words
DOCUMENT = orjson.loads(orjson.dumps(openapi_document(SETTINGS, keys_needed=False)))
SCHEMAS = DOCUMENT["components"]["schemas"]
TOKENIZE = TokenizeRoutes(SETTINGS, TOKENIZER, Mock(), Mock())


@functools.cache
def validator(name):
    return jsonschema_rs.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    )


# Of each request: its parser, what is right about it, and what makes other parameters sensible.
REQUESTS = {
    "GenerateRequest": (
        lambda body: parse_llm_serving(body, None, Reading(SETTINGS), tokenizer=TOKENIZER),
        {"inputs": "x"},
    ),
    "CompletionRequest": (
        lambda body: parse_completion(body, IDENTITY, TOKENIZER, Reading(SETTINGS)),
        {"prompt": "x", "max_tokens": 60, "stream": True},
    ),
    "ChatRequest": (
        lambda body: parse_chat(body, IDENTITY, TOKENIZER, Reading(SETTINGS)),
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": 60, "stream": True, "logprobs": True,
         "tools": [TOOL]},
    ),
    "ResponsesRequest": (
        lambda body: parse_responses(body, IDENTITY, TOKENIZER, Reading(SETTINGS)),
        {"input": "x", "max_output_tokens": 60, "stream": True, "include": ["message.output_text.logprobs"]},
    ),
    "MessagesRequest": (
        lambda body: parse_messages(body, IDENTITY, TOKENIZER, Reading(SETTINGS)),
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": 60, "stream": True, "tools": [INPUT_TOOL]},
    ),
    "CountRequest": (
        lambda body: parse_count(body, TOKENIZER, Reading(SETTINGS)),
        {"messages": [{"role": "user", "content": "x"}], "tools": [INPUT_TOOL]},
    ),
    "TokenizeText": (lambda body: TOKENIZE._message(TOKENIZE._parse(body, Reading(SETTINGS)), 9), {"prompt": "x"}),
    "TokenizeChat": (
        lambda body: TOKENIZE._message(TOKENIZE._parse(body, Reading(SETTINGS)), 9),
        {"messages": [{"role": "user", "content": "x"}], "tools": [TOOL]},
    ),
    "DetokenizeRequest": (lambda body: TOKENIZE._detokenize(body, Reading(SETTINGS)), {"tokens": [1]}),
    "OllamaChat": (
        lambda body: parse_ollama_chat(body, IDENTITY, TOKENIZER, Reading(SETTINGS)),
        {"messages": [{"role": "user", "content": "x"}], "logprobs": True},
    ),
    "OllamaGenerate": (
        lambda body: parse_ollama_generate(body, IDENTITY, TOKENIZER, Reading(SETTINGS)),
        {"prompt": "x", "logprobs": True},
    ),
    "OllamaShow": (lambda body: read_ollama(OllamaShow, body, Reading(SETTINGS)), {}),
    "WeightsRequest": (
        lambda body: read(WeightsRequest, body, Reading(SETTINGS), status=400), {"folder": "/models/new"},
    ),
}  # fmt: skip
# Of a request: what is inside of a parameter, and the same of that.
NESTED = {
    "GenerateRequest": ("parameters", "GenerateParameters", {"max_new_tokens": 60}),
    "OllamaGenerate": ("options", "OllamaOptions", {}),
}


def cases():
    """Every parameter of every request, and one that there is not."""
    for name, (_, base) in REQUESTS.items():
        for parameter in [*SCHEMAS[name]["properties"], "nonsense"]:
            yield name, None, parameter, base
    for name, (inner, kind, base) in NESTED.items():
        for parameter in [*SCHEMAS[kind]["properties"], "nonsense"]:
            yield name, inner, parameter, base


CASES = list(cases())


def body_with(name, inner, parameter, value, base):
    if inner is None:
        return {**base, parameter: value}
    return {**REQUESTS[name][1], inner: {**base, parameter: value}}


def understood(name, body):
    try:
        REQUESTS[name][0](orjson.loads(json.dumps(body)))
    except ApiError as error:
        return error.status not in (400, 404, 422)
    return True


def agreed(name, inner, parameter, value, base):
    body = body_with(name, inner, parameter, value, base)
    allowed = validator(name).is_valid(body)
    assert understood(name, body) == allowed, (name, parameter, value, "is allowed" if allowed else "is forbidden")


def edges(schema):
    """Values at the limits of a schema, and just beyond."""
    for one in schema.get("anyOf", [schema]):
        for key, beyond in (("minimum", -1), ("maximum", 1)):
            if key in one:
                step = 1 if "integer" in one["type"] else max(abs(one[key]) * 1e-9, 1e-9)
                yield one[key]
                yield one[key] + beyond * step
        if "exclusiveMinimum" in one:
            yield from (one["exclusiveMinimum"], math.nextafter(one["exclusiveMinimum"], 1))
        if "maxLength" in one:
            yield from ("x" * one["maxLength"], "x" * (one["maxLength"] + 1))
        if "minLength" in one:
            yield from ("", "x")
        yield from one.get("enum", [])
        for length in {one.get("minItems", 0), one.get("minItems", 1) - 1, one.get("maxItems", 3)}:
            for item in (1, "x", {}, [1], {"role": "user", "content": "x"}):
                yield [item] * length
                yield [item] * (length + 1)
        if "maxProperties" in one:
            yield from ({str(i): 1 for i in range(one["maxProperties"] + more)} for more in (0, 1))


USER = {"role": "user", "content": "x"}
COMMON_VALUES = [
    None, True, False, 0, 1, -1, 2, 0.5, 1.5, -0.5, 1e301, 2**63, 2**64 - 1,
    "", "x", "tiny", "llama2", "True", " false ", "sse",
    [], ["x"], [""], [1], [499], [500], [[1]], [[]], [None],
    {}, {"x": 1}, {"1": 1}, {"499": -100}, {"1": 101}, {"1": "x"}, {"1": None},
    {"type": "text"}, {"type": "json_object"},
    {"include_usage": True}, {"include_usage": 1}, {"include_obfuscation": False},
    [USER], [{"role": "user"}], [USER | {"role": ""}], [USER | {"tool_calls": [1]}],
    [USER | {"name": "y", "tool_calls": []}],
    [TOOL], [TOOL, {"type": "function"}], [{"type": "custom", "custom": {"name": "g"}}], [{**TOOL, "x": 1}],
    [{"type": "function", "function": {"name": "f", "parameters": {}, "strict": True, "description": "x"}}],
    [INPUT_TOOL], [INPUT_TOOL | {"type": "custom", "strict": True}], [INPUT_TOOL | {"type": "bash_20250124"}],
    {"type": "tool", "name": "f"}, {"type": "tool"}, {"type": "any", "disable_parallel_tool_use": True},
    {"type": "none"},
    {"type": "enabled", "budget_tokens": 9}, {"type": "disabled"}, {"effort": "low"}, {"edits": [{"type": "x"}]},
    {"format": {"type": "json_schema", "schema": {}}}, {"type": "json_schema", "schema": {"type": "object"}},
    [USER | {"content": [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "x"}]}]}],
    [USER | {"content": [{"type": "tool_result"}]}],
    [USER | {"role": "assistant", "content": [{"type": "thinking"}]}],
    "none", "auto", "required", {"type": "function", "function": {"name": "f"}}, {"type": "function"},
    [USER | {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}],
    [USER | {"role": "assistant", "tool_calls": [{"type": "function"}]}], [USER | {"tool_call_id": "1"}],
    [USER | {"content": [{"type": "text", "text": "x", "cache_control": {}}]}],
    [USER | {"content": [{"type": "text", "text": "x"}]}], [USER | {"content": [{"type": "image_url"}]}],
]  # fmt: skip


# What one parameter demands of another; the schema's description says so.
def demands_another(name, parameter, value):
    if parameter in ("best_of", "max_tokens", "max_completion_tokens") and name in (
        "CompletionRequest",
        "ChatRequest",
    ):
        return parameter == "best_of" or name == "ChatRequest" or value == 0
    if parameter in ("topk_k", "continue_final_message", "chat_template_kwargs"):
        return True
    if parameter in ("min_tokens", "min_new_tokens"):
        return isinstance(value, int) and value > 60
    if parameter == "logprobs" and name in ("ChatRequest", "OllamaChat", "OllamaGenerate"):
        return value is False
    streamed = parameter == "prompt_logprobs" and type(value) in (int, float)  # 0.0 is an integer, too
    if streamed or (parameter, value) == ("tool_choice", "required") or (parameter, name) == ("name", "OllamaShow"):
        return True
    return (
        parameter == "logit_bias"
        and isinstance(value, dict)
        and any(int(key) >= 500 for key in value if key.isdigit())
    )


@pytest.mark.parametrize(
    ("name", "inner", "parameter", "base"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_allowed_is_understood_and_nothing_else_is(name, inner, parameter, base):
    properties = SCHEMAS[name if inner is None else NESTED[name][1]]["properties"]
    for value in [*COMMON_VALUES, *edges(properties.get(parameter, {}))]:
        if not demands_another(name, parameter, value):
            agreed(name, inner, parameter, value, base)


# An integer of more than 64 bits is read as a float, so that one may not stand for an integer.
FLOATS = st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: abs(value) < 2**63) | st.sampled_from(
    [0.0, 1.0, 3.0, 64.0, 65.0, -1.0, 1e300]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.integers(-3, 600), FLOATS, st.text(max_size=4)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["1", "499", "type", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@examples(600)
@given(st.sampled_from(CASES), VALUES)
def test_any_value(case, value):
    name, inner, parameter, base = case
    if not demands_another(name, parameter, value):
        agreed(name, inner, parameter, value, base)


def test_it_is_openapi():
    """With what is there for keys only, which is all that can be there."""
    validate(orjson.loads(orjson.dumps(openapi_document(SETTINGS, keys_needed=True))))


def test_every_reference_is_there_and_everything_is_referred_to():
    text = json.dumps(DOCUMENT)
    for kind in ("schemas", "responses"):
        for name in DOCUMENT["components"][kind]:
            used = f'"#/components/{kind}/{name}"' in text
            assert used or name in EVENTS or name == "Error401", name


def test_of_a_router_it_says_what_operators_may_change():
    """And where: on their own port."""
    nowhere = Path("none")
    link = LinkSettings(max_nodes=2, ca=nowhere, certificate=nowhere, key=nowhere)
    document = openapi_document(replace(SETTINGS, link=link, metrics_port=9090), keys_needed=True)
    validate(orjson.loads(orjson.dumps(document)))
    operation = document["paths"][NODES]["put"]
    assert operation["servers"] == [{"url": "http://127.0.0.1:9090"}]
    assert "401" in operation["responses"]
    assert {"Nodes", "NodeList", "Node"} <= document["components"]["schemas"].keys()
    on_one_port = openapi_document(replace(SETTINGS, link=link), keys_needed=False)
    assert NODES not in on_one_port["paths"]
    assert "Nodes" not in on_one_port["components"]["schemas"]


def test_limits_are_those_of_the_model():
    other = FrontSettings(model_name="m", vocab_size=77, max_length=9, max_prompt=8, max_rows=1, max_queue=1)
    schemas = openapi_document(other, keys_needed=False)["components"]["schemas"]
    assert schemas["CompletionRequest"]["properties"]["max_tokens"]["anyOf"][0]["maximum"] == 9
    assert schemas["DetokenizeRequest"]["properties"]["tokens"]["items"]["maximum"] == 76


def test_with_keys_all_but_what_is_open_has_a_security_scheme():
    paths = openapi_document(SETTINGS, keys_needed=True)["paths"]
    unprotected = {
        path for path, item in paths.items() if not any("security" in operation for operation in item.values())
    }
    assert unprotected == {"/health", "/ready", "/ping", "/metrics", "/live", "/"}
    assert not any("security" in operation for item in DOCUMENT["paths"].values() for operation in item.values())


def test_a_document_of_a_real_front(shared):
    answer = shared.http.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["paths"].keys() == DOCUMENT["paths"].keys()
    assert shared.http.get("/openapi.json").content == answer.content


@pytest.mark.parametrize(("path", "item"), DOCUMENT["paths"].items())
def test_every_path_of_the_document_is_served(shared, path, item):
    """With another method, so that nothing happens."""
    answer = shared.http.request("PUT", path.replace("{model}", "tiny").replace("{id}", "x"))
    assert answer.status_code == 405
    names = {"get": "GET, HEAD", "post": "POST", "delete": "DELETE"}
    assert answer.headers["allow"] == ", ".join(names[method] for method in item)


def test_every_path_that_is_served_is_in_the_document():
    """The router's table, which says nothing yet of what the handlers are."""
    page = Mock(routes=lambda: {"/": ("GET", None), "/live": ("GET", None)})
    none = NodeRoutes(SETTINGS, None)
    routes = Front(
        SETTINGS, Mock(), Mock(), Mock(), page, ApiKeys(), Mock(), Mock(), Mock(), Mock(), Mock(), none
    ).routes
    documented = {(path, method.upper()) for path, item in DOCUMENT["paths"].items() for method in item}
    named = {("/v1/models/{model}", "GET"), *((path, "POST") for path in CANCEL_PATHS)}
    named.add((WEIGHTS, "POST"))
    named |= {(path, method) for path in STREAM_PATHS for method in ("GET", "DELETE")}
    assert {*routes.items()} | named == documented
