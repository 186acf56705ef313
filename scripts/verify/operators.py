"""The C++ operators (model/csrc) and products with int8 matrices (model/openvino/csrc) without Python: built by each
compiler at hand, with sanitizers, the operators also for aarch64, and compared with plain loops in double precision
(tests/model/csrc/attention_check.cc, tests/model/openvino/int8_check.cc).

`make sanitize` and `make test-aarch64` run their parts of it, tests/model/csrc what is quick. A warning is an error.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.lab.paths import ROOT

OPERATORS = (
    *sorted((ROOT / "model" / "csrc").glob("*.cc")),
    ROOT / "tests" / "model" / "csrc" / "attention_check.cc",
)
INT8 = (ROOT / "model/openvino/csrc/int8_matrix.cc", ROOT / "tests/model/openvino/int8_check.cc")
FLAGS = ["-std=c++17", "-ffp-contract=fast", "-Wall", "-Wextra", "-Werror", "-pthread"]
_RECOVER = ["-g1", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Build:
    compiler: str
    flags: Sequence[str] = ()
    emulator: Sequence[str] = ()
    sources: Sequence[Path] = OPERATORS

    def missing(self) -> list[str]:
        """Programs that are not installed."""
        return [program for program in (self.compiler, *self.emulator) if shutil.which(program) is None]

    def run(self, directory: Path) -> subprocess.CompletedProcess[str]:
        """Compile into this directory, and run. Raises CalledProcessError, whose stderr has what does not compile."""
        program = directory / "check"
        command = [self.compiler, *FLAGS, *self.flags, *map(str, self.sources), "-o", str(program)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
        ran = [*self.emulator, str(program)]
        return subprocess.run(ran, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=environment)


_ADDRESSES = ["-fsanitize=address,undefined", *_RECOVER]
SANITIZED = {
    "sanitized": Build("g++", ["-O0", *_ADDRESSES]),
    "threads": Build("g++", ["-O1", "-fsanitize=thread", *_RECOVER]),
}
AARCH64 = {"aarch64": Build("aarch64-linux-gnu-g++", ["-O1", "-static"], ["qemu-aarch64"])}
CLANG = {"clang": Build("clang++", ["-O1"])}
if platform.machine() == "x86_64":
    SANITIZED["int8"] = Build("g++", ["-O1", *_ADDRESSES], sources=INT8)
    CLANG["int8, clang"] = Build("clang++", ["-O1"], sources=INT8)


def run_all(builds: dict[str, Build]) -> bool:
    """One line per build; whether each that could be made was right."""
    good = True
    for name, build in builds.items():
        if missing := build.missing():
            print(f"operators, {name:10} not run: {' and '.join(missing)} not found", flush=True)
            continue
        with tempfile.TemporaryDirectory(prefix="operators-") as directory:
            try:
                done = build.run(Path(directory))
                bad, said = done.returncode != 0, done.stdout + done.stderr
            except subprocess.CalledProcessError as error:
                bad, said = True, error.stderr
        print(f"operators, {name:10} {'WRONG:' if bad else said.strip().rpartition(chr(10))[2]}", flush=True)
        if bad:
            print(said, file=sys.stderr)
        good &= not bad
    return good
