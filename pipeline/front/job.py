"""What an API makes of a request, and what it makes of the tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from model.sampling import ParameterError, SamplingLimits, SamplingParams
from pipeline.front.errors import ApiError
from pipeline.messages import Delta, GenerationParams


class Answer(Protocol):
    """The form of one request's answer: streamed by `event`, `tail` and `failure`, or whole by `add` and `whole`."""

    content_type: bytes  # of the stream

    def event(self, delta: Delta) -> bytes:
        """One token of a stream, with its line ends."""
        ...

    def tail(self) -> bytes:
        """What ends a stream."""
        ...

    def failure(self, error: ApiError) -> bytes:
        """What ends a stream that can't go on; its status has been sent already."""
        ...

    def add(self, delta: Delta) -> None: ...

    def whole(self) -> bytes:
        """The answer that is not streamed, after its last token."""
        ...

    def translate(self, error: ApiError) -> ApiError:
        """An error from behind the front, in the words of this API."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """A request that was understood."""

    request: int
    prompt: str | list[int]
    params: GenerationParams
    streamed: bool
    answer: Answer


def check_sampling(params: SamplingParams, limits: SamplingLimits, status: int, renamed: dict[str, str]) -> None:
    """Raises ApiError that names the parameter as the client wrote it (`renamed`: our name → theirs)."""
    try:
        params.validate(limits)
    except ParameterError as error:
        name = renamed.get(error.parameter, error.parameter)
        message = f"{name} is {_cut(repr(error.value))}, expected {error.allowed}"
        raise ApiError(status, message, parameter=name) from None


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
