"""What the answers of /v1/completions and /v1/chat/completions have in common.

One object, or server-sent events that end with [DONE]. The constant parts of an event are bytes made once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import orjson

from pipeline.front.delivery.job import Begin, End, Event, Identity, Text, unwritable
from pipeline.front.http.errors import ApiError
from pipeline.wire.delta import Delta, FinishReason

_REASONS = {FinishReason.LENGTH: b'"length"', FinishReason.EOS: b'"stop"', FinishReason.STOP: b'"stop"'}
REASONS = tuple(_REASONS.get(reason, b"null") for reason in FinishReason)  # by value: hashing an enum is slow
_CONTINUES = FinishReason.NONE


class TokenNames(Protocol):
    """What log-probabilities need of a tokenizer."""

    def token_text(self, token_id: int) -> str: ...

    def token_bytes(self, token_id: int) -> bytes: ...


class Logprobs(Protocol):
    """Collects tokens until `json` is called, which starts over."""

    def add(self, token: Delta) -> None: ...

    def json(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """`include_usage`: one more event at the end; `continuous_usage`, vLLM's extension: usage in every event."""

    include_usage: bool = False
    continuous_usage: bool = False


@dataclass(frozen=True, slots=True)
class Heading:
    """How an answer begins. `chunk` is the kind of object that an event is, `whole` that of a whole answer."""

    prefix: str
    chunk: str
    whole: str
    identity: Identity
    model: str

    def bytes(self, kind: str) -> bytes:
        """Up to the choices."""
        name, created = f"{self.prefix}-{self.identity.seed}", self.identity.created
        head = orjson.dumps({"id": name, "object": kind, "created": created, "model": self.model})
        return head[:-1] + b',"choices":['


class OpenAIChoice(ABC):
    """One text of an answer. Subclasses give its form."""

    PLAIN: ClassVar[bytes]
    """Of an event that holds nothing but a text, for which there is a placeholder."""

    def __init__(self, index: int, heading: Heading, options: StreamOptions, logprobs: Logprobs | None) -> None:
        self.index = index
        self.prompt = Begin(index, 0, 0)
        self.last: End | None = None
        self._options, self._logprobs = options, logprobs
        self._head = b'data: %b{"index":%d,' % (heading.bytes(heading.chunk), index)
        self._texts: list[str] = []
        self._plain: bytes | None = None  # the form of all texts but the first and the last

    def write(self, event: Event) -> bytes:
        if self._plain is not None and type(event) is Text and event.token.reason is _CONTINUES:
            return self._plain % orjson.dumps(event.text)
        match event:
            case Begin():
                self.prompt = event
                return self._begin()
            case Text():
                if self._logprobs is None and not self._options.continuous_usage:
                    self._plain = self._chunk(self.PLAIN, self._counts(0))
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
                if self._logprobs is not None:
                    self._logprobs.add(event.token)
            case End():
                self.last = event
            case _:
                raise unwritable(self, event)

    def _begin(self) -> bytes:
        return b""

    @abstractmethod
    def _text(self, event: Text) -> bytes: ...

    def _end(self, event: End) -> bytes:
        return b""

    @abstractmethod
    def whole(self) -> bytes:
        """The choice as JSON, after its end."""

    def _chunk(self, choice: bytes, counts: bytes) -> bytes:
        """A format string for events, with the placeholders of `choice`."""
        return self._head.replace(b"%", b"%%") + choice + b"}]" + counts + b"}\n\n"

    def _counts(self, completion_tokens: int) -> bytes:
        if self._options.continuous_usage:
            return b',"usage":' + usage([self.prompt], completion_tokens)
        return b',"usage":null' if self._options.include_usage else b""

    def _logprobs_of(self, event: Text) -> bytes:
        if self._logprobs is None:
            return b"null"
        self._logprobs.add(event.token)
        return self._logprobs.json()

    @property
    def _kept(self) -> tuple[bytes, bytes, bytes]:
        """Text, log-probabilities and reason of the end, as JSON."""
        assert self.last is not None  # an answer that is not streamed is written when all choices have ended
        logprobs = b"null" if self._logprobs is None else self._logprobs.json()
        return orjson.dumps("".join(self._texts)), logprobs, REASONS[self.last.reason]


class OpenAIWriter:
    """`per_prompt` choices belong to each prompt. `renamed`: our name of a parameter → the client's."""

    content_type = b"text/event-stream; charset=utf-8"

    def __init__(
        self,
        heading: Heading,
        options: StreamOptions,
        choices: Sequence[OpenAIChoice],
        *,
        per_prompt: int,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        self.choices = choices
        self._heading, self._options = heading, options
        self._per_prompt, self._renamed = per_prompt, renamed or {}

    def tail(self) -> bytes:
        if not self._options.include_usage:
            return b"data: [DONE]\n\n"
        head = b"data: " + self._heading.bytes(self._heading.chunk)
        return head + b'],"usage":' + self._usage() + b"}\n\ndata: [DONE]\n\n"

    def failure(self, error: ApiError) -> bytes:
        return b"data: " + error.body() + b"\n\ndata: [DONE]\n\n"

    def whole(self) -> bytes:
        choices = b",".join([choice.whole() for choice in self.choices])
        return self._heading.bytes(self._heading.whole) + choices + b'],"usage":' + self._usage() + b"}"

    def _usage(self) -> bytes:
        """A prompt counts once, however many choices are made of it."""
        prompts = [choice.prompt for choice in self.choices[:: self._per_prompt]]
        return usage(prompts, sum(choice.last.token.index for choice in self.choices if choice.last is not None))

    def translate(self, error: ApiError) -> ApiError:
        parameter = self._renamed.get(error.parameter or "")
        if parameter is None:
            return error
        return ApiError(
            error.status, error.message, kind=error.kind, parameter=parameter, code=error.code, headers=error.headers
        )


def usage(prompts: Sequence[Begin], completion: int) -> bytes:
    prompt = sum(one.prompt_tokens for one in prompts)
    cached = sum(one.cached_tokens for one in prompts)
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}}'
        % (prompt, completion, prompt + completion, cached)
    )


def finite(logprob: float) -> float:
    """JSON has no infinity; vLLM writes -9999 instead."""
    return round(max(logprob, -9999.0), 7)
