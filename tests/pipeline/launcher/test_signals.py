"""Signals to the launcher are counted, and wake it."""

from __future__ import annotations

import os
import select
import signal

from pipeline.launcher.signals import caught_signals


def readable(signals):
    return bool(select.select([signals], [], [], 0)[0])


def test_signals_count_and_wake_and_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with caught_signals() as signals:
        assert not readable(signals)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert (signals.ends, signals.reload) == (2, True)
        assert readable(signals)
        signals.clear()
        assert not readable(signals)
        signals.clear()  # nothing there is no error
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
