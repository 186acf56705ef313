"""Ends of rings: closing, roles, threads, signals, forks, and what is refused."""

import contextlib
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest

import ipc
from tests.ipc.children import message


def test_closing_lets_the_reader_finish_first(pair):
    producer, consumer = pair
    producer.write(message(1))
    producer.close()
    assert consumer.read_bytes() == message(1)
    with pytest.raises(ipc.RingClosed, match="closed by its producer"):
        consumer.read()
    with pytest.raises(ipc.RingClosed, match="this end of ring 'test' is closed"):
        producer.write(message(2))
    producer.close()


def test_a_producer_learns_that_its_consumer_closed(pair):
    producer, consumer = pair
    consumer.close()
    for i in range(4):
        producer.write(message(i))
    with pytest.raises(ipc.RingClosed, match="closed by its consumers"):
        producer.write(message(4), timeout=1)


def test_closing_wakes_a_sleeping_reader(pair):
    producer, consumer = pair
    threading.Timer(0.1, producer.close).start()
    with pytest.raises(ipc.RingClosed):
        consumer.read(timeout=10)


@pytest.mark.parametrize("consumers", [1, 2])
def test_a_closed_consumer_keeps_its_role_until_its_views_are_gone(slot_ring, consumers):
    ring = slot_ring(consumers=consumers)
    producer, consumer = ring.producer(), ring.consumer()
    others = [ring.consumer(i) for i in range(1, consumers)]
    producer.write(message(3))
    slot = consumer.read()
    array = np.frombuffer(slot, np.uint64)
    consumer.close()
    with pytest.raises(ipc.RoleTakenError):
        ring.consumer()
    for i in range(4):
        for other in others:
            other.read_bytes(timeout=0)
        if i < 3:
            producer.write(message(i), timeout=0)
    assert producer.try_reserve() is None  # the view's memory is nobody else's
    assert array.tolist() == [3] * 8
    del array
    slot.release()
    if consumers == 1:
        successor = ring.consumer()
        assert successor.read_bytes() == message(0)
    else:
        producer.write(message(9), timeout=1)


def test_a_closed_producer_keeps_its_role_until_its_slot_is_gone(slot_ring):
    ring = slot_ring()
    producer, consumer = ring.producer(), ring.consumer()
    slot = producer.reserve()
    array = np.frombuffer(slot, np.uint64)
    producer.close()
    with pytest.raises(ipc.RoleTakenError):
        ring.producer()
    with pytest.raises(ipc.RingTimeout):
        consumer.read(timeout=0.01)
    del array, slot
    successor = ring.producer()
    successor.write(message(1))
    assert consumer.read_bytes() == message(1)


def test_a_role_belongs_to_one_and_can_be_had_again_after_close(slot_ring):
    ring = slot_ring()
    producer = ring.producer()
    with pytest.raises(ipc.RoleTakenError, match=r"ring 'test': process \d+ is its producer"):
        ring.producer()
    producer.write(message(1))
    producer.close()
    again = ring.producer()
    again.write(message(2))
    consumer = ring.consumer()
    assert [consumer.read_bytes() for _ in range(2)] == [message(1), message(2)]


def test_a_second_thread_is_refused_not_raced(pair):
    _, consumer = pair

    def wait():
        with contextlib.suppress(ipc.RingTimeout):
            consumer.read(timeout=0.5)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.1)
    with pytest.raises(RuntimeError, match="in use: by another thread"):
        consumer.try_read()
    waiter.join()


def test_another_thread_may_close_a_waiting_end(pair):
    _, consumer = pair
    threading.Timer(0.1, consumer.close).start()
    with pytest.raises(ipc.RingClosed, match="this end of ring 'test' is closed"):
        consumer.read(timeout=20)
    assert consumer.closed


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_a_bad_timeout_is_refused(pair, timeout):
    with pytest.raises((ValueError, TypeError)):
        pair[1].read(timeout=timeout)


@pytest.mark.parametrize("arguments", [{"max_count": 0}, {"max_count": -1}, {"what": 1}, {"max_count": 1.5}])
def test_bad_arguments_are_refused(pair, arguments):
    with pytest.raises((ValueError, TypeError, OverflowError)):
        pair[1].read_batch(**arguments)


def test_timeout_zero_does_not_wait_and_huge_timeouts_are_fine(pair):
    producer, consumer = pair
    with pytest.raises(ipc.RingTimeout):
        consumer.read(timeout=0)
    producer.write(message(1))
    consumer.read(timeout=1e300).release()


