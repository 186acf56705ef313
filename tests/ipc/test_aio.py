"""Rings in asyncio, on uvloop and on the standard loop."""

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import time

import pytest
import uvloop

import ipc
from tests.ipc.children import fill


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request):
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(coroutine):
        with asyncio.Runner(loop_factory=factory) as loop:
            return loop.run(asyncio.wait_for(coroutine, 30))

    return runner


def test_awaiting_messages_of_another_process(run, slot_ring, spawn):
    ring = slot_ring()
    child = spawn("publish_slowly", {"ring": ring}, count=20, interval_s=0.005)

    async def main():
        consumer = ipc.AsyncConsumer(ring, label="front")
        received = []
        with pytest.raises(ipc.RingClosed):
            async for slot in consumer:
                with slot:
                    received.append(slot.sequence)
        consumer.close()
        return received

    assert run(main()) == list(range(20))
    assert child.result() is None


def test_other_tasks_run_while_one_awaits(run, slot_ring):
    ring = slot_ring()
    producer = ring.producer()

    async def main():
        consumer = ipc.AsyncConsumer(ring)
        waiting = asyncio.create_task(consumer.read())
        for _ in range(10):
            await asyncio.sleep(0.01)
        assert not waiting.done()
        producer.write(fill(1, 64))
        slot = await waiting
        assert bytes(slot) == fill(1, 64)
        slot.release()
        consumer.close()

    run(main())


def test_nothing_is_armed_and_no_call_made_while_messages_flow(run, slot_ring):
    ring = slot_ring(slots=64)
    producer = ring.producer()

    async def main():
        consumer = ipc.AsyncConsumer(ring)
        for i in range(1000):
            producer.write(fill(i, 64))
            (await consumer.read()).release()
        assert ring.snapshot().producer.counters["wakes"] == 0
        consumer.close()

    run(main())


def test_one_write_per_arming(run, slot_ring):
    """A burst while the loop is busy elsewhere costs one eventfd write, not one per message."""
    ring = slot_ring(slots=64)
    producer = ring.producer()

    async def main():
        consumer = ipc.AsyncConsumer(ring)
        waiting = asyncio.create_task(consumer.read())
        await asyncio.sleep(0.02)
        for i in range(50):
            producer.write(fill(i, 64))
        (await waiting).release()
        for _ in range(49):
            (await consumer.read()).release()
        assert ring.snapshot().producer.counters["wakes"] == 1
        consumer.close()

    run(main())


def test_cancelling_a_wait_loses_nothing(run, slot_ring):
    ring = slot_ring()
    producer = ring.producer()

    async def main():
        consumer = ipc.AsyncConsumer(ring)
        for i in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.002):
                    await consumer.read()
            assert not ring.snapshot().consumers[0].waiting
            producer.write(fill(i, 64))
            slot = await consumer.read()
            assert bytes(slot) == fill(i, 64)
            slot.release()
        consumer.close()

    run(main())


def test_awaiting_space(run, slot_ring):
    ring = slot_ring()
    consumer = ring.consumer()

    async def main():
        producer = ipc.AsyncProducer(ring)
        for i in range(4):
            with await producer.reserve() as slot:
                slot.write(fill(i, 64))
        waiting = asyncio.create_task(producer.reserve())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        consumer.read().release()
        with await waiting as slot:
            slot.write(fill(4, 64))
        producer.close()

    run(main())
    assert [consumer.read_bytes() for _ in range(4)] == [fill(i, 64) for i in range(1, 5)]


def test_awaiting_room_for_a_record(run, byte_ring):
    ring = byte_ring(capacity=256)
    consumer = ring.consumer()

    async def main():
        producer = ipc.AsyncProducer(ring)
        assert producer.try_reserve(100) is not None
        for _ in range(6):
            with await producer.reserve(30) as slot:
                slot.write(b"x" * 30)
        waiting = asyncio.create_task(producer.reserve(100))
        for left in range(6, 0, -1):
            await asyncio.sleep(0.005)
            if waiting.done():
                break
            assert left
            consumer.read().release()
        slot = await waiting
        assert slot.nbytes == 100
        slot.publish(3)
        with pytest.raises(ValueError, match="at most 120"):
            await producer.reserve(121)
        producer.close()

    run(main())


