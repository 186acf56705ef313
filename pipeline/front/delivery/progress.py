"""Times and counts of a request while it is served: for its log line, the histograms and the timing headers."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from pipeline.front.delivery.job import Times
from pipeline.front.delivery.stream import TokenStream
from pipeline.front.http.exchange import Exchange, Header
from pipeline.front.http.throttle import REFUSED
from pipeline.stats import (
    Counters,
    FrontCounter,
    Histograms,
    KeyCounter,
    KeyCounters,
    RequestHistogram,
    StatsReader,
    StepColumn,
    Work,
)
from pipeline.wire.delta import FinishReason
from pipeline.wire.step import Stamp

log = logging.getLogger("ringserve.front")

_OUTCOMES = {
    FinishReason.LENGTH: FrontCounter.LENGTH,
    FinishReason.EOS: FrontCounter.EOS,
    FinishReason.STOP: FrontCounter.STOP,
}
_ANSWERS = tuple(_OUTCOMES.values())


@dataclass(slots=True, eq=False)
class Progress:
    """Of one text. Times in nanoseconds of the monotonic clock. The cost per token is a few additions.

    Its share of the devices' time: of what they computed until its first token, by its prompt's tokens among all that
    were computed meanwhile; from there on, by its own tokens. So the shares of all texts add up to the whole."""

    request: int  # its number in the pipeline
    exchange: Exchange
    counters: Counters
    times: Histograms
    stats: StatsReader
    keys: KeyCounters
    arrival: int = field(default_factory=time.monotonic_ns)
    first: int = 0
    last: int = 0
    waited: int | None = None  # in the queue
    prompt: int = 0
    cached: int = 0  # of the prompt
    repeats: bool = False  # another text has the same prompt, which counts once
    begun: Work | None = None  # when it got a row
    answering: Work | None = None  # at its first token
    tokens: int = 0
    max_tokens: int = 0
    adapter: str = ""
    outcome: FrontCounter | None = None  # how it ended
    message: str = ""  # why, if not with an answer
    counts: bool = True  # False: a front before has counted it, up to its end

    def __post_init__(self) -> None:
        if self.counts:
            self.counters.add(FrontCounter.REQUESTS)

    def on_row(self, stream: TokenStream) -> None:
        """What is known since it got a row, if it has; several times are harmless."""
        self.waited, self.begun = stream.waited_ns, stream.work
        self.prompt, self.cached = stream.prompt_tokens, stream.cached_tokens

    def on_tokens(self, count: int, now: int) -> None:
        """This many tokens are about to be written."""
        if self.tokens:
            self.times.observe(RequestHistogram.ITL, (now - self.last) // count, count)
        else:
            self.first, self.answering = now, self.stats.work()
            self.times.observe(RequestHistogram.TTFT, now - self.arrival)
            if count > 1:
                self.times.observe(RequestHistogram.ITL, 0, count - 1)
        self.last = now
        self.tokens += count
        self.counters.add(FrontCounter.GENERATED_TOKENS, count)

    def recall(self) -> None:
        """A token that a front before has counted, where it counts once."""
        self.last = time.monotonic_ns()
        self.first = self.first or self.last
        self.answering = self.answering or self.stats.work()
        self.tokens += 1

    def finish(self, reason: FinishReason, calls: int = 0) -> None:
        """The answer is complete. `calls`: of tools."""
        if not self.counts:
            return
        if calls:
            self.counters.add(FrontCounter.CALLS, calls)
        self._observe(time.monotonic_ns() - self.arrival)
        self._close(_OUTCOMES[reason], reason.name.lower())

    def _observe(self, e2e: int) -> None:
        """Of requests that were answered in full, as in vLLM."""
        observe, decode = self.times.observe, self.last - self.first
        observe(RequestHistogram.E2E, e2e)
        observe(RequestHistogram.DECODE, decode)
        if self.tokens > 1:
            observe(RequestHistogram.TPOT, decode // (self.tokens - 1))
        if self.waited is not None:
            started = self.arrival + self.waited
            observe(RequestHistogram.PREFILL, max(0, self.first - started))
            observe(RequestHistogram.INFERENCE, max(0, self.last - started))
        observe(RequestHistogram.PROMPT_TOKENS, self.prompt)
        observe(RequestHistogram.GENERATED_TOKENS, self.tokens)
        observe(RequestHistogram.MAX_TOKENS, self.max_tokens)

    def fail(self, status: int, message: str) -> None:
        outcome = FrontCounter.FAILED if status >= 500 else FrontCounter.REFUSED
        self._close(
            FrontCounter.REJECTED if status == 429 else outcome, f"{status} {message}", refused=not self.tokens
        )

    def cancel(self, why: str) -> None:
        self._close(FrontCounter.CANCELLED, f"cancelled: {why}")

    def skip(self) -> None:
        """The request asks for no tokens."""
        self._close(FrontCounter.STOP, "nothing to generate")

    def _close(self, outcome: FrontCounter, reason: str, *, refused: bool = False) -> None:
        """Only the first call counts: of a request with several parts, one may have ended before another fails."""
        if self.outcome is not None or not self.counts:
            return
        self.outcome, self.message = outcome, reason if outcome not in _ANSWERS else ""
        self.counters.add(outcome)
        self.counters.add(FrontCounter.PROMPT_TOKENS, self.prompt)
        if self.waited is not None:
            self.times.observe(RequestHistogram.QUEUE, self.waited)
        self.keys.add(self.exchange.key, self._used())
        if log.isEnabledFor(logging.INFO):
            fields = self._fields(reason)
            log.info("request %s", _line(fields), extra={"fields": fields, REFUSED: refused})

    def _used(self) -> dict[KeyCounter, int]:
        """By the client's key."""
        prompt, cached = (0, 0) if self.repeats else (self.prompt, self.cached)
        return {
            KeyCounter.REQUESTS: 1,
            KeyCounter.PROMPT_TOKENS: prompt,
            KeyCounter.CACHED_TOKENS: cached,
            KeyCounter.GENERATED_TOKENS: self.tokens,
            KeyCounter.DEVICE_NS: self.device_ns,
        }

    @property
    def device_ns(self) -> int:
        """Its share of the devices' time so far."""
        if self.begun is None:
            return 0
        now = self.stats.work()
        answering, computed = self.answering or now, max(0, self.prompt - self.cached)
        return self.begun.share(answering, computed) + answering.share(now, max(0, self.tokens - 1))

    def _fields(self, reason: str) -> dict[str, Any]:
        client_id = self.exchange.client_id.decode()
        return {
            "id": self.exchange.seed,
            "number": f"{self.request:016x}",  # by which other stages name it
            **({"client_id": client_id} if client_id else {}),
            **({"adapter": self.adapter} if self.adapter else {}),
            "reason": reason,
            "prompt_tokens": self.prompt,
            "tokens": self.tokens,
            "ttft_ms": self.ttft_ms,
            "itl_ms": self.itl_ms,
            "e2e_ms": _ms(time.monotonic_ns() - self.arrival),
        }

    @property
    def ttft_ms(self) -> float | None:
        return _ms(self.first - self.arrival) if self.tokens else None

    @property
    def itl_ms(self) -> float | None:
        """Mean."""
        return _ms((self.last - self.first) / (self.tokens - 1)) if self.tokens > 1 else None

    @property
    def taken(self) -> Times:
        """So far. What waited in the queue is in the total only."""
        queued, busy = self.waited or 0, 0
        if self.begun is not None:
            busy = (self.stats.work().device_ns - self.begun.device_ns) // max(1, self.stats.topology.replicas)
        total, prompt = time.monotonic_ns() - self.arrival, max(0, self.first - self.arrival - queued)
        return Times(total, prompt, self.last - self.first, queued, busy)

    # ---- timing headers ---------------------------------------------------------------------------------------

    def headers(self) -> list[Header]:
        """`x-…-ms`: of the request, and of its steps the mean part of each stage; and `Server-Timing`, which browsers
        and proxies read. Of a stream they say what is known when it begins."""
        own = {
            "queue": None if self.waited is None else _ms(self.waited),
            "ttft": self.ttft_ms,
            "itl": self.itl_ms,
            "e2e": _ms(time.monotonic_ns() - self.arrival),
        }
        every = {**own, **_step_parts(self.stats, self.arrival)}
        headers = [
            (b"x-%b-ms" % name.encode(), b"%.3f" % value) for name, value in every.items() if value is not None
        ]
        return [*headers, (b"server-timing", _server_timing(self.taken))]


