"""Revoking a ring: its maker, who is no end of it, ends it for both sides and for ever."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

import ipc
from ipc import _core
from ipc.inspect import find_segments, format_segment

HANG_S = 20  # no test asserts a time: this only ends a hang
REVOKED = "revoked by its creator"


class Waiter:
    """Waits in a thread of its own; what it saw in the end."""

    def __init__(self, wait):
        self.seen = None
        self._thread = threading.Thread(target=self._run, args=(wait,), daemon=True)
        self._thread.start()

    def _run(self, wait):
        try:
            wait()
        except ipc.IpcError as error:
            self.seen = error

    def result(self):
        self._thread.join(HANG_S)
        assert not self._thread.is_alive(), "it still waits"
        return self.seen


def filled(ring, spin_us=0):
    """Both ends of a ring of four slots, of which none is free."""
    consumer, producer = ring.consumer(), ring.producer(spin_us=spin_us)
    producer.write_batch(bytes(4 * 64))
    return consumer, producer


def wait_until_parked(ring, side):
    deadline = time.monotonic() + HANG_S
    while not side(ring.snapshot()).waiting:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_parked_consumer(slot_ring):
    ring = slot_ring()
    waiter = Waiter(ring.consumer(spin_us=0).read)
    wait_until_parked(ring, lambda now: now.consumers[0])
    ring.revoke()
    with pytest.raises(ipc.RingClosed, match=REVOKED):
        raise waiter.result()


def test_a_parked_producer(slot_ring):
    ring = slot_ring()
    _consumer, producer = filled(ring)
    waiter = Waiter(producer.reserve)
    wait_until_parked(ring, lambda now: now.producer)
    ring.revoke()
    with pytest.raises(ipc.RingClosed, match=REVOKED):
        raise waiter.result()


def test_ends_that_spin(slot_ring):
    empty, full = slot_ring("empty"), slot_ring("full")
    _consumer, producer = filled(full, spin_us=1e6)
    waiters = [Waiter(empty.consumer(spin_us=1e6).read), Waiter(producer.reserve)]
    time.sleep(0.02)
    for ring in (empty, full):
        ring.revoke()
    for waiter in waiters:
        assert isinstance(waiter.result(), ipc.RingClosed)


def test_another_process_that_waits(slot_ring, spawn):
    """Its child counts what it reads until the end."""
    ring = slot_ring()
    child = spawn("count_slots", {"ring": ring}, spin_us=0)
    child.expect("ready")
    wait_until_parked(ring, lambda now: now.consumers[0])
    ring.revoke()
    assert child.result() == {"count": 0, "wrong": False, "lost": 0}


@pytest.mark.parametrize("consumers", [1, 3])
def test_what_was_published_before_is_read_first(slot_ring, consumers):
    ring = slot_ring(consumers=consumers)
    ends = [ring.consumer(i) for i in range(consumers)]
    producer = ring.producer()
    producer.write(b"a" * 64)
    producer.write(b"b" * 64)
    ring.revoke()
    for end in ends:
        assert [end.read_bytes(), end.read_bytes()] == [b"a" * 64, b"b" * 64]
        for attempt in (end.try_read, end.read):
            with pytest.raises(ipc.RingClosed, match=REVOKED):
                attempt()


def test_a_byte_ring(byte_ring):
    ring = byte_ring()
    producer, consumer = ring.producer(), ring.consumer()
    producer.write(b"one")
    waiter = Waiter(lambda: [producer.write(bytes(400)) for _ in range(9)])
    wait_until_parked(ring, lambda now: now.producer)
    ring.revoke()
    assert isinstance(waiter.result(), ipc.RingClosed)
    assert consumer.read_bytes() == b"one"
    assert len(consumer.read_many(100)) == 2
    with pytest.raises(ipc.RingClosed):
        consumer.read_many(100)


def test_who_attaches_later_finds_nothing_and_does_not_bring_it_back(slot_ring):
    ring = slot_ring()
    early = ring.consumer()
    ring.revoke()
    producer = ring.producer()
    with pytest.raises(ipc.RingClosed, match=REVOKED):
        producer.write(bytes(64), timeout=0)
    early.close()
    with pytest.raises(ipc.RingClosed, match=REVOKED):
        ring.consumer().read(timeout=0)
    again = ipc.SlotRing.attach(ring.segment.name)
    with pytest.raises(ipc.RingClosed, match=REVOKED):
        again.consumer().try_read()
    again.close()


def test_a_peer_that_died_before_does_not_matter_any_more(slot_ring, spawn):
    ring = slot_ring()
    child = spawn("die", {"ring": ring}, side="producer", point="before publish")
    child.expect("at the point")
    consumer = ring.consumer(spin_us=0)
    child.kill()
    ring.revoke()
    with pytest.raises(ipc.RingClosed, match=REVOKED):
        consumer.read()
    consumer.check_peer()


def test_asyncio_ends_are_woken():
    """They have no slices: without the eventfd they would sleep for ever."""

    async def wait_for(call):
        try:
            async with asyncio.timeout(HANG_S):
                await call
        except ipc.RingClosed as error:
            return str(error)

    async def main(empty, full):
        consumer, producer = ipc.AsyncConsumer(empty), ipc.AsyncProducer(full)
        tasks = [asyncio.create_task(wait_for(call)) for call in (consumer.read(), producer.reserve(100))]
        while not (empty.snapshot().consumers[0].waiting and full.snapshot().producer.waiting):
            await asyncio.sleep(0.001)
        for ring in (empty, full):
            ring.revoke()
        seen = await asyncio.gather(*tasks)
        late = await wait_for(consumer.read())
        for end in (consumer, producer):
            end.close()
        return [*seen, late]

    with ipc.ByteRing.create("empty", capacity=1024) as empty, ipc.ByteRing.create("full", capacity=256) as full:
        _consumer = full.consumer()
        with full.producer() as producer:
            producer.write(bytes(100))
            producer.write(bytes(100))
        assert all(REVOKED in (text or "") for text in asyncio.run(main(empty, full)))


def test_a_selector_is_woken(slot_ring, byte_ring):
    slots, records = slot_ring("slots"), byte_ring("records")
    ends = slots.consumer(), records.consumer()
    selector = ipc.RingSelector([(ends[0], slots.data_fd()), (ends[1], records.data_fd())])
    waiter = Waiter(selector.wait)
    wait_until_parked(records, lambda now: now.consumers[0])
    records.revoke()
    assert isinstance(waiter.result(), ipc.RingClosed)


def test_a_selector_is_woken_by_others(slot_ring):
    """Threads, say; and what they set before the wait began counts."""
    ring, waker = slot_ring("slots"), os.eventfd(0, os.EFD_NONBLOCK)
    try:
        consumer = ring.consumer()
        selector = ipc.RingSelector([(consumer, ring.data_fd())], [waker])
        waiter = Waiter(selector.wait)
        wait_until_parked(ring, lambda now: now.consumers[0])
        os.eventfd_write(waker, 1)
        assert waiter.result() is None  # no error, and it does not wait any more
        os.eventfd_write(waker, 1)
        assert selector.wait(timeout=10) is True
        assert selector.wait(timeout=0.01) is False
    finally:
        os.close(waker)


def test_an_outsider_sees_it(slot_ring):
    ring = slot_ring("revoked")
    assert not ring.snapshot().revoked
    ring.revoke()
    ring.revoke()  # harmless
    assert ring.snapshot().revoked
    found = next(segment for segment in find_segments() if segment.name == ring.segment.name.lstrip("/"))
    assert "REVOKED" in format_segment(found)


def test_only_a_ring_can_be_revoked():
    with pytest.raises(ipc.CorruptRingError):
        _core.revoke(bytearray(4096))


def test_no_wait_outlasts_a_revocation_at_any_moment(spawn):
    """Revoked at random moments of a wait; nothing is lost but what had not been read."""
    for i in range(100):
        with ipc.SlotRing.create("test", slots=4, slot_size=64) as ring:
            waiter = Waiter(ring.consumer(spin_us=20).read)
            time.sleep(i * 2e-5)
            ring.revoke()
            assert isinstance(waiter.result(), ipc.RingClosed)


# ---- gauges --------------------------------------------------------------------------------------------------


def test_a_gauge_shows_where_the_sides_are(slot_ring):
    ring = slot_ring(consumers=2)
    gauge = ipc.RingGauge(ring.segment.map)
    producer, consumers = ring.producer(), [ring.consumer(0), ring.consumer(1)]
    assert not gauge.read().occupied
    producer.write(bytes(64))
    producer.write(bytes(64))
    consumers[0].read_bytes()
    held = consumers[1].read()
    now = gauge.read()
    assert (now.head, now.tails, now.occupied) == (2, (1, 0), True)
    held.release()
    assert gauge.read().tails == (1, 1)
    assert (now.producer_waits, now.consumers_wait) == (False, (False, False))


def test_a_gauge_shows_who_waits(slot_ring):
    ring = slot_ring()
    gauge = ipc.RingGauge(ring.segment.map)
    _consumer, producer = filled(ring)
    waiter = Waiter(producer.reserve)
    wait_until_parked(ring, lambda now: now.producer)
    assert gauge.read().producer_waits
    ring.revoke()
    waiter.result()
    assert not gauge.read().producer_waits


def test_a_gauge_of_something_else():
    with pytest.raises(ipc.CorruptRingError):
        ipc.RingGauge(bytearray(4096))
