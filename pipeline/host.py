"""What the launcher makes sure of before it starts anything: descriptors, and shared memory."""

from __future__ import annotations

import mmap
import resource

from ipc import SHM_DIRECTORY, shared_memory_left
from pipeline.config import Configuration
from pipeline.descriptors import Shapes
from pipeline.stats import LAYOUT as STATS
from pipeline.wiring import segment_sizes

OWN_DESCRIPTORS = 192
"""Of a process beside its connections: rings of two generations, sockets it listens on, files, what libraries open.
The front has some 60."""


STAGE_ADDRESSES = 160 << 20
"""Of a stage beside the rings: 100 to 140 MiB measured."""

MODEL_ADDRESSES = 3 << 30
"""Of inference with MindSpore, weights and KV cache not included: 2.8 GiB measured with the demo model."""


class HostError(Exception):
    """This host can't run the configuration; the message says what to change."""


def prepare_host(config: Configuration, shapes: Shapes) -> list[str]:
    """Raises HostError for what can't work; returns remarks on what will not work later."""
    remarks = [
        raise_descriptor_limit(descriptors_needed(config)),
        require_shared_memory(config, shapes),
        doubt_address_space(config, shapes),
    ]
    return [remark for remark in remarks if remark]


# ---- descriptors -------------------------------------------------------------------------------------------------


def descriptors_needed(config: Configuration) -> int:
    """Of the front, which has the most."""
    return config.pipeline.max_connections + len(config.pipeline.hosts) + OWN_DESCRIPTORS


def raise_descriptor_limit(needed: int) -> str:
    """Raise the soft limit of this process, and so of all stages, to what is needed. Raises HostError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return ""
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise HostError(
            f"{needed} file descriptors are needed, {hard} are allowed; {raise_descriptors(needed, hard)}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return ""


def raise_descriptors(needed: int, hard: int) -> str:
    """What to change."""
    room = hard - OWN_DESCRIPTORS
    lower = f", or lower pipeline.max_connections to at most {room - 1}" if room > 1 else ""
    return (
        f"raise the hard limit (LimitNOFILE={needed} of the unit, --ulimit nofile={needed} of the container){lower}"
    )


# ---- shared memory -----------------------------------------------------------------------------------------------


def shared_memory_needed(config: Configuration, shapes: Shapes, generations: int = 1) -> int:
    """Bytes in /dev/shm. While a stage is replaced the rings are there twice: the old ones until all have let go."""
    rings = sum(map(_in_pages, segment_sizes(config, shapes).values()))
    return generations * rings + _in_pages(STATS.size)


def require_shared_memory(config: Configuration, shapes: Shapes) -> str:
    """Raises HostError when a start needs more than there is; a remark when a restart will."""
    left = shared_memory_left(SHM_DIRECTORY)
    once, twice = (shared_memory_needed(config, shapes, generations) for generations in (1, 2))
    if left.free < once:
        raise HostError(f"{memory_shortage(once, twice)}, {mib(left.free)} are free ({left.bound_by}); {left.remedy}")
    if left.free < twice:
        short = f"only {mib(left.free)} are free ({left.bound_by}); {left.remedy}"
        return f"the server could not replace a stage that dies: {memory_shortage(once, twice)}, {short}"
    return ""


def doubt_address_space(config: Configuration, shapes: Shapes) -> str:
    """A remark where stages will hardly start: what they map is known in part only."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    stage = STAGE_ADDRESSES + shared_memory_needed(config, shapes)
    model = MODEL_ADDRESSES if config.pipeline.runner.kind == "mindformers" else 0
    if limit == resource.RLIM_INFINITY or limit >= stage + model:
        return ""
    need = mib(stage + model)
    return f"each process may map {mib(limit)} (RLIMIT_AS), but about {need} are needed; ulimit -v unlimited"


def memory_shortage(once: int, twice: int) -> str:
    return f"the rings need {mib(once)} of shared memory, {mib(twice)} while a stage is replaced"


def mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:.1f} MiB"


def _in_pages(nbytes: int) -> int:
    return -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
