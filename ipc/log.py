"""A log in anonymous memory that outlives its writer: whoever holds the descriptor can hand it to the next one.

It has two halves, of which one counts. Records are appended to that, each with the number of its owner; those of
owners that still matter are copied to the other half, which counts from then on. Whenever its writer is killed, what
was appended before is there in full, and nothing of a record that was being written: a word says how far a half is
complete.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from ipc._core import LogHalves, LogWriter
from ipc.errors import CorruptLogError, SegmentError
from ipc.segment import SEALS, open_memfd

_MAGIC: Final = b"RSlog\0\0\2"
_HEADER: Final = mmap.PAGESIZE
_FRAME: Final = struct.Struct("=IQ")  # length, owner
_TOO_LONG: Final = "a record of the log is longer than the log"

LEAST_BYTES: Final = 1 << 16
"""Of a half."""


def make_log(half_bytes: int) -> int:
    """A descriptor of an empty one. Its memory is taken as it is written. Raises SegmentError, ValueError."""
    if half_bytes < LEAST_BYTES or half_bytes % mmap.PAGESIZE:
        raise ValueError(f"half of a log has {half_bytes} bytes, expected whole pages, at least {LEAST_BYTES}")
    try:
        fd = open_memfd(f"ringserve-log-{os.getpid()}")
        os.ftruncate(fd, _HEADER + 2 * half_bytes)
        os.pwrite(fd, _MAGIC, 0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except OSError as error:
        raise SegmentError(f"no log can be made: {error.strerror}") from error
    return fd


def _ignore(*_: object) -> None:
    pass


class Log(LogHalves):
    """One process writes, by a `LogWriter` for each owner, and may read what those before it have written. `fd` stays
    the caller's.

    While records are appended, `on_full` is called where there is no room for them, with the bytes that they take: it
    may `retain`, and they are tried once more; and `on_mark`, when the log has grown beyond `mark`."""

    def __init__(
        self, fd: int, on_full: Callable[[int], object] = _ignore, on_mark: Callable[[], object] = _ignore
    ) -> None:
        """Raises CorruptLogError for a descriptor of something else."""
        size = os.fstat(fd).st_size
        if size < _HEADER + 2 * LEAST_BYTES:
            raise CorruptLogError(f"a log has at least {_HEADER + 2 * LEAST_BYTES} bytes, not {size}")
        self._map = mmap.mmap(fd, size)
        if self._map[: len(_MAGIC)] != _MAGIC:
            raise CorruptLogError("the descriptor leads to something else than a log, or to another version's")
        super().__init__(self._map, _HEADER)
        self.on_full, self.on_mark = on_full, on_mark

    @property
    def used(self) -> int:
        """Bytes of the half that counts."""
        return self.end - self.begin

    @property
    def room(self) -> int:
        """Bytes that are left there; a record takes twelve more than it has."""
        return self.limit - self.end

    def retain(self, owners: Iterable[int]) -> None:
        """Only what these have there, in the order of before; the memory of the others is given back. Raises
        CorruptLogError."""
        if not self.retain_sorted(array("Q", sorted(owners))):
            raise CorruptLogError(_TOO_LONG)

    def rewrite(self, kept: Iterable[tuple[LogWriter, list[bytes]]]) -> None:
        """These records, by writers that have written nothing yet, instead of all that is there: all at once for
        whoever comes after a death of this process."""
        self.turn()
        for writer, records in kept:
            writer.append(records)
        self.settle()

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Owners and records, all that are complete, in order. Raises CorruptLogError for lengths that can't be."""
        at, end = self.begin, self.end
        while at < end:
            first = at + _FRAME.size
            length, owner = _FRAME.unpack_from(self._map, at) if first <= end else (end, 0)
            at = first + length
            if at > end:
                raise CorruptLogError(_TOO_LONG)
            yield owner, self._map[first:at]

    def close(self) -> None:
        super().close()
        self._map.close()
        self.on_full = self.on_mark = _ignore  # they may lead back to whoever has the log
