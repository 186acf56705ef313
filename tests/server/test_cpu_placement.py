"""Where the stages of a whole server run."""

from __future__ import annotations

import os
from pathlib import Path

from tests.server.launched import Launched


def test_stages_run_where_they_are_told_to(tmp_path):
    """And only inference may push others off its CPU."""
    cpus = sorted(os.sched_getaffinity(0))
    first, last = cpus[0], cpus[-1]
    server = Launched(
        tmp_path, (f"pipeline.cpus.inference={first}", f"pipeline.cpus.sampling=[{first}, {last}]",
                   f"pipeline.cpus.front={last}"),
    )  # fmt: skip
    try:
        stages = server.stages()
        assert server.generate("where", 5).json()["generated_text"] == server.text("where", 5)
        allowed = {stage: os.sched_getaffinity(pid) for stage, pid in stages.items()}
        assert allowed == {
            "front": {last}, "preprocess": set(cpus), "inference": {first}, "sampling": {first, last},
        }  # fmt: skip
        policies = {stage: os.sched_getscheduler(pid) for stage, pid in stages.items()}
        assert policies == dict.fromkeys(stages, os.SCHED_BATCH) | {"inference": os.SCHED_OTHER}
        threads = {int(task.name) for task in Path(f"/proc/{stages['inference']}/task").iterdir()}
        assert all(os.sched_getaffinity(thread) == {first} for thread in threads)
    finally:
        server.stop()
