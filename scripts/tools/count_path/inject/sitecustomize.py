"""Imported by Python at the start of every process that has this folder in PYTHONPATH: notes which lines run.

The first byte of the file RINGSERVE_COUNT_PATH says what to do: 0: nothing, 1: note lines, 2: write them down, once,
beside that file. It is mapped, so that all processes see it change at once.
"""

import json
import mmap
import os
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

FLAG = os.environ["RINGSERVE_COUNT_PATH"]
ROOM = os.environ["RINGSERVE_COUNT_ROOT"] + os.sep
Tracer = Callable[[FrameType, str, Any], Any]
STAGES = os.environ["RINGSERVE_COUNT_STAGES"].split()


def _install(stage: str) -> None:
    with open(FLAG, "rb") as file:  # noqa: PTH123 - nothing more is to be imported here
        flag = mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ)
    seen: set[tuple[str, int]] = set()
    written = False

    def on_line(frame: FrameType, event: str, _: Any) -> Tracer:
        nonlocal written
        if event == "line":
            if flag[0] == 1:
                seen.add((frame.f_code.co_filename, frame.f_lineno))
            elif flag[0] == 2 and not written:
                written = True
                with open(f"{FLAG}.{stage}.json", "w") as out:  # noqa: PTH123
                    json.dump(sorted(seen), out)
        return on_line

    def on_call(frame: FrameType, event: str, argument: Any) -> Tracer | None:
        return on_line(frame, event, argument) if frame.f_code.co_filename.startswith(ROOM) else None

    threading.settrace(on_call)
    sys.settrace(on_call)


for _stage in STAGES:
    if f"pipeline.{_stage}" in sys.orig_argv:
        _install(_stage)
