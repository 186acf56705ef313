"""What a front writes down of the answers that are kept, for the front that comes after it.

For each answer: the request as it came, what was sent to preprocess, and the tokens as they come, packed as sampling
has sent them. Texts and events are made again from these. The memory is the launcher's, so a front's death costs none
of it.
"""

from __future__ import annotations

import itertools
import logging
import mmap
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec

import ipc
from pipeline.front.delivery.job import Times
from pipeline.wire.delta import delta_head
from pipeline.wire.delta import renumbered as renumbered_delta
from pipeline.wire.request import Submit, unpack_message

log = logging.getLogger("ringserve.front")

_ABOUT: Final = bytes(8)
"""How a record begins that is no delta: those begin with the number of a request, which is never 0."""

_TIMES: Final = 3  # what is kept, in a half of the log: it is tidied at twice of that
_TIDY: Final = 1 << 20  # bytes of the log that are worth it
_TIDY_ALL: Final = 1 << 16  # where nothing is kept
_UNREADABLE: Final = (msgspec.MsgspecError, KeyError, ValueError, struct.error)


class _Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    def pack(self) -> bytes:
        return _ABOUT + msgspec.msgpack.encode(self)


class Opened(_Record, frozen=True, tag=0):
    """A request was sent to preprocess. `submits`: packed; `headers`: those that its answer depends on. `barren`:
    fronts in a row that have ended without a token more than `recorded` records. `asked`: it is to be kept."""

    seed: str
    created: int
    arrival_ns: int
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    key: str
    body: bytes
    seconds: float
    submits: tuple[bytes, ...]
    barren: int = 0
    recorded: int = 0
    asked: bool = True


class Begun(_Record, frozen=True, tag=1):
    """What the answer says of a prompt."""

    request: int
    prompt_tokens: int
    cached_tokens: int


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """An `ApiError`."""

    status: int
    message: str
    kind: str
    parameter: str | None
    code: str | None


class Ended(_Record, frozen=True, tag=2):
    """The answer is complete, or has failed. `times`: where it shows them."""

    times: Times | None = None
    failure: Failure | None = None


class Dropped(_Record, frozen=True, tag=3):
    """The answer is not kept any more."""


class Tried(_Record, frozen=True, tag=4):
    """Only this answer is made again, until something comes of it."""


class Origin(_Record, frozen=True, tag=5):
    """From token `first` of this text on, from 0, these weights compute it."""

    request: int
    first: int
    weights: str


_Any: TypeAlias = Opened | Begun | Ended | Dropped | Tried | Origin
_DECODER: msgspec.msgpack.Decoder[_Any] = msgspec.msgpack.Decoder(_Any)
_DROPPED: Final = Dropped().pack()


@dataclass(slots=True)
class Found:
    """An answer, as a front before has left it. `records`: deltas, `Begun` and `Origin`, in the order of the answer.
    `tried`: the front has ended while only this one was made again."""

    opened: Opened
    records: list[bytes] = field(default_factory=list)
    ended: Ended | None = None
    tried: bool = False

    @property
    def packed(self) -> list[bytes]:
        """For the journal."""
        return [self.opened.pack(), *self.records, *([] if self.ended is None else [self.ended.pack()])]


def renumbered(found: Found, new_id: Callable[[], int]) -> Found:
    """With numbers of this front for its texts: nodes take no others."""
    submits = submits_of(found.opened)
    new = {choice.request: new_id() for submit in submits for choice in submit.choices}
    renamed = [
        submit.with_choices([msgspec.structs.replace(one, request=new[one.request]) for one in submit.choices])
        for submit in submits
    ]
    opened = msgspec.structs.replace(found.opened, submits=tuple(submit.pack() for submit in renamed))
    return Found(opened, [_renumbered(record, new) for record in found.records], found.ended, found.tried)


def _renumbered(record: bytes, new: Mapping[int, int]) -> bytes:
    about = about_text(record)
    if about is None:
        return renumbered_delta(record, new[delta_head(record)[0]])
    return msgspec.structs.replace(about, request=new[about.request]).pack()


