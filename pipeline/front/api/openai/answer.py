"""What the answers of /v1/completions and /v1/chat/completions have in common.

One object, or server-sent events that end with [DONE]. The constant parts of an event are bytes made once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import orjson

from model.tokenizer import Vocabulary
from pipeline.front.delivery.job import Begin, End, Event, Identity, Text, Times, TokenEvent, unwritable
from pipeline.front.http.errors import ApiError
from pipeline.wire.delta import Delta, FinishReason

_REASONS = {FinishReason.LENGTH: b'"length"', FinishReason.EOS: b'"stop"', FinishReason.STOP: b'"stop"'}
REASONS = tuple(_REASONS.get(reason, b"null") for reason in FinishReason)  # by value: hashing an enum is slow
_CONTINUES = FinishReason.NONE


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """`include_usage`: one more event at the end; `continuous_usage`, vLLM's extension: usage in every event."""

    include_usage: bool = False
    continuous_usage: bool = False


class OpenAIChoice(ABC):
    """One text of an answer. `heading`: how each of its events begins. `names`: of tokens, if log-probabilities are
    wanted."""

    PLAIN: ClassVar[bytes]
    """Of an event that holds nothing but a text, for which there is a placeholder."""

    def __init__(self, index: int, heading: bytes, options: StreamOptions, names: Vocabulary | None) -> None:
        self.index, self.prompt = index, Begin(index, 0, 0)
        self.last: End | None = None
        self._options, self._names = options, names
        self._head = heading.replace(b"%", b"%%") + b'{"index":%d,' % index
        self._plain: bytes | None = None  # the form of all texts but the first and the last
        self._texts: list[str] = []  # of an answer in one piece
        self._tokens: list[Delta] = []  # of one with log-probabilities

    def write(self, event: Event) -> bytes:
        if self._plain is not None and type(event) is Text and event.token.reason is _CONTINUES:
            return self._plain % orjson.dumps(event.text)
        match event:
            case Begin():
                self.prompt = event
                return self._begin()
            case Text():
                if self._names is None and not self._options.continuous_usage:
                    self._plain = self._form(self.PLAIN, 0)
                return self._text(event)
            case End():
                self.last = event
                return self._end(event)
        raise unwritable(self, event)

    def keep(self, event: Event) -> None:
        match event:
            case Begin():
                self.prompt = event
            case Text():
                self._texts.append(event.text)
                self._tokens += self._new(event)
            case End():
                self.last = event
            case _:
                raise unwritable(self, event)

    @abstractmethod
    def whole(self) -> bytes:
        """The choice as JSON, after its end."""

    def _begin(self) -> bytes:
        return b""

    @abstractmethod
    def _text(self, event: Text) -> bytes: ...

    def _end(self, event: End) -> bytes:
        return b""

    @abstractmethod
    def _logprobs(self, names: Vocabulary, tokens: Sequence[Delta]) -> dict[str, Any]:
        """Log-probabilities of these tokens, which follow those of the call before."""

    def _new(self, event: TokenEvent) -> list[Delta]:
        """Tokens whose log-probabilities come with this event: each once, though it may bring several."""
        return [event.token] if self._names is not None and event.part == 0 else []

    def _logprobs_json(self, tokens: Sequence[Delta]) -> bytes:
        names = self._names
        return b"null" if names is None or not tokens else orjson.dumps(self._logprobs(names, tokens))

    def _everything(self, before: str = "") -> tuple[bytes, bytes, bytes]:
        """What was kept: text, log-probabilities and reason of the end, as JSON."""
        assert self.last is not None  # an answer in one piece is written when all its choices have ended
        text = orjson.dumps(before + "".join(self._texts))
        return text, self._logprobs_json(self._tokens), REASONS[self.last.reason]

    def _form(self, choice: bytes, completion_tokens: int) -> bytes:
        """A format string for events, with the placeholders of `choice`."""
        counts = b',"usage":null' if self._options.include_usage else b""
        if self._options.continuous_usage:
            counts = b',"usage":' + usage([self.prompt], completion_tokens)
        return self._head + choice + b"}]" + counts + b"}\n\n"


