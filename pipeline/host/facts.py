"""What the launcher checks before it starts anything: file descriptors, shared memory, address space."""

from __future__ import annotations

import mmap
import resource
from collections.abc import Iterator
from dataclasses import dataclass

from ipc import Backing, backing_for, memory_left
from pipeline.config import Configuration
from pipeline.stats import stats_layout
from pipeline.wire.rings import segment_sizes
from pipeline.wire.step import Shapes
from pipeline.wire.topology import Topology

OWN_DESCRIPTORS = 512
"""Of a process beside its connections: rings, listeners, files, what libraries open (some 60 in all), and connections
that are being refused or closed."""

LANE_DESCRIPTORS = 32
"""Of the front for each further replica (23 measured; 39 in the launcher, which has no connections)."""

STAGE_ADDRESSES = 160 << 20
"""Of a stage beside the rings: 100 to 140 MiB measured."""

MODEL_ADDRESSES = 3 << 30
"""Of inference with MindSpore, weights and KV cache not included: 2.8 GiB measured with the demo model."""


class HostError(Exception):
    """This host can't run the configuration; the message says what to change."""


def prepare_host(config: Configuration, shapes: Shapes) -> list[str]:
    """Raises HostError for what can't work; returns warnings about what may not."""
    raise_descriptor_limit(config)
    memory = require_shared_memory(config, shapes)
    remarks = [] if memory.backing is Backing.SHM else [memory.text]
    return [*remarks, *check_address_space(config, shapes)]


# ---- descriptors -------------------------------------------------------------------------------------------------


def descriptors_needed(config: Configuration) -> int:
    """Of the front, which has the most."""
    lanes = LANE_DESCRIPTORS * (config.pipeline.replicas - 1)
    return config.pipeline.max_connections + len(config.pipeline.hosts) + OWN_DESCRIPTORS + lanes


def raise_descriptor_limit(config: Configuration) -> None:
    """Raise the soft limit of this process, and of those that it starts, to what is needed. Raises HostError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = descriptors_needed(config)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise HostError(f"{needed} file descriptors are needed, {hard} are allowed; {more_descriptors(config, hard)}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def more_descriptors(config: Configuration, hard: int) -> str:
    """What to change where the hard limit is too low."""
    needed = descriptors_needed(config)
    most = config.pipeline.max_connections - (needed - hard)
    lower = f", or lower pipeline.max_connections to at most {most}" if most > 0 else ""
    return f"raise the limit (LimitNOFILE={needed} of the unit, --ulimit nofile={needed} of the container){lower}"


# ---- shared memory -----------------------------------------------------------------------------------------------


def shared_memory_needed(config: Configuration, shapes: Shapes) -> int:
    """Bytes of all segments. The rings of a generation are made after all stages have detached from those of the last
    one."""
    topology = Topology.of(config)
    rings = segment_sizes(topology, config, shapes).values()
    return sum(map(_in_pages, rings)) + _in_pages(stats_layout(topology).size)


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """What all segments together need, in bytes, and what they will be made of, by what is free now; None: it is too
    little. `text` says so."""

    need: int
    backing: Backing | None
    text: str


def plan_shared_memory(config: Configuration, shapes: Shapes) -> SharedMemory:
    need, shm, memory = shared_memory_needed(config, shapes), Backing.SHM.left(), memory_left()
    backing = backing_for(need)
    where = {
        Backing.SHM: f"are taken from /dev/shm, where {mib(shm.free)} are free ({shm.bound_by})",
        Backing.MEMFD: f"will be memfds: /dev/shm is too small, {mib(shm.free)} are free ({shm.bound_by})",
        None: f"are needed, {mib(memory.free)} are free ({memory.bound_by})",
    }
    return SharedMemory(need, backing, f"{mib(need)} of shared memory {where[backing]}")


def require_shared_memory(config: Configuration, shapes: Shapes) -> SharedMemory:
    """Checked as a whole before any segment is made. Raises HostError."""
    plan = plan_shared_memory(config, shapes)
    if plan.backing is None:
        raise HostError(f"{plan.text}; {memory_left().remedy}")
    return plan


def check_address_space(config: Configuration, shapes: Shapes) -> Iterator[str]:
    """A warning, not an error, where stages will hardly start: only part of what they map is known."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    stage = STAGE_ADDRESSES + shared_memory_needed(config, shapes)
    model = MODEL_ADDRESSES if config.pipeline.runner.kind != "emulated" else 0
    if limit != resource.RLIM_INFINITY and limit < stage + model:
        need = mib(stage + model)
        text = f"address space is limited to {mib(limit)} per process (RLIMIT_AS), but about {need} are needed"
        yield f"warning: {text}; ulimit -v unlimited"


def mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:.1f} MiB"


def _in_pages(nbytes: int) -> int:
    return -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
