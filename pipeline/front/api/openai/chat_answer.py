"""Answers in the form of OpenAI's /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from model.tokenizer import Vocabulary
from pipeline.front.api.chat.messages import call_id
from pipeline.front.api.chat.text_input import TextInput
from pipeline.front.api.openai.answer import REASONS, OpenAIChoice, OpenAIWriter, StreamOptions, finite
from pipeline.front.api.openai.scored import PromptLogprobs
from pipeline.front.delivery.job import (
    CallArguments,
    CallBegin,
    CallEnd,
    End,
    Event,
    Identity,
    Reasoning,
    Text,
    TokenEvent,
)
from pipeline.wire.delta import Delta, FinishReason

_DELTA = b'"delta":%b,"logprobs":%b,"finish_reason":null'
_CALLED = b'"tool_calls"'


@dataclass(frozen=True, slots=True)
class Shown:
    """What a client wants to see besides text. `custom`: names of tools that take a text."""

    reasoning: bool = True
    custom: frozenset[str] = frozenset()


class ChatWriter(OpenAIWriter):
    """`names`: also write the log-probabilities of the tokens. `listed`: those of the prompt."""

    PREFIX, CHUNK, WHOLE = "chatcmpl", "chat.completion.chunk", "chat.completion"

    def __init__(
        self,
        identity: Identity,
        model: str,
        options: StreamOptions,
        *,
        n: int,
        renamed: Mapping[str, str],
        names: Vocabulary | None = None,
        shown: Shown | None = None,
        listed: PromptLogprobs | None = None,
    ) -> None:
        super().__init__(identity, model, options, n, renamed)
        self._listed = listed
        shows = shown or Shown()
        self.choices = [ChatChoice(index, self._event, options, names, identity.seed, shows) for index in range(n)]

    def whole(self) -> bytes:
        answer = super().whole()
        return answer if self._listed is None else answer[:-1] + self._listed.member() + b"}"


@dataclass(slots=True)
class _Call:
    """`arguments` are kept for an answer in one piece. `text`: of a custom tool, whose input is read from them."""

    call_id: str
    name: str
    text: TextInput | None
    arguments: list[str] = field(default_factory=list)
    complete: bool = False

    @property
    def kind(self) -> tuple[str, str]:
        """Of the call, and what its arguments are named."""
        return ("function", "arguments") if self.text is None else ("custom", "input")

    def push(self, arguments: str) -> str:
        return arguments if self.text is None else self.text.push(arguments)

    def finish(self) -> str:
        """What was held back."""
        self.complete = True
        return "" if self.text is None else self.text.finish()

    def form(self, arguments: str) -> dict[str, Any]:
        kind, inner = self.kind
        return {"id": self.call_id, "type": kind, kind: {"name": self.name, inner: arguments}}


class ChatChoice(OpenAIChoice):
    """A stream begins with the role and ends with the reason: events of their own, beside one per token."""

    PLAIN = b'"delta":{"content":%b},"logprobs":null,"finish_reason":null'

    def __init__(
        self, index: int, heading: bytes, options: StreamOptions, names: Vocabulary | None, seed: str, shown: Shown
    ) -> None:
        super().__init__(index, heading, options, names)
        self._seed, self._shown = seed, shown
        self._calls: list[_Call] = []
        self._thoughts: list[str] = []  # of an answer in one piece

    def write(self, event: Event) -> bytes:
        match event:
            case Reasoning():
                return self._piece(event, {"reasoning_content": event.text} if self._shown.reasoning else {})
            case CallBegin():
                call = self._begin_call(event)
                return self._piece(event, {"tool_calls": [{"index": event.call, **call.form("")}]})
            case CallArguments():
                return self._piece(event, self._more(event, self._calls[event.call].push(event.text)))
            case CallEnd():
                return self._piece(event, self._more(event, self._calls[event.call].finish()))
        return super().write(event)

    def _more(self, event: CallArguments | CallEnd, text: str) -> dict[str, Any]:
        kind, inner = self._calls[event.call].kind
        return {"tool_calls": [{"index": event.call, kind: {inner: text}}]} if text else {}

    def keep(self, event: Event) -> None:
        match event:
            case Reasoning():
                if self._shown.reasoning:
                    self._thoughts.append(event.text)
            case CallBegin():
                self._begin_call(event)
            case CallArguments():
                call = self._calls[event.call]
                call.arguments.append(call.push(event.text))
            case CallEnd():
                self._calls[event.call].arguments.append(self._calls[event.call].finish())
            case _:
                super().keep(event)
                return
        self._tokens += self._new(event)

    def _begin_call(self, event: CallBegin) -> _Call:
        text = TextInput() if event.name in self._shown.custom else None
        call = _Call(call_id(self._seed, self.index, event.call), event.name, text)
        self._calls.append(call)
        return call

    def _begin(self) -> bytes:
        role = b'"delta":{"role":"assistant","content":%b},"logprobs":null,"finish_reason":null'
        return self._form(role, 0) % b'""'

    def _text(self, event: Text) -> bytes:
        token = event.token
        if not event.text and token.reason is not FinishReason.NONE and self._names is None:
            return b""  # the last token has no text, such as EOS
        return self._piece(event, {"content": event.text})

    def _piece(self, event: TokenEvent, delta: dict[str, Any]) -> bytes:
        if not delta and self._names is None:
            return b""
        return self._form(_DELTA, event.token.index) % (orjson.dumps(delta), self._logprobs_json(self._new(event)))

    def _end(self, event: End) -> bytes:
        form = self._form(b'"delta":{},"logprobs":null,"finish_reason":%b', event.token.index)
        return form % self._reason(event.reason)

    def _reason(self, reason: FinishReason) -> bytes:
        """Clients carry calls out when it says that there are some; one that a stop string has cut can't be."""
        called = self._calls and self._calls[-1].complete and reason is not FinishReason.LENGTH
        return _CALLED if called else REASONS[reason]

    def whole(self) -> bytes:
        assert self.last is not None  # an answer in one piece is written when all its choices have ended
        text = "".join(self._texts)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self._thoughts:
            message["reasoning_content"] = "".join(self._thoughts)
        if self._calls:
            message["content"] = text or None
            message["tool_calls"] = [call.form("".join(call.arguments)) for call in self._calls]
        form = b'{"index":%d,"message":%b,"logprobs":%b,"finish_reason":%b}'
        reason = self._reason(self.last.reason)
        return form % (self.index, orjson.dumps(message), self._logprobs_json(self._tokens), reason)

    def _logprobs(self, names: Vocabulary, tokens: Sequence[Delta]) -> dict[str, Any]:
        return {"content": named_tokens(names, tokens), "refusal": None}


def named_tokens(names: Vocabulary, tokens: Sequence[Delta]) -> list[dict[str, Any]]:
    """Log-probabilities, one object per token. `bytes` identifies tokens that are parts of a character."""

    def named(token_id: int, logprob: float) -> dict[str, Any]:
        text, octets = names.token_text(token_id), names.token_bytes(token_id)
        return {"token": text, "logprob": finite(logprob), "bytes": list(octets)}

    content = []
    for token in tokens:
        best = [named(*other) for other in token.top]
        content.append({**named(token.token_id, token.logprob), "top_logprobs": best})
    return content
