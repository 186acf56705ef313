"""One producer, several consumers: everybody sees everything, the slowest sets the pace, the dead are evicted."""

import pytest

import ipc
from tests.ipc.children import fill


def test_every_consumer_sees_every_message(slot_ring):
    ring = slot_ring(consumers=3)
    producer = ring.producer()
    consumers = [ring.consumer(i) for i in range(3)]
    for i in range(20):
        producer.write(fill(i, 64))
        assert [consumer.read_bytes() for consumer in consumers] == [fill(i, 64)] * 3


def test_the_producer_waits_for_the_slowest_even_before_it_attached(slot_ring):
    ring = slot_ring(consumers=2)
    producer, first = ring.producer(), ring.consumer(0)
    for i in range(4):
        producer.write(fill(i, 64))
        first.read().release()
    assert producer.try_reserve() is None
    late = ring.consumer(1)
    assert late.read_bytes() == fill(0, 64)
    assert producer.try_reserve() is not None


def test_a_consumer_that_closed_is_not_waited_for_and_its_cursor_is_gone(slot_ring):
    ring = slot_ring(consumers=2)
    producer, first, second = ring.producer(), ring.consumer(0), ring.consumer(1)
    second.close()
    for i in range(20):
        producer.write(fill(i, 64), timeout=1)
        first.read().release()
    with pytest.raises(ipc.RoleTakenError, match="its cursor is gone"):
        ring.consumer(1)


def test_readers_of_a_broadcast_may_not_write(slot_ring):
    with pytest.raises(ValueError, match="only the sole consumer"):
        slot_ring(consumers=2).consumer(0, writable=True)


def test_a_dead_consumer_is_evicted_and_the_others_lose_nothing(slot_ring, spawn):
    ring = slot_ring(consumers=3)
    producer = ring.producer(label="main")
    readers = [spawn("count_slots", {"ring": ring}, consumer=i) for i in (0, 2)]
    victim = spawn("count_slots", {"ring": ring}, consumer=1)
    for child in (*readers, victim):
        child.expect("ready")
    for i in range(1000):
        if i == 500:
            victim.kill()
        producer.write(fill(i, 64), timeout=5)
    assert ring.snapshot().evicted == (1,)
    with pytest.raises(ipc.RoleTakenError):
        ring.consumer(1)
    producer.close()
    for child in readers:
        assert child.result() == {"count": 1000, "wrong": False, "lost": 0}


def test_when_the_last_consumer_is_dead_the_producer_learns_it(slot_ring, spawn):
    ring = slot_ring(consumers=2)
    producer = ring.producer()
    children = [spawn("count_slots", {"ring": ring}, consumer=i) for i in range(2)]
    for child in children:
        child.expect("ready")
        child.kill()
    with pytest.raises(ipc.PeerDied, match=r"consumer 'reader \d'"):
        for i in range(10):
            producer.write(fill(i, 64), timeout=5)
    with pytest.raises(ipc.PeerDied):
        producer.reserve(timeout=1)


def test_sixteen_consumers(slot_ring):
    ring = slot_ring(consumers=16)
    producer = ring.producer()
    consumers = [ring.consumer(i) for i in range(16)]
    producer.write(fill(1, 64))
    assert {consumer.read_bytes() for consumer in consumers} == {fill(1, 64)}
    with pytest.raises(ValueError, match="has consumers 0 to 15, not 16"):
        ring.consumer(16)


def test_records_can_be_broadcast_too(byte_ring):
    ring = byte_ring(consumers=2)
    producer, first, second = ring.producer(), ring.consumer(0), ring.consumer(1)
    for i in range(100):
        producer.write(fill(i, i))
        assert first.read_bytes() == second.read_bytes() == fill(i, i)


def test_a_consumer_that_died_asleep_costs_no_wake_ups(slot_ring, spawn):
    ring = slot_ring(consumers=2)
    producer, survivor = ring.producer(), ring.consumer(1)
    child = spawn("die", {"ring": ring}, side="consumer", point="inside a wait")
    child.expect("attached")
    child.expect("at the point")
    while not ring.snapshot().consumers[0].waiting:
        pass
    child.kill()
    for i in range(20):
        producer.write(fill(i, 64), timeout=5)
        survivor.read().release()
    assert ring.snapshot().evicted == (0,)
    before = ring.snapshot().producer.counters["wakes"]
    for i in range(100):
        producer.write(fill(i, 64), timeout=5)
        survivor.read().release()
    assert ring.snapshot().producer.counters["wakes"] == before
