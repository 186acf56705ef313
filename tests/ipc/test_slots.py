"""Rings of fixed slots, and the lifetime of slots and views. Both ends live in this process."""

import gc
import threading

import numpy as np
import pytest

import ipc
from tests.ipc.children import message


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
