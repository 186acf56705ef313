"""The doctor as a process, plans, and hosts made of files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pipeline.config import load_configuration
from pipeline.doctor import Finding
from pipeline.doctor.subject import Host, Plan

ROOT = Path(__file__).parents[3]
EMULATED = ROOT / "configs/emulated_910b.yaml"
DEMO = ROOT / "configs/demo.yaml"


def doctor(*arguments, before=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "pipeline.doctor", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, preexec_fn=before,
        env=os.environ | environment,
    )  # fmt: skip


def plan_of(*overrides, path=EMULATED):
    return Plan.of(load_configuration(path, ("serving_config.server_port=0", *overrides)))


def host_of(tmp_path, **files):
    """A host of files: keywords with ``__`` for ``/``."""
    for name, content in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return Host(tmp_path)


def only(findings) -> Finding:
    (finding,) = findings
    return finding


TABLE = """\
| npu-smi 24.1.rc2                 Version: 24.1.rc2                                             |
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B4               | HEALTH             | 99.1        37                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3342 / 32768         |
"""


def npu_smi(directory, health, processes=""):
    """A program of this name that prints what Huawei's does."""
    directory.mkdir(exist_ok=True)
    program = directory / "npu-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{TABLE.replace('HEALTH', health)}{processes}END\n")
    program.chmod(0o755)


def ascend_plan_of(tmp_path, *overrides):
    path = tmp_path / "ascend.yaml"
    path.write_text(f"pipeline: {{model_dir: {ROOT / 'model/demo'}, runner: {{device: Ascend}}}}\n")
    return Plan.of(load_configuration(path, overrides))
