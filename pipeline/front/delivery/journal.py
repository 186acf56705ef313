"""What a front writes down of the answers that are kept, for the front that comes after it.

For each answer: the request as it came, what was sent to preprocess, and the tokens as they come, packed as sampling
has sent them. Texts and events are made again from these. The memory is the launcher's, so a front's death costs none
of it.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
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

_LEAST_BYTES: Final = 1 << 20  # that are written before the log is looked through
_TIMES: Final = 3  # what is kept, in a half of the log: it is written anew at twice of that
_FRAME: Final = 4
_UNREADABLE: Final = (msgspec.MsgspecError, KeyError, ValueError, struct.error)
_OBJECT: Final = 48  # bytes that Python takes beside a record's own


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

    seed: str
    times: Times | None = None
    failure: Failure | None = None


class Dropped(_Record, frozen=True, tag=3):
    """The answer is not kept any more."""

    seed: str


class Tried(_Record, frozen=True, tag=4):
    """This answer is made again, and no other, until something comes of it; "": none is tried."""

    seed: str


class Origin(_Record, frozen=True, tag=5):
    """From token `first` of this text on, from 0, these weights compute it."""

    request: int
    first: int
    weights: str


_Any: TypeAlias = Opened | Begun | Ended | Dropped | Tried | Origin
_DECODER: msgspec.msgpack.Decoder[_Any] = msgspec.msgpack.Decoder(_Any)


@dataclass(slots=True)
class Found:
    """An answer, as a front before has left it. `records`: deltas, `Begun` and `Origin`, in the order of the answer.
    `tried`: the front has ended while only this one was made again."""

    opened: Opened
    records: list[bytes] = field(default_factory=list)
    ended: Ended | None = None
    tried: bool = False


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


def opened_of(record: bytes) -> Opened:
    found = _decoded(record)
    assert isinstance(found, Opened)
    return found


def _decoded(record: bytes) -> _Any:
    return _DECODER.decode(memoryview(record)[len(_ABOUT) :])


def make_journal(kept_bytes: int) -> int:
    """A descriptor of an empty one, for answers of so many bytes. Its memory is taken as it is needed. Raises
    SegmentError."""
    return ipc.make_log(-(-_TIMES * kept_bytes // mmap.PAGESIZE) * mmap.PAGESIZE)


class Journal:
    """`everything`: the records of all answers that are kept, by which the log is written anew when most of it is of
    others. What is appended to `pending` is in the log after `commit`, which comes before a client sees anything of
    it. `written`: bytes that all of these have taken, here and in the log."""

    def __init__(self, fd: int, everything: Callable[[], list[bytes]]) -> None:
        """Raises CorruptLogError."""
        self._log, self._everything = ipc.Log(fd), everything
        self._left = _LEAST_BYTES  # that may be appended before the log is looked through
        self.pending: list[bytes] = []
        self.written = 0

    @property
    def used(self) -> int:
        """Bytes of the log."""
        return self._log.used

    def commit(self) -> None:
        pending = self.pending
        size = self._log.append(pending)
        if not size:
            size, self._left = sum(map(len, pending)) + _FRAME * len(pending), 0
        self.written += size + _OBJECT * len(pending)
        pending.clear()
        self._left -= size
        if self._left < 0:
            self.tidy()

    def forget(self, records: list[bytes]) -> None:
        """These do not count any more."""
        self.written -= size_of(records)

    def tidy(self) -> None:
        """Only what is kept stays in the log."""
        if not self._log.rewrite(self._everything()):
            log.error("the journal has no room for what is kept: the next front will not know all of it")
        self._left = max(_LEAST_BYTES - self._log.used, self._log.used)

    def read(self) -> list[Found]:
        """What the front before has left, in order of arrival. Nothing of a log that can't be read."""
        try:
            return _sorted_out(self._log.records())
        except (ipc.CorruptLogError, *_UNREADABLE):
            log.exception("the journal of the front before can't be read: its requests are lost")
            return []

    def close(self) -> None:
        self._log.close()


def _sorted_out(records: Iterator[bytes]) -> list[Found]:
    found, by_request, tried = dict[str, Found](), dict[int, Found](), ""
    for record in records:
        if not record.startswith(_ABOUT):
            _add(by_request, delta_head(record)[0], record)
            continue
        match _decoded(record):
            case Opened() as opened:
                one = found[opened.seed] = Found(opened)
                with contextlib.suppress(*_UNREADABLE):  # `renumbered` says so, of this answer only
                    by_request |= dict.fromkeys(requests_of(opened), one)
            case Begun(request) | Origin(request):
                _add(by_request, request, record)
            case Ended(seed) as ended if seed in found:
                found[seed].ended = ended
            case Dropped(seed):
                found.pop(seed, None)
            case Tried(seed):
                tried = seed
    if tried in found:
        found[tried].tried = True
    return list(found.values())


def _add(by_request: dict[int, Found], request: int, record: bytes) -> None:
    if (one := by_request.get(request)) is not None:
        one.records.append(record)


def requests_of(opened: Opened) -> list[int]:
    """Numbers of all its texts, in the order of the answer's choices."""
    return [choice.request for submit in submits_of(opened) for choice in submit.choices]


def submits_of(opened: Opened) -> list[Submit]:
    """As they were sent first."""
    found = [unpack_message(packed) for packed in opened.submits]
    return [one for one in found if isinstance(one, Submit)]


def size_of(records: list[bytes]) -> int:
    """Bytes that they take, here and in the log, as `Journal.written` counts them."""
    return sum(map(len, records)) + (_FRAME + _OBJECT) * len(records)
