"""The way of one streamed completion, counted in a real server."""

from __future__ import annotations

import json
import subprocess
import sys

from scripts.lab.paths import ROOT
from scripts.tools.count_path.__main__ import count


def test_lines_of_several_stages_count_once():
    figures = count({"front": {"ipc/waiting.py": {1, 2}}, "sampling": {"ipc/waiting.py": {2, 3}, "ipc/ring.py": {9}}})
    assert (figures["files"], figures["executed_lines"]) == (2, 4)
    assert figures["by_stage"]["sampling"] == {"files": 2, "executed_lines": 3}
    assert figures["lines_of_these_files"] == sum(
        len((ROOT / path).read_text().splitlines()) for path in ("ipc/waiting.py", "ipc/ring.py")
    )


def test_every_stage_is_on_the_way():
    command = [sys.executable, "-m", "scripts.tools.count_path", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    for path in (
        "pipeline/front/api/openai/completions.py",
        "pipeline/preprocess/scheduler.py",
        "pipeline/inference/step_executor.py",
        "pipeline/sampling/stage.py",
    ):
        assert figures["by_file"][path] > 10, path
    assert "pipeline/launcher/supervisor.py" not in figures["by_file"]
    assert all(one["files"] for one in figures["by_stage"].values())
