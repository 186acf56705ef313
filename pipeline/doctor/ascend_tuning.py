"""What slows an Ascend device's host down, or ends it in a way that is hard to read.

Each line has the value, what it should be, and why; none of it changes text. Not run on a device so far: what is
wanted comes from Huawei's documents and from what users of Ascend set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.doctor.finding import Finding, ok, warn
from pipeline.doctor.subject import Host, Plan
from pipeline.host.facts import HostError
from pipeline.host.npu import bus_of, devices_in, npu_table, parse_cpu_list, physical_device, processes_in
from pipeline.host.npu_errors import explain
from pipeline.wire.topology import INFERENCE, Topology

TOPIC = "ascend"
_UNTRIED = "(not run on a device so far)"
_CORES_PER_DEVICE = 5  # runtime, its callbacks and interrupts beside what computes the next step
_CONNECT_S, _EXEC_S = 120, 1836  # HCCL's defaults
_LOADING_S = 120  # that ranks may differ in loading their weights
_PLOG_BYTES = 1 << 20
_ALLOCATORS = ("tcmalloc", "jemalloc", "mimalloc")


def check_tuning(host: Host, plan: Plan) -> Iterator[Finding]:
    if not plan.on_ascend:
        return
    environment, ranks = os.environ, Topology.of(plan.config).ranks
    yield from _check_kernel(host)
    yield from _check_libraries(environment)
    yield from _check_hccl(environment, ranks, plan.config.pipeline.hang_timeout_s)
    yield from _check_cpus(host, plan)
    yield _check_plog(Path(environment.get("ASCEND_PROCESS_LOG_PATH") or Path.home() / "ascend/log"))


def _line(name: str, value: str, wanted: str, why: str, *, good: bool, fix: str) -> Finding:
    text = f"{name} is {value}, wanted: {wanted} ({why}) {_UNTRIED}"
    return ok(TOPIC, text) if good else warn(TOPIC, text, fix)


# ---- the kernel ---------------------------------------------------------------------------------------------------


def _check_kernel(host: Host) -> Iterator[Finding]:
    swappiness = host.text("proc/sys/vm/swappiness")
    yield _line(
        "vm.swappiness",
        swappiness or "not known",
        "0 to 10",
        "pages of the host's side of a step must not be swapped out for a file's",
        good=swappiness.isdigit() and int(swappiness) <= 10,
        fix="sysctl -w vm.swappiness=0",
    )
    balancing = host.text("proc/sys/kernel/numa_balancing")
    yield _line(
        "kernel.numa_balancing",
        balancing or "not there",
        "0",
        "the kernel unmaps pages to see who uses them: each costs a fault in the midst of a launch",
        good=balancing in {"", "0"},
        fix="sysctl -w kernel.numa_balancing=0",
    )
    pages = re.search(r"\[(\w+)\]", host.text("sys/kernel/mm/transparent_hugepage/enabled"))
    which = pages[1] if pages else "not known"
    yield _line(
        "transparent_hugepage/enabled",
        which,
        "madvise, or always",
        "weights are read from the page cache and copied: small pages make loading slower",
        good=which in {"madvise", "always"},
        fix="echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
    )
    names = (host.text(str(path.relative_to(host.root))) for path in host.names("proc", "[0-9]*/comm"))
    running = "irqbalance" in names
    yield _line(
        "irqbalance",
        "running" if running else "not running",
        "not running",
        "it moves the device's interrupts to the CPUs that stages are pinned to",
        good=not running,
        fix="systemctl disable --now irqbalance; then bind the device's interrupts to CPUs of its own node",
    )


# ---- what is loaded into the processes ----------------------------------------------------------------------------


def _check_libraries(environment: Mapping[str, str]) -> Iterator[Finding]:
    preloaded = environment.get("LD_PRELOAD", "")
    which = next((name for name in _ALLOCATORS if name in preloaded), "")
    yield _line(
        "the allocator",
        which or "glibc's",
        "tcmalloc or jemalloc",
        "launching operators allocates in several threads at once",
        good=bool(which),
        fix="LD_PRELOAD=/usr/lib/aarch64-linux-gnu/libjemalloc.so.2 (package libjemalloc2; openEuler: /usr/lib64)",
    )
    threads, allowed = environment.get("OMP_NUM_THREADS", ""), len(os.sched_getaffinity(0))
    yield _line(
        "OMP_NUM_THREADS",
        threads or f"not set, so {allowed}",
        "1, or a few",
        "while the device computes, its host needs a core or two; threads that spin beside it delay launches",
        good=threads.isdigit() and 0 < int(threads) <= 16,
        fix="OMP_NUM_THREADS=1",
    )
    bind = environment.get("OMP_PROC_BIND", "")
    yield _line(
        "OMP_PROC_BIND",
        bind or "not set",
        "not set, or false",
        "else OpenMP pins threads to CPUs itself, against pipeline.cpus",
        good=bind.lower() in {"", "false"},
        fix="OMP_PROC_BIND=false",
    )
    level = environment.get("ASCEND_GLOBAL_LOG_LEVEL", "")
    yield _line(
        "ASCEND_GLOBAL_LOG_LEVEL",
        level or "not set, so 3",
        "3 (errors) or 4 (none)",
        "with less, CANN writes a line for every operator that it launches",
        good=level in {"", "3", "4"},
        fix="ASCEND_GLOBAL_LOG_LEVEL=3",
    )


# ---- HCCL ---------------------------------------------------------------------------------------------------------


def _check_hccl(environment: Mapping[str, str], ranks: int, hang_s: float) -> Iterator[Finding]:
    """With one device nothing waits for another, and any value will do."""
    alone = ranks == 1
    beside = "; there is one device, which waits for no other" if alone else ""
    connect = _seconds(environment, "HCCL_CONNECT_TIMEOUT", _CONNECT_S)
    yield _line(
        "HCCL_CONNECT_TIMEOUT",
        f"{connect:g} s",
        f"{_LOADING_S} s or more",
        f"devices wait so long for one another while the slowest loads its weights, then fail with EI0006{beside}",
        good=alone or connect >= _LOADING_S,
        fix=f"HCCL_CONNECT_TIMEOUT={_LOADING_S}, or more for a model that takes long to load",
    )
    execution = _seconds(environment, "HCCL_EXEC_TIMEOUT", _EXEC_S)
    yield _line(
        "HCCL_EXEC_TIMEOUT",
        f"{execution:g} s" if execution else "0, without end",
        f"more than pipeline.hang_timeout_s, {hang_s:g} s",
        f"so that it is RingServe that ends a rank that stands still, and resumes its requests; "
        f"HCCL would say EI0002 of all ranks but the one to blame{beside}",
        good=alone or execution == 0 or execution > hang_s,
        fix=f"HCCL_EXEC_TIMEOUT={_EXEC_S}, or a lower pipeline.hang_timeout_s",
    )
    mode = environment.get("HCCL_OP_EXPANSION_MODE", "")
    yield _line(
        "HCCL_OP_EXPANSION_MODE",
        mode or "not set, so the product's default",
        "AIV",
        f"small all-reduces, as of a decode step, are then started on the device itself and not by the host{beside}",
        good=alone or mode == "AIV",
        fix="HCCL_OP_EXPANSION_MODE=AIV (Atlas A2 and A3, within one server)",
    )


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    """The default for what HCCL would refuse: it says so itself, with EI0001."""
    try:
        return float(environment.get(name, "") or default)
    except ValueError:
        return default


# ---- CPUs and the device ------------------------------------------------------------------------------------------


def _check_cpus(host: Host, plan: Plan) -> Iterator[Finding]:
    allowed = os.sched_getaffinity(0)
    try:
        table = npu_table()
        device = physical_device(plan.config.serving_config.start_device_id)
        bus = bus_of(device, table)
    except HostError:
        return  # told by check_ascend
    count = len(devices_in(table))
    yield _line(
        "the number of CPUs per device",
        f"{len(allowed) / count:.3g} ({len(allowed)} for {count})",
        f"{_CORES_PER_DEVICE} or more",
        "the runtime's threads, its callbacks and interrupts need cores of their own",
        good=len(allowed) >= _CORES_PER_DEVICE * count,
        fix="allow more CPUs, or fewer devices on this host",
    )
    yield from _check_node(host, plan, device, bus)
    others = [f"{name} ({pid})" for on, pid, name in processes_in(table) if on == device]
    yield _line(
        f"what runs on device {device}",
        ", ".join(others) or "nothing",
        "nothing, while RingServe does not run",
        "its memory and streams are shared; a process that was left behind keeps both",
        good=not others,
        fix="end it, if it is not needed: kill the process id that is shown",
    )


def _check_node(host: Host, plan: Plan, device: int, bus: str) -> Iterator[Finding]:
    """Whether inference runs next to its device."""
    near = set(parse_cpu_list(host.text(f"sys/bus/pci/devices/{bus}/local_cpulist")))
    node = host.text(f"sys/bus/pci/devices/{bus}/numa_node") or "not known"
    pinned = getattr(plan.config.pipeline.cpus, INFERENCE.name)
    used = os.sched_getaffinity(0) if pinned in (None, "device") else set(pinned)
    yield _line(
        f"device {device}'s NUMA node",
        f"{node}, and of the CPUs of inference {len(used & near)} of {len(used)} are on it",
        "all of them",
        "what is launched, and what comes back, crosses the bus between the sockets otherwise",
        good=bool(near) and (used <= near or pinned == "device"),
        fix="pipeline.cpus.inference: device",
    )


# ---- what CANN wrote ----------------------------------------------------------------------------------------------


def _check_plog(directory: Path) -> Finding:
    """The newest log of a process, if there are known errors in it."""
    found = sorted(directory.glob("debug/plog/plog-*.log"), key=lambda path: path.stat().st_mtime)
    if not found:
        return ok(TOPIC, f"CANN has logged no errors in {directory} {_UNTRIED}")
    with found[-1].open("rb") as file:
        file.seek(max(0, found[-1].stat().st_size - _PLOG_BYTES))
        lines = explain(file.read().decode(errors="replace"))
    if not lines:
        return ok(TOPIC, f"no known error in CANN's newest log, {found[-1].name} {_UNTRIED}")
    return warn(TOPIC, f"CANN's newest log has {lines[0]} {_UNTRIED}", f"read {found[-1]} around its first ERROR")
