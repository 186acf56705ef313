"""Answers in the form of OpenAI's /v1/completions."""

from __future__ import annotations

import orjson

from pipeline.front.api.openai.answer import REASONS, Heading, OpenAIChoice, StreamOptions
from pipeline.front.api.openai.logprobs import Logprobs
from pipeline.wire.delta import Delta


def completion_heading(request: int, model: str) -> Heading:
    return Heading("cmpl", "text_completion", "text_completion", request, model)


class CompletionChoice(OpenAIChoice):
    """`echo`: the prompt, if the text begins with it."""

    def __init__(
        self, index: int, heading: Heading, options: StreamOptions, logprobs: Logprobs | None, echo: str = ""
    ) -> None:
        super().__init__(index, heading, options, logprobs)
        self._echo = echo
        self._plain = self._plain_chunk(b'"text":%b,"logprobs":null,"finish_reason":%b')
        self._full = self._chunk(b'"text":%b,"logprobs":%b,"finish_reason":%b', b"%b")

    def event(self, delta: Delta) -> bytes:
        self.last = delta
        text = delta.text
        if self._echo:
            text, self._echo = self._echo + text, ""
        if self._plain is not None:
            return self._plain % (orjson.dumps(text), REASONS[delta.reason])
        counts = self._counts(delta.index)
        return self._full % (orjson.dumps(text), self._logprobs_of(delta), REASONS[delta.reason], counts)

    def whole(self) -> bytes:
        assert self.last is not None  # an answer has at least one token
        text, logprobs = orjson.dumps(self._echo + "".join(self._texts)), self._collected_logprobs()
        form = b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b}'
        return form % (self.index, text, logprobs, REASONS[self.last.reason])
