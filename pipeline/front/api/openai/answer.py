"""What the answers of /v1/completions and /v1/chat/completions have in common.

One object, or server-sent events that end with [DONE]. The constant parts of an event are bytes made once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from pipeline.front.api.openai.logprobs import Logprobs
from pipeline.front.delivery.job import PromptCounts
from pipeline.front.http.errors import ApiError
from pipeline.wire.delta import Delta, FinishReason

_REASONS = {FinishReason.LENGTH: b'"length"', FinishReason.EOS: b'"stop"', FinishReason.STOP: b'"stop"'}
REASONS = tuple(_REASONS.get(reason, b"null") for reason in FinishReason)  # by value: hashing an enum is slow


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
    request: int
    model: str
    created: int = field(default_factory=lambda: int(time.time()))

    def bytes(self, kind: str) -> bytes:
        """Up to the choices."""
        name = f"{self.prefix}-{self.request:016x}"
        head = orjson.dumps({"id": name, "object": kind, "created": self.created, "model": self.model})
        return head[:-1] + b',"choices":['


class OpenAIChoice:
    """One text of an answer; subclasses give its form."""

    prompt: PromptCounts

    def __init__(self, index: int, heading: Heading, options: StreamOptions, logprobs: Logprobs | None) -> None:
        self.index = index
        self.last: Delta | None = None
        self._heading, self._options, self._logprobs = heading, options, logprobs
        self._texts: list[str] = []

    def _chunk(self, choice: bytes, counts: bytes) -> bytes:
        """A format string for events, with the placeholders of `choice` and `counts`."""
        head = b"data: " + self._heading.bytes(self._heading.chunk)
        return head.replace(b"%", b"%%") + b'{"index":%d,' % self.index + choice + b"}]" + counts + b"}\n\n"

    def _plain_chunk(self, choice: bytes) -> bytes | None:
        """As `_chunk`, for events that hold nothing but `choice`; None if they hold more."""
        plain = self._logprobs is None and not self._options.continuous_usage
        return self._chunk(choice, self._no_counts) if plain else None

    @property
    def _no_counts(self) -> bytes:
        return b',"usage":null' if self._options.include_usage else b""

    def _counts(self, completion_tokens: int) -> bytes:
        if not self._options.continuous_usage:
            return self._no_counts
        return b',"usage":' + usage(self.prompt.prompt_tokens, completion_tokens, self.prompt.cached_tokens)

    def add(self, delta: Delta) -> None:
        self.last = delta
        self._texts.append(delta.text)
        if self._logprobs is not None:
            self._logprobs.add(delta)

    def _logprobs_of(self, delta: Delta) -> bytes:
        if self._logprobs is None:
            return b"null"
        self._logprobs.add(delta)
        return self._logprobs.json()

    def _collected_logprobs(self) -> bytes:
        return b"null" if self._logprobs is None else self._logprobs.json()


class WholeChoice(Protocol):
    """What an answer needs of its choices."""

    last: Delta | None
    prompt: PromptCounts

    def event(self, delta: Delta) -> bytes: ...

    def add(self, delta: Delta) -> None: ...

    def whole(self) -> bytes:
        """The choice as JSON, after its last token."""
        ...


class OpenAIAnswer:
    """`per_prompt` choices belong to each prompt. `renamed`: our name of a parameter → the client's."""

    content_type = b"text/event-stream; charset=utf-8"

    def __init__(
        self,
        heading: Heading,
        options: StreamOptions,
        choices: Sequence[WholeChoice],
        *,
        per_prompt: int = 1,
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

    def whole(self) -> bytes:
        choices = b",".join([choice.whole() for choice in self.choices])
        return self._heading.bytes(self._heading.whole) + choices + b'],"usage":' + self._usage() + b"}"

    def _usage(self) -> bytes:
        """A prompt counts once, however many choices are made of it."""
        prompts = [choice.prompt for choice in self.choices[:: self._per_prompt]]
        return usage(
            sum(prompt.prompt_tokens for prompt in prompts),
            sum(choice.last.index for choice in self.choices if choice.last is not None),
            sum(prompt.cached_tokens for prompt in prompts),
        )

    def failure(self, error: ApiError) -> bytes:
        return b"data: " + error.body() + b"\n\ndata: [DONE]\n\n"

    def translate(self, error: ApiError) -> ApiError:
        parameter = self._renamed.get(error.parameter or "")
        if parameter is None:
            return error
        return ApiError(
            error.status, error.message, kind=error.kind, parameter=parameter, code=error.code, headers=error.headers
        )


def usage(prompt: int, completion: int, cached: int) -> bytes:
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}}'
        % (prompt, completion, prompt + completion, cached)
    )
