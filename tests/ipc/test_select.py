"""Waiting for several rings at once."""

from __future__ import annotations

import os
import threading

import pytest

import ipc


@pytest.fixture
def rings(byte_ring):
    return [byte_ring(name) for name in ("one", "other")]


def ends(rings):
    consumers = [ring.consumer() for ring in rings]
    return consumers, [(end, ring.data_fd()) for end, ring in zip(consumers, rings, strict=True)]


def close(*handles):
    for handle in handles:
        handle.close()


def test_it_wakes_for_whichever_has_something(rings):
    producers = [ring.producer() for ring in rings]
    consumers, pairs = ends(rings)
    selector = ipc.RingSelector(pairs)
    for producer, consumer in zip(producers, consumers, strict=True):
        assert selector.wait(0) is False
        later = threading.Timer(0.05, producer.write, [b"x"])
        later.start()
        assert selector.wait(60) is True
        later.join()
        assert consumer.read_bytes(timeout=0) == b"x"
    close(*producers, *consumers)


def test_what_is_there_already_is_not_waited_for(rings):
    producer = rings[0].producer()
    consumers, pairs = ends(rings)
    producer.write(b"x")
    assert ipc.RingSelector(pairs).wait(None) is True
    close(producer, *consumers)


def test_a_waker_ends_the_wait(rings):
    producers = [ring.producer() for ring in rings]
    consumers, pairs = ends(rings)
    waker = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        os.eventfd_write(waker, 1)
        assert ipc.RingSelector(pairs, [waker]).wait(60) is True
        with pytest.raises(BlockingIOError):
            os.eventfd_read(waker)  # it is taken note of
    finally:
        os.close(waker)
        close(*producers, *consumers)


def test_an_end_can_be_woken_before_it_has_something(rings):
    producers = [ring.producer() for ring in rings]
    consumers, pairs = ends(rings)
    selector = ipc.RingSelector(pairs)
    os.eventfd_write(rings[1].data_fd(), 1)
    assert selector.wait(60) is True
    assert selector.wait(0) is False
    close(*producers, *consumers)


def test_a_peer_that_died_ends_it(slot_ring, spawn):
    ring = slot_ring()
    child = spawn("hold_until_told", {"ring": ring}, kind="producer")
    child.expect("ready")
    consumer = ring.consumer()
    child.kill()
    with pytest.raises(ipc.PeerDied):
        ipc.RingSelector([(consumer, ring.data_fd())]).wait(60)
    consumer.close()
