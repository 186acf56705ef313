"""The control channel: messages whole or not at all, descriptors with them, and nobody who blocks the other."""

from __future__ import annotations

import os

import pytest

from pipeline.runtime.control_channel import ChannelError, Message


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
