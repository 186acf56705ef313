"""Rings of variable-length records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ipc
from tests.examples import examples


@pytest.fixture
def pair(byte_ring):
    ring = byte_ring(capacity=256)
    return ring.producer(spin_us=0), ring.consumer(spin_us=0)


def test_records_keep_their_length_and_order_over_wraps(pair):
    producer, consumer = pair
    for i in range(1000):
        data = bytes([i & 0xFF]) * (i * 37 % 121)
        producer.write(data)
        assert consumer.read_bytes() == data


def test_the_largest_record_fits_wherever_head_stands(pair):
    producer, consumer = pair
    assert producer.max_record == 120
    for i in range(200):
        producer.write(bytes(i % 17))
        consumer.read().release()
        producer.write(b"x" * 120, timeout=1)
        assert consumer.read_bytes() == b"x" * 120


def test_a_record_that_can_never_fit_is_refused(pair):
    with pytest.raises(ValueError, match="121 bytes: ring 'test' takes at most 120"):
        pair[0].write(bytes(121))
    with pytest.raises(ValueError, match="takes at most 120"):
        pair[0].reserve(2**40)


def test_a_reserved_record_can_shrink(pair):
    producer, consumer = pair
    for _ in range(50):
        slot = producer.reserve(100)
        slot.write(b"abc")
        slot.publish(3)
        with consumer.read() as record:
            assert (bytes(record), record.count, len(record)) == (b"abc", 1, 3)


def test_empty_records_are_records(pair):
    producer, consumer = pair
    producer.write(b"")
    producer.reserve(5).publish(0)
    assert [consumer.read_bytes(), consumer.read_bytes()] == [b"", b""]
    assert consumer.try_read() is None


def test_an_abandoned_record_that_would_have_skipped_leaves_no_trace(pair):
    producer, consumer = pair
    producer.write(b"x" * 100)
    consumer.read().release()
    producer.write(b"y" * 100)
    consumer.read().release()
    producer.reserve(100).abandon()  # would have wrapped
    producer.write(b"tiny")
    assert consumer.read_bytes() == b"tiny"


def test_many_at_once(pair):
    producer, consumer = pair
    sent = [bytes([i]) * i for i in range(12)]
    producer.write_many(sent)
    received = []
    while len(received) < len(sent):
        received += consumer.read_many(100, timeout=1)
    assert received == sent
    producer.write_many([])
    assert consumer.try_read() is None


def test_write_many_publishes_what_it_wrote_before_an_error(pair):
    producer, consumer = pair
    with pytest.raises(ValueError, match="takes at most"):
        producer.write_many([b"one", b"two", bytes(1000), b"four"])
    assert consumer.read_many(10) == [b"one", b"two"]
    with pytest.raises(TypeError):
        producer.write_many([b"three", 5])
    assert consumer.read_many(10) == [b"three"]


def test_a_full_ring_times_out_and_loses_nothing(pair):
    producer, consumer = pair
    with pytest.raises(ipc.RingTimeout):
        producer.write_many([bytes([i]) * 50 for i in range(10)], timeout=0.05)
    received = consumer.read_many(100)
    assert received == [bytes([i]) * 50 for i in range(len(received))]
    assert producer.try_reserve(120) is not None


def test_a_held_record_is_not_overwritten(pair):
    producer, consumer = pair
    producer.write(b"held" * 10)
    held = consumer.read()
    assert held.nbytes == 40
    with pytest.raises(ipc.RingTimeout):
        for _ in range(20):
            producer.write(b"more" * 10, timeout=0.01)
    assert bytes(held) == b"held" * 10


operations = st.lists(st.tuples(st.sampled_from("wwwrrm"), st.integers(0, 120)), max_size=200)


@examples(200)
@given(operations)
def test_any_sequence_of_operations_behaves_like_a_queue(steps):
    with ipc.ByteRing.create("model", capacity=256) as ring:
        producer, consumer = ring.producer(spin_us=0), ring.consumer(spin_us=0)
        queue, number = [], 0
        for operation, size in steps:
            if operation == "w":
                slot = producer.try_reserve(size)
                if slot is not None:
                    number += 1
                    data = bytes([number & 0xFF]) * size
                    slot.write(data)
                    slot.publish()
                    queue.append(data)
                else:
                    assert queue, "an empty ring has room for every legal record"
            elif not queue:
                assert consumer.try_read() is None
            elif operation == "r":
                assert bytes(consumer.try_read()) == queue.pop(0)
            else:
                got = consumer.read_many(1 + size % 3)
                assert got == queue[: len(got)]
                assert got
                del queue[: len(got)]
        producer.close()
        consumer.close()
