"""Runs cases against a server, many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable

from scripts.verify.fuzz.answers import BadAnswerError, check_answer, check_count, read_answers
from scripts.verify.fuzz.cases import Case, Ending

PATIENCE_S = 20.0
"""Well beyond every time limit of the server that is fuzzed: what takes longer hangs."""

_GLANCE = 300  # bytes
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, no time


class Client:
    """`failed` is called with a case and what was wrong with its answer. `statuses` counts what was answered."""

    def __init__(self, port: int, failed: Callable[[Case, str], None], patience_s: float = PATIENCE_S) -> None:
        self._port, self._failed, self._patience_s = port, failed, patience_s
        self.statuses: Counter[int] = Counter()

    async def run(self, cases: Iterable[Case], at_once: int) -> None:
        waiting = iter(cases)
        await asyncio.gather(*(self._work(waiting) for _ in range(at_once)))

    async def _work(self, cases: Iterable[Case]) -> None:
        for case in cases:
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._check(case)
            except TimeoutError:
                self._failed(case, f"no end within {self._patience_s:g} s")
            except BadAnswerError as error:
                self._failed(case, str(error))

    async def _check(self, case: Case) -> None:
        data = await self._exchange(case)
        if data is None:
            return
        answers = read_answers(data, bodiless=case.bodiless)
        check_count(answers, case.answers)
        for answer in answers:
            self.statuses[answer.status] += 1
            check_answer(answer)
        if not answers and case.ending is Ending.READ:
            raise BadAnswerError("the connection was closed without an answer")

    async def _exchange(self, case: Case) -> bytes | None:
        """All that came back; None where the client did not stay to the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        try:
            with contextlib.suppress(ConnectionError):  # the server may have heard enough
                await _send(case, writer)
            return await _receive(case, reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def _send(case: Case, writer: asyncio.StreamWriter) -> None:
    for part in case.parts:
        writer.write(part)
        await writer.drain()
        if len(case.parts) > 1:
            await asyncio.sleep(case.pause_s)


async def _receive(case: Case, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
    if case.ending is Ending.READ:
        try:
            return await reader.read()
        except ConnectionError as error:
            raise BadAnswerError(f"the answer is lost: {error}") from None
    with contextlib.suppress(OSError):  # it may be gone already
        if case.ending is Ending.HALF:
            writer.write_eof()
            return await reader.read()
        if case.ending is Ending.GLANCE:
            await reader.read(_GLANCE)
        elif case.ending is Ending.RESET:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
    return None
