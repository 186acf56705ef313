"""How much shared memory is left, and what bounds it."""

from __future__ import annotations

from pathlib import Path

from ipc import limits

SHM = Path("/dev/shm")


def test_the_control_group_limit_counts(tmp_path, monkeypatch):
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    (tmp_path / "a" / "memory.max").write_text("1000\n")
    (tmp_path / "a" / "memory.current").write_text("400\n")
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("100\n")
    monkeypatch.setattr(limits, "_CGROUP", tmp_path)
    monkeypatch.setattr(
        limits, "_lines", lambda path, real=limits._lines: ["0::/a/b"] if path.name == "cgroup" else real(path)
    )
    left = limits.shared_memory_left(SHM)
    assert left.free == 600
    assert "memory limit" in left.bound_by


def test_a_directory_that_is_not_there_has_no_room(tmp_path):
    left = limits.shared_memory_left(tmp_path / "none")
    assert left.free == 0
    assert "none is not there, or not writable" in left.bound_by


def test_the_size_of_a_file_system_is_no_bound_on_memory(monkeypatch):
    monkeypatch.setattr(limits, "_tmpfs", lambda _: limits.MemoryLeft(1, "a tiny file system", ""))
    assert limits.shared_memory_left(SHM).bound_by == "a tiny file system"
    assert limits.memory_left().free > 1


def test_page_cache_does_not_count_against_the_limit(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 500\nactive_file 300\nslab 9\n")
    monkeypatch.setattr(limits, "_CGROUP", tmp_path)
    real = limits._lines
    monkeypatch.setattr(limits, "_lines", lambda path: ["0::/"] if path.name == "cgroup" else real(path))
    assert limits.shared_memory_left(SHM).free == 800
