"""Tokens of many clients are written together, and it is counted how long they took."""

from __future__ import annotations

import time

from pipeline.front.http.responses import Outbox
from pipeline.front.metrics.trace import Spans
from pipeline.stats import Histograms, RequestHistogram, StatsReader


class Written(list):
    """A transport that keeps what is written."""

    write = list.append


def test_chunks_are_held_until_all_are_there_and_written_in_order(page):
    outbox = Outbox(Histograms(page, RequestHistogram), Spans())
    one, other = Written(), Written()
    outbox.put(one, b"a")
    outbox.put(other, b"b")
    outbox.put(one, b"c")
    assert (one, other) == ([], [])
    outbox.flush(time.monotonic_ns())
    outbox.flush(time.monotonic_ns())  # nothing is left
    assert (one, other) == ([b"a", b"c"], [b"b"])
    assert StatsReader(page).histogram(RequestHistogram.FRONT).count == 3
