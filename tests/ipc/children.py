"""What the processes at the other end of a ring do in these tests.

Run as ``python children.py <role> <ring handles as JSON> <options as JSON>``. A role prints ``ready`` when it has
attached, and one JSON line with its result when it ends.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import ipc

Handles = dict[str, ipc.RingHandle]
ROLES: dict[str, Callable[..., Any]] = {}


def role(function: Callable[..., Any]) -> Callable[..., Any]:
    ROLES[function.__name__] = function
    return function


def say(word: str) -> None:
    print(word, flush=True)


def message(i: int) -> bytes:
    return i.to_bytes(8, "little") * 8


def fill(sequence: int, nbytes: int) -> bytes:
    """The content of message `sequence`: every byte depends on it."""
    return bytes((sequence * 131 + i * 7) & 0xFF for i in range(nbytes))


def record_size(sequence: int, most: int) -> int:
    return (sequence * 2654435761 >> 7) % (most + 1)


@role
def echo(handles: Handles) -> int:
    """Sends back what comes, until the other side closes."""
    receive = ipc.SlotRing.from_handle(handles["there"]).consumer(label="echo")
    send = ipc.SlotRing.from_handle(handles["back"]).producer(label="echo")
    say("ready")
    count = 0
    try:
        while True:
            with receive.read(timeout=30) as slot:
                send.write(slot)
            count += 1
    except ipc.RingClosed:
        return count


@role
def count_slots(handles: Handles, consumer: int = 0, pauses: bool = False, spin_us: float | None = None) -> dict:
    """Reads until the ring is closed, checks every byte of every message."""
    end = ipc.SlotRing.from_handle(handles["ring"]).consumer(consumer, label=f"reader {consumer}", spin_us=spin_us)
    say("ready")
    count, rng = 0, random.Random(consumer)
    try:
        while True:
            with end.read_batch(7, timeout=30) as slot:
                data = bytes(slot)
                for k in range(slot.count):
                    expected = fill(count, end.slot_size)
                    if data[k * end.slot_size : (k + 1) * end.slot_size] != expected:
                        return {"count": count, "wrong": True}
                    count += 1
            if pauses and rng.random() < 0.01:
                time.sleep(rng.random() * 0.002)
    except ipc.RingClosed:
        return {"count": count, "wrong": False, "lost": end.lost_wakes}


@role
def count_records(handles: Handles) -> dict:
    end = ipc.ByteRing.from_handle(handles["ring"]).consumer(label="reader")
    most = end.capacity // 2 - 8
    say("ready")
    count, rng = 0, random.Random(3)
    try:
        while True:
            with end.read(timeout=30) as record:
                if bytes(record) != fill(count, record_size(count, most)):
                    return {"count": count, "wrong": True}
            count += 1
            if rng.random() < 0.005:
                time.sleep(rng.random() * 0.002)
    except ipc.RingClosed:
        return {"count": count, "wrong": False, "lost": end.lost_wakes}


@role
def die(handles: Handles, side: str, point: str, after: int = 0, number: int = 0) -> None:
    """Reaches a named point of the protocol and stays there, to be killed."""
    ring = ipc.SlotRing.from_handle(handles["ring"])
    if side == "producer":
        producer = ring.producer(label="victim", spin_us=0)
        for i in range(after):
            producer.write(fill(i, producer.slot_size))
        if point == "before publish":
            slot = producer.reserve()
            slot.write(fill(after, producer.slot_size))
        elif point == "after publish":
            producer.write(fill(after, producer.slot_size))
        elif point == "inside a wait":
            while producer.occupancy < producer.capacity:
                producer.write(fill(0, producer.slot_size))
            say("at the point")
            producer.reserve()
        elif point == "holding a batch":
            slot = producer.reserve_batch(4)
    else:
        consumer = ring.consumer(number, label="victim", spin_us=0)
        say("attached")
        if point == "with a slot held":
            slot = consumer.read()
            view = np.frombuffer(slot, np.uint8)
            assert view.size
        elif point == "after release":
            consumer.read().release()
        elif point == "inside a wait":
            say("at the point")
            while True:
                consumer.read().release()
    say("at the point")
    time.sleep(60)


@role
def hold_until_told(handles: Handles, kind: str = "producer") -> None:
    ring = ipc.SlotRing.from_handle(handles["ring"])
    end = ring.producer(label="holder") if kind == "producer" else ring.consumer(label="holder")
    say("ready")
    sys.stdin.readline()
    end.close()


@role
def publish_slowly(handles: Handles, count: int, interval_s: float) -> None:
    producer = ipc.SlotRing.from_handle(handles["ring"]).producer(label="slow")
    say("ready")
    for i in range(count):
        time.sleep(interval_s)
        producer.write(i.to_bytes(8, "little").ljust(producer.slot_size, b"\0"))
    producer.close()


@role
def publish_busily(handles: Handles, count: int) -> int:
    """For strace: never waits long enough to sleep."""
    producer = ipc.SlotRing.from_handle(handles["ring"]).producer(label="busy", spin_us=1e6)
    message = bytes(producer.slot_size)
    say("ready")
    sys.stdin.readline()
    os.getppid()  # strace's output is counted between the two calls of this name
    for _ in range(count):
        producer.write(message)
    os.getppid()
    return producer.occupancy


@role
def take_busily(handles: Handles, count: int) -> None:
    consumer = ipc.SlotRing.from_handle(handles["ring"]).consumer(label="busy", spin_us=1e6)
    say("ready")
    sys.stdin.readline()
    os.getppid()
    for _ in range(count):
        consumer.read().release()
    os.getppid()


@role
def wait_idly(handles: Handles, seconds: float) -> float:
    """CPU seconds that a waiting process uses."""
    consumer = ipc.SlotRing.from_handle(handles["ring"]).consumer(label="idle")
    say("ready")
    before = time.process_time()
    try:
        consumer.read(timeout=seconds)
    except ipc.RingTimeout:
        return time.process_time() - before
    raise AssertionError("something came")


def main() -> None:
    name, handles, options = sys.argv[1:]
    parsed = {key: ipc.RingHandle.from_text(text) for key, text in json.loads(handles).items()}
    result = ROLES[name](parsed, **json.loads(options))
    print(json.dumps({"result": result}), flush=True)


if __name__ == "__main__":
    main()
