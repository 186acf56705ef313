"""The C core without Python: under ThreadSanitizer, AddressSanitizer and UBSan, with each compiler that is here.

Not covered: ThreadSanitizer checks the interleavings that happened on this machine, and knows no fences; what
fences are for is what the SPIN model checks (test_verify.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "ipc" / "core"
SOURCE = Path(__file__).parent / "native" / "ring_stress.c"
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
FLAGS = [*WARNINGS, "-D_GNU_SOURCE", "-O1", "-g", "-pthread", f"-I{CORE}"]
SANITIZERS = {
    "thread": ["-fsanitize=thread"],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}
EVERY_20_US, ENDLESS = "20", "3600000000"

pytestmark = pytest.mark.timeout(120)


def compiler(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        # CI installs no cross compiler and no second compiler, but must not do without the first.
        assert os.environ.get("CI") != "true" or name != "gcc", "gcc not found, and CI must run the sanitizers"
        pytest.skip(f"{name} not found")
    return path


def build(cc: str, sanitizer: str, directory: Path, *definitions: str) -> Path:
    program = directory / "ring_stress"
    flags = [*FLAGS, *SANITIZERS[sanitizer], *definitions]
    done = subprocess.run([cc, *flags, "-o", str(program), str(SOURCE)], capture_output=True, text=True, check=False)
    if done.returncode and "cannot find" in done.stderr + done.stdout:
        assert os.environ.get("CI") != "true" or not cc.endswith("gcc"), done.stderr
        pytest.skip(f"{cc} has no runtime for -fsanitize={sanitizer}")
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="module", params=["thread", "address"])
def sanitizer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["gcc", "clang"])
def cc(request: pytest.FixtureRequest) -> str:
    return compiler(request.param)


@pytest.fixture(scope="module")
def program(cc: str, sanitizer: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(cc, sanitizer, tmp_path_factory.mktemp(sanitizer))


def stress(
    program: Path, ring: str, messages: int, slice_us: str, spin_us: int = 5, death: str = ""
) -> subprocess.CompletedProcess[str]:
    """`ring`: kind, consumers and capacity. `death` of the last consumer: evict, end; or nobody dies."""
    command = [str(program), *ring.split(), str(messages), slice_us, str(spin_us), "1", *death.split()]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


@pytest.mark.parametrize("slice_us", [EVERY_20_US, ENDLESS], ids=["slices-expire", "no-slice-expires"])
@pytest.mark.parametrize("ring", ["slots 1 1", "slots 1 4", "slots 2 2", "slots 3 4", "bytes 1 256", "bytes 2 64"])
def test_every_byte_arrives(program: Path, ring: str, slice_us: str) -> None:
    done = stress(program, ring, 2500, slice_us)
    assert done.returncode == 0, done.stdout + done.stderr
    counters = dict(word.split("=") for word in done.stdout.split())
    assert counters["lost_wakes"] == "0"
    assert int(counters["producer_parks"]) > 0, "the ring was never full: the test tested nothing"
    assert int(counters["consumer_parks"]) > 0, "the ring was never empty: the test tested nothing"


@pytest.mark.parametrize("death", ["evict", "end"])
@pytest.mark.parametrize("ring", ["slots 2 1", "slots 3 4", "bytes 3 256"])
def test_a_consumer_that_dies(program: Path, ring: str, death: str) -> None:
    done = stress(program, ring, 2500, EVERY_20_US, death=death)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("lost_wakes=0 ")


def test_a_ring_that_goes_on_though_a_death_should_end_it_is_seen(cc: str, tmp_path: Path) -> None:
    done = stress(build(cc, "address", tmp_path, "-DBREAK_END"), "slots 3 4", 2500, EVERY_20_US, death="end")
    assert done.returncode != 0
    assert "the dead consumer was passed" in done.stderr


@pytest.mark.parametrize("broken", ["BREAK_RELEASE_ORDER", "BREAK_ACQUIRE_ORDER", "BREAK_READ"])
def test_thread_sanitizer_sees_a_broken_ring(cc: str, broken: str, tmp_path: Path) -> None:
    done = stress(build(cc, "thread", tmp_path, f"-D{broken}"), "slots 1 4", 20000, EVERY_20_US)
    assert done.returncode != 0
    assert "ThreadSanitizer: data race" in done.stderr or (broken == "BREAK_READ" and "wrong content" in done.stderr)


def test_address_sanitizer_sees_a_read_out_of_bounds(cc: str, tmp_path: Path) -> None:
    done = stress(build(cc, "address", tmp_path, "-DBREAK_BOUNDS"), "slots 1 4", 100, EVERY_20_US)
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr


@pytest.mark.parametrize("cc", ["gcc", "clang", "aarch64-linux-gnu-gcc"], indirect=True)
def test_no_warning(cc: str, tmp_path: Path) -> None:
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").exists():
        pytest.skip("this Python has no headers")
    macros = ["-DPy_LIMITED_API=0x030B0000", "-fvisibility=hidden", "-O3"]
    for source in sorted(CORE.glob("*.c")):
        command = [cc, *WARNINGS, *macros, f"-I{include}", "-c", str(source), "-o", str(tmp_path / "out.o")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{source.name}: {done.stderr}"
