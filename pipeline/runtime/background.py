"""Threads beside a stage's loop, for what takes longer than a step or a token may wait."""

from __future__ import annotations

import os
import threading

SWITCH_S = 0.0005
"""For how long such a thread may keep the loop from running Python code (`sys.setswitchinterval`)."""

_NICENESS = 10


def lower_priority() -> None:
    """Of the calling thread, which is in a library most of the time: the model comes first. Such a thread must not
    run much Python code: a thread that waits for the GIL would wait for the holder's CPU time, too."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
