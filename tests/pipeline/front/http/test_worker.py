"""A thread for what takes long: in order, bounded, and not for clients that are gone."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from pipeline.front.http import worker as module
from pipeline.front.http.errors import ApiError, ClientGone
from pipeline.front.http.worker import Worker

WAIT_S = 20


def exchange(size):
    """What a worker looks at of one."""
    return SimpleNamespace(body_bytes=size, connection=SimpleNamespace(lost=False))


@pytest.fixture
def worker():
    worker = Worker("test")
    yield worker
    worker.close()


def test_the_loop_runs_meanwhile_and_results_come_back(worker):
    began, go_on = threading.Event(), threading.Event()

    def work():
        began.set()
        assert go_on.wait(WAIT_S)
        return threading.current_thread().name

    async def main():
        task = asyncio.create_task(worker.run(exchange(1), work))
        while not began.is_set():
            await asyncio.sleep(0.001)
        go_on.set()
        return await task

    assert asyncio.run(main()).startswith("test")


def test_what_fails_is_raised(worker):
    def work():
        raise ApiError(400, "no")

    with pytest.raises(ApiError, match="no"):
        asyncio.run(worker.run(exchange(1), work))


def test_one_at_a_time_and_in_order(worker):
    done = []

    async def main():
        await asyncio.gather(*(worker.run(exchange(1), lambda i=i: done.append(i)) for i in range(50)))

    asyncio.run(main())
    assert done == list(range(50))


def test_more_bytes_than_may_wait_are_turned_away(worker, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    go_on = threading.Event()

    async def main():
        first = asyncio.create_task(worker.run(exchange(300), lambda: go_on.wait(WAIT_S)))  # alone it may be any size
        await asyncio.sleep(0)
        with pytest.raises(ApiError, match="too many large requests at once") as caught:
            await worker.run(exchange(1), str)
        assert (caught.value.status, caught.value.headers) == (429, ((b"retry-after", b"1"),))
        go_on.set()
        await first
        sizes = [60, 40, 1]
        results = await asyncio.gather(*(worker.run(exchange(size), str) for size in sizes), return_exceptions=True)
        assert [isinstance(result, ApiError) for result in results] == [False, False, True]
        assert await worker.run(exchange(100), str) == ""

    asyncio.run(main())


def test_nothing_is_done_for_a_client_that_went_away_while_it_waited(worker):
    go_on, done, gone = threading.Event(), [], exchange(1)

    async def main():
        first = asyncio.create_task(worker.run(exchange(1), lambda: go_on.wait(WAIT_S)))
        second = asyncio.create_task(worker.run(gone, lambda: done.append(1)))
        await asyncio.sleep(0)
        gone.connection.lost = True
        go_on.set()
        await first
        with pytest.raises(ClientGone):
            await second

    asyncio.run(main())
    assert not done
