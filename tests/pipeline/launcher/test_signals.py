"""Signals to the launcher are counted, and wake it."""

from __future__ import annotations

import os
import select
import signal
import threading

from pipeline.launcher.signals import DRAIN, caught_signals
from pipeline.launcher.tether import tether


def readable(signals):
    return bool(select.select([signals], [], [], 0)[0])


def test_signals_count_and_wake_and_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, DRAIN)]
    with caught_signals() as signals:
        assert not readable(signals)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert (signals.ends, signals.reload) == (2, True)
        assert readable(signals)
        signals.clear()
        assert not readable(signals)
        signals.clear()  # nothing there is no error
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, DRAIN)] == before


def test_the_end_of_whoever_started_it_asks_for_one_drain():
    """However often it was asked before: a second time would cut what runs."""
    for asked, ends in ((0, 1), (1, 1), (2, 2)):
        with caught_signals() as signals:
            for _ in range(asked):
                os.kill(os.getpid(), signal.SIGTERM)
            signals.clear()
            tied, tie = os.pipe()
            tether(tied)
            os.close(tie)
            assert select.select([signals], [], [], 20)[0]
            for follower in [each for each in threading.enumerate() if each.name == "tether"]:
                follower.join(20)
            assert signals.ends == ends
            os.close(tied)
