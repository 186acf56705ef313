"""One producer, several consumers: everybody sees everything, the slowest sets the pace, the dead are evicted, or end
the ring."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

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


# ---- a ring that ends with the first death ----------------------------------------------------------------------


@pytest.fixture
def bereaved(slot_ring, spawn):
    """Makes a ring that a death ends, its producer, two living consumers, and a third one in a child."""

    def make():
        ring = slot_ring(consumers=3, on_death="end")
        producer = ring.producer(label="main", spin_us=0)
        living = [ring.consumer(i, label=f"rank {i}", spin_us=0) for i in (0, 1)]
        child = spawn("die", {"ring": ring}, side="consumer", point="attached", number=2)
        child.expect("attached")
        return ring, producer, living, child

    return make


def test_a_death_ends_the_ring_for_everybody(bereaved):
    ring, producer, (first, second), child = bereaved()
    for i in range(3):
        producer.write(fill(i, 64))
    child.kill()
    for reader in (first, second):
        assert [reader.read_bytes() for _ in range(2)] == [fill(i, 64) for i in range(2)]
    producer.write(fill(3, 64))
    for _ in range(3):  # and it stays so
        with pytest.raises(ipc.PeerDied, match=f"consumer 'victim' .pid {child.pid}. is dead") as error:
            producer.reserve(timeout=5)
        assert (error.value.role, error.value.pid) == ("consumer", child.pid)
    for attempt in (producer.try_reserve, producer.check_peer, lambda: producer.write(bytes(64))):
        with pytest.raises(ipc.PeerDied):
            attempt()
    for reader in (first, second):  # what was published before is read first
        assert [reader.read_bytes() for _ in range(2)] == [fill(i, 64) for i in (2, 3)]
        with pytest.raises(ipc.PeerDied, match="victim"):
            reader.read(timeout=5)
        with pytest.raises(ipc.PeerDied, match="victim"):
            reader.try_read()
    assert ring.snapshot().evicted == (2,)
    assert ring.snapshot().on_death == "end"


def test_a_death_ends_the_waits_of_the_others(bereaved):
    """The producer waits for a living reader, a reader for the producer: the death of a third one ends both waits."""
    _, producer, (slow, fast), child = bereaved()
    for i in range(4):
        producer.write(fill(i, 64))
        fast.read().release()
    with ThreadPoolExecutor() as pool:
        waits = [pool.submit(producer.reserve, 30), pool.submit(fast.read, 30)]
        child.kill()
        for wait in waits:
            assert isinstance(wait.exception(), ipc.PeerDied)
            assert wait.exception().pid == child.pid
    assert slow.read_bytes() == fill(0, 64)


def test_a_successor_of_the_producer_finds_the_ring_ended(bereaved):
    ring, producer, _, child = bereaved()
    child.kill()
    with pytest.raises(ipc.PeerDied):
        producer.check_peer()
    producer.close()
    with pytest.raises(ipc.PeerDied, match="victim"):
        ring.producer().write(bytes(64))


def test_a_consumer_that_closed_does_not_end_the_ring(slot_ring):
    ring = slot_ring(consumers=2, on_death="end")
    producer, first, second = ring.producer(), ring.consumer(0), ring.consumer(1)
    second.close()
    for i in range(20):
        producer.write(fill(i, 64), timeout=5)
        assert first.read_bytes() == fill(i, 64)
    producer.check_peer()


def test_the_sole_consumer_of_such_a_ring_may_have_a_successor(slot_ring, spawn):
    ring = slot_ring(on_death="end")
    producer = ring.producer()
    child = spawn("die", {"ring": ring}, side="consumer", point="attached")
    child.expect("attached")
    producer.write(fill(0, 64))
    child.kill()
    with pytest.raises(ipc.PeerDied):
        producer.check_peer()
    assert ring.consumer().read_bytes() == fill(0, 64)


def test_a_death_ends_a_ring_that_is_awaited(run, bereaved):
    """In asyncio: nothing is polled, so the death must wake the producer, and the producer its consumers."""
    ring, blocking, (slow, fast), child = bereaved()
    blocking.close()
    fast.close()

    async def main():
        producer = ipc.AsyncProducer(ring)
        for _ in range(4):
            (await producer.reserve()).publish()
        waiting = asyncio.create_task(producer.reserve())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        child.kill()
        with pytest.raises(ipc.PeerDied, match="victim"):
            await waiting
        producer.close()

    run(main())
    assert [slow.read_bytes() for _ in range(4)]
    with pytest.raises(ipc.PeerDied, match="victim"):
        slow.read()


def test_an_awaiting_consumer_is_woken_when_a_death_ends_the_ring(run, slot_ring, spawn):
    ring = slot_ring(consumers=2, on_death="end")
    producer = ring.producer()
    child = spawn("die", {"ring": ring}, side="consumer", point="attached", number=1)
    child.expect("attached")

    async def main():
        consumer = ipc.AsyncConsumer(ring, 0)
        waiting = asyncio.create_task(consumer.read())
        await asyncio.sleep(0.02)
        child.kill()
        with pytest.raises(ipc.PeerDied):
            producer.check_peer()
        with pytest.raises(ipc.PeerDied, match="victim"):
            await waiting
        consumer.close()

    run(main())


def test_an_unknown_rule_is_refused(slot_ring):
    with pytest.raises(ValueError, match="on_death is 'ignore', 'evict' or 'end' expected"):
        slot_ring(consumers=2, on_death="ignore")
