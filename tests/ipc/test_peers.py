"""Death at the other end: noticed, named, survived."""

import os
import random
import resource
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import ipc
from ipc import _core
from tests.ipc.children import fill

NOTICE_S = 5.0  # no test asserts a time: this only ends a hang. The delay is printed by scripts/bench/ipc

PRODUCER_POINTS = ["before publish", "after publish", "inside a wait", "holding a batch"]
CONSUMER_POINTS = ["with a slot held", "after release", "inside a wait", "attached"]


def kill_producer(ring, spawn, point, delay):
    """What the consumer sees of a producer that published `after` messages and was killed at `point`."""
    child = spawn("die", {"ring": ring}, side="producer", point=point, after=2)
    consumer = ring.consumer(label="survivor", spin_us=0)
    child.expect("at the point")
    time.sleep(delay)
    child.kill()
    received = []
    with pytest.raises(ipc.PeerDied) as error:
        while True:
            received.append(consumer.read_bytes(timeout=NOTICE_S))
    expected = {"after publish": 3, "inside a wait": 4}.get(point, 2)
    assert len(received) == expected
    assert received[:2] == [fill(0, 64), fill(1, 64)]
    assert (error.value.role, error.value.label, error.value.pid) == ("producer", "victim", child.pid)
    assert consumer.lost_wakes == 0
    consumer.close()


def kill_consumer(ring, spawn, point, delay):
    child = spawn("die", {"ring": ring}, side="consumer", point=point)
    producer = ring.producer(label="survivor", spin_us=0)
    child.expect("attached")
    producer.write(fill(0, 64))
    child.expect("at the point")
    time.sleep(delay)
    child.kill()
    with pytest.raises(ipc.PeerDied) as error:
        for i in range(10):
            producer.write(fill(i, 64), timeout=NOTICE_S)
    assert (error.value.role, error.value.label, error.value.pid) == ("consumer", "victim", child.pid)
    assert f"consumer 'victim' (pid {child.pid}) is dead" in str(error.value)
    producer.close()


@pytest.mark.parametrize("point", PRODUCER_POINTS)
def test_a_killed_producer(slot_ring, spawn, point):
    kill_producer(slot_ring(), spawn, point, 0.01)


@pytest.mark.parametrize("point", CONSUMER_POINTS)
def test_a_killed_consumer(slot_ring, spawn, point):
    kill_consumer(slot_ring(), spawn, point, 0.01)


@pytest.mark.timeout(600)
def test_two_hundred_deaths(spawn):
    """kill -9 at every named point, with varying delays; no hang, nothing left behind. On every core at once."""
    rng = random.Random(1)
    cases = [(kill_producer, p) for p in PRODUCER_POINTS] + [(kill_consumer, p) for p in CONSUMER_POINTS]

    def die(kill, point, delay):
        with ipc.SlotRing.create("test", slots=4, slot_size=64) as ring:
            kill(ring, spawn, point, delay)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        deaths = [pool.submit(die, *cases[i % len(cases)], rng.random() * 0.06) for i in range(200)]
        for death in deaths:
            death.result()


def test_a_peer_that_is_dead_before_the_first_wait(slot_ring, spawn):
    ring = slot_ring()
    child = spawn("die", {"ring": ring}, side="producer", point="after publish")
    child.expect("at the point")
    child.kill()
    consumer = ring.consumer()
    assert consumer.read_bytes() == fill(0, 64)
    with pytest.raises(ipc.PeerDied):
        consumer.read(timeout=NOTICE_S)
    with pytest.raises(ipc.PeerDied):
        consumer.check_peer()


def test_a_successor_goes_on_where_the_dead_one_stopped(slot_ring, spawn):
    ring = slot_ring()
    producer = ring.producer()
    child = spawn("die", {"ring": ring}, side="consumer", point="with a slot held")
    for i in range(3):
        producer.write(fill(i, 64))
    child.expect("attached")
    child.expect("at the point")
    child.kill()
    successor = ring.consumer(label="successor")
    assert [successor.read_bytes() for _ in range(3)] == [fill(i, 64) for i in range(3)]
    for i in range(3, 30):
        producer.write(fill(i, 64), timeout=1)
        assert successor.read_bytes(timeout=1) == fill(i, 64)


