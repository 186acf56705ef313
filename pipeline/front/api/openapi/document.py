"""The whole document (https://spec.openapis.org/oas/v3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from pipeline.front.api.admin_routes import WEIGHTS, WeightsRequest
from pipeline.front.api.anthropic.request import CountRequest, MessagesRequest
from pipeline.front.api.cancel_routes import CANCEL_PATHS
from pipeline.front.api.info_routes import LONGEST_TRACE_S
from pipeline.front.api.llm_serving.request import GenerateRequest
from pipeline.front.api.node_routes import NODES, Nodes
from pipeline.front.api.ollama.request import OllamaChat, OllamaGenerate
from pipeline.front.api.ollama.routes import OllamaShow
from pipeline.front.api.openai.chat import ChatRequest
from pipeline.front.api.openai.completions import CompletionRequest
from pipeline.front.api.openapi.answers import ANSWERS, ROUTERS_ANSWERS
from pipeline.front.api.openapi.operations import (
    EVENTS,
    NDJSON,
    Operation,
    error_responses,
    generating,
    get,
    get_other,
    in_form,
    post,
)
from pipeline.front.api.openapi.parts import reference
from pipeline.front.api.responses.request import ResponsesRequest
from pipeline.front.api.schema import schemas
from pipeline.front.api.stream_routes import AFTER, LAST_EVENT, STREAM_PATHS
from pipeline.front.api.tokenize_routes import DetokenizeRequest, TokenizeChat, TokenizeText
from pipeline.front.http.access import KEY_HEADERS, is_open
from pipeline.front.page.feed import INTERVAL_S, MAX_WATCHERS
from pipeline.front.settings import FrontSettings

Paths = dict[str, dict[str, Operation]]

_REQUESTS: Final = (
    GenerateRequest,
    CompletionRequest,
    ChatRequest,
    ResponsesRequest,
    MessagesRequest,
    CountRequest,
    TokenizeText,
    TokenizeChat,
    DetokenizeRequest,
    OllamaChat,
    OllamaGenerate,
    OllamaShow,
    WeightsRequest,
)
_ERRORS: Final = {"/api/": "OllamaError", "/v1/messages": "AnthropicError"}
_MODELS: Final = "List the models: this server has one, and adapters of it."
_KEYS: Final = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key."},
    **{name: {"type": "apiKey", "in": "header", "name": name} for name in (key.decode() for key in KEY_HEADERS)},
}


def openapi_document(settings: FrontSettings, *, keys_needed: bool) -> dict[str, Any]:
    """The API on the main port, with `/metrics` and the like where they have no port of their own."""
    paths = {path: _operations(path, item, keys_needed) for path, item in _paths(settings).items()}
    components: dict[str, Any] = {
        "schemas": {**schemas(_REQUESTS, settings), **ANSWERS, **_of_routers(settings)},
        "responses": error_responses(),
    }
    if keys_needed:
        components["securitySchemes"] = dict(_KEYS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "RingServe",
            "version": version("ringserve"),
            "summary": "The APIs of MindSpore's llm-serving, OpenAI, Anthropic and Ollama.",
            "description": _limits(settings),
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": components,
    }


def _operations(path: str, item: dict[str, Operation], keys_needed: bool) -> dict[str, Operation]:
    for operation in item.values():
        if keys_needed and not is_open(path):
            operation["security"] = [{key: []} for key in _KEYS]
            operation["responses"]["401"] = {"$ref": "#/components/responses/Error401"}
        for begin, error in _ERRORS.items():
            if path.startswith(begin):
                in_form(operation, reference(error))
    return item


def _limits(settings: FrontSettings) -> str:
    return (
        f"Limits: a prompt has at most {settings.max_prompt} tokens, prompt and answer together "
        f"{settings.max_length}; a body {settings.body_limit_bytes} bytes, the request line and the headers "
        f"{settings.header_limit_bytes}; {settings.max_queue} requests wait in the queue. Every parameter takes "
        "effect or is refused; null counts as left out. HEAD works wherever GET does. The paths of models and "
        "completions, and /v1/responses, are there without /v1, too."
    )


def _paths(settings: FrontSettings) -> Paths:
    paths = {**_llm_serving(settings), **_openai(), **_ollama(), **_about_the_server()}
    if settings.metrics_port is None:
        return {**paths, **_for_operators()}
    return {**paths, **_on_their_port(settings.metrics_port)} if settings.is_router else paths


def _of_routers(settings: FrontSettings) -> dict[str, Any]:
    """Schemas."""
    if settings.metrics_port is None or not settings.is_router:
        return {}
    return {**schemas((Nodes,), settings), **ROUTERS_ANSWERS}


def _llm_serving(settings: FrontSettings) -> Paths:
    return {
        **_generate(f"/models/{settings.model_route}", ""),
        **(_generate("/models/{adapter}", "WithAdapter", settings.adapters) if settings.adapters else {}),
        "/serving/get_bs": {"get": get("batchSize", "Number of running requests.", "Number")},
        "/serving/get_request_numbers": {"get": get("requestNumbers", "Number of waiting requests.", "Number")},
        "/serving/get_serverd_model_info": {"get": get("modelInfo", "The model and its limits.", "ModelInfo")},
    }


def _generate(base: str, suffix: str, adapters: Sequence[str] = ()) -> Paths:
    """`adapters`: names that may stand in the path; `suffix` tells its operations from others."""
    request, errors = "GenerateRequest", (404, 422)
    whole, event, api = "GenerateAnswer", "GenerateEvent", "Generate text (llm-serving's API)"
    either, stream = f"{api}, streamed if `stream` is true.", f"{api} and stream it."
    operations = {
        base: generating(f"llmServing{suffix}", either, request, whole=whole, event=event, errors=errors),
        f"{base}/generate": generating(
            f"generate{suffix}", f"{api} and return it as a whole.", request, whole=whole, errors=errors
        ),
        f"{base}/generate_stream": generating(f"generateStream{suffix}", stream, request, event=event, errors=errors),
    }
    if adapters:
        schema = {"type": "string", "enum": list(adapters)}
        for operation in operations.values():
            operation["parameters"].append({"name": "adapter", "in": "path", "required": True, "schema": schema})
    return {path: {"post": operation} for path, operation in operations.items()}


def _openai() -> Paths:
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    complete = "Complete one prompt or several; streamed if `stream` is true."
    chat = "Answer a conversation; streamed if `stream` is true."
    respond = "Answer a conversation of items (OpenAI's Responses API); streamed if `stream` is true."
    tokenize = {"anyOf": [reference("TokenizeText"), reference("TokenizeChat")]}
    detokenize = reference("DetokenizeRequest")
    return {
        "/v1/completions": {
            "post": generating(
                "completions", complete, "CompletionRequest", whole="Completion", event="CompletionEvent"
            )
        },
        "/v1/chat/completions": {
            "post": generating("chat", chat, "ChatRequest", whole="ChatCompletion", event="ChatEvent")
        },
        "/v1/responses": {
            "post": generating("responses", respond, "ResponsesRequest", whole="Response", event="ResponseEvent")
        },
        **_cancelling(),
        **_kept(),
        **_anthropic(),
        "/v1/models": {"get": get("models", _MODELS, "Models")},
        "/v1/models/{model}": {"get": get("model", "Describe the model.", "Model", errors=(404,), parameters=[name])},
        "/tokenize": {"post": post("tokenize", "Token ids of a text or chat.", tokenize, reference("Tokens"))},
        "/detokenize": {"post": post("detokenize", "Text of token ids.", detokenize, reference("Text"))},
        "/tokenizer_info": {
            "get": get("tokenizerInfo", "What it takes to render chats.", "TokenizerInfo", errors=(404,))
        },
        "/version": {"get": get("version", "RingServe's version.", "Version")},
    }


def _cancelling() -> Paths:
    schema = {"type": "string", "minLength": 1, "maxLength": 128}
    name = {"name": "id", "in": "path", "required": True, "schema": schema}
    told = "Cancel a request that waits or runs, by its x-request-id or its answer's id; only with the same API key."
    kinds = {"Request": "CancelledRequest", "Response": "CancelledResponse"}
    return {
        path: {"post": {**get(f"cancel{kind}", told, answer, errors=(404, 413, 415)), "parameters": [name]}}
        for path, (kind, answer) in zip(CANCEL_PATHS, kinds.items(), strict=True)
    }


def _kept() -> Paths:
    """Answers that outlive the connection of their client."""
    schema = {"type": "string", "pattern": "^([a-z]+[-_])?[0-9a-f]{32}$"}
    name = {"name": "id", "in": "path", "required": True, "schema": schema}
    event = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
    after = {"name": AFTER, "in": "query", "required": False, "schema": event}
    header = {"name": LAST_EVENT.decode(), "in": "header", "required": False, "schema": event}
    streamed = {"name": "stream", "in": "query", "required": False, "schema": {"type": "boolean", "default": False}}
    told = "Read an answer that is kept behind the event of this number, or all of it; only with the same API key."
    drop = "Keep an answer no longer; if it is being made, that ends."
    again = get_other("stream", told, EVENTS, errors=(404,), parameters=[name, after, header])
    found = "An answer in the background, as it is now, or its events if `stream` is true."
    response = get("response", found, "Response", errors=(404, 499), parameters=[name, streamed, after, header])
    stream, one = STREAM_PATHS
    return {
        stream: {"get": again, "delete": get("deleteStream", drop, "Deleted", errors=(404,), parameters=[name])},
        one: {"get": response, "delete": get("deleteResponse", drop, "Deleted", errors=(404,), parameters=[name])},
    }


def _anthropic() -> Paths:
    answer = "Answer a conversation (Anthropic's API); streamed if `stream` is true."
    count, request = "Number of tokens of a conversation (Anthropic's API).", reference("CountRequest")
    made = generating(
        "messages", answer, "MessagesRequest", whole="AnthropicMessage", event="AnthropicEvent", full=529
    )
    counted = post("countTokens", count, request, reference("AnthropicCount"), errors=(404, 529))
    return {"/v1/messages": {"post": made}, "/v1/messages/count_tokens": {"post": counted}}


def _ollama() -> Paths:
    return {
        "/api/chat": {"post": _ollama_generating("OllamaChat", "Answer a conversation (Ollama's API)")},
        "/api/generate": {"post": _ollama_generating("OllamaGenerate", "Complete a prompt (Ollama's API)")},
        "/api/tags": {"get": get("ollamaModels", _MODELS, "OllamaModels")},
        "/api/show": {
            "post": post("ollamaModel", "Describe the model.", reference("OllamaShow"), reference("OllamaModel"))
        },
        "/api/ps": {"get": get("ollamaRunning", "List the models that are loaded.", "OllamaRunning")},
        "/api/version": {"get": get("ollamaVersion", "The version of Ollama whose API this is.", "Version")},
    }


def _ollama_generating(request: str, meaning: str) -> Operation:
    name, line = request[0].lower() + request[1:], f"{request}Line"
    told = f"{meaning}, streamed unless `stream` is false."
    return generating(name, told, request, whole=line, event=line, streams=NDJSON)


_LIVENESS = "Liveness: some replica has no stage that hangs or is being restarted; `degraded` if another one has."


def _about_the_server() -> Paths:
    return {
        "/health": {"get": get("health", _LIVENESS, "Alive")},
        "/ping": {"get": get("ping", "As /health, for SageMaker.", "Alive")},
        "/v1/usage": {"get": get("usage", "Tokens and device time of the client's API key.", "KeysUsage")},
        "/load": {"get": get("load", "Number of requests that run or wait.", "Load")},
        "/ready": {"get": get("ready", "Readiness: requests that generate are accepted.", "Ready")},
        "/openapi.json": {"get": get("openapi", "This document.")},
    }


def _on_their_port(port: int) -> Paths:
    """What operators may change, on a port of their own; where that can be reached is not said here."""
    told = (
        "Say which nodes this router has from now on. Those that are not named leave: nothing new goes there. "
        "Only for an operator's API key, or on the same machine."
    )
    operation = post("nodes", told, reference("Nodes"), reference("NodeList"), errors=(403,))
    return {NODES: {"put": {**operation, "servers": [{"url": f"http://127.0.0.1:{port}"}]}}}


def _for_operators() -> Paths:
    seconds = {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_TRACE_S, "default": 5}
    parameter = {"name": "seconds", "in": "query", "required": False, "schema": seconds}
    stream = f"Metrics for the live page, an event every {INTERVAL_S:g} s; at most {MAX_WATCHERS} clients at a time."
    record = "Record all stages for `seconds`, as Chrome trace events; only for clients on the same machine."
    return {
        "/metrics": {"get": get_other("metrics", "Metrics in Prometheus text format.", "text/plain")},
        "/live": {"get": get_other("live", stream, "text/event-stream")},
        "/": {"get": get_other("page", "The live page, for browsers.", "text/html", unchanged=True)},
        "/debug/trace": {"get": get("trace", record, errors=(403,), parameters=[parameter])},
        WEIGHTS: _weights(),
    }


def _weights() -> dict[str, Operation]:
    change = (
        "Load other weights, one replica after the other; only for an operator's API key, or on the same machine."
    )
    changed = post("changeWeights", change, reference("WeightsRequest"), reference("Weights"), errors=(403, 409))
    under_way = {"description": "The folder fits; replicas are being started anew with it."}
    changed["responses"]["202"] = changed["responses"]["200"] | under_way
    changed["responses"]["200"]["description"] = "All replicas have them; only with `wait`."
    shown = get("weights", "Which weights each replica has, and how far a change is.", "Weights", errors=(403,))
    return {"get": shown, "post": changed}
