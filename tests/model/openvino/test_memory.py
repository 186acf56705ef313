"""Huge pages for what is filled, and for nothing else."""

from __future__ import annotations

import ctypes
import mmap
import platform
from pathlib import Path

import pytest

from model.openvino import memory

SIZE = 16 << 20
SYSTEM = Path("/sys/kernel/mm/transparent_hugepage")
RELEASE = tuple(int(part) for part in platform.release().split(".")[:2] if part.isdigit())
can_collapse = pytest.mark.skipif(
    RELEASE < (6, 1) or not SYSTEM.exists() or "[never]" in (SYSTEM / "enabled").read_text(),
    reason="the kernel gives no huge pages on request",
)


def kib(address: int, which: str) -> int:
    """What the kernel tells of the mapping that holds an address."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            begin, end = (int(part, 16) for part in first.split("-"))
            here = begin <= address < end
        elif here and first == f"{which}:":
            return int(rest[0])
    raise LookupError(which)


@can_collapse
def test_filled_memory_alone_gets_huge_pages():
    area = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    for at in range(0, SIZE // 2, mmap.PAGESIZE):
        area[at] = 7
    before = kib(address, "Rss")
    memory.use_huge_pages()
    assert kib(address, "AnonHugePages") >= (SIZE // 2 >> 10) - 2 * 2048
    assert kib(address, "Rss") < before + 1024  # KiB; the half that is empty would be 8192
    assert all(area[at] == 7 for at in range(0, SIZE // 2, mmap.PAGESIZE))


@pytest.mark.parametrize("system", ["always madvise [never]", None])
def test_nothing_happens_where_there_are_none(tmp_path, monkeypatch, system):
    if system is not None:
        (tmp_path / "enabled").write_text(system)
    monkeypatch.setattr(memory, "_HUGE_PAGES", tmp_path)
    monkeypatch.setattr(memory, "private_memory", lambda: pytest.fail("it looked at memory"))
    memory.use_huge_pages()
