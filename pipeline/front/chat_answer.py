"""Answers in the form of OpenAI's /v1/chat/completions."""

from __future__ import annotations

import orjson

from pipeline.front.logprobs import Logprobs
from pipeline.front.openai_answer import REASONS, Heading, OpenAIChoice, StreamOptions
from pipeline.messages import Delta, FinishReason


def chat_heading(request: int, model: str) -> Heading:
    return Heading("chatcmpl", "chat.completion.chunk", "chat.completion", request, model)


class ChatChoice(OpenAIChoice):
    """A stream begins with the role and ends with the reason: events of their own, beside one per token."""

    def __init__(self, index: int, heading: Heading, options: StreamOptions, logprobs: Logprobs | None) -> None:
        super().__init__(index, heading, options, logprobs)
        self._event = self._chunk(b'"delta":{"content":%b},"logprobs":%b,"finish_reason":null')
        self._end = self._chunk(b'"delta":{},"logprobs":null,"finish_reason":%b')

    def event(self, delta: Delta) -> bytes:
        start = self._start(delta) if self.last is None else b""
        self.last = delta
        usage = self._usage(delta, delta.index)
        end = b"" if delta.reason is FinishReason.NONE else self._end % (REASONS[delta.reason], usage)
        if end and not delta.text and self._logprobs is None:
            return start + end  # a token that ends the text shows nothing of itself
        return start + self._event % (orjson.dumps(delta.text), self._logprobs_of(delta), usage) + end

    def _start(self, delta: Delta) -> bytes:
        form = self._chunk(b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null')
        return form % self._usage(delta, 0)

    def whole(self) -> bytes:
        assert self.last is not None  # an answer has at least one token
        text, logprobs = orjson.dumps("".join(self._texts)), self._collected_logprobs()
        message = b'{"role":"assistant","content":%b,"refusal":null}' % text
        form = b'{"index":%d,"message":%b,"logprobs":%b,"finish_reason":%b}'
        return form % (self.index, message, logprobs, REASONS[self.last.reason])
