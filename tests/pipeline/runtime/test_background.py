"""Threads beside a stage's loop leave the CPUs to others."""

from __future__ import annotations

import os
import threading

from pipeline.runtime.background import lower_priority


def test_such_a_thread_is_nicer_than_the_loop():
    nice = []

    def work():
        lower_priority()
        nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert nice[0] > os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
