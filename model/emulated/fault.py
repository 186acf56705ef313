"""A device that fails on purpose, so that what must survive it can be tested."""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

import numpy as np

from ..errors import ModelError
from ..runner import Int32

FAULTS: Final = ("error", "exit", "abort", "segfault", "hang")


def fail_at(token: int, fault: str, input_ids: Int32) -> None:
    """Fail in this way if `token` is among `input_ids`. Only "error" raises: ModelError."""
    if not np.any(input_ids == token):
        return
    if fault == "error":
        raise ModelError(f"token {token} makes this emulated device fail, as configured")
    sys.stderr.flush()
    if fault == "exit":
        os._exit(3)
    while True:
        if fault == "hang":
            signal.pause()
        else:
            os.kill(os.getpid(), signal.SIGABRT if fault == "abort" else signal.SIGSEGV)