@pytest.mark.parametrize("kind", ["producer", "consumer"])
def test_a_peer_that_dies_while_we_await(run, slot_ring, spawn, kind):
    ring = slot_ring()
    child = spawn("hold_until_told", {"ring": ring}, kind=kind)
    child.expect("ready")

    async def main():
        end = ipc.AsyncConsumer(ring) if kind == "producer" else ipc.AsyncProducer(ring)
        while kind == "consumer" and (slot := end.try_reserve()):
            slot.publish()
        waiting = asyncio.create_task(end.read() if kind == "producer" else end.reserve())
        await asyncio.sleep(0.05)
        child.kill()
        with pytest.raises(ipc.PeerDied) as error:
            await waiting
        assert (error.value.role, error.value.label, error.value.pid) == (kind, "holder", child.pid)
        end.close()

    run(main())


def test_a_peer_that_comes_late_and_dies(run, slot_ring, spawn):
    """The wait began before there was anybody to watch."""
    ring = slot_ring()

    async def main():
        consumer = ipc.AsyncConsumer(ring)
        waiting = asyncio.create_task(consumer.read())
        await asyncio.sleep(0.02)
        child = spawn("hold_until_told", {"ring": ring})
        await asyncio.to_thread(child.expect, "ready")
        child.kill()
        with pytest.raises(ipc.PeerDied):
            await waiting
        consumer.close()

    run(main())


def test_closing_wakes_the_task(run, slot_ring):
    ring = slot_ring()

    async def main():
        consumer = ipc.AsyncConsumer(ring)
        waiting = asyncio.create_task(consumer.read())
        await asyncio.sleep(0.02)
        consumer.close()
        consumer.close()
        with pytest.raises(ipc.RingClosed):
            await waiting

    run(main())


def test_two_tasks_on_one_end_are_refused(run, slot_ring):
    ring = slot_ring()

    async def main():
        consumer = ipc.AsyncConsumer(ring)
        waiting = asyncio.create_task(consumer.read())
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="two tasks wait"):
            await consumer.read()
        waiting.cancel()
        await asyncio.sleep(0)
        consumer.close()

    run(main())


def test_rings_attached_by_name_can_not_wake_anybody(run, slot_ring):
    ring = slot_ring()
    tool = ipc.SlotRing.attach(ring.segment.name)
    producer = tool.producer()

    async def main():
        with pytest.raises(ValueError, match="needs a ring attached by handle"):
            ipc.AsyncConsumer(tool)
        consumer = ipc.AsyncConsumer(ring)
        with pytest.raises(ipc.WakeUpError, match="the other side has no eventfd"):
            await consumer.read()
        consumer.close()

    run(main())
    producer.close()
    tool.close()


def test_no_descriptor_is_left(run, slot_ring, spawn):
    ring = slot_ring()
    child = spawn("hold_until_told", {"ring": ring})
    child.expect("ready")

    async def main():
        gc.collect()  # what earlier tests have left for it would go meanwhile
        before = len(os.listdir("/proc/self/fd"))
        consumer = ipc.AsyncConsumer(ring)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await consumer.read()
        consumer.close()
        assert len(os.listdir("/proc/self/fd")) == before

    run(main())


def test_an_idle_loop_sleeps(run, slot_ring):
    ring = slot_ring()

    async def main():
        consumer = ipc.AsyncConsumer(ring)
        waiting = asyncio.create_task(consumer.read())
        await asyncio.sleep(0.05)
        before = time.process_time()
        await asyncio.sleep(2)
        used = time.process_time() - before
        waiting.cancel()
        await asyncio.sleep(0)
        consumer.close()
        return used

    assert run(main()) < 0.01


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
