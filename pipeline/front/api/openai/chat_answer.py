"""Answers in the form of OpenAI's /v1/chat/completions."""

from __future__ import annotations

import orjson

from pipeline.front.api.openai.answer import REASONS, Heading, OpenAIChoice, StreamOptions
from pipeline.front.api.openai.logprobs import Logprobs
from pipeline.wire.delta import Delta, FinishReason


def chat_heading(request: int, model: str) -> Heading:
    return Heading("chatcmpl", "chat.completion.chunk", "chat.completion", request, model)


class ChatChoice(OpenAIChoice):
    """A stream begins with the role and ends with the reason: events of their own, beside one per token."""

    def __init__(self, index: int, heading: Heading, options: StreamOptions, logprobs: Logprobs | None) -> None:
        super().__init__(index, heading, options, logprobs)
        self._plain = self._plain_chunk(b'"delta":{"content":%b},"logprobs":null,"finish_reason":null')
        self._full = self._chunk(b'"delta":{"content":%b},"logprobs":%b,"finish_reason":null', b"%b")

    def event(self, delta: Delta) -> bytes:
        if self._plain is None or self.last is None or delta.reason is not FinishReason.NONE:
            return self._other_event(delta)
        self.last = delta
        return self._plain % orjson.dumps(delta.text)

    def _other_event(self, delta: Delta) -> bytes:
        """The first event, the last one, and events with more than a text."""
        events = []
        if self.last is None:
            role = b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null'
            events.append(self._chunk(role, b"%b") % self._counts(0))
        self.last = delta
        counts, ended = self._counts(delta.index), delta.reason is not FinishReason.NONE
        if delta.text or not ended or self._logprobs is not None:  # else the last token has no text, such as EOS
            events.append(self._full % (orjson.dumps(delta.text), self._logprobs_of(delta), counts))
        if ended:
            end = self._chunk(b'"delta":{},"logprobs":null,"finish_reason":%b', b"%b")
            events.append(end % (REASONS[delta.reason], counts))
        return b"".join(events)

    def whole(self) -> bytes:
        assert self.last is not None  # an answer has at least one token
        text, logprobs = orjson.dumps("".join(self._texts)), self._collected_logprobs()
        message = b'{"role":"assistant","content":%b,"refusal":null}' % text
        form = b'{"index":%d,"message":%b,"logprobs":%b,"finish_reason":%b}'
        return form % (self.index, message, logprobs, REASONS[self.last.reason])
