"""What refusals leave in the log."""

from __future__ import annotations

import asyncio
import logging

from pipeline.front.http.throttle import REFUSED, throttled


def test_the_throttle_counts_what_it_leaves_out(caplog):
    log = logging.getLogger("test-throttle")
    caplog.set_level(logging.INFO, "test-throttle")

    async def flood():
        with throttled(log):
            for i in range(1000):
                log.info("refused %d", i, extra={REFUSED: True})
                log.info("served %d", i)
            await asyncio.sleep(1.1)
            log.info("refused again", extra={REFUSED: True})

    asyncio.run(flood())
    said = [record.getMessage() for record in caplog.records]
    assert sum(line.startswith("served") for line in said) == 1000
    shown = sum(line.startswith("refused") for line in said) - 1
    (summary,) = (line for line in said if "more requests" in line)
    assert shown in (20, 40)  # a second may begin in between
    assert int(summary.split()[0]) + shown == 1000
    assert said[-1] == "refused again"
    assert not log.filters
