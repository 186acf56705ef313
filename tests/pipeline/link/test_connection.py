"""One side of a link against a socket that does as the test wants: silent, deaf, hostile, gone."""

from __future__ import annotations

import asyncio
import socket

import pytest

from pipeline.link.connection import Connection
from pipeline.link.frames import Frame, FrameReader, FrameWriter, Kind, LinkError

BEAT_S = 0.05
HELLO = Frame(Kind.HELLO, 0, 0, b"hello")


class Side:
    """A connection, and the raw socket at its other end."""

    def __init__(self, connection, far):
        self.connection, self.far = connection, far
        self.reader, self.writer = FrameReader(1 << 12), FrameWriter()
        self.frames = []

    async def send(self, kind, payload=b""):
        await asyncio.get_running_loop().sock_sendall(self.far, self.writer.frame(kind, payload))

    async def hear(self, kind):
        """Until such a frame has come."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            while not any(frame.kind is kind for frame in self.frames):
                data = await loop.sock_recv(self.far, 1 << 16)
                assert data, "it was closed"
                self.frames += self.reader.feed(data)
        return next(frame for frame in self.frames if frame.kind is kind)


def played(play, *, heartbeat_s=BEAT_S, on_frames=None, **options):
    """What came, and why the link was lost, after the play."""
    came, lost = [], []

    async def run():
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def on_lost(why):
            lost.append(why)
            over.set()

        near, far = socket.socketpair()
        for end in (near, far):
            end.setblocking(False)
        make = lambda: Connection(1 << 12, heartbeat_s, on_frames or came.extend, on_lost, **options)  # noqa: E731
        _, connection = await loop.create_connection(make, sock=near)
        with far:
            await play(Side(connection, far))
            async with asyncio.timeout(10):
                await over.wait()
        await asyncio.sleep(0)

    asyncio.run(run())
    assert len(lost) == 1
    return came, lost[0]


def test_frames_of_one_pass_are_one_write():
    async def play(side):
        for number in range(5):
            side.connection.send(Kind.HELLO if not number else Kind.DELTAS, b"%d" % number)
        await asyncio.sleep(0.01)
        data = side.far.recv(1 << 16)
        assert [frame.payload for frame in side.reader.feed(data)] == [b"0", b"1", b"2", b"3", b"4"]
        assert side.connection.sent == len(data)
        side.far.close()

    assert "the other side closed it" in played(play)[1]


def test_both_sides_beat_once_they_know_each_other():
    async def play(side):
        side.connection.send(Kind.HELLO)
        await side.send(Kind.HELLO, b"hello")
        await side.hear(Kind.BEAT)
        side.far.close()

    came, why = played(play)
    assert came == [HELLO]
    assert "closed" in why


def test_silence_is_noticed():
    async def play(side):
        await side.send(Kind.HELLO, b"hello")

    assert "nothing was heard for" in played(play)[1]


def test_beats_keep_it():
    async def play(side):
        await side.send(Kind.HELLO, b"hello")
        for _ in range(12):
            await asyncio.sleep(0.1)
            await side.send(Kind.BEAT)
        assert not side.connection.lost
        await side.send(Kind.BEAT + 90)

    assert "no frame of a link" in played(play, heartbeat_s=0.3)[1]


def test_bytes_of_an_unknown_are_no_sign_of_life():
    async def play(side):
        data = side.writer.frame(Kind.HELLO, bytes(200))
        for at in range(12):
            if side.connection.lost:
                return
            side.far.send(data[at : at + 1])
            await asyncio.sleep(BEAT_S / 2)

    assert "nothing was heard for" in played(play)[1]


def test_who_does_not_read_is_left():
    async def play(side):
        side.connection.send(Kind.HELLO)
        for _ in range(2000):
            side.connection.send(Kind.DELTAS, bytes(1000))
            if side.connection.lost:
                return
            await asyncio.sleep(0)

    assert "the other side does not read" in played(play, heartbeat_s=30.0, most_unread=100_000)[1]


@pytest.mark.parametrize("from_handler", [False, True])
def test_what_can_not_be_used_ends_it_and_the_other_side_is_told(from_handler):
    def refuse(_frames):
        raise LinkError("that is no request")

    async def play(side):
        await side.send(Kind.HELLO, b"hello")
        if not from_handler:
            side.connection.send(Kind.HELLO)
            await asyncio.get_running_loop().sock_sendall(side.far, b"GET / HTTP/1.1\r\n\r\n")
        told.append((await side.hear(Kind.CLOSED)).payload.decode())

    told = []
    _, why = played(play, heartbeat_s=1.0, on_frames=refuse if from_handler else None)
    assert told == [why]
    assert why == ("that is no request" if from_handler else "what came is no frame of a link")


def test_nothing_is_sent_or_taken_behind_the_end():
    async def play(side):
        await side.send(Kind.HELLO, b"hello")
        await asyncio.sleep(0.01)
        side.connection.close("enough")
        side.connection.send(Kind.DELTAS, b"late")
        side.connection.data_received(side.writer.frame(Kind.BEAT))
        await side.hear(Kind.CLOSED)
        assert await asyncio.get_running_loop().sock_recv(side.far, 1 << 10) == b""

    came, why = played(play)
    assert (came, why) == ([HELLO], "enough")
