"""Answers in the form of OpenAI's /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from pipeline.front.api.openai.answer import (
    REASONS,
    Heading,
    OpenAIChoice,
    OpenAIWriter,
    StreamOptions,
    TokenNames,
    finite,
)
from pipeline.front.delivery.job import End, Identity, Text
from pipeline.wire.delta import Delta, FinishReason


class ChatWriter(OpenAIWriter):
    """`names`: also write the log-probabilities of the tokens."""

    def __init__(
        self,
        identity: Identity,
        model: str,
        options: StreamOptions,
        *,
        n: int,
        renamed: Mapping[str, str],
        names: TokenNames | None = None,
    ) -> None:
        heading = Heading("chatcmpl", "chat.completion.chunk", "chat.completion", identity, model)
        logprobs = [None if names is None else ChatLogprobs(names) for _ in range(n)]
        choices = [ChatChoice(index, heading, options, logprobs[index]) for index in range(n)]
        super().__init__(heading, options, choices, per_prompt=n, renamed=renamed)


class ChatChoice(OpenAIChoice):
    """A stream begins with the role and ends with the reason: events of their own, beside one per token."""

    PLAIN = b'"delta":{"content":%b},"logprobs":null,"finish_reason":null'

    def _begin(self) -> bytes:
        role = b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null'
        return self._chunk(role, self._counts(0)) % ()

    def _text(self, event: Text) -> bytes:
        token = event.token
        if not event.text and token.reason is not FinishReason.NONE and self._logprobs is None:
            return b""  # the last token has no text, such as EOS
        form = self._chunk(b'"delta":{"content":%b},"logprobs":%b,"finish_reason":null', self._counts(token.index))
        return form % (orjson.dumps(event.text), self._logprobs_of(event))

    def _end(self, event: End) -> bytes:
        form = self._chunk(b'"delta":{},"logprobs":null,"finish_reason":%b', self._counts(event.token.index))
        return form % REASONS[event.reason]

    def whole(self) -> bytes:
        text, logprobs, reason = self._kept
        message = b'{"role":"assistant","content":%b,"refusal":null}' % text
        form = b'{"index":%d,"message":%b,"logprobs":%b,"finish_reason":%b}'
        return form % (self.index, message, logprobs, reason)


class ChatLogprobs:
    """One object per token. `bytes` identifies tokens that are parts of a character."""

    def __init__(self, names: TokenNames) -> None:
        self._names = names
        self._content: list[dict[str, Any]] = []

    def add(self, token: Delta) -> None:
        best = [self._token(other, logprob) for other, logprob in token.top]
        self._content.append({**self._token(token.token_id, token.logprob), "top_logprobs": best})

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        names = self._names
        return {
            "token": names.token_text(token_id),
            "logprob": finite(logprob),
            "bytes": list(names.token_bytes(token_id)),
        }

    def json(self) -> bytes:
        content, self._content = self._content, []
        return orjson.dumps({"content": content, "refusal": None})
