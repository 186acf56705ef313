"""Generations of rings as a stage gets them, and what else it is told meanwhile."""

from __future__ import annotations

import os
import signal
import time

import pytest

import ipc
from pipeline.runtime.control_channel import ChannelError
from pipeline.runtime.generations import CRASHED, Control, Ended, Generation


def give(launcher, number, ended=()):
    with ipc.ByteRing.create("requests", capacity=1024) as ring:
        fields, fds = Generation(number, {"requests": ring.handle}, ended).to_message()
        launcher.send("generation", fds, **fields)


def test_a_generation_arrives_with_its_rings_and_what_ended_the_last(ends):
    launcher, stage = ends
    ended = (Ended("inference", CRASHED, 3),)
    with ipc.ByteRing.create("requests", capacity=1024) as ring:
        fields, fds = Generation(4, {"requests": ring.handle}, ended).to_message()
        launcher.send("generation", fds, **fields)
        generation = Control(stage).next_generation()
        assert (generation.number, generation.ended) == (4, ended)
        there = ipc.ByteRing.from_handle(generation.handles["requests"])
        producer, consumer = there.producer(), ring.consumer()
        producer.write(b"through both")
        assert consumer.read_bytes() == b"through both"
        producer.close()
        there.close()


def test_only_the_newest_generation_counts(ends):
    launcher, stage = ends
    before = len(os.listdir("/proc/self/fd"))
    for number in (1, 2, 3):
        give(launcher, number)
    generation = Control(stage).next_generation()
    assert generation.number == 3
    for fd in generation.handles["requests"].fds:
        os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before


def test_other_messages_are_handled_while_a_generation_is_waited_for(ends):
    launcher, stage = ends
    control, seen = Control(stage), []
    control.on("reload", lambda fields: seen.append(fields["values"]))
    launcher.send("reload", values={"a": 1})
    launcher.send("unknown")
    give(launcher, 1)
    launcher.send("reload", values={"a": 2})
    for fd in control.next_generation().handles["requests"].fds:
        os.close(fd)
    control.take()
    assert seen == [{"a": 1}, {"a": 2}]


def test_messages_are_handled_in_the_middle_of_other_work(ends):
    launcher, stage = ends
    control, seen = Control(stage), []
    control.on("reload", lambda fields: seen.append(fields["values"]))
    launcher.send("reload", values=0)
    handler = signal.getsignal(signal.SIGIO)
    control.watch()
    try:
        assert seen == [0]  # it was there before anybody watched
        with ipc.ByteRing.create("test", capacity=1024) as ring:
            consumer = ring.consumer()
            launcher.send("reload", values=1)
            with pytest.raises(ipc.RingTimeout):
                consumer.read(timeout=0.2)
            consumer.close()
        assert seen == [0, 1]
        deadline = time.monotonic() + 10
        launcher.send("reload", values=2)
        while len(seen) < 3:
            assert time.monotonic() < deadline
    finally:
        launcher.close()
        signal.signal(signal.SIGIO, signal.SIG_IGN if handler is None else handler)


def test_waiting_for_a_launcher_that_is_gone(ends):
    launcher, stage = ends
    launcher.close()
    with pytest.raises(ChannelError):
        Control(stage).next_generation()