def test_steady_state_reuses_the_slot_object(pair):
    producer, consumer = pair
    producer.write(message(0))
    first = id(consumer.read())
    for i in range(10):
        producer.write(message(i))
        slot = consumer.read()
        assert id(slot) == first
        del slot


def signal_after(seconds, handler):
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def test_a_signal_handler_can_not_use_an_end_that_waits(byte_ring):
    """It would move head under a record whose place is already known."""
    ring = byte_ring(capacity=1024)
    producer, consumer = ring.producer(spin_us=0), ring.consumer(spin_us=0)
    for _ in range(2):
        producer.write(bytes(500))
    signal_after(0.05, lambda *_: producer.write(bytes(10)))
    with pytest.raises(RuntimeError, match="below a signal handler"):
        producer.write(bytes(500), timeout=5)
    assert consumer.read_many(5) == [bytes(500)] * 2


def test_a_signal_handler_may_close_an_end_that_waits(pair):
    _, consumer = pair
    signal_after(0.05, lambda *_: consumer.close())
    with pytest.raises(ipc.RingClosed):
        consumer.read(timeout=20)


def test_a_sequence_that_writes_while_it_is_written(byte_ring):
    ring = byte_ring(capacity=1024)
    producer, consumer = ring.producer(), ring.consumer()

    class Cunning:
        def __len__(self):
            return 2

        def __getitem__(self, i):
            if i == 0:
                producer.write(b"first")
            return [b"second", b"third"][i]

    producer.write_many(Cunning())
    assert consumer.read_many(5) == [b"first", b"second", b"third"]


def test_a_timeout_says_how_much_was_written(pair, byte_ring):
    producer, _ = pair
    with pytest.raises(ipc.RingTimeout) as error:
        producer.write_batch(bytes(64 * 7), timeout=0.01)
    assert error.value.written == 4
    records = byte_ring("records", capacity=256).producer()
    with pytest.raises(ipc.RingTimeout) as error:
        records.write_many([bytes(56)] * 9, timeout=0.01)
    assert error.value.written == 4


def test_a_forked_child_does_not_touch_its_parents_ring(pair):
    producer, consumer = pair
    producer.write(message(1))
    slot = consumer.read()
    child = os.fork()
    if child == 0:  # nothing but os._exit may end this
        try:
            with pytest.raises(RuntimeError, match="belongs to the parent process"):
                producer.write(message(2))
            with pytest.raises(RuntimeError, match="belongs to the parent process"):
                slot.release()
            producer.close()
            consumer.close()
            del slot, producer, consumer
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert producer.occupancy == 1
    slot.release()
    producer.write(message(3))
    assert consumer.read_bytes() == message(3)


def test_slots_may_be_given_back_while_another_thread_waits(pair):
    producer, consumer = pair
    producer.write(message(1))
    slot = consumer.read()
    got = []
    waiter = threading.Thread(target=lambda: got.append(consumer.read_bytes(timeout=10)))
    waiter.start()
    time.sleep(0.05)
    slot.release()
    assert producer.occupancy == 0
    producer.write(message(2))
    waiter.join()
    assert got == [message(2)]


def test_an_overlapping_write_moves(pair):
    slot = pair[0].reserve()
    slot.write(bytes(range(64)))
    slot.write(memoryview(slot)[0:32], 16)
    assert bytes(slot) == bytes([*range(16), *range(32), *range(48, 64)])
    slot.abandon()


def test_the_wrong_kind_of_ring_is_refused(slot_ring, byte_ring):
    with pytest.raises(ipc.CorruptRingError, match="of the other kind"):
        ipc.SlotRing.attach(byte_ring().segment.name)
    with pytest.raises(ipc.CorruptRingError, match="of the other kind"):
        ipc.ByteRing.attach(slot_ring().segment.name)


def test_impossible_sizes_are_refused_before_anything_is_made(slot_ring):
    with pytest.raises(ValueError, match=r"more than 2\^48 bytes"):
        slot_ring(slot_size=2**64 + 64)
    long = ipc.Layout("long", [ipc.Field(f"f{i:05}_{'x' * 40}", "int8") for i in range(1500)])
    with pytest.raises(ValueError, match="at most 65536 are allowed"):
        slot_ring(slot_size=None, layout=long)


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(ipc.PeerDied("steps", "producer", "preprocess", 7)))
    assert (error.ring, error.role, error.label, error.pid) == ("steps", "producer", "preprocess", 7)
    assert "producer 'preprocess' (pid 7) is dead" in str(error)
