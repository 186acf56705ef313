"""The kernel: whether the system calls that are needed work here; a sandbox may forbid them."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import socket
import time
from collections.abc import Callable, Iterator

import ipc
from pipeline.doctor.finding import Finding, fail, ok, warn
from pipeline.doctor.subject import Host

TOPIC = "kernel"
_LEAST = (5, 3)  # pidfd_open
_PR_GET_PDEATHSIG = 2
_FAST_CLOCKS = ("tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page")  # read without a system call
_SLOW_READ_NS = 500


def check_version(_: Host) -> Iterator[Finding]:
    release = os.uname().release
    version = re.match(r"(\d+)\.(\d+)", release)
    if version and tuple(map(int, version.groups())) < _LEAST:
        yield fail(TOPIC, f"Linux {release}: pidfd_open is missing", "use Linux 5.3 or later")
    else:
        yield ok(TOPIC, f"Linux {release} on {platform.machine()}")


def check_calls(_: Host) -> Iterator[Finding]:
    failed = {name: error for name, call in _CALLS.items() if (error := _fails(call))}
    for name, error in failed.items():
        yield fail(TOPIC, f"{name} does not work: {error}", f"allow {name} in the sandbox (seccomp profile)")
    if not failed:
        yield ok(TOPIC, f"{', '.join(_CALLS)} work")
    if error := _fails(_set_batch_policy):
        yield warn(
            TOPIC,
            f"SCHED_BATCH is forbidden ({error}): on few CPUs other stages may preempt inference",
            "allow sched_setscheduler in the sandbox",
        )


def check_proc(host: Host) -> Iterator[Finding]:
    """Rings identify a peer by pid and start time, read from there; so are descriptors."""
    if host.text("proc/self/stat") and host.exists("proc/self/fd"):
        yield ok(TOPIC, "/proc can be read")
    else:
        yield fail(TOPIC, "/proc can't be read; rings need it to identify processes", "mount -t proc proc /proc")


def check_ring(_: Host) -> Iterator[Finding]:
    """A ring of the smallest size: its segment is allocated, a message passes, and a wait on it sleeps."""
    try:
        with ipc.ByteRing.create("doctor", capacity=64) as ring, ring.producer() as producer, ring.consumer() as end:
            producer.write(b"message", 1)
            with end.read(1) as record:
                arrived = bytes(record) == b"message"
            slept = _times_out(end)
    except (ipc.IpcError, OSError) as error:
        yield fail(
            "rings",
            f"a ring can't be used: {error}",
            "allow memfd_create in the sandbox, or make /dev/shm a writable tmpfs",
        )
        return
    if arrived and slept:
        yield ok("rings", "a message passed through a ring, and a wait on an empty ring timed out")
    else:
        yield fail("rings", "a message was lost or altered in a ring", "rebuild the extension: pip install -e .")


def check_clock(host: Host) -> Iterator[Finding]:
    """The clock is read several times a step."""
    source = host.text("sys/devices/system/clocksource/clocksource0/current_clocksource") or "unknown"
    cost = _clock_read_ns()
    text = f"clock source {source}, {cost:.0f} ns per read"
    if source in _FAST_CLOCKS or (source == "unknown" and cost < _SLOW_READ_NS):
        yield ok("clock", text)
        return
    path = "/sys/devices/system/clocksource/clocksource0"
    yield warn(
        "clock",
        f"{text}: each is a system call",
        f"write the best in {path}/available_clocksource to {path}/current_clocksource, or boot with tsc=reliable",
    )


def _clock_read_ns(count: int = 2000) -> float:
    begin = time.perf_counter_ns()
    for _ in range(count):
        time.monotonic_ns()
    return (time.perf_counter_ns() - begin) / count


def _times_out(end: ipc.ByteConsumer) -> bool:
    try:
        end.read(0.01)
    except ipc.RingTimeout:
        return True
    return False


# ---- calls -------------------------------------------------------------------------------------------------------


def _fails(call: Callable[[], None]) -> str:
    try:
        call()
    except (OSError, AttributeError) as error:
        return str(error)
    return ""


def _open_pidfd() -> None:
    os.close(os.pidfd_open(os.getpid()))


def _make_memfd() -> None:
    os.close(os.memfd_create("doctor", os.MFD_CLOEXEC))


def _make_eventfd() -> None:
    os.close(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))


def _read_death_signal() -> None:
    number = ctypes.c_int()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _pass_descriptor() -> None:
    """Through a socket."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        socket.send_fds(here, [b"x"], [here.fileno()])
        for fd in socket.recv_fds(there, 1, 1)[1]:
            os.close(fd)


def _set_batch_policy() -> None:
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.sched_setscheduler(0, policy, parameters)


_CALLS: dict[str, Callable[[], None]] = {
    "pidfd_open": _open_pidfd,
    "memfd_create": _make_memfd,
    "eventfd": _make_eventfd,
    "PR_SET_PDEATHSIG": _read_death_signal,
    "SCM_RIGHTS": _pass_descriptor,
}
