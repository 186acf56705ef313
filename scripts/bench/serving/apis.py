"""In which form a stream is asked for, and what its lines say. Backends are named as in ``vllm bench serve``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import orjson

from scripts.bench.serving.load import Outcome

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


# ---- what a request's lines come to -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds, as the device's clock has them: real ones times the time scale. Names are vLLM's."""

    success: bool
    start_time: float  # since the first request of the run could have started
    latency: float = 0.0  # to the last piece of the answer
    ttft: float = 0.0
    itl: tuple[float, ...] = ()
    prompt_tokens: int = 0
    output_tokens: int = 0
    queue_time: float = 0.0  # it waited so long in the client, for others to end
    lateness: float = 0.0  # the client started it so much later than it was due
    text: str = ""
    finish_reason: str | None = None
    error: str = ""

    @property
    def end_time(self) -> float:
        return self.start_time + self.latency


def read_answer(outcome: Outcome, api: Api, time_scale: float) -> Answer:
    """The outcome's number of prompt tokens counts where the server does not tell it."""
    answer = Answer(
        success=False,
        start_time=outcome.start_s * time_scale,
        queue_time=outcome.queue_s * time_scale,
        lateness=outcome.late_s * time_scale,
        prompt_tokens=outcome.prompt_tokens or 0,
        error=outcome.error,
    )
    reply = outcome.reply
    if reply is None:
        return answer
    if reply.status != 200:
        return replace(answer, error=f"HTTP {reply.status}: {error_message(reply.body)}")
    try:
        events = [api.read(line) for line in reply.lines]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, IndexError) as error:
        return replace(answer, error=f"an answer that {api.name} does not give: {error!r}")
    seconds = [(time - outcome.started_ns) / 1e9 * time_scale for time in reply.times_ns]
    return _read_events(answer, events, seconds)


def _read_events(answer: Answer, events: list[Event], seconds: list[float]) -> Answer:
    """`seconds` after the start of the request, one per event."""
    pieces = [second for event, second in zip(events, seconds, strict=True) if event.is_answer]
    error = next((event.error for event in events if event.error), None if pieces else "no token came")
    if error is not None:
        return replace(answer, error=error)
    tokens = [second for event, second in zip(events, seconds, strict=True) if event.is_token]
    told = [event.prompt_tokens for event in events if event.prompt_tokens]
    counted = [event.output_tokens for event in events if event.output_tokens is not None]
    return replace(
        answer,
        success=True,
        latency=pieces[-1],
        ttft=(tokens or pieces)[0],
        itl=tuple(after - before for before, after in pairwise(tokens)),
        prompt_tokens=told[-1] if told else answer.prompt_tokens,
        output_tokens=counted[-1] if counted else len(tokens),
        text="".join(event.text for event in events),
        finish_reason=next((event.finish_reason for event in reversed(events) if event.finish_reason), None),
    )
