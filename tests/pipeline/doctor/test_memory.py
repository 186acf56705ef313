"""Memory, shared and not."""

from __future__ import annotations

import ipc
from pipeline.doctor import Level, memory
from pipeline.doctor.subject import Host
from tests.pipeline.doctor.helpers import DEMO, doctor, host_of, only, plan_of

HUGE = ("pipeline.rings.logits_slots=64", "pipeline.max_rows=4096", "pipeline.token_budget=4096",
        "pa_config.num_blocks=8192", "model_config.vocab_size=10000000")  # fmt: skip


def test_rings_that_do_not_fit():
    """Ten terabytes of them."""
    found = only(memory.check_shared_memory(Host(), plan_of(*HUGE)))
    assert found.level is Level.FAIL
    assert "at least" in found.fix


def test_rings_that_do_not_fit_into_shared_memory(monkeypatch):
    shm = ipc.MemoryLeft(1 << 20, "/dev/shm has 1 MiB in all", "enlarge it")
    monkeypatch.setattr(ipc.segment, "shared_memory_left", lambda _: shm)
    found = only(memory.check_shared_memory(Host(), plan_of()))
    assert found.level is Level.OK
    assert "will be memfds: /dev/shm is too small, 1.0 MiB are free (/dev/shm has 1 MiB in all)" in found.text


def test_a_model_that_does_not_fit():
    done = doctor("--config", str(DEMO), "--set", "pa_config.num_blocks=100000000")
    assert done.returncode == 1
    assert "lower num_blocks from 100000000 to at most" in done.stdout


def test_little_memory(tmp_path):
    machine = host_of(tmp_path, proc__meminfo="MemAvailable: 300000 kB\n")
    found = only(memory.check_room(machine, plan_of(path=DEMO)))
    assert found.level is Level.FAIL
    assert "the kernel would kill a stage" in found.text
    group = host_of(
        tmp_path, **{"proc__meminfo": "MemAvailable: 99000000 kB\n", "proc__self__cgroup": "0::/x\n",
                     "sys__fs__cgroup__x__memory.max": f"{200 << 20}\n", "sys__fs__cgroup__x__memory.current": "0\n"},
    )  # fmt: skip
    assert "within the control group's limit of 200.0 MiB" in only(memory.check_room(group, plan_of())).text
    assert only(memory.check_room(Host(), plan_of(path=DEMO))).level is Level.OK


def test_swap_and_huge_pages(tmp_path):
    host = host_of(
        tmp_path,
        proc__swaps="Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n",
        sys__kernel__mm__transparent_hugepage__defrag="[always] defer madvise never\n",
    )
    assert "/dev/sda2" in only(memory.check_swap(host)).text
    assert "madvise" in only(memory.check_huge_pages(host)).fix
    none = host_of(tmp_path / "none", proc__swaps="Filename Type Size Used Priority\n")
    assert only(memory.check_swap(none)).level is Level.OK
    assert not list(memory.check_huge_pages(none))
