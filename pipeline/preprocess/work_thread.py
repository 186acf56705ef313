"""A thread of preprocess beside its loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class WorkThread(Generic[T]):
    """Runs jobs that are `put`, one after the other; started by the first one."""

    def __init__(self, name: str, work: Callable[[T], None], begin: Callable[[], None] | None = None) -> None:
        self._name, self._work, self._begin = name, work, begin
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, job: T) -> None:
        self._queue.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
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
