"""Shared memory, memory limits, and what makes memory slow."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from ipc import memory_left
from model.mindspore_common.memory import available_memory
from model.mindspore_common.runner import GraphRunner
from pipeline.doctor.finding import Finding, fail, ok, warn
from pipeline.doctor.subject import Host, Plan
from pipeline.host.cgroups import memory_limit
from pipeline.host.facts import mib, plan_shared_memory, shared_memory_needed
from pipeline.runtime.engines import make_runner
from pipeline.wire.topology import INFERENCE, Topology

TOPIC = "memory"
PROCESS_BYTES = 70 << 20
"""Of launcher, front, preprocess and sampling each, beside the rings: 40 to 65 MiB measured."""


def check_shared_memory(_: Host, plan: Plan) -> Iterator[Finding]:
    memory = plan_shared_memory(plan.config, plan.shapes)
    if memory.backing is None:
        yield fail(TOPIC, memory.text, f"{memory_left().remedy}; at least {(memory.need >> 20) + 1} MiB")
    else:
        yield ok(TOPIC, memory.text)


def check_address_space(_: Host) -> Iterator[Finding]:
    soft, _hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        yield ok(TOPIC, "address space is not limited")
    else:
        text = f"address space is limited to {mib(soft)} per process: mapped memory counts, used or not"
        yield warn(TOPIC, text, "ulimit -v unlimited; to limit memory, use a control group (MemoryMax=, --memory)")


def check_locked_memory(_: Host, plan: Plan) -> Iterator[Finding]:
    """RingServe locks no memory; a device's driver may."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if plan.on_ascend and soft != resource.RLIM_INFINITY:
        text = f"locked memory is limited to {mib(soft)}; a driver may want to pin more (not run on a device so far)"
        yield warn(TOPIC, text, "ulimit -l unlimited; LimitMEMLOCK=infinity; --ulimit memlock=-1")


def check_room(host: Host, plan: Plan) -> Iterator[Finding]:
    """Whether all processes together fit."""
    light = [stage for stage in Topology.of(plan.config).stages if stage.name != INFERENCE.name]
    models = plan.config.pipeline.replicas * _model_bytes(plan)
    need = (1 + len(light)) * PROCESS_BYTES + shared_memory_needed(plan.config, plan.shapes) + models
    room, limit = available_memory(host.root), memory_limit(host.root)
    bound = "" if limit is None else f", within the control group's limit of {mib(limit)}"
    text = f"about {mib(need)} are needed in total, {mib(room)} are available{bound}"
    if need <= room:
        yield ok(TOPIC, text)
    else:
        fix = "lower pa_config.num_blocks, or allow more (MemoryMax= of the unit, --memory of the container)"
        yield fail(TOPIC, f"{text}: the kernel would kill a stage", fix)


def _model_bytes(plan: Plan) -> int:
    """Of a replica. On Ascend weights and KV cache are on the device; how much the host needs beside is not known."""
    runner = make_runner(plan.config)
    if not isinstance(runner, GraphRunner):
        return PROCESS_BYTES + 8 * plan.facts.num_blocks * plan.facts.block_size
    need = runner.memory_need()
    return need.total if plan.on_cpu else need.runtime


def check_swap(host: Host) -> Iterator[Finding]:
    areas = [line.split()[0] for line in host.text("proc/swaps").splitlines()[1:]]
    if areas:
        text = f"swap is on ({', '.join(areas)}): a stage whose pages are swapped out stops for milliseconds"
        yield warn("latency", text, "swapoff -a; MemorySwapMax=0 in the unit; --memory-swap equal to --memory")
    else:
        yield ok("latency", "swap is off")


def check_huge_pages(host: Host) -> Iterator[Finding]:
    path = "sys/kernel/mm/transparent_hugepage/defrag"
    if "[always]" in host.text(path):
        text = "the kernel compacts memory while a process waits for a page (transparent_hugepage/defrag is always)"
        yield warn("latency", text, f"echo madvise > /{path}")
