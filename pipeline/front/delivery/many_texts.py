"""Serving a request for several texts: lists of prompts, and several choices for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.front.delivery.generation import Generation
from pipeline.front.delivery.job import Choice
from pipeline.front.delivery.progress import Progress
from pipeline.front.delivery.stream import TokenStream
from pipeline.front.http.errors import ApiError, ClientGone
from pipeline.front.settings import FrontSettings
from pipeline.wire.delta import Delta, FinishReason


@dataclass(slots=True)
class _Running:
    """A text that is being generated."""

    choice: Choice
    stream: TokenStream
    progress: Progress
    last: Delta | None = None

    @property
    def ended(self) -> bool:
        return self.last is not None and self.last.reason is not FinishReason.NONE


class ManyTexts(Generation):
    """All texts are served, or none: an error of one of them is the answer to the request.

    Their tokens arrive in streams of their own, merged here with one wake-up for all that are ready.
    """

    def __init__(self, *args: Any, new_progress: Callable[[], Progress]) -> None:
        super().__init__(*args)
        others = [new_progress() for _ in range(self._job.texts - 1)]
        for progress in others:
            progress.arrival, progress.client_id = self._progress.arrival, self._progress.client_id
        self._progresses = [self._progress, *others]
        self._live: list[_Running] = []  # texts that have not ended

    async def run(self, settings: FrontSettings) -> None:
        try:
            await super().run(settings)
        except ApiError as error:
            self._fail(error)
            raise
        except ClientGone as gone:
            for progress in self._progresses:
                progress.cancel(str(gone))
            raise

    def _open(self) -> Callable[[str], None]:
        streams = self._submit(self._progresses)
        self._live = list(map(_Running, self._job.answer.choices, streams, self._progresses))
        return self._disconnect

    def _disconnect(self, why: str) -> None:
        for running in self._live:
            running.stream.disconnect(why)

    def _close(self) -> None:
        for running in self._live:
            self._backend.finish(running.stream, cancel=True)

    def _fail(self, error: ApiError) -> None:
        for progress in self._progresses:
            progress.fail(error.status, error.message)

    async def _accepted(self) -> None:
        """Until all texts are in the queue: afterwards none can be refused, so a stream may begin."""
        while not all(running.stream.accepted for running in self._live):
            for running in self._live:
                if running.stream.failure is not None:
                    raise running.stream.failure
            await self._woken()

    async def _stream(self) -> None:
        answer, exchange = self._job.answer, self._exchange
        await self._accepted()
        taken = await self._take()
        await self._start()
        while self._live:
            await exchange.write(_events(taken))
            self._account(taken)
            taken = await self._take()
        await exchange.end(_events(taken) + answer.tail())
        self._account(taken)

    async def _collect(self) -> None:
        every = self._live
        while self._live:
            for running, deltas in await self._take():
                for delta in deltas:
                    running.choice.add(delta)
        await self._exchange.respond(200, self._job.answer.whole(), headers=self._headers())
        self._account([(running, []) for running in every])

    async def _take(self) -> list[tuple[_Running, list[Delta]]]:
        """Tokens that have arrived, at least one. Raises ApiError, ClientGone."""
        while not (taken := [(running, deltas) for running in self._live if (deltas := self._ready(running))]):
            await self._woken()
        for running, _ in taken:
            if running.ended:
                self._backend.finish(running.stream, cancel=False)
        self._live = [running for running in self._live if not running.ended]
        return taken

    def _ready(self, running: _Running) -> list[Delta]:
        stream = running.stream
        records = stream.take_ready()
        if not records:
            return []
        deltas = self._received(stream, records, running.progress)
        if not deltas:
            stream.take_ready()  # raises the model's failure
        running.last = deltas[-1]
        return deltas

    async def _woken(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        for running in self._live:
            running.stream.wake(waiter)
        await waiter

    def _account(self, taken: list[tuple[_Running, list[Delta]]]) -> None:
        """These tokens have been written to the socket."""
        for running, _ in taken:
            running.progress.on_written(running.stream.taken_ns)
            if running.ended and running.last is not None:
                running.progress.finish(running.last)


def _events(taken: list[tuple[_Running, list[Delta]]]) -> bytes:
    return b"".join([event for running, deltas in taken for event in map(running.choice.event, deltas)])
