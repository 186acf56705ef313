"""Answers in the form of OpenAI's /v1/completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from model.tokenizer import Vocabulary
from pipeline.front.api.openai.answer import REASONS, OpenAIChoice, OpenAIWriter, StreamOptions, finite
from pipeline.front.api.openai.scored import EchoScores, PromptLogprobs, best_by_text
from pipeline.front.delivery.job import End, Event, Identity, ScoreReader, Text, TokenEvent
from pipeline.wire.delta import Delta, FinishReason


@dataclass(frozen=True, slots=True)
class ShownPrompt:
    """What an answer shows of a prompt. `text`: with which its texts begin, and the scores of that; and a list."""

    text: str = ""
    echo: EchoScores | None = None
    listed: PromptLogprobs | None = None

    @property
    def scores(self) -> tuple[ScoreReader, ...]:
        return tuple(one for one in (self.echo, self.listed) if one is not None)


class CompletionWriter(OpenAIWriter):
    """`n` choices for each of `prompts`. `names`: also write the log-probabilities of the tokens, and of the `top`
    most probable ones beside each."""

    PREFIX, CHUNK, WHOLE = "cmpl", "text_completion", "text_completion"

    def __init__(
        self,
        identity: Identity,
        model: str,
        options: StreamOptions,
        *,
        n: int,
        prompts: Sequence[ShownPrompt],
        renamed: Mapping[str, str] | None = None,
        names: Vocabulary | None = None,
        top: int = 0,
        kind: type[CompletionChoice] | None = None,
    ) -> None:
        super().__init__(identity, model, options, n, renamed)
        each, make = enumerate(one for one in prompts for _ in range(n)), kind or CompletionChoice
        self.choices = [make(index, self._event, options, names, top, prompt) for index, prompt in each]


class CompletionChoice(OpenAIChoice):
    PLAIN = b'"text":%b,"logprobs":null,"finish_reason":null'

    def __init__(
        self,
        index: int,
        heading: bytes,
        options: StreamOptions,
        names: Vocabulary | None,
        top: int,
        shown: ShownPrompt,
    ) -> None:
        super().__init__(index, heading, options, names)
        self._top, self._echo, self._scores, self._listed = top, shown.text, shown.echo, shown.listed
        self._offset = len(shown.text)

    def _text(self, event: Text) -> bytes:
        """The prompt comes with the first token, and the reason of the end with the last."""
        text, self._echo = orjson.dumps(self._echo + event.text), ""
        form = self._form(b'"text":%b,"logprobs":%b,"finish_reason":%b', event.token.index)
        return form % (text, self._logprobs_json(self._new(event)), REASONS[event.token.reason])

    def whole(self) -> bytes:
        form = b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b%b}'
        listed = b"" if self._listed is None else self._listed.member()
        return form % (self.index, *self._everything(self._echo), listed)

    def _logprobs_json(self, tokens: Sequence[Delta]) -> bytes:
        """The prompt's come with the first token's."""
        scores, self._scores = self._scores, None
        if scores is None or self._names is None:
            return super()._logprobs_json(tokens)
        return scores.before(self._logprobs(self._names, tokens))

    def _logprobs(self, names: Vocabulary, tokens: Sequence[Delta]) -> dict[str, Any]:
        """Columns."""
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token.text)
        return {
            "text_offset": offsets,
            "token_logprobs": [finite(token.logprob) for token in tokens],
            "tokens": [names.token_text(token.token_id) for token in tokens],
            "top_logprobs": [self._best(names, token) if self._top else None for token in tokens],
        }

    @staticmethod
    def _best(names: Vocabulary, token: Delta) -> dict[str, float]:
        return best_by_text(names, token.top, token.token_id, token.logprob)


class PromptAlone(CompletionChoice):
    """The answer to `max_tokens` 0. A token is computed, since nothing is sent before one is there, and left out."""

    def write(self, event: Event) -> bytes:
        return super().write(_without_token(event))

    def keep(self, event: Event) -> None:
        super().keep(_without_token(event))

    def _new(self, event: TokenEvent) -> list[Delta]:
        return []


def _without_token(event: Event) -> Event:
    if not isinstance(event, Text | End):
        return event
    nothing = msgspec.structs.replace(event.token, index=0, text="", reason=FinishReason.LENGTH)
    if isinstance(event, Text):
        return Text(event.choice, nothing, event.part, "")
    return End(event.choice, nothing, event.part, FinishReason.LENGTH)
