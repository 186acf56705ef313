"""A parsed request of any API, and the form of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.front.http.errors import ApiError
from pipeline.wire.delta import Delta
from pipeline.wire.request import Prompt, Request


class PromptCounts(Protocol):
    """What a stream of tokens knows of its prompt from the first token on."""

    prompt_tokens: int
    cached_tokens: int


class Choice(Protocol):
    """One text of an answer: streamed by `event`, or kept by `add` for the answer's `whole`."""

    prompt: PromptCounts  # set before the first token comes

    def event(self, delta: Delta) -> bytes:
        """One token of a stream, with its newlines."""
        ...

    def add(self, delta: Delta) -> None: ...


class Answer(Protocol):
    """The form of one request's answer."""

    @property
    def content_type(self) -> bytes:
        """Of the stream."""
        ...

    @property
    def choices(self) -> Sequence[Choice]:
        """In the order of the job's parts and their choices."""
        ...

    def tail(self) -> bytes:
        """The end of a stream."""
        ...

    def failure(self, error: ApiError) -> bytes:
        """The end of a stream that failed; its status has been sent already."""
        ...

    def whole(self) -> bytes:
        """The answer that is not streamed, after its last token."""
        ...

    def translate(self, error: ApiError) -> ApiError:
        """An error of preprocess or sampling, with this API's parameter names and types."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A prompt and its parameters; each choice becomes a sequence of the batch."""

    prompt: Prompt
    params: Request
    add_special: bool = True  # let the tokenizer add BOS
    choices: int = 1


@dataclass(frozen=True, slots=True)
class Job:
    """A parsed request. It has several parts where a client sends several prompts at once."""

    parts: tuple[Part, ...]
    streamed: bool
    answer: Answer

    @property
    def texts(self) -> int:
        """Number of texts to generate."""
        return sum(part.choices for part in self.parts)
