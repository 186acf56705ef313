"""Answers in the form of OpenAI's /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from model.tokenizer import Tokenizer
from pipeline.front.api.openai.answer import REASONS, OpenAIChoice, OpenAIWriter, StreamOptions, finite
from pipeline.front.delivery.job import End, Identity, Text
from pipeline.wire.delta import Delta, FinishReason


class ChatWriter(OpenAIWriter):
    """`names`: also write the log-probabilities of the tokens."""

    PREFIX, CHUNK, WHOLE = "chatcmpl", "chat.completion.chunk", "chat.completion"

    def __init__(
        self,
        identity: Identity,
        model: str,
        options: StreamOptions,
        *,
        n: int,
        renamed: Mapping[str, str],
        names: Tokenizer | None = None,
    ) -> None:
        super().__init__(identity, model, options, n, renamed)
        self.choices = [ChatChoice(index, self._event, options, names) for index in range(n)]


class ChatChoice(OpenAIChoice):
    """A stream begins with the role and ends with the reason: events of their own, beside one per token."""

    PLAIN = b'"delta":{"content":%b},"logprobs":null,"finish_reason":null'

    def _begin(self) -> bytes:
        role = b'"delta":{"role":"assistant","content":%b},"logprobs":null,"finish_reason":null'
        return self._form(role, 0) % b'""'

    def _text(self, event: Text) -> bytes:
        token = event.token
        if not event.text and token.reason is not FinishReason.NONE and self._names is None:
            return b""  # the last token has no text, such as EOS
        form = self._form(b'"delta":{"content":%b},"logprobs":%b,"finish_reason":null', token.index)
        return form % (orjson.dumps(event.text), self._logprobs_json([event.token]))

    def _end(self, event: End) -> bytes:
        return self._form(b'"delta":{},"logprobs":null,"finish_reason":%b', event.token.index) % REASONS[event.reason]

    def whole(self) -> bytes:
        text, logprobs, reason = self._everything()
        message = b'{"role":"assistant","content":%b,"refusal":null}' % text
        form = b'{"index":%d,"message":%b,"logprobs":%b,"finish_reason":%b}'
        return form % (self.index, message, logprobs, reason)

    def _logprobs(self, names: Tokenizer, tokens: Sequence[Delta]) -> dict[str, Any]:
        return {"content": named_tokens(names, tokens), "refusal": None}


def named_tokens(names: Tokenizer, tokens: Sequence[Delta]) -> list[dict[str, Any]]:
    """Log-probabilities, one object per token. `bytes` identifies tokens that are parts of a character."""

    def named(token_id: int, logprob: float) -> dict[str, Any]:
        text, octets = names.token_text(token_id), names.token_bytes(token_id)
        return {"token": text, "logprob": finite(logprob), "bytes": list(octets)}

    content = []
    for token in tokens:
        best = [named(*other) for other in token.top]
        content.append({**named(token.token_id, token.logprob), "top_logprobs": best})
    return content
