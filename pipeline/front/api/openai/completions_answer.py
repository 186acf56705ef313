"""Answers in the form of OpenAI's /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
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
from pipeline.front.delivery.job import Identity, Text
from pipeline.wire.delta import Delta


class CompletionWriter(OpenAIWriter):
    """`n` choices for each of `echoes`: the prompts, if the texts begin with them, else empty. `names`: also write
    the log-probabilities of the tokens, and of the `top` most probable ones beside each."""

    def __init__(
        self,
        identity: Identity,
        model: str,
        options: StreamOptions,
        *,
        n: int,
        echoes: Sequence[str],
        names: TokenNames | None = None,
        top: int = 0,
    ) -> None:
        heading = Heading("cmpl", "text_completion", "text_completion", identity, model)
        choices = []
        for index in range(n * len(echoes)):
            logprobs = None if names is None else CompletionLogprobs(names, top)
            choices.append(CompletionChoice(index, heading, options, logprobs, echoes[index // n]))
        super().__init__(heading, options, choices, per_prompt=n)


class CompletionChoice(OpenAIChoice):
    PLAIN = b'"text":%b,"logprobs":null,"finish_reason":null'

    def __init__(
        self, index: int, heading: Heading, options: StreamOptions, logprobs: CompletionLogprobs | None, echo: str
    ) -> None:
        super().__init__(index, heading, options, logprobs)
        self._echo = echo  # before the first text

    def _text(self, event: Text) -> bytes:
        """The reason of the end comes with the last token."""
        text, self._echo = orjson.dumps(self._echo + event.text), ""
        form = self._chunk(b'"text":%b,"logprobs":%b,"finish_reason":%b', self._counts(event.token.index))
        return form % (text, self._logprobs_of(event), REASONS[event.token.reason])

    def whole(self) -> bytes:
        self._texts.insert(0, self._echo)
        return b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b}' % (self.index, *self._kept)


class CompletionLogprobs:
    """Columns."""

    def __init__(self, names: TokenNames, top: int) -> None:
        self._names, self._top, self._offset = names, top, 0
        self._clear()

    def _clear(self) -> None:
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("text_offset", "token_logprobs", "tokens", "top_logprobs")
        }

    def add(self, token: Delta) -> None:
        text, columns = self._names.token_text(token.token_id), self._columns
        columns["text_offset"].append(self._offset)
        columns["token_logprobs"].append(finite(token.logprob))
        columns["tokens"].append(text)
        columns["top_logprobs"].append(self._best(token, text) if self._top else None)
        self._offset += len(token.text)

    def _best(self, token: Delta, text: str) -> dict[str, float]:
        """The most probable tokens, and the chosen one if it is not among them. Of two with the same text, the more
        probable one."""
        best: dict[str, float] = {}
        for other, logprob in token.top:
            best.setdefault(self._names.token_text(other), finite(logprob))
        best.setdefault(text, finite(token.logprob))
        return best

    def json(self) -> bytes:
        columns = orjson.dumps(self._columns)
        self._clear()
        return columns
