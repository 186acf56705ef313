"""The kernels compiled for aarch64 and for this machine choose the same tokens."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[3] / "model" / "sampling"
HARNESS = Path(__file__).parent / "portable.c"
KERNELS = [SOURCES / f"{name}.c" for name in ("sample", "select", "rank", "edit", "candidates", "vector")]
FLAGS = ["-std=c11", "-O3", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-static", f"-I{SOURCES}"]


def output(compiler: str, target: Path, launcher: tuple[str, ...] = ()) -> str:
    command = [compiler, *FLAGS, str(HARNESS), *map(str, KERNELS), "-o", str(target), "-lm"]
    subprocess.run(command, check=True, timeout=120)
    return subprocess.run([*launcher, str(target)], check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.skipif(platform.machine() == "aarch64", reason="this is the machine to compare with")
def test_aarch64_chooses_the_same_tokens(tmp_path):
    for tool in ("gcc", "aarch64-linux-gnu-gcc", "qemu-aarch64"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    here = output("gcc", tmp_path / "here")
    there = output("aarch64-linux-gnu-gcc", tmp_path / "there", ("qemu-aarch64",))
    assert here == there
    assert len({line.split()[3] for line in here.splitlines()}) > 20  # many different tokens, or it means little
    assert all(line.split()[2] == "0" for line in here.splitlines())


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
def test_clang_and_gcc_choose_the_same_tokens(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    assert output("gcc", tmp_path / "gcc") == output("clang", tmp_path / "clang")
