"""What refusals leave in the log."""

from __future__ import annotations

import asyncio
import logging

from pipeline.front.http.throttle import REFUSED, throttled


def refused(log, count):
    for i in range(count):
        log.info("refused %d", i, extra={REFUSED: True})


def test_the_throttle_counts_what_it_leaves_out(caplog, monkeypatch):
    log = logging.getLogger("test-throttle")
    caplog.set_level(logging.INFO, "test-throttle")

    def said():
        lines = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return sum(line.startswith("refused") for line in lines), lines

    async def turn():  # what is due now is called in the next, behind those that wait already
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def flood():
        loop = asyncio.get_running_loop()
        now = 1000.9
        monkeypatch.setattr(loop, "time", lambda: now)
        with throttled(log):
            refused(log, 500)
            log.info("served")
            assert said() == (20, [*(f"refused {i}" for i in range(20)), "served"])
            now = 1001.1  # the next second
            refused(log, 500)
            assert said()[0] == 20
            now = 1001.95  # one after the first that was left out
            await turn()
            assert said() == (0, ["960 more requests were refused within a second"])
            refused(log, 1)
            assert said()[0] == 0
            now = 1003.0
            refused(log, 1)
            await turn()
            assert said() == (1, ["refused 0", "1 more requests were refused within a second"])

    asyncio.run(flood())
    assert not log.filters
