"""What a request's lines come to: when its tokens came, its text, its errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import orjson

from scripts.bench.serving.apis import Api, Event, error_message
from scripts.bench.serving.load import Outcome


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds, as the device's clock has them: real ones times the time scale. Names are vLLM's."""

    success: bool
    start_time: float  # since the first request of the run could have started
    latency: float = 0.0  # to the last piece of the answer
    ttft: float = 0.0
    itl: tuple[float, ...] = ()
    prompt_tokens: int = 0
    output_tokens: int = 0
    queue_time: float = 0.0  # it waited so long in the client, for others to end
    lateness: float = 0.0  # the client started it so much later than it was due
    text: str = ""
    finish_reason: str | None = None
    error: str = ""

    @property
    def end_time(self) -> float:
        return self.start_time + self.latency


def read_answer(outcome: Outcome, api: Api, time_scale: float) -> Answer:
    """The outcome's number of prompt tokens counts where the server does not tell it."""
    answer = Answer(
        success=False,
        start_time=outcome.start_s * time_scale,
        queue_time=outcome.queue_s * time_scale,
        lateness=outcome.late_s * time_scale,
        prompt_tokens=outcome.prompt_tokens or 0,
        error=outcome.error,
    )
    reply = outcome.reply
    if reply is None:
        return answer
    if reply.status != 200:
        return replace(answer, error=f"HTTP {reply.status}: {error_message(reply.body)}")
    try:
        events = [api.read(line) for line in reply.lines]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, IndexError) as error:
        return replace(answer, error=f"an answer that {api.name} does not give: {error!r}")
    seconds = [(time - outcome.started_ns) / 1e9 * time_scale for time in reply.times_ns]
    return _read_events(answer, events, seconds)


def _read_events(answer: Answer, events: list[Event], seconds: list[float]) -> Answer:
    """`seconds` after the start of the request, one per event."""
    pieces = [second for event, second in zip(events, seconds, strict=True) if event.is_answer]
    error = next((event.error for event in events if event.error), None if pieces else "no token came")
    if error is not None:
        return replace(answer, error=error)
    tokens = [second for event, second in zip(events, seconds, strict=True) if event.is_token]
    told = [event.prompt_tokens for event in events if event.prompt_tokens]
    counted = [event.output_tokens for event in events if event.output_tokens is not None]
    return replace(
        answer,
        success=True,
        latency=pieces[-1],
        ttft=(tokens or pieces)[0],
        itl=tuple(after - before for before, after in pairwise(tokens)),
        prompt_tokens=told[-1] if told else answer.prompt_tokens,
        output_tokens=counted[-1] if counted else len(tokens),
        text="".join(event.text for event in events),
        finish_reason=next((event.finish_reason for event in reversed(events) if event.finish_reason), None),
    )
