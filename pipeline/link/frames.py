"""Frames: what a link carries. A header of fixed size, then records as they are in the rings.

The other side is another machine. Whatever it sends is looked at before it is used: no length is believed beyond what
may be kept, and a frame that is missing, or comes twice, breaks the link. A broken link costs a resumption; a broken
answer would be a client's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import NamedTuple

PROTOCOL = 4
"""Version of all that is described here but the first frame, `Kind.HELLO`, which says it."""

MOST_BYTES = 1 << 20
"""Of several records in one frame; one record alone may be longer."""

CONTROL_BYTES = 64 << 10
"""Of frames that carry no records."""

MOST_LANES = 256

_HEAD = struct.Struct("<IBBHII")  # bytes that follow, kind, lane, 0, number of the frame, generation of the lane
_LENGTH = struct.Struct("<I")
_SHOWN = 500  # characters
_SPAN = 1 << 32  # numbers of frames begin anew behind it


class LinkError(Exception):
    """What came can't be used, and nothing more is read from this link. The message is for both sides' logs."""


class Kind(IntEnum):
    """What a frame holds; `lane` is a replica of the node."""

    HELLO = 1  # both: see `Hello`
    REFUSED = 2  # node: why it takes no link from this router
    CLOSED = 3  # both: why this side closes the link
    BEAT = 4  # both: this side is there
    UP = 5  # node: the lane has rings, see `Room`
    DOWN = 6  # node: it has none any more, and nothing more comes of this generation
    VERDICT = 7  # node: who may be to blame for that
    AWAY = 8  # node: it does not come back soon
    TAKEN = 9  # node: bytes of requests that have gone on into the lane's ring, in all
    REQUESTS = 10  # router: records of the ring `requests`
    REPLIES = 11  # node: records of the ring `replies`
    DELTAS = 12  # node: records of the ring `deltas`
    LOAD = 13  # node: requests of other routers at the lane
    COMING = 14  # router: a request is about to come; it has no other


_FIRST = frozenset({Kind.HELLO, Kind.REFUSED, Kind.CLOSED})
RECORDS = frozenset({Kind.REQUESTS, Kind.REPLIES, Kind.DELTAS})

_KINDS = {int(kind): kind for kind in Kind}


class Frame(NamedTuple):
    kind: Kind
    lane: int
    generation: int
    payload: bytes


class FrameWriter:
    """Numbers what one side sends."""

    def __init__(self) -> None:
        self._number = 0

    def frame(self, kind: Kind, payload: bytes = b"", lane: int = 0, generation: int = 0) -> bytes:
        head = _HEAD.pack(len(payload), kind, lane, 0, self._number, generation)
        self._number = (self._number + 1) % _SPAN
        return head + payload


class FrameReader:
    """Cuts what has come into frames. `longest`: of one record from the other side. The first frame has to be a
    hello, or a refusal."""

    def __init__(self, longest: int) -> None:
        self._most_records = max(MOST_BYTES, longest + 2 * _LENGTH.size)
        self._number = 0
        self._left = b""
        self.greeted = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Those that are whole. Raises LinkError."""
        data, self._left = self._left + data if self._left else data, b""
        at, end = 0, len(data)
        while end - at >= _HEAD.size:
            length, kind, lane, generation = self._head(data, at)
            begin = at + _HEAD.size
            if end - begin < length:
                break
            at = begin + length
            self._number = (self._number + 1) % _SPAN
            self.greeted = True
            yield Frame(kind, lane, generation, data[begin:at])
        self._left = data[at:]

    def _head(self, data: bytes, at: int) -> tuple[int, Kind, int, int]:
        length, number, lane, reserved, count, generation = _HEAD.unpack_from(data, at)
        kind = _KINDS.get(number)
        if kind is None or reserved:
            raise LinkError("what came is no frame of a link")
        if not self.greeted and kind not in _FIRST:
            raise LinkError("the first frame is no hello")
        most = self._most_records if kind in RECORDS else CONTROL_BYTES
        if length > most:
            raise LinkError(f"a frame ({kind.name}) of {length} bytes came; {most} are the most that are taken")
        if count != self._number:
            raise LinkError(f"frame {count} came where frame {self._number} was due")
        return length, kind, lane, generation


def legible(text: str) -> str:
    """What another machine says, for one line of a log."""
    shown = "".join(character if character.isprintable() else "?" for character in text[:_SHOWN])
    return shown + ("…" if len(text) > _SHOWN else "")


def batches(records: Sequence[bytes]) -> list[bytes]:
    """Payloads with these records, in order: their number, the length of each, and all of them."""
    count, body = len(records), b"".join(records)
    if count > 1 and len(body) + _LENGTH.size * (1 + count) > MOST_BYTES:
        middle = count // 2
        return batches(records[:middle]) + batches(records[middle:])
    return [struct.pack(f"<{1 + count}I", count, *map(len, records)) + body] if count else []


def records_of(payload: bytes) -> list[bytes]:
    """Raises LinkError unless they fill it."""
    count = _LENGTH.unpack_from(payload)[0] if len(payload) >= _LENGTH.size else 0
    begin, end = _LENGTH.size * (1 + count), len(payload)
    lengths = struct.unpack_from(f"<{count}I", payload, _LENGTH.size) if begin < end else ()
    ends = [*accumulate(lengths, initial=begin)]
    if not lengths or ends[-1] != end or not all(lengths):
        raise LinkError("the records of a frame do not fill it")
    return [payload[at:behind] for at, behind in pairwise(ends)]
