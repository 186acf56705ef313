"""Rings of fixed slots, and the lifetime of slots and views. Both ends live in this process."""

import contextlib
import gc
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest

import ipc


@pytest.fixture
def pair(slot_ring):
    ring = slot_ring(slots=4, slot_size=64)
    return ring.producer(spin_us=0), ring.consumer(spin_us=0)


def message(i):
    return i.to_bytes(8, "little") * 8


def test_messages_arrive_in_order_over_many_wraps(pair):
    producer, consumer = pair
    for i in range(100):
        producer.write(message(i))
        assert consumer.read_bytes() == message(i)


def test_a_full_ring_gives_no_slot_and_an_empty_one_no_message(pair):
    producer, consumer = pair
    assert consumer.try_read() is None
    for i in range(4):
        producer.write(message(i))
    assert producer.try_reserve() is None
    assert producer.occupancy == consumer.occupancy == 4
    consumer.read().release()
    assert producer.occupancy == consumer.occupancy == 3
    with producer.reserve(timeout=0) as slot:
        slot.write(message(4))
    with pytest.raises(ipc.RingTimeout, match="'test' stayed full"):
        producer.reserve(timeout=0.01)


def test_nothing_is_visible_before_publish(pair):
    producer, consumer = pair
    slot = producer.reserve()
    slot.write(message(1))
    assert consumer.try_read() is None
    slot.publish()
    assert consumer.read_bytes() == message(1)


def test_an_abandoned_or_dropped_reservation_leaves_no_trace(pair):
    producer, consumer = pair
    producer.reserve().abandon()
    slot = producer.reserve()
    slot.write(message(9))
    del slot
    with pytest.raises(ZeroDivisionError), producer.reserve() as slot:
        slot.write(message(9))
        _ = 1 / 0
    assert consumer.try_read() is None
    assert producer.occupancy == 0
    producer.write(message(1))
    assert consumer.read_bytes() == message(1)


def test_only_one_reservation_at_a_time(pair):
    producer, _ = pair
    slot = producer.reserve()
    with pytest.raises(ipc.SlotInUseError, match="slot 0 of ring 'test' is still reserved"):
        producer.reserve()
    slot.abandon()


def test_batches_do_not_cross_the_wrap_and_publish_once(pair):
    producer, consumer = pair
    with producer.reserve_batch(3) as batch:
        assert (batch.count, batch.nbytes, batch.index) == (3, 192, 0)
        np.frombuffer(batch, np.uint64).reshape(3, 8)[:] = np.arange(3)[:, None]
    with consumer.read_batch(10) as batch:
        assert batch.count == 3
        assert np.frombuffer(batch, np.uint64)[::8].tolist() == [0, 1, 2]
    with producer.reserve_batch(4) as batch:
        assert (batch.count, batch.index) == (1, 3)
    with producer.reserve_batch(4) as batch:
        assert (batch.count, batch.index) == (3, 0)


def test_a_batch_can_be_published_in_part(pair):
    producer, consumer = pair
    batch = producer.reserve_batch(3)
    batch.write(message(5))
    with pytest.raises(ValueError, match=r"publish\(4\) on ring 'test': 3 were reserved"):
        batch.publish(4)
    with pytest.raises(ValueError, match=r"publish\(0\)"):
        batch.publish(0)
    batch.publish(1)
    assert consumer.read_bytes() == message(5)
    assert consumer.try_read() is None


def test_write_batch_and_read_into_cross_the_wrap(pair):
    producer, consumer = pair
    sent = np.arange(3 * 8, dtype=np.uint64)
    received = np.zeros(4 * 8, np.uint64)
    for _ in range(5):
        producer.write_batch(sent)
        assert consumer.read_into(received) == 3
        assert np.array_equal(received[:24], sent)


def test_write_batch_larger_than_the_ring_waits_for_the_reader(pair):
    producer, consumer = pair
    sent = np.arange(64 * 8, dtype=np.uint64)
    writer = threading.Thread(target=producer.write_batch, args=(sent,))
    writer.start()
    received = b"".join(consumer.read_bytes(timeout=5) for _ in range(64))
    writer.join()
    assert received == sent.tobytes()


@pytest.mark.parametrize("size", [0, 63, 65, 128])
def test_a_message_of_the_wrong_size_is_refused(pair, size):
    producer, consumer = pair
    with pytest.raises(ValueError, match=f"{size} bytes for ring 'test': its slots have 64"):
        producer.write(bytes(size))
    if size % 64:
        with pytest.raises(ValueError, match="its slots have 64"):
            producer.write_batch(bytes(size))
    assert consumer.try_read() is None


