"""What the rings cost: no system call per message while busy, no CPU while idle, no memory in steady state."""

import os
import re
import shutil
import sys

import pytest

import ipc

MESSAGES = 100_000

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None and os.environ.get("CI") != "true", reason="strace is not installed"
)


def count_calls(path):
    """System calls between the two calls of getppid, by name."""
    lines = path.read_text().splitlines()
    marks = [i for i, line in enumerate(lines) if "getppid()" in line]
    assert len(marks) == 2, "the child did not run to its end under strace"
    calls: dict[str, int] = {}
    for line in lines[marks[0] + 1 : marks[1]]:
        name = re.match(r"(?:\d+ +)?(\w+)\(", line)
        if name:
            calls[name[1]] = calls.get(name[1], 0) + 1
    return calls


@needs_strace
def test_a_busy_pair_makes_no_system_call_per_message(slot_ring, spawn, tmp_path):
    """Spinning is unbounded here (1 s), as it would be with a core for each side."""
    ring = slot_ring(slots=1024, slot_size=64)
    children = []
    for role in ("publish_busily", "take_busily"):
        trace = ("strace", "-f", "-qq", "-o", str(tmp_path / role))
        children.append(spawn(role, {"ring": ring}, prefix=trace, count=MESSAGES))
    for child in children:
        child.expect("ready")
    for child in children:
        child.tell()
    for child in children:
        child.result(timeout=120)
    for role in ("publish_busily", "take_busily"):
        calls = count_calls(tmp_path / role)
        assert sum(calls.values()) < MESSAGES / 1000, calls


def test_an_idle_reader_uses_no_cpu(slot_ring, spawn):
    """Below 0.5 % of one CPU: 20 looks per second at signals and peers, nothing else. CPU time, not wall time."""
    seconds = 5.0
    child = spawn("wait_idly", {"ring": slot_ring()}, seconds=seconds)
    child.expect("ready")
    assert child.result() < 0.005 * seconds


def test_steady_state_allocates_nothing(slot_ring):
    ring = slot_ring()
    producer, consumer = ring.producer(), ring.consumer()
    layout = ipc.Layout("plain", [ipc.Field("x", "int64", (8,))])
    there, here = layout.resident_views(producer), layout.resident_views(consumer)

    def pump(count):
        for _ in range(count):
            slot = producer.reserve()
            there[slot.index].x[0] = 1
            slot.publish()
            slot = consumer.read()
            assert here[slot.index].x[0] == 1
            slot.release()

    pump(1000)
    before = sys.getallocatedblocks()
    pump(10_000)
    assert abs(sys.getallocatedblocks() - before) < 10


def test_no_wake_up_is_sent_to_a_reader_that_does_not_sleep(slot_ring):
    ring = slot_ring()
    producer, consumer = ring.producer(), ring.consumer()
    for _ in range(1000):
        producer.write(bytes(64))
        consumer.read().release()
    now = ring.snapshot()
    assert now.producer.counters["wakes"] == now.consumers[0].counters["wakes"] == 0
    assert now.producer.counters["parks"] == now.consumers[0].counters["parks"] == 0
