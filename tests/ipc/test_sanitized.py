"""The extension under AddressSanitizer and UBSan: a short part of what `make sanitize` runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.verify import sanitize

FILES = ["test_slots.py", "test_byte_ring.py", "test_broadcast.py", "test_layout.py"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not sanitize.available():
        if os.environ.get("CI") == "true":
            pytest.fail("gcc's libasan and libubsan not found, and CI must run the sanitizers")
        pytest.skip("gcc's libasan and libubsan not found")
    directory: Path = tmp_path_factory.mktemp("sanitize")
    sanitize.build(directory)
    return directory


def python(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=sanitize.environment(directory),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_it_is_the_sanitized_extension_that_is_loaded(directory: Path) -> None:
    done = python(directory, "-c", "import ipc._core; print(ipc._core.__file__)")
    assert done.stdout.strip().startswith(str(directory)), done.stderr
    symbols = subprocess.run(["nm", "-D", done.stdout.strip()], capture_output=True, text=True, check=True).stdout
    assert "__asan_init" in symbols


def test_extension(directory: Path) -> None:
    files = [f"tests/ipc/{name}" for name in FILES]
    done = python(directory, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert " passed" in done.stdout
