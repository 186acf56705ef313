"""The control channel: messages whole or not at all, descriptors with them, and nobody who blocks the other."""

from __future__ import annotations

import os
import signal
import time

import pytest

import ipc
from pipeline.runtime.control_channel import Channel, ChannelError, Message
from pipeline.runtime.generations import CRASHED, Control, Ended, Generation


@pytest.fixture
def ends():
    ours, theirs = Channel.pair()
    stage = Channel(theirs)
    yield ours, stage
    ours.close()
    stage.close()


def receive(channel):
    message = channel.receive()
    assert message is not None
    return message


def test_messages_keep_their_boundaries(ends):
    launcher, stage = ends
    stage.send("progress", what="loading", done=1, total=2)
    stage.send("waiting")
    assert receive(launcher) == Message("progress", {"what": "loading", "done": 1, "total": 2})
    assert receive(launcher) == Message("waiting", {})
    assert launcher.receive() is None
    assert stage.receive() is None


def test_descriptors_come_along_and_can_be_used(ends):
    launcher, stage = ends
    read, write = os.pipe()
    launcher.send("generation", [write])
    os.close(write)
    (there,) = receive(stage).fds
    assert os.get_inheritable(there) is False
    os.write(there, b"x")
    os.close(there)
    assert os.read(read, 2) == b"x"
    os.close(read)


def test_a_message_that_nobody_wants_gives_its_descriptors_back(ends):
    launcher, stage = ends
    launcher.send("generation", [0])
    message = receive(stage)
    message.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(message.fds[0])


def test_a_stage_that_takes_nothing_does_not_block_the_launcher(ends):
    launcher, _ = ends
    with pytest.raises(ChannelError, match="could not be sent"):
        for _ in range(100_000):
            launcher.send("reload", values={"pipeline.log.level": "debug"})


def test_the_other_end_is_gone(ends):
    launcher, stage = ends
    stage.send("waiting")
    stage.close()
    assert receive(launcher).event == "waiting"
    with pytest.raises(ChannelError, match="closed"):
        launcher.receive()
    with pytest.raises(ChannelError):
        launcher.send("drain")


def test_running_out_of_descriptors_is_an_error_and_leaks_none(ends):
    import resource

    launcher, stage = ends
    launcher.send("generation", [0] * 20)
    taken = {int(name) for name in os.listdir("/proc/self/fd")}
    before = len(taken)
    free = [fd for fd in range(before + 100) if fd not in taken]  # the limit is on numbers, and there may be gaps
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[5], hard))
    try:
        with pytest.raises(ChannelError, match="cut off"):
            stage.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == before


# ---- generations --------------------------------------------------------------------------------------------


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
