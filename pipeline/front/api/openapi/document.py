"""The whole document (https://spec.openapis.org/oas/v3.1.1)."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from pipeline.front.api.info_routes import LONGEST_TRACE_S
from pipeline.front.api.openapi.chat import chat_schemas
from pipeline.front.api.openapi.completions import completion_schemas
from pipeline.front.api.openapi.llm_serving import llm_serving_schemas
from pipeline.front.api.openapi.openai import models, usage
from pipeline.front.api.openapi.operations import Operation, error_responses, generating, get, get_other, post
from pipeline.front.api.openapi.schema import Schema, nullable, number, only, record, reference, text
from pipeline.front.api.openapi.tokenize import tokenize_schemas
from pipeline.front.http.access import is_open
from pipeline.front.page.feed import INTERVAL_S, MAX_WATCHERS
from pipeline.front.settings import FrontSettings

_KEY: Final = "apiKey"


def openapi_document(settings: FrontSettings, *, keys_needed: bool) -> dict[str, Any]:
    """The API on the main port, with `/metrics` and the like where they have no port of their own."""
    paths = {path: _operations(path, item, keys_needed) for path, item in _paths(settings).items()}
    components: dict[str, Any] = {"schemas": _schemas(settings), "responses": error_responses()}
    if keys_needed:
        components["securitySchemes"] = {_KEY: {"type": "http", "scheme": "bearer", "description": "An API key."}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "RingServe",
            "version": version("ringserve"),
            "summary": "The APIs of MindSpore's llm-serving and OpenAI.",
            "description": _limits(settings),
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": components,
    }


def _operations(path: str, item: dict[str, Operation], keys_needed: bool) -> dict[str, Operation]:
    for operation in item.values():
        if keys_needed and not is_open(path):
            operation["security"] = [{_KEY: []}]
            operation["responses"]["401"] = {"$ref": "#/components/responses/Error401"}
    return item


def _limits(settings: FrontSettings) -> str:
    return (
        f"Limits: a prompt has at most {settings.max_prompt} tokens, prompt and answer together "
        f"{settings.max_length}; a body {settings.body_limit_bytes} bytes, the request line and the headers "
        f"{settings.header_limit_bytes}; {settings.max_queue} requests wait in the queue. Every parameter takes "
        "effect or is refused; null counts as left out; integers have no fraction. HEAD works wherever GET does."
    )


def _paths(settings: FrontSettings) -> dict[str, dict[str, Operation]]:
    paths = {**_llm_serving(settings), **_openai(), **_about_the_server()}
    return paths if settings.metrics_port is not None else {**paths, **_for_operators()}


def _llm_serving(settings: FrontSettings) -> dict[str, dict[str, Operation]]:
    base, request, errors = f"/models/{settings.model_route}", "GenerateRequest", (404, 422)
    whole, event = "GenerateAnswer", "GenerateEvent"
    number_ = reference("Number")
    return {
        base: {
            "post": generating(
                "llmServing",
                "Generate text (llm-serving's API), streamed if `stream` is true.",
                request,
                whole=whole,
                event=event,
                errors=errors,
            )
        },
        f"{base}/generate": {
            "post": generating(
                "generate",
                "Generate text (llm-serving's API) and return it as a whole.",
                request,
                whole=whole,
                event=None,
                errors=errors,
            )
        },
        f"{base}/generate_stream": {
            "post": generating(
                "generateStream",
                "Generate text (llm-serving's API) and stream it.",
                request,
                whole=None,
                event=event,
                errors=errors,
            )
        },
        "/serving/get_bs": {"get": get("batchSize", "Number of running requests.", number_)},
        "/serving/get_request_numbers": {"get": get("requestNumbers", "Number of waiting requests.", number_)},
        "/serving/get_serverd_model_info": {
            "get": get("modelInfo", "The model and its limits.", reference("ModelInfo"))
        },
    }


def _openai() -> dict[str, dict[str, Operation]]:
    name = {"name": "model", "in": "path", "required": True, "schema": text(minLength=1)}
    return {
        "/v1/completions": {
            "post": generating(
                "completions",
                "Complete one prompt or several; streamed if `stream` is true.",
                "CompletionRequest",
                whole="Completion",
                event="CompletionEvent",
                errors=(404,),
            )
        },
        "/v1/chat/completions": {
            "post": generating(
                "chat",
                "Answer a conversation; streamed if `stream` is true.",
                "ChatRequest",
                whole="ChatCompletion",
                event="ChatEvent",
                errors=(404,),
            )
        },
        "/v1/models": {"get": get("models", "List the models: this server has one.", reference("Models"))},
        "/v1/models/{model}": {
            "get": get("model", "Describe the model.", reference("Model"), errors=(404,), parameters=[name])
        },
        "/tokenize": {
            "post": post(
                "tokenize", "Token ids of a text or chat.", "TokenizeRequest", reference("Tokens"), errors=(404,)
            )
        },
        "/detokenize": {
            "post": post("detokenize", "Text of token ids.", "DetokenizeRequest", reference("Text"), errors=(404,))
        },
        "/version": {"get": get("version", "RingServe's version.", record({"version": text()}))},
    }


def _about_the_server() -> dict[str, dict[str, Operation]]:
    return {
        "/health": {
            "get": get("health", "Liveness: no stage hangs or is being restarted.", record({"status": only("alive")}))
        },
        "/ready": {
            "get": get("ready", "Readiness: requests that generate are accepted.", record({"status": only("ready")}))
        },
        "/openapi.json": {"get": get("openapi", "This document.", {"type": "object"})},
    }


def _for_operators() -> dict[str, dict[str, Operation]]:
    seconds = number("", high=LONGEST_TRACE_S, exclusiveMinimum=0, default=5)
    parameter = {"name": "seconds", "in": "query", "required": False, "schema": seconds}
    stream = f"Metrics for the live page, an event every {INTERVAL_S:g} s; at most {MAX_WATCHERS} clients at a time."
    return {
        "/metrics": {"get": get_other("metrics", "Metrics in Prometheus text format.", "text/plain")},
        "/live": {"get": get_other("live", stream, "text/event-stream")},
        "/": {"get": get_other("page", "The live page, for browsers.", "text/html", unchanged=True)},
        "/debug/trace": {
            "get": get(
                "trace",
                "Record all stages for `seconds`, as Chrome trace events; only for clients on the same machine.",
                {"type": "object"},
                errors=(403,),
                parameters=[parameter],
            )
        },
    }


def _schemas(settings: FrontSettings) -> dict[str, Schema]:
    detail = {"message": text(), "type": text(), "param": nullable(text()), "code": nullable(text())}
    return {
        **llm_serving_schemas(settings),
        **completion_schemas(settings),
        **chat_schemas(settings),
        **tokenize_schemas(settings),
        **models(),
        "Usage": usage(),
        "ErrorDetail": record(detail),
        "Error": record({"error": reference("ErrorDetail")}),
    }
