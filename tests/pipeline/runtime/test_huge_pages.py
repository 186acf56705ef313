"""What is loaded lies on huge pages where the kernel can make some, and is what it was."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import pytest

from pipeline.runtime.huge_pages import collapse_heap

_SIZE = 16 << 20


def huge_kib():
    return int(re.findall(r"AnonHugePages:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text())[0])


def test_memory_is_joined_and_keeps_what_it_holds():
    held = mmap.mmap(-1, _SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.madvise(mmap.MADV_NOHUGEPAGE)
    held.write(b"x" * _SIZE)
    held.madvise(mmap.MADV_HUGEPAGE)
    before = huge_kib()
    if not collapse_heap():
        pytest.skip("the kernel joins no pages on demand (Linux 6.1)")
    assert huge_kib() - before >= (_SIZE - (4 << 20)) >> 10
    assert held[:] == b"x" * _SIZE
    held.close()
