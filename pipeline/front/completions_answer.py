"""Answers in the form of OpenAI's /v1/completions: one object, or server-sent events that end with [DONE]."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson

from pipeline.front.errors import ApiError
from pipeline.messages import Delta, FinishReason

TokenText = Callable[[int], str]

_REASONS = {
    FinishReason.NONE: b"null",
    FinishReason.LENGTH: b'"length"',
    FinishReason.EOS: b'"stop"',
    FinishReason.STOP: b'"stop"',
}


class Logprobs:
    """OpenAI's columns of log-probabilities, for the tokens since the last call of `json`."""

    def __init__(self, token_text: TokenText, top: int, offset: int) -> None:
        self._token_text, self._top, self._offset = token_text, top, offset
        self._clear()

    def _clear(self) -> None:
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("text_offset", "token_logprobs", "tokens", "top_logprobs")
        }

    def add(self, delta: Delta) -> None:
        text, columns = self._token_text(delta.token_id), self._columns
        columns["text_offset"].append(self._offset)
        columns["token_logprobs"].append(_finite(delta.logprob))
        columns["tokens"].append(text)
        columns["top_logprobs"].append(self._best(delta, text) if self._top else None)
        self._offset += len(delta.text)

    def _best(self, delta: Delta, text: str) -> dict[str, float]:
        """The best tokens, and the chosen one if it is none of them. Where two have the same text, the better."""
        best: dict[str, float] = {}
        for token, logprob in delta.top:
            best.setdefault(self._token_text(token), _finite(logprob))
        best.setdefault(text, _finite(delta.logprob))
        return best

    def json(self) -> bytes:
        columns = orjson.dumps(self._columns)
        self._clear()
        return columns


class CompletionsAnswer:
    """`echo`: the prompt, if the answer is to begin with it."""

    def __init__(
        self, request: int, model: str, *, include_usage: bool, logprobs: Logprobs | None, echo: str = ""
    ) -> None:
        self.content_type = b"text/event-stream; charset=utf-8"
        self._logprobs, self._echo, self._include_usage = logprobs, echo, include_usage
        self._head = b'{"id":"cmpl-%016x","object":"text_completion","created":%d,"model":%b,"choices":[' % (
            request,
            int(time.time()),
            orjson.dumps(model),
        )
        head, usage = self._head.replace(b"%", b"%%"), b',"usage":null' if include_usage else b""
        choice = b'{"index":0,"text":%b,"logprobs":%b,"finish_reason":%b}'
        self._chunk = b"data: " + head + choice + b"]" + usage + b"}\n\n"
        self._texts: list[str] = []
        self._last: Delta | None = None

    def event(self, delta: Delta) -> bytes:
        self._last = delta
        text = delta.text
        if self._echo:
            text, self._echo = self._echo + text, ""
        return self._chunk % (orjson.dumps(text), self._logprobs_of(delta), _REASONS[delta.reason])

    def _logprobs_of(self, delta: Delta) -> bytes:
        if self._logprobs is None:
            return b"null"
        self._logprobs.add(delta)
        return self._logprobs.json()

    def tail(self) -> bytes:
        usage = b"data: " + self._head + b'],"usage":' + self._usage() + b"}\n\n" if self._include_usage else b""
        return usage + b"data: [DONE]\n\n"

    def add(self, delta: Delta) -> None:
        self._last = delta
        self._texts.append(delta.text)
        if self._logprobs is not None:
            self._logprobs.add(delta)

    def whole(self) -> bytes:
        assert self._last is not None  # an answer has at least one token
        text = orjson.dumps(self._echo + "".join(self._texts))
        logprobs = b"null" if self._logprobs is None else self._logprobs.json()
        choice = b'{"index":0,"text":%b,"logprobs":%b,"finish_reason":%b}' % (
            text,
            logprobs,
            _REASONS[self._last.reason],
        )
        return self._head + choice + b'],"usage":' + self._usage() + b"}"

    def _usage(self) -> bytes:
        last = self._last
        assert last is not None
        return (
            b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}}'
            % (last.prompt_tokens, last.index, last.prompt_tokens + last.index, last.cached_tokens)
        )

    def failure(self, error: ApiError) -> bytes:
        return b"data: " + error.body() + b"\n\ndata: [DONE]\n\n"

    def translate(self, error: ApiError) -> ApiError:
        return error


def _finite(logprob: float) -> float:
    """JSON has no infinity; vLLM writes -9999 instead."""
    return round(max(logprob, -9999.0), 7)
