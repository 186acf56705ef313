"""In which form a stream is asked for, and what its lines say. Backends are named as in ``vllm bench serve``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import orjson

Prompt = str | list[int]


@dataclass(frozen=True, slots=True)
class Ask:
    """What one request asks for, whatever the API."""

    prompt: Prompt
    max_tokens: int
    model: str
    temperature: float
    ignore_eos: bool
    extra: Mapping[str, Any]  # merged into the body, or into llm-serving's parameters


@dataclass(frozen=True, slots=True)
class Event:
    """What one line says. Fields are None where the line says nothing about it."""

    is_token: bool = False  # text has come, or a token that completes no character
    is_answer: bool = False  # part of the answer: the request lasts at least until here
    text: str = ""
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    finish_reason: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Api:
    name: str
    path: str
    body: Callable[[Ask], dict[str, Any]]
    read: Callable[[bytes], Event]
    keep_alive: bool  # llm-serving's load client sends "Connection: close"
    takes_ids: bool  # prompts may be token ids


# ---- llm-serving -------------------------------------------------------------------------------------------------


def _llm_serving_body(ask: Ask) -> dict[str, Any]:
    """As the known load client: greedy unless a temperature is given, and a last line with the whole text."""
    sampled: dict[str, Any] = {"temperature": ask.temperature} if ask.temperature else {}
    parameters = {"do_sample": bool(sampled), "max_new_tokens": ask.max_tokens, "return_full_text": True} | sampled
    if ask.ignore_eos:
        parameters["ignore_eos"] = True
    return {"inputs": ask.prompt, "parameters": parameters | dict(ask.extra), "stream": True}


def _llm_serving_event(line: bytes) -> Event:
    data = orjson.loads(line.removeprefix(b"data:"))
    data = data.get("data", data)
    if error := data.get("error"):
        return Event(error=_message(error))
    if "generated_tokens" in data:  # the last line repeats everything
        return Event(is_answer=True, output_tokens=data["generated_tokens"], finish_reason=data["finish_reason"])
    return Event(is_token=True, is_answer=True, text=data["generated_text"])


# ---- OpenAI ------------------------------------------------------------------------------------------------------


def _openai_options(ask: Ask) -> dict[str, Any]:
    options: dict[str, Any] = {"temperature": ask.temperature, "stream": True}
    if ask.ignore_eos:
        options["ignore_eos"] = True
    return options | {"stream_options": {"include_usage": True}} | dict(ask.extra)


def _completion_body(ask: Ask) -> dict[str, Any]:
    return {"model": ask.model, "prompt": ask.prompt, "max_tokens": ask.max_tokens} | _openai_options(ask)


def _chat_body(ask: Ask) -> dict[str, Any]:
    messages = [{"role": "user", "content": ask.prompt}]
    return {"model": ask.model, "messages": messages, "max_tokens": ask.max_tokens} | _openai_options(ask)


def _openai_event(line: bytes) -> Event:
    """Of completions and of chat. A role alone is no token; neither is an empty text with a reason to end, which
    some servers send when the last token has gone out."""
    if not line.startswith(b"data:") or (payload := line[5:].strip()) == b"[DONE]":
        return Event()
    chunk = orjson.loads(payload)
    if error := chunk.get("error"):
        return Event(error=_message(error))
    usage = chunk.get("usage") or {}
    told = Event(output_tokens=usage.get("completion_tokens"), prompt_tokens=usage.get("prompt_tokens"))
    if not chunk.get("choices"):
        return told
    choice = chunk["choices"][0]
    delta = choice.get("delta", choice)
    text = delta.get("text") or delta.get("content") or ""
    reason = choice.get("finish_reason")
    is_token = bool(text) or (reason is None and "role" not in delta)
    return replace(told, is_token=is_token, is_answer=True, text=text, finish_reason=reason)


def _message(error: Any) -> str:
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def error_message(body: bytes) -> str:
    """What an answer with an error status says."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:200].decode(errors="replace")
    return _message(told.get("error", told)) if isinstance(told, dict) else str(told)[:200]


_APIS = (
    Api("llm-serving", "/models/llama2/generate_stream", _llm_serving_body, _llm_serving_event, False, False),
    Api("openai", "/v1/completions", _completion_body, _openai_event, True, True),
    Api("openai-chat", "/v1/chat/completions", _chat_body, _openai_event, True, False),
)
APIS: Mapping[str, Api] = MappingProxyType({api.name: api for api in _APIS} | {"vllm": _APIS[1]})
