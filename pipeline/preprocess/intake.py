"""Takes requests into the scheduler's queue, or refuses them. Nothing here takes longer than a step may wait."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.preprocess.pace import Pace
from pipeline.preprocess.prompts import Job, PromptPool, PromptReader
from pipeline.preprocess.quarantine import Quarantine
from pipeline.preprocess.scheduler import Scheduler
from pipeline.preprocess.sequence import Sequence
from pipeline.stats import Counters, PreprocessCounter
from pipeline.wire.request import (
    FAILS_TWICE,
    UNREACHABLE,
    Accepted,
    Drop,
    Encode,
    GoOn,
    Refused,
    Submit,
    count_ids,
    unpack_message,
)

AT_ONCE = 2048  # characters or token ids that are tokenized in the loop: a millisecond at most, and no thread to wake
_CHOICE = 16  # cost of each choice, in such characters


class Intake:
    """`replies` are for the front; `drop` sends sampling a cancellation. The caller sets `reader`, and sets it anew
    when limits change: for requests that arrive from then on."""

    reader: PromptReader

    def __init__(
        self,
        scheduler: Scheduler,
        pool: PromptPool,
        quarantine: Quarantine,
        drop: Callable[[Drop], None],
        counters: Counters | None = None,
    ) -> None:
        self.replies: list[bytes] = []
        self._scheduler, self._pool, self._quarantine, self._drop = scheduler, pool, quarantine, drop
        self._counters, self._pace = counters, Pace()

    def note_pace(self, now_ns: int) -> None:
        """Before each step: `now_ns` of the monotonic clock."""
        scheduler = self._scheduler
        self._pace.note(now_ns, scheduler.stats.admitted, waiting=bool(scheduler.waiting))

    def take(self, record: bytes) -> None:
        """Handle one message of the front."""
        message = unpack_message(record)
        self._publish(message.request)  # if this process fails meanwhile, this request is to blame
        if isinstance(message, Submit):
            self._take(message)
        elif isinstance(message, Encode):
            self._encode(message)
        elif isinstance(message, GoOn):
            self._reply(self._pool.encodings.go_on(message.request))
        else:
            self._cancel(message.request)
        self._publish(0)

    @property
    def idle(self) -> bool:
        """No thread of the pool has something, or will have."""
        return not (self._pool.requests or self._pool.encodings.live)

    def finish(self) -> bool:
        """Queue a prompt that was tokenized in the meantime, and reply to whom a text was encoded; False if there is
        neither."""
        encoded = self._reply(self._pool.encodings.take())
        return self._finish_prompt() or encoded

    def _finish_prompt(self) -> bool:
        job = self._pool.take()
        if job is None:
            return False
        for result in job.results():
            self._queue(result)
        return True

    def _encode(self, asked: Encode) -> None:
        encodings = self._pool.encodings
        if asked.size <= AT_ONCE:
            self._reply(encodings.at_once(asked, self.reader))
        else:
            encodings.add(asked, self.reader)

    def _reply(self, reply: bytes | None) -> bool:
        if reply is not None:
            self.replies.append(reply)
        return reply is not None

    def _take(self, submit: Submit) -> None:
        refusal = self._refusal(submit)
        if refusal is not None:
            status, why = refusal
            self.replies += [Refused(choice.request, choice.attempt, status, why).pack() for choice in submit.choices]
        elif _size(submit) <= AT_ONCE:
            for result in self.reader.read(submit):
                self._queue(result)
        else:
            self._pool.add(Job(submit, self.reader))

    def _refusal(self, submit: Submit) -> tuple[int, str] | None:
        """Status and reason. A resumed request was accepted before, perhaps under other limits."""
        limits, pool = self.reader.limits, self._pool
        if any(self._quarantine.is_convicted(choice.request) for choice in submit.choices):
            return 500, FAILS_TWICE
        if submit.resumed:
            return None
        if len(self._scheduler.waiting) + pool.requests + len(submit.choices) > limits.max_queue:
            return 429, f"the queue is full ({limits.max_queue} requests wait); try again later"
        if pool.characters and pool.characters + submit.size > limits.max_queue_chars:
            return 429, f"the queue is full ({pool.characters} characters wait to be tokenized); try again later"
        return None

    def _queue(self, result: Sequence | Refused) -> None:
        if not isinstance(result, Refused):
            result = self._in_time(result)
        if isinstance(result, Refused):
            self.replies.append(result.pack())
        else:
            if result.suspect:
                self._quarantine.suspect(result)
            self._scheduler.submit(result)
            first = int(result.tokens[0]) if result.prompt_wants.scores else -1
            self.replies.append(Accepted(result.request, result.attempt, result.prompt, first).pack())

    def _in_time(self, sequence: Sequence) -> Sequence | Refused:
        """Refuses one that the queue can't serve by its deadline; what was resumed has been let in before."""
        if not sequence.deadline_ns or sequence.attempt:
            return sequence
        wait_s = self._pace.wait_s(self._scheduler.waiting.before(sequence.owner))
        if time.monotonic_ns() + wait_s * 1e9 < sequence.deadline_ns:
            return sequence
        why = f"the deadline can't be met: requests wait for about {wait_s:.1f} s; try again later"
        return Refused(sequence.request, sequence.attempt, 429, why, None, UNREACHABLE)

    def _cancel(self, request: int) -> None:
        if self._pool.encodings.cancel(request) or self._pool.cancel(request):
            return
        if self._scheduler.cancel(request) is not None:
            self._drop(Drop(request))

    def _publish(self, request: int) -> None:
        if self._counters is not None:
            self._counters.set(PreprocessCounter.IN_HAND, request)

    def publish_gauges(self, tokenized: int) -> None:
        """`tokenized`: requests in the scheduler's queue."""
        if self._counters is not None:
            self._counters.set(PreprocessCounter.WAITING, tokenized + self._pool.requests)
            self._counters.set(PreprocessCounter.WAITING_FOR_PROMPT, self._pool.requests)
            self._counters.set(PreprocessCounter.WAITING_CHARS, self._pool.characters)


def _size(submit: Submit) -> int:
    """Work to tokenize it, in characters or token ids."""
    return submit.size + sum(_CHOICE + count_ids(choice.output) for choice in submit.choices)