def test_writing_outside_a_slot_is_refused(pair):
    slot = pair[0].reserve()
    for data, offset in ((bytes(65), 0), (bytes(1), 64), (bytes(1), -1), (bytes(2), 63)):
        with pytest.raises(ValueError, match="the slot of ring 'test' has 64 bytes"):
            slot.write(data, offset)
    slot.write(b"", 64)
    slot.abandon()
    with pytest.raises(ValueError, match="given back"):
        slot.write(b"x")


def test_a_view_keeps_the_slot_and_early_release_is_refused(pair):
    producer, consumer = pair
    producer.write(message(7))
    slot = consumer.read()
    array = np.frombuffer(slot, np.uint64)
    with pytest.raises(ipc.SlotInUseError, match=r"slot 0 of ring 'test' has 1 live view: drop it \(del array\)"):
        slot.release()
    del slot
    gc.collect()
    assert producer.occupancy == 1  # the array alone keeps it
    assert array.tolist() == [7] * 8
    del array
    assert producer.occupancy == 0


def test_a_derived_view_keeps_the_slot_too(pair):
    producer, consumer = pair
    producer.write(message(7))
    slot = consumer.read()
    part = np.frombuffer(slot, np.uint64)[2:4].reshape(2, 1)
    with pytest.raises(ipc.SlotInUseError):
        slot.release()
    del part
    slot.release()
    assert producer.occupancy == 0


def test_no_old_view_ever_sees_a_new_message(pair):
    producer, consumer = pair
    producer.write(message(1))
    slot = consumer.read()
    array = np.frombuffer(slot, np.uint64)
    for i in range(2, 5):
        producer.write(message(i))
    assert producer.try_reserve() is None  # the held slot is not overwritten
    assert array.tolist() == [1] * 8
    del array
    slot.release()
    with pytest.raises(BufferError, match="given back"):
        memoryview(slot)
    with pytest.raises(ValueError, match="already given back"):
        slot.release()


def test_publishing_with_a_live_view_is_refused(pair):
    producer, consumer = pair
    slot = producer.reserve()
    array = np.frombuffer(slot, np.uint8)
    with pytest.raises(ipc.SlotInUseError, match="before publish"):
        slot.publish()
    assert consumer.try_read() is None
    array[:] = 3
    del array
    slot.publish()
    assert consumer.read_bytes() == bytes([3]) * 64


def test_a_view_that_would_not_keep_the_slot_is_refused(pair):
    """np.ndarray(buffer=…) gives the buffer back at once and goes on using its memory."""
    slot = pair[0].reserve()
    with pytest.raises(BufferError, match="does not keep the slot"):
        np.ndarray((8,), np.uint64, buffer=slot)
    slot.abandon()


def test_read_views_are_read_only_unless_asked_for(slot_ring):
    ring = slot_ring()
    producer, consumer = ring.producer(), ring.consumer()
    producer.write(message(1))
    with consumer.read() as slot, pytest.raises(ValueError, match="read-only"):
        np.frombuffer(slot, np.uint8)[0] = 1
    consumer.close()
    writer = ring.consumer(writable=True)
    producer.write(message(1))
    with writer.read() as slot:
        np.frombuffer(slot, np.uint64)[:] = 2
        assert bytes(slot) == message(2)


def test_slots_may_be_released_in_any_order(pair):
    producer, consumer = pair
    for i in range(4):
        producer.write(message(i))
    slots = [consumer.read() for _ in range(4)]
    for which, occupied in ((2, 4), (1, 4), (0, 1), (3, 0)):
        slots[which].release()
        assert producer.occupancy == occupied


def test_a_copying_read_behind_a_held_slot_does_not_free_it(pair):
    producer, consumer = pair
    producer.write(message(0))
    producer.write(message(1))
    held = consumer.read()
    assert consumer.read_bytes() == message(1)
    assert producer.occupancy == 2
    held.release()
    assert producer.occupancy == 0


def test_alignment_and_rounding(slot_ring):
    ring = slot_ring(slots=2, slot_size=65)
    producer = ring.producer()
    assert producer.slot_size == 128
    for _ in range(2):
        slot = producer.reserve()
        assert np.frombuffer(slot, np.uint8).ctypes.data % 64 == 0
        slot.publish()


def test_resident_views_follow_the_slots(slot_ring):
    layout = ipc.Layout("step", [ipc.Field("ids", "int32", (4,)), ipc.Field("rows", "int32")])
    ring = slot_ring(slots=2, slot_size=None, layout=layout)
    producer, consumer = ring.producer(), ring.consumer()
    there, here = layout.resident_views(producer), layout.resident_views(consumer)
    for i in range(5):
        slot = producer.reserve()
        there[slot.index].ids[:] = i
        slot.publish()
        read = consumer.read()
        assert here[read.index].ids.tolist() == [i] * 4
        read.release()
    assert not here[0].ids.flags.writeable


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
