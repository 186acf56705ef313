"""What the launcher makes sure of: descriptors, shared memory, addresses."""

from __future__ import annotations

import resource

import pytest

from ipc import Backing, MemoryLeft, memory_left, segment
from pipeline.config import load_configuration
from pipeline.host import facts
from pipeline.host.facts import (
    HostError,
    check_address_space,
    descriptors_needed,
    mib,
    plan_shared_memory,
    prepare_host,
    shared_memory_needed,
)
from pipeline.runtime.engines import make_runner, shapes_of
from scripts.lab.paths import ROOT


@pytest.fixture
def limits(monkeypatch):
    """Limits of this process as the test wants them; returns what is set."""
    known = {resource.RLIMIT_NOFILE: (1 << 20, 1 << 20), resource.RLIMIT_AS: (resource.RLIM_INFINITY,) * 2}
    monkeypatch.setattr(resource, "getrlimit", lambda which: known[which])
    monkeypatch.setattr(resource, "setrlimit", lambda which, values: known.update({which: values}))
    return known


@pytest.fixture(scope="module")
def config():
    return load_configuration(ROOT / "configs" / "emulated_910b.yaml", ["pipeline.max_connections=1000"])


@pytest.fixture(scope="module")
def shapes(config):
    return shapes_of(config, make_runner(config))


def test_a_host_that_has_everything(limits, config, shapes):
    assert prepare_host(config, shapes) == []
    assert limits[resource.RLIMIT_NOFILE] == (1 << 20, 1 << 20)


def test_a_soft_limit_is_raised_as_far_as_needed(limits, config, shapes):
    limits[resource.RLIMIT_NOFILE] = (256, 4096)
    prepare_host(config, shapes)
    assert limits[resource.RLIMIT_NOFILE] == (descriptors_needed(config), 4096)


@pytest.mark.parametrize(
    ("hard", "most"), [(1200, r" or lower pipeline\.max_connections to at most 6[0-9][0-9]$"), (64, r"container\)$")]
)
def test_a_hard_limit_that_is_too_low(limits, config, shapes, hard, most):
    limits[resource.RLIMIT_NOFILE] = (64, hard)
    with pytest.raises(HostError, match=rf"file descriptors are needed, {hard} are allowed.*{most}"):
        prepare_host(config, shapes)


def test_too_little_shared_memory(limits, config, shapes, monkeypatch):
    monkeypatch.setattr(facts, "shared_memory_needed", lambda *_: memory_left().free + (1 << 40))
    with pytest.raises(HostError, match=r"MiB of shared memory are needed, .* are free \("):
        prepare_host(config, shapes)


@pytest.fixture
def small_shm(config, shapes, monkeypatch):
    """A page less than is needed."""
    shm = MemoryLeft(shared_memory_needed(config, shapes) - 4096, "/dev/shm has 1 MiB in all", "enlarge it")
    monkeypatch.setattr(segment, "shared_memory_left", lambda _: shm)
    return shm


def test_where_the_segments_will_be(limits, config, shapes):
    plan = plan_shared_memory(config, shapes)
    assert (plan.need, plan.backing) == (shared_memory_needed(config, shapes), Backing.SHM)
    assert plan.text.startswith(f"{mib(plan.need)} of shared memory are taken from /dev/shm, where ")


def test_a_shared_memory_that_is_too_small_is_remarked_and_no_obstacle(limits, config, shapes, small_shm):
    (remark,) = prepare_host(config, shapes)
    need = mib(shared_memory_needed(config, shapes))
    assert remark.startswith(
        f"{need} of shared memory will be memfds: /dev/shm is too small, {mib(small_shm.free)} are"
    )
    assert remark.endswith("(/dev/shm has 1 MiB in all)")


def test_a_control_group_with_too_little_memory(limits, config, shapes, small_shm, monkeypatch):
    group = MemoryLeft(1 << 20, "the control group's memory limit is 9 MiB", "raise it")
    for module in (segment, facts):
        monkeypatch.setattr(module, "memory_left", lambda: group)
    need = mib(shared_memory_needed(config, shapes))
    with pytest.raises(
        HostError, match=rf"^{need} of .* are needed, 1.0 MiB are free \(.*limit is 9 MiB\); raise it$"
    ):
        prepare_host(config, shapes)
    assert plan_shared_memory(config, shapes).backing is None


def test_what_is_needed_grows_with_the_rings(config, shapes):
    larger = load_configuration(ROOT / "configs" / "emulated_910b.yaml", ["pipeline.max_rows=8"])
    other = shapes_of(larger, make_runner(larger))
    assert shared_memory_needed(config, shapes) != shared_memory_needed(larger, other)
    assert shared_memory_needed(config, shapes) % 4096 == 0


def test_few_addresses_are_remarked(limits, config, shapes):
    limits[resource.RLIMIT_AS] = (100 << 20, 100 << 20)
    (remark,) = check_address_space(config, shapes)
    assert "address space is limited to 100.0 MiB per process (RLIMIT_AS)" in remark
    limits[resource.RLIMIT_AS] = (1 << 40, 1 << 40)
    assert [*check_address_space(config, shapes)] == []
