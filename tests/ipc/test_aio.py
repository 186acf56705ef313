"""Rings in asyncio, on uvloop and on the standard loop."""

import asyncio
import gc
import os
import time

import pytest

import ipc
from tests.ipc.children import fill


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
