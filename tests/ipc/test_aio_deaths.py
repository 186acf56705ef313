"""asyncio's side of the rings where something goes wrong: deaths, cancelled readers, failed attempts."""

import asyncio
import os
import subprocess
import sys
import textwrap

import pytest

import ipc
from tests.ipc.children import fill


def test_the_blocker_of_a_broadcast_dies_while_we_await_space(run, slot_ring, spawn):
    """Eviction makes room: the task must be woken by it."""
    ring = slot_ring(consumers=2)
    survivor = ring.consumer(1)
    child = spawn("die", {"ring": ring}, side="consumer", point="attached")
    child.expect("attached")

    async def main():
        producer = ipc.AsyncProducer(ring)
        for _ in range(4):
            (await producer.reserve()).publish()
            survivor.read().release()
        waiting = asyncio.create_task(producer.reserve())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        child.kill()
        (await waiting).publish()
        assert ring.snapshot().evicted == (0,)
        producer.close()

    run(main())


CREATOR = """
    import ipc, os, sys, time
    ring = ipc.SlotRing.create("test", slots=2, slot_size=64)
    for fd in ring.handle.fds: os.set_inheritable(fd, True)
    child = '''if True:
        import asyncio, ipc, sys
        async def main():
            ring = ipc.SlotRing.from_handle(ipc.RingHandle.from_text(sys.argv[1]))
            consumer = ipc.AsyncConsumer(ring)
            print("ready", flush=True)
            try: await consumer.read()
            except ipc.PeerDied as error: print(error.role, flush=True)
        asyncio.run(main())
    '''
    os.posix_spawn(sys.executable, [sys.executable, "-c", child, ring.handle.to_text()], os.environ)
    time.sleep(1)
    ring.segment.unlink()
    os.kill(os.getpid(), 9)
"""


def test_the_creator_dies_before_anybody_came():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CREATOR)], stdout=subprocess.PIPE, text=True, check=False, timeout=30
    )
    assert done.stdout.split() == ["ready", "creator"]


def test_a_ring_that_is_never_empty_does_not_keep_the_loop(run, slot_ring):
    ring = slot_ring(slots=1024)
    producer = ring.producer()
    producer.write_batch(bytes(64 * 1024))

    async def main():
        consumer = ipc.AsyncConsumer(ring)
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        for _ in range(1024):
            (await consumer.read()).release()
        task.cancel()
        assert turns >= 1024 // 64 - 1
        consumer.close()

    run(main())


def test_a_reader_that_is_cancelled_takes_no_message_with_it(run, slot_ring):
    ring = slot_ring(slots=1024)
    producer = ring.producer()
    for i in range(1024):
        producer.write(fill(i, 64))

    async def main():
        consumer, seen = ipc.AsyncConsumer(ring), []

        async def read():
            while True:
                with await consumer.read() as slot:
                    seen.append(slot.sequence)

        while len(seen) < 1024:
            task = asyncio.create_task(read())
            await asyncio.sleep(0)  # until it lets others run
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert seen == list(range(1024))
        consumer.close()

    run(main())


def test_a_failed_attempt_takes_no_role(slot_ring):
    ring = slot_ring()
    with pytest.raises(RuntimeError, match="no running event loop"):
        ipc.AsyncConsumer(ring)
    assert ring.snapshot().consumers[0].state == "free"
    before = len(os.listdir("/proc/self/fd"))
    taken = ring.consumer()

    async def main():
        with pytest.raises(ipc.RoleTakenError):
            ipc.AsyncConsumer(ring)

    asyncio.run(main())
    taken.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_producer_without_eventfds_is_refused_where_somebody_sleeps_on_one(run, slot_ring):
    ring = slot_ring()

    async def main():
        consumer = ipc.AsyncConsumer(ring)
        waiting = asyncio.create_task(consumer.read())
        await asyncio.sleep(0.02)
        with pytest.raises(ipc.WakeUpError, match="attach by handle"):
            ipc.SlotRing.attach(ring.segment.name).producer()
        waiting.cancel()
        await asyncio.sleep(0)
        consumer.close()

    run(main())
