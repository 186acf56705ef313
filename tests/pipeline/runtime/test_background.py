"""Threads beside a stage's loop: whether there are any, and that they leave the CPUs to others."""

from __future__ import annotations

import os
import threading

from pipeline.runtime.background import PREFIX, are_there, lower_priority


def test_they_are_known_by_their_names_and_are_nicer_than_the_loop():
    done, nice = threading.Event(), []

    def work():
        lower_priority()
        nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        done.wait(60)

    assert not are_there()
    threads = [threading.Thread(target=work, name=name) for name in (f"{PREFIX}test", "another")]
    try:
        for thread in threads:
            thread.start()
        assert are_there()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not are_there()
    assert len(nice) == 2
    assert min(nice) > os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
