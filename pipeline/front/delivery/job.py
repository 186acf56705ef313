"""A parsed request of any API, the events of its answer, and what writes them.

An answer is a pure function of the request, its `Identity`, the deltas of its texts, and the scores of its prompts,
where they are asked for: what writes it reads no clock and draws nothing. So a stream can be made again from its
tokens, byte for byte. An event is identified by its choice, the index of the token that brought it, and its number
among the events of that token (`part`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

from pipeline.front.http.errors import ApiError
from pipeline.wire.delta import Delta, FinishReason, PromptScores
from pipeline.wire.request import Prompt, Request


@dataclass(frozen=True, slots=True)
class Identity:
    """What a request gets when it is admitted. `seed`: 128 random bits in hexadecimal, from which every id in its
    answer comes; `created`: Unix time in seconds."""

    seed: str
    created: int


Origin: TypeAlias = "Sequence[tuple[int, str]]"
"""Of the tokens of a text: from this one on, from 0, each was computed with the weights of this id."""


@dataclass(frozen=True, slots=True)
class Times:
    """What serving a request took, in ns: from its arrival to the end, its prompt from its first step to its first
    token, and the tokens behind that; in the queue; and how long the device computed from its first step on, for this
    request or for others in the same steps. `origins`: which weights have computed its texts."""

    total_ns: int
    prompt_ns: int
    output_ns: int
    queue_ns: int = 0
    device_ns: int = 0
    origins: Sequence[Origin] = ()

    @property
    def host_ns(self) -> int:
        """From its first step on the device stood still so long."""
        return max(0, self.prompt_ns + self.output_ns - self.device_ns)


# ---- events: not frozen, since one is made per token, and a frozen one takes twice as long ------------------------


@dataclass(slots=True)
class Begin:
    """Comes before the first token of a choice, with the counts of its prompt. Its index and part are 0."""

    choice: int
    prompt_tokens: int
    cached_tokens: int


@dataclass(slots=True)
class TokenEvent:
    """`token` is what brought the event, with its id and log-probabilities."""

    choice: int
    token: Delta
    part: int


@dataclass(slots=True)
class Text(TokenEvent):
    """A piece of the answer, empty if the token completed no character."""

    text: str


@dataclass(slots=True)
class Reasoning(TokenEvent):
    """A piece of what the model writes before its answer."""

    text: str


@dataclass(slots=True)
class CallBegin(TokenEvent):
    """A tool is called, the choice's `call`-th from 0; its arguments follow."""

    call: int
    name: str


@dataclass(slots=True)
class CallArguments(TokenEvent):
    """A piece of a call's arguments, which are JSON."""

    call: int
    text: str


@dataclass(slots=True)
class CallEnd(TokenEvent):
    call: int


@dataclass(slots=True)
class End(TokenEvent):
    """Nothing follows in this choice; `token` is its last."""

    reason: FinishReason


Event: TypeAlias = Begin | Text | Reasoning | CallBegin | CallArguments | CallEnd | End


class Reader(Protocol):
    """Of one choice that may be more than text. `calls`: so far."""

    calls: int

    def __call__(self, deltas: Sequence[Delta]) -> list[Event]:
        """The events of deltas that follow one another, at least one; only the last may end the choice."""
        ...


def events_of(choice: int, deltas: Sequence[Delta]) -> list[Event]:
    """Of a choice that is all text."""
    events: list[Event] = [Text(choice, delta, 0, delta.text) for delta in deltas]
    last = deltas[-1]
    if last.reason is not FinishReason.NONE:
        events.append(End(choice, last, 1, last.reason))
    return events


# ---- what APIs provide --------------------------------------------------------------------------------------------


class ChoiceWriter(Protocol):
    """Gives one text of an answer its form. Raises TypeError for an event that the API has no form for."""

    def write(self, event: Event) -> bytes:
        """A part of the stream."""
        ...

    def keep(self, event: Event) -> None:
        """For `Writer.whole`."""
        ...


class Writer(Protocol):
    """Gives one request's answer its form. Events of several choices may come in any order."""

    content_type: bytes  # of the stream
    END: ClassVar[bytes]
    """Of an event or a line of the stream; nowhere else in it."""
    PING: ClassVar[bytes]
    """A part of the stream that says nothing; empty if there is none."""

    @property
    def choices(self) -> Sequence[ChoiceWriter]:
        """In the order of the job's parts and their choices."""
        ...

    def tail(self) -> bytes:
        """The end of the stream."""
        ...

    def failure(self, error: ApiError) -> bytes:
        """The end of a stream that failed; its status has been sent already."""
        ...

    def whole(self) -> bytes:
        """The answer that is not streamed, after its last event."""
        ...

    def translate(self, error: ApiError) -> ApiError:
        """An error of preprocess or sampling, with this API's parameter names and types."""
        ...


def unwritable(writer: object, event: Event) -> TypeError:
    return TypeError(f"{type(writer).__name__} has no form for {type(event).__name__}")


@dataclass(frozen=True, slots=True)
class Form:
    """What a text must look like, as a client says it in `parameter`. `kind` and `value` are `grammar_text`'s."""

    parameter: str
    kind: str
    value: Any = None


class ScoreReader(Protocol):
    """Takes the scores of a prompt for the writer: in pieces, in order, before the first event."""

    def begin(self, first_id: int) -> None:
        """The prompt's first token, which has no score."""
        ...

    def add(self, scores: PromptScores) -> None: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A prompt and its parameters; each choice becomes a sequence of the batch. `scores`: who reads the prompt's, for
    which the parameters ask then."""

    prompt: Prompt
    params: Request
    add_special: bool = True  # let the tokenizer add BOS
    choices: int = 1
    plain: tuple[int, ...] = ()  # see `Submit`
    scores: tuple[ScoreReader, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """A parsed request. It has several parts where a client sends several prompts at once, and none where nothing is
    to be generated. `measured` is called before the writer ends the answer, if the API shows times: they are a part
    of what a pure function is given. `reader`: makes what reads a choice that may be more than text."""

    parts: tuple[Part, ...]
    streamed: bool
    writer: Writer
    form: Form | None = None  # of all its texts; not yet a part of their parameters
    measured: Callable[[Times], None] | None = None
    reader: Callable[[int], Reader] | None = None
    pending: Callable[[], bytes] | None = None  # what stands for the answer until it is complete

    @property
    def texts(self) -> int:
        """Number of texts to generate."""
        return sum(part.choices for part in self.parts)
