"""Prompts that are being tokenized, in threads of low priority, so that no step waits for a text.

A text can't be cut up without changing its tokens, and what has begun can't be interrupted: a long one takes
seconds. So there are two lanes, and a text of usual length never waits for a giant. Within a lane the order is that
of arrival.

What each lane works on is published on the statistics page: should this process fail, that request is to blame, and
should it take too long, the launcher names it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from queue import SimpleQueue

from pipeline import background
from pipeline.messages import Refused, Submit
from pipeline.preprocess.prompts import PromptReader
from pipeline.preprocess.sequence import Sequence
from pipeline.stats import Counters, PreprocessCounter

LONG = 1 << 16  # characters or token ids of a prompt for the second lane; the first takes some 40 ms for as many


class Job:
    """A prompt on its way. Only the thread that made it may call it, but for `run`."""

    def __init__(self, submit: Submit, reader: PromptReader) -> None:
        self.requests = {choice.request for choice in submit.choices}  # that are still wanted
        self.size = len(submit.prompt)
        self._submit: Submit | None = submit
        self._reader = reader
        self._read: list[Sequence | Refused] = []

    def cancel(self, request: int) -> None:
        self.requests.discard(request)
        if not self.requests:
            self._submit = None  # the text need not be kept until its turn comes

    def run(self, counters: Counters | None, word: PreprocessCounter) -> None:
        submit = self._submit
        if submit is None:
            return
        if counters is not None:
            counters.set(word, submit.choices[0].request)
        self._read = self._reader.read(submit)
        if counters is not None:
            counters.set(word, 0)

    def results(self) -> list[Sequence | Refused]:
        """One for each request that is still wanted."""
        return [result for result in self._read if result.request in self.requests]


class PromptPool:
    """Called by one thread. `fileno` is readable when `take` may have something."""

    def __init__(self, counters: Counters | None = None) -> None:
        self._counters = counters
        self._lanes = (
            _Lane(self, PreprocessCounter.TOKENIZING),
            _Lane(self, PreprocessCounter.TOKENIZING_LONG),
        )
        self._jobs: dict[int, Job] = {}  # by request
        self._done: deque[Job] = deque()
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.characters = 0  # of all prompts; a token id counts as one

    @property
    def requests(self) -> int:
        """That wait for their prompt."""
        return len(self._jobs)

    def fileno(self) -> int:
        return self._eventfd

    def add(self, job: Job) -> None:
        self._jobs |= dict.fromkeys(job.requests, job)
        self.characters += job.size
        self._lanes[job.size > LONG].put(job)

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
        """Forget all: their requests come again, or nobody wants them any more."""
        for request in list(self._jobs):
            self.cancel(request)
        self._done.clear()

    def close(self) -> None:
        """Wait for what is under way, and end the threads."""
        self.clear()
        for lane in self._lanes:
            lane.end()
        os.close(self._eventfd)

    def _forget(self, job: Job) -> None:
        for request in job.requests:
            del self._jobs[request]
        self.characters -= job.size

    def finish(self, job: Job, word: PreprocessCounter) -> None:
        """Called by the lanes."""
        job.run(self._counters, word)
        self._done.append(job)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._eventfd, 1)


class _Lane:
    """A thread, from the first prompt on."""

    def __init__(self, pool: PromptPool, word: PreprocessCounter) -> None:
        self._pool, self._word = pool, word
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, job: Job) -> None:
        self._queue.put(job)
        if self._thread is None:
            name = background.PREFIX + self._word.name.lower()
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()

    def end(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        background.lower_priority()
        while (job := self._queue.get()) is not None:
            self._pool.finish(job, self._word)