def about_text(record: bytes) -> Begun | Origin | None:
    """What a record of a text says; None: it is a delta."""
    if not record.startswith(_ABOUT):
        return None
    found = _decoded(record)
    assert isinstance(found, Begun | Origin)
    return found


def _decoded(record: bytes) -> _Any:
    return _DECODER.decode(memoryview(record)[len(_ABOUT) :])


def make_journal(kept_bytes: int) -> int:
    """A descriptor of an empty one, for answers of so many bytes. Its memory is taken as it is needed. Raises
    SegmentError."""
    return ipc.make_log(-(-_TIMES * kept_bytes // mmap.PAGESIZE) * mmap.PAGESIZE)


class Journal:
    """Each answer has a writer, and its records have that one's number. `kept`: the numbers of all that are kept.
    `grown` is called when `step` more bytes are written, while they are: it may not change what is kept."""

    def __init__(self, fd: int, kept: Callable[[], Iterable[int]], grown: Callable[[], object], step: int) -> None:
        """Raises CorruptLogError."""
        self._log, self._kept, self._step = ipc.Log(fd, self._make_room, grown), kept, step
        self._numbers = itertools.count(1)
        self._idle = 0  # bytes of the log that are of answers that are not kept
        self._has_complained = False
        self.watch()

    @property
    def written(self) -> int:
        """Bytes of answers that are kept."""
        return self._log.used - self._idle

    def writer(self) -> ipc.LogWriter:
        """Of another answer."""
        return ipc.LogWriter(self._log, next(self._numbers))

    def watch(self, *, closely: bool = False) -> None:
        """Until the log has grown again, by anything if `closely`."""
        self._log.mark = self._log.used + (0 if closely else self._step)

    def forget(self, writer: ipc.LogWriter) -> None:
        """Of an answer that is not kept any more."""
        if not writer.size:
            return
        self._idle += writer.size
        last = ipc.LogWriter(self._log, writer.owner)
        last.append([_DROPPED])  # that may tidy
        self._idle += last.size
        if self._log.used > (_TIDY if self.written else _TIDY_ALL) and self._idle > self.written:
            self._tidy()

    def _tidy(self) -> None:
        """Only what is kept stays in the log."""
        self._log.retain(self._kept())
        self._idle = 0
        self.watch()

    def _make_room(self, size: int) -> None:
        if self._idle:
            self._tidy()
        if self._log.room < size:
            self._complain()

    def _complain(self) -> None:
        if not self._has_complained:
            log.error("the journal has no room for what is kept: the next front will not know all of it")
        self._has_complained = True

    def rewrite(self, found: Sequence[tuple[ipc.LogWriter, Found]]) -> None:
        """Only these stay in the log, as they are now."""
        self._log.rewrite((writer, one.packed) for writer, one in found)
        self._idle = 0
        self.watch()
        if any(writer.incomplete for writer, _ in found):
            self._complain()

    def read(self) -> list[Found]:
        """What the front before has left, in order of arrival. Nothing of a log that can't be read."""
        try:
            return _sorted_out(self._log.records())
        except (ipc.CorruptLogError, *_UNREADABLE):
            log.exception("the journal of the front before can't be read: its requests are lost")
            return []

    def close(self) -> None:
        self._log.close()


def _sorted_out(records: Iterable[tuple[int, bytes]]) -> list[Found]:
    found, tried = dict[int, Found](), None
    for owner, record in records:
        about = _decoded(record) if record.startswith(_ABOUT) else None
        if isinstance(about, Opened):
            found[owner] = Found(about)
        if (one := found.get(owner)) is None:
            continue
        match about:
            case None | Begun() | Origin():
                one.records.append(record)
            case Ended():
                one.ended = about
            case Dropped():
                del found[owner]
            case Tried():
                tried = one
    if tried is not None:
        tried.tried = True
    return list(found.values())


def submits_of(opened: Opened) -> list[Submit]:
    """As they were sent first."""
    found = [unpack_message(packed) for packed in opened.submits]
    return [one for one in found if isinstance(one, Submit)]