def _server_timing(taken: Times) -> bytes:
    """https://www.w3.org/TR/server-timing/"""
    parts = {
        "queue": taken.queue_ns,
        "prefill": taken.prompt_ns,
        "decode": taken.output_ns,
        "device": taken.device_ns,
        "host": taken.host_ns,
        "total": taken.total_ns,
    }
    return ", ".join(f"{name};dur={ns / 1e6:.3f}" for name, ns in parts.items()).encode()


def _line(fields: dict[str, Any]) -> str:
    def ms(name: str) -> str:
        return "-" if fields[name] is None else f"{fields[name]:.1f} ms"

    client = f" ({fields['client_id']})" if "client_id" in fields else ""
    adapter = f" with {fields['adapter']}" if "adapter" in fields else ""
    return (
        f"{fields['number']} {fields['id']}{client}{adapter}: "
        f"{fields['prompt_tokens']} prompt + {fields['tokens']} tokens, "
        f"TTFT {ms('ttft_ms')}, ITL {ms('itl_ms')}, total {ms('e2e_ms')}, {fields['reason']}"
    )


def _step_parts(stats: StatsReader, since_ns: int) -> dict[str, float]:
    """Mean parts, in ms, of the steps since then, which is when the request arrived."""
    steps = stats.steps(since_ns)
    if not len(steps):
        return {}
    stamps = steps[:, StepColumn.STAMPS :]
    parts = {
        "schedule": (Stamp.BEGUN, Stamp.SCHEDULED),
        "launch": (Stamp.TAKEN, Stamp.LAUNCHED),
        "device": (Stamp.LAUNCHED, Stamp.COMPUTED),
        "publish": (Stamp.COMPUTED, Stamp.RECEIVED),
        "sample": (Stamp.RECEIVED, Stamp.SAMPLED),
    }
    means = {
        name: _ms(float((stamps[:, b] - stamps[:, a]).mean())) for name, (a, b) in parts.items() if stamps[:, a].all()
    }
    follows = (steps[1:, StepColumn.STEP] == steps[:-1, StepColumn.STEP] + 1) & (
        steps[1:, StepColumn.DECODE_ROWS] > 0
    )
    if follows.any():
        wait = (stamps[1:, Stamp.TAKEN] - stamps[:-1, Stamp.COMPUTED])[follows].clip(min=0)
        feedback = (stamps[1:, Stamp.LAUNCHED] - stamps[:-1, Stamp.SAMPLED])[follows].clip(min=0)
        means |= {"wait-for-descriptor": _ms(float(wait.mean())), "feedback": _ms(float(feedback.mean()))}
    return means


def _ms(ns: float) -> float:
    return round(ns / 1e6, 3)
