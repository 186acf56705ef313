"""The operator compiles without a warning, and computes the same, with each compiler and for each processor
at hand. Where a compiler or the emulator is missing, its case is skipped."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FLAGS = ["-std=c++17", "-ffp-contract=fast", "-Wall", "-Wextra", "-Werror", "-pthread"]
BUILDS = {
    "clang": ("clang++", ["-O1"], []),
    "sanitized": ("g++", ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover"], []),
    "aarch64": ("aarch64-linux-gnu-g++", ["-O1", "-static"], ["qemu-aarch64"]),
}


@pytest.mark.parametrize("name", BUILDS)
def test_build_and_compare(name, tmp_path):
    compiler, flags, emulator = BUILDS[name]
    for program in (compiler, *emulator):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    sources = [*sorted((ROOT / "model/csrc").glob("*.cc")), Path(__file__).with_name("attention_check.cc")]
    check = tmp_path / "check"
    subprocess.run([compiler, *FLAGS, *flags, *map(str, sources), "-o", str(check)], check=True)
    result = subprocess.run([*emulator, str(check)], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "worst error" in result.stdout