class OpenAIWriter:
    """`n` choices belong to each prompt. `renamed`: our name of a parameter → the client's."""

    content_type = b"text/event-stream; charset=utf-8"
    END: ClassVar[bytes] = b"\n\n"
    PING: ClassVar[bytes] = b": ping\n\n"
    choices: Sequence[OpenAIChoice]

    PREFIX: ClassVar[str]
    CHUNK: ClassVar[str]
    WHOLE: ClassVar[str]
    """Of ids; kind of an event; kind of an answer in one piece."""

    def __init__(
        self, identity: Identity, model: str, options: StreamOptions, n: int, renamed: Mapping[str, str] | None = None
    ) -> None:
        self._identity, self._model, self._options = identity, model, options
        self._n, self._renamed = n, renamed or {}
        self._event = b"data: " + self._heading(self.CHUNK)
        self._times: Times | None = None

    def measured(self, times: Times) -> None:
        """To be shown in the usage."""
        self._times = times

    def _heading(self, kind: str) -> bytes:
        """Up to the choices."""
        name, created = f"{self.PREFIX}-{self._identity.seed}", self._identity.created
        return (
            orjson.dumps({"id": name, "object": kind, "created": created, "model": self._model})[:-1]
            + b',"choices":['
        )

    def tail(self) -> bytes:
        counts = self._event + b'],"usage":' + self._usage() + b"}\n\n" if self._options.include_usage else b""
        return counts + b"data: [DONE]\n\n"

    def failure(self, error: ApiError) -> bytes:
        return b"data: " + error.body() + b"\n\ndata: [DONE]\n\n"

    def whole(self) -> bytes:
        choices = b",".join([choice.whole() for choice in self.choices])
        return self._heading(self.WHOLE) + choices + b'],"usage":' + self._usage() + b"}"

    def _usage(self) -> bytes:
        """A prompt counts once, however many choices are made of it."""
        prompts = [choice.prompt for choice in self.choices[:: self._n]]
        tokens = sum(choice.last.token.index for choice in self.choices if choice.last is not None)
        return usage(prompts, tokens, b"" if self._times is None else seconds(self._times) + weights(self._times))

    def translate(self, error: ApiError) -> ApiError:
        return named_by_client(error, self._renamed)


def named_by_client(error: ApiError, names: Mapping[str, str]) -> ApiError:
    """With the client's name of the parameter."""
    name = names.get(error.parameter or "")
    return error if name is None else replace(error, parameter=name)


def seconds(times: Times) -> bytes:
    """Members of a usage; the first four as other servers name them."""
    every = (times.queue_ns, times.prompt_ns, times.output_ns, times.total_ns, times.device_ns, times.host_ns)
    form = (
        b',"queue_time":%.6f,"prompt_time":%.6f,"completion_time":%.6f,"total_time":%.6f,"device_time":%.6f,'
        b'"host_time":%.6f'
    )
    return form % tuple(ns / 1e9 for ns in every)


def weights(times: Times) -> bytes:
    """A member of a usage: of each choice the ids of weights, and the first token that each has computed."""
    origins = [[{"from": first, "id": one} for first, one in origin if one] for origin in times.origins]
    return b',"weights":' + orjson.dumps(origins) if any(origins) else b""


def usage(prompts: Sequence[Begin], completion: int, more: bytes = b"") -> bytes:
    prompt = sum(one.prompt_tokens for one in prompts)
    cached = sum(one.cached_tokens for one in prompts)
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}%b}'
        % (prompt, completion, prompt + completion, cached, more)
    )


def finite(logprob: float) -> float:
    """JSON has no infinity; vLLM writes -9999 instead."""
    return round(max(logprob, -9999.0), 7)