def test_a_waiting_side_accepts_a_successor(slot_ring, spawn):
    ring = slot_ring()
    consumer = ring.consumer(label="main")
    child = spawn("die", {"ring": ring}, side="producer", point="after publish")
    child.expect("at the point")
    child.kill()
    assert consumer.read_bytes(timeout=5) == fill(0, 64)
    with pytest.raises(ipc.PeerDied):
        consumer.read(timeout=NOTICE_S)
    child = spawn("publish_slowly", {"ring": ring}, count=1, interval_s=0.2)
    child.expect("ready")
    assert consumer.read_bytes(timeout=NOTICE_S)[:1] == b"\0"


def test_a_peer_that_never_came_because_the_creator_died():
    code = """
        import ipc, os, subprocess, sys, time
        ring = ipc.SlotRing.create("test", slots=2, slot_size=64)
        child = '''if True:
            import ipc, sys
            consumer = ipc.SlotRing.from_handle(ipc.RingHandle.from_text(sys.argv[1])).consumer()
            print("ready", flush=True)
            try: consumer.read()
            except ipc.PeerDied as error: print(error.role, flush=True)
        '''
        process = subprocess.Popen([sys.executable, "-c", child, ring.handle.to_text()], pass_fds=ring.handle.fds)
        ring.wait_attached(0.5) if False else time.sleep(1)
        ring.segment.unlink()
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, check=False, timeout=30
    )
    assert done.stdout.split() == ["ready", "creator"]


def test_two_processes_can_not_have_one_role(slot_ring, spawn):
    ring = slot_ring()
    child = spawn("hold_until_told", {"ring": ring}, kind="producer")
    child.expect("ready")
    with pytest.raises(ipc.RoleTakenError, match=f"process {child.pid} is its producer"):
        ring.producer()
    child.tell()
    child.result()
    ring.producer().write(bytes(64))


def test_heartbeats_can_be_read_by_anyone(slot_ring):
    ring = slot_ring()
    producer = ring.producer()
    before = ring.snapshot().producer.counters["heartbeat"]
    producer.beat()
    producer.write(bytes(64))
    assert ring.snapshot().producer.counters["heartbeat"] == before + 2


def test_ctrl_c_ends_a_wait():
    code = """
        import ipc, os, signal, threading, time
        with ipc.SlotRing.create("test", slots=2, slot_size=64) as ring:
            consumer = ring.consumer()
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            try: consumer.read(timeout=20)
            except KeyboardInterrupt: print("interrupted")
            consumer.close()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout == "interrupted\n"


def test_other_signals_do_not_disturb_a_wait(slot_ring, spawn):
    ring = slot_ring()
    child = spawn("publish_slowly", {"ring": ring}, count=5, interval_s=0.05)
    code = f"import os, time\nfor _ in range(200): os.kill({os.getpid()}, 28); time.sleep(0.001)"  # SIGWINCH
    child.expect("ready")
    consumer = ring.consumer(spin_us=0)
    pest = subprocess.Popen([sys.executable, "-c", code])
    assert [consumer.read_bytes(timeout=10)[0] for _ in range(5)] == [0, 1, 2, 3, 4]
    pest.wait()


def test_a_recycled_pid_is_dead_however_often_one_asks(slot_ring, spawn):
    ring = slot_ring()
    child = spawn("hold_until_told", {"ring": ring}, kind="producer")
    child.expect("ready")
    consumer = ring.consumer()
    identity = consumer.peer_identity()
    offset = next(o for part, name, _, o, _, _ in _core.HEADER_FIELDS if (part, name) == ("gate", "owner"))
    at = _core.FIXED_SIZE + offset
    older = identity - (5 << _core.IDENTITY_PID_BITS)  # the same pid, started earlier
    ring.segment.map[at : at + 8] = older.to_bytes(8, "little")
    for _ in range(3):
        with pytest.raises(ipc.PeerDied):
            consumer.check_peer()
    ring.segment.map[at : at + 8] = identity.to_bytes(8, "little")
    consumer.check_peer()


def test_running_out_of_descriptors_for_a_moment_does_not_blind_us(slot_ring, spawn):
    ring = slot_ring()
    child = spawn("hold_until_told", {"ring": ring}, kind="producer")
    child.expect("ready")
    consumer = ring.consumer()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        consumer.check_peer()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    child.process.send_signal(9)
    with pytest.raises(ipc.PeerDied):
        consumer.read(timeout=NOTICE_S)
