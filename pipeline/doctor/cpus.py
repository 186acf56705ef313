"""CPUs: number, quota, pinning, NUMA nodes, frequency."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from pipeline.doctor.finding import Finding, fail, ok, warn
from pipeline.doctor.subject import Host, Plan
from pipeline.host.cgroups import cpu_quota
from pipeline.host.cpu_placement import fit_to_host, usable_cpus
from pipeline.host.facts import HostError
from pipeline.host.npu import parse_cpu_list
from pipeline.wire.topology import ONE_OF_EACH, STAGES, Topology

TOPIC = "cpus"


def check_count(host: Host, plan: Plan | None = None) -> Iterator[Finding]:
    """`plan`: None, if it is not known how many stages there will be: those of one replica."""
    cpus, allowed, quota = usable_cpus(host.root), len(os.sched_getaffinity(0)), cpu_quota(host.root)
    topology = ONE_OF_EACH if plan is None else Topology.of(plan.config)
    stages = len(topology.stages)
    text = f"{allowed} CPUs" if quota is None else f"{allowed} CPUs with a quota of {quota:g}"
    text += f" for {stages} stages"
    more = f"allow {stages} CPUs or more: taskset, AllowedCPUs= of the unit, --cpuset-cpus of the container"
    if cpus < 2 * topology.replicas:
        yield warn(TOPIC, f"{text}: they take turns, and none of them spins", more)
    elif cpus < stages:
        yield warn(TOPIC, f"{text}: only inference spins; others would take CPU time from it", more)
    else:
        yield ok(TOPIC, f"{text}")


def check_quota(host: Host) -> Iterator[Finding]:
    quota = cpu_quota(host.root)
    if quota is not None and quota < len(os.sched_getaffinity(0)):
        text = f"a CPU quota of {quota:g} CPUs is set: whenever it is used up, all stages stop for up to 0.1 s"
        fix = "assign CPUs instead of a quota: --cpuset-cpus, not --cpus; AllowedCPUs=, not CPUQuota="
        yield warn("latency", text, fix)


def check_pinning(_: Host, plan: Plan) -> Iterator[Finding]:
    try:
        every = [fit_to_host(plan.config, replica).pipeline.cpus for replica in range(plan.config.pipeline.replicas)]
    except HostError as error:
        yield fail(TOPIC, str(error), "name the CPUs of the device's NUMA node, as lscpu shows them")
        return
    pinned = {stage: cpus for stage in STAGES if (cpus := getattr(every[0], stage))}
    stages_on = Counter(cpus[0] for cpus in pinned.values() if len(cpus) == 1)
    crowded = [cpu for cpu, stages in stages_on.items() if stages > 1]
    if crowded:
        text = f"several stages are pinned to the same single CPU: {', '.join(map(str, crowded))}"
        yield warn(TOPIC, text, "pin each to a CPU of its own, or all to the same several CPUs (pipeline.cpus)")
    elif pinned:
        yield ok(TOPIC, "pinned: " + ", ".join(f"{stage} to {_short(cpus)}" for stage, cpus in pinned.items()))


def check_nodes(host: Host, plan: Plan) -> Iterator[Finding]:
    nodes = parse_cpu_list(host.text("sys/devices/system/node/online") or "0")
    if len(nodes) < 2:
        yield ok(TOPIC, "one NUMA node")
        return
    config = plan.config
    if config.pipeline.cpus.inference is not None:
        yield ok(TOPIC, f"{len(nodes)} NUMA nodes; inference is pinned")
        return
    node = parse_cpu_list(host.text(f"sys/devices/system/node/node{nodes[0]}/cpulist"))
    which = "device" if plan.on_ascend else f"[{', '.join(map(str, node))}]"
    text = f"{len(nodes)} NUMA nodes, and inference is not pinned to one: memory of another node is slower"
    yield warn(TOPIC, text, f"pipeline.cpus.inference: {which}")


def check_governor(host: Host) -> Iterator[Finding]:
    files = host.names("sys/devices/system/cpu", "cpu[0-9]*/cpufreq/scaling_governor")
    governors = Counter(host.text(str(file.relative_to(host.root))) for file in files)
    slow = {name: count for name, count in governors.items() if name != "performance"}
    if slow:
        text = "the CPU frequency drops while CPUs idle between steps: governor " + ", ".join(
            f"{name} on {count}" for name, count in slow.items()
        )
        yield warn("latency", text, "cpupower frequency-set -g performance")
    else:
        yield ok("latency", "CPU frequency: " + ("governor performance" if governors else "no governor visible here"))


def _short(cpus: tuple[int, ...]) -> str:
    return str(cpus[0]) if len(cpus) == 1 else f"{len(cpus)} CPUs from {min(cpus)} to {max(cpus)}"
