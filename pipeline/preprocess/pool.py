"""Threads that tokenize long prompts, so that no step waits for a text.

A text can't be split without changing its tokens, and the tokenizer can't be interrupted: a long text takes seconds.
So there are two lanes, each a thread, and a text of usual length never waits for a very long one. Within a lane the
order is that of arrival. Lanes have low priority, and do nothing but call the tokenizer, which releases the GIL.
Python code that handles the ids has a thread of normal priority: at low priority it could lose its CPU while it holds
the GIL, and so block the loop.

The request that each lane works on is published on the statistics page: if this process fails, that request is to
blame; if it takes too long, the launcher's log names it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from pipeline.preprocess.prompts import PromptReader, Tokenized
from pipeline.preprocess.sequence import Sequence
from pipeline.runtime import background
from pipeline.stats import Counters, PreprocessCounter
from pipeline.wire.request import Refused, Submit

LONG = 1 << 16  # characters from which a prompt goes to the second lane; the tokenizer takes some 40 ms for as many


class Job:
    """A prompt to be tokenized. Only the thread that made it may call it, except for `tokenize` and `read`."""

    def __init__(self, submit: Submit, reader: PromptReader) -> None:
        self.requests = {choice.request for choice in submit.choices}  # not cancelled
        self.size = submit.size
        self.is_text = submit.text is not None
        self._submit: Submit | None = submit
        self._reader = reader
        self._tokenized: Tokenized | None = None
        self._results: list[Sequence | Refused] = []

    def cancel(self, request: int) -> None:
        self.requests.discard(request)
        if not self.requests:
            self._submit = None  # the text need not be kept until its turn comes

    def tokenize(self, publish: Callable[[int], None]) -> None:
        submit = self._submit
        if submit is not None:
            publish(submit.request)
            self._tokenized = self._reader.tokenize(submit)
            publish(0)

    def read(self) -> None:
        submit = self._submit
        if submit is not None:
            self._results = self._reader.read(submit, self._tokenized)

    def results(self) -> list[Sequence | Refused]:
        """One for each request that was not cancelled."""
        return [result for result in self._results if result.request in self.requests]


class PromptPool:
    """Called by one thread. `fileno` is readable when `take` may have something."""

    def __init__(self, counters: Counters | None = None) -> None:
        self._counters = counters
        self._reading = _Thread("reading", self._read)
        self._lanes = (self._lane(PreprocessCounter.TOKENIZING), self._lane(PreprocessCounter.TOKENIZING_LONG))
        self._jobs: dict[int, Job] = {}  # by request
        self._done: deque[Job] = deque()
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.characters = 0  # of all prompts; a token id counts as one

    def _lane(self, word: PreprocessCounter) -> _Thread:
        counters = self._counters

        def publish(request: int) -> None:
            if counters is not None:
                counters.set(word, request)

        def tokenize(job: Job) -> None:
            job.tokenize(publish)
            self._reading.put(job)

        return _Thread(word.name.lower(), tokenize, background.lower_priority)

    @property
    def requests(self) -> int:
        """Requests whose prompt is being tokenized, or waits for that."""
        return len(self._jobs)

    def fileno(self) -> int:
        return self._eventfd

    def add(self, job: Job) -> None:
        self._jobs |= dict.fromkeys(job.requests, job)
        self.characters += job.size
        thread = self._lanes[job.size > LONG] if job.is_text else self._reading
        thread.put(job)

    def cancel(self, request: int) -> bool:
        """Forget a request; False: it is not here (any more)."""
        job = self._jobs.pop(request, None)
        if job is None:
            return False
        job.cancel(request)
        if not job.requests:
            self.characters -= job.size
        return True

    def take(self) -> Job | None:
        """A prompt that is done, if there is one."""
        while self._done:
            job = self._done.popleft()
            if job.requests:
                self._forget(job)
                return job
        return None

    def clear(self) -> None:
        """Forget all: the front sends their requests again, unless they were cancelled."""
        for request in list(self._jobs):
            self.cancel(request)
        self._done.clear()

    def close(self) -> None:
        """Wait for running jobs, and end the threads."""
        self.clear()
        for thread in (*self._lanes, self._reading):
            thread.end()
        os.close(self._eventfd)

    def _forget(self, job: Job) -> None:
        for request in job.requests:
            del self._jobs[request]
        self.characters -= job.size

    def _read(self, job: Job) -> None:
        job.read()
        self._done.append(job)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._eventfd, 1)


class _Thread:
    """Runs jobs that are `put`, one after the other; started by the first one."""

    def __init__(self, name: str, work: Callable[[Job], None], begin: Callable[[], None] | None = None) -> None:
        self._name, self._work, self._begin = name, work, begin
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, job: Job) -> None:
        self._queue.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=background.PREFIX + self._name, daemon=True)
            self._thread.start()

    def end(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        if self._begin is not None:
            self._begin()
        while (job := self._queue.get()) is not None:
            self._work(job)
