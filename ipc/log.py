"""A log in anonymous memory that outlives its writer: whoever holds the descriptor can hand it to the next one.

It has two halves, of which one counts. Records are appended to that; when it is full, those that still matter are
written to the other half, which counts from then on. Whenever its writer is killed, what was appended before is there
in full, and nothing of a record that was being written: a word behind the records says how far a half is complete.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from typing import Final

from ipc._core import log_append, log_load, log_store
from ipc.errors import CorruptLogError, SegmentError
from ipc.segment import SEALS, open_memfd

_MAGIC: Final = int.from_bytes(b"RSlog\0\0\1", "little")
_MAGIC_WORD, _ACTIVE_WORD = 0, 8
_END_WORDS: Final = (128, 256)  # each on a line of its own
_HEADER: Final = mmap.PAGESIZE
_LENGTH: Final = struct.Struct("=I")

LEAST_BYTES: Final = 1 << 16
"""Of a half."""


def make_log(half_bytes: int) -> int:
    """A descriptor of an empty one. Its memory is taken as it is written. Raises SegmentError, ValueError."""
    if half_bytes < LEAST_BYTES or half_bytes % mmap.PAGESIZE:
        raise ValueError(f"half of a log has {half_bytes} bytes, expected whole pages, at least {LEAST_BYTES}")
    try:
        fd = open_memfd(f"ringserve-log-{os.getpid()}")
        os.ftruncate(fd, _HEADER + 2 * half_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except OSError as error:
        raise SegmentError(f"no log can be made: {error.strerror}") from error
    return fd


class Log:
    """One writer, which may read what those before it have written. `fd` stays the caller's."""

    def __init__(self, fd: int) -> None:
        """Raises CorruptLogError for a descriptor of something else."""
        size = os.fstat(fd).st_size
        self._half = (size - _HEADER) // 2
        if self._half < LEAST_BYTES:
            raise CorruptLogError(f"a log has at least {_HEADER + 2 * LEAST_BYTES} bytes, not {size}")
        self._map = mmap.mmap(fd, size)
        magic = log_load(self._map, _MAGIC_WORD)
        if magic == 0:
            log_store(self._map, _MAGIC_WORD, _MAGIC)
        elif magic != _MAGIC:
            raise CorruptLogError("the descriptor leads to something else than a log, or to another version's")
        self._choose(log_load(self._map, _ACTIVE_WORD) & 1)
        end = log_load(self._map, self._word)
        self._end = end if self._begin <= end <= self._limit else self._begin

    def _choose(self, active: int) -> None:
        self._active, self._word = active, _END_WORDS[active]
        self._begin = _HEADER + active * self._half
        self._limit = self._begin + self._half

    @property
    def used(self) -> int:
        """Bytes of the half that counts."""
        return self._end - self._begin

    @property
    def room(self) -> int:
        """Bytes that are left there; a record takes four more than it has."""
        return self._limit - self._end

    def append(self, records: list[bytes]) -> int:
        """All of them, or none: how many bytes they take there; 0 when there is no room."""
        before = self._end
        end = log_append(self._map, self._word, before, self._limit, records)
        if end < 0:
            return 0
        self._end = end
        return end - before

    def rewrite(self, records: list[bytes]) -> bool:
        """These instead of all that is there; False, with nothing changed, when there is no room for them. The memory
        of the others is given back."""
        before = self._active, self._begin, self._end
        self._choose(1 - self._active)
        end = log_append(self._map, self._word, self._begin, self._limit, records)
        if end < 0:
            self._choose(before[0])
            return False
        log_store(self._map, _ACTIVE_WORD, self._active)
        self._end = end
        self._map.madvise(mmap.MADV_REMOVE, before[1], -(-(before[2] - before[1]) // mmap.PAGESIZE) * mmap.PAGESIZE)
        return True

    def records(self) -> Iterator[bytes]:
        """All that are complete, in order. Raises CorruptLogError for lengths that can't be."""
        at, end = self._begin, self._end
        while at < end:
            first = at + _LENGTH.size
            at = first + (_LENGTH.unpack_from(self._map, at)[0] if first <= end else end)
            if at > end:
                raise CorruptLogError("a record of the log is longer than the log")
            yield self._map[first:at]

    def close(self) -> None:
        self._map.close()
