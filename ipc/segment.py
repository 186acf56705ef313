"""Shared-memory segments: exclusive, private, fully allocated, and gone when their processes are.

A segment is named ``/ringserve-<kind>-<creator's pid>-<random>``. Its name is needed only until all have
attached; children get the descriptor. While any process has it open, a shared `flock` is held on it: the
sweep of what dead processes left behind deletes a segment only if its creator is gone *and* nobody holds it, so a
recycled pid, or a pid of another container, can never cost a living server its memory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import re
import secrets
from pathlib import Path

import posix_ipc

from ipc.errors import NoSpaceError, SegmentError
from ipc.limits import shared_memory_left

PREFIX = "ringserve"
SHM_DIRECTORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory

_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
_NAME = re.compile(rf"{PREFIX}-(?P<kind>[a-z0-9_]+)-(?P<pid>\d+)-[0-9a-f]+\Z")
_OUT_OF_SPACE = {errno.ENOSPC, errno.ENOMEM, errno.EDQUOT, errno.EFBIG}


class Segment:
    """A mapped segment. `fd` stays open as long as the segment is: it carries the lock, and the inspector finds
    the segment through it. `name` is None where only the descriptor was handed over."""

    def __init__(self, fd: int, name: str | None) -> None:
        self.fd = fd
        self.name = name
        self.size = os.fstat(fd).st_size
        if self.size == 0:
            raise SegmentError("the segment is empty: nothing was ever written to it")
        # MAP_POPULATE: the first message must not pay for page faults
        self.map = mmap.mmap(fd, self.size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)

    @classmethod
    def create(cls, kind: str, size: int) -> Segment:
        """Make and map a new segment of `size` zeroed bytes, mode 0600.

        Raises NoSpaceError, with what is needed and free and how to enlarge it, before anything is used.
        """
        if not _KIND.match(kind):
            raise ValueError(f"segment kind {kind!r}: up to 32 lower-case letters, digits and _ expected")
        if size <= 0:
            raise ValueError(f"segment {kind!r}: a size of at least 1 byte expected, not {size}")
        _check_space(kind, size)
        name = f"/{PREFIX}-{kind}-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            memory = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600)
        except (OSError, posix_ipc.Error) as error:
            raise SegmentError(f"segment {name} can't be made: {error}") from error
        try:
            fcntl.flock(memory.fd, fcntl.LOCK_SH)
            os.posix_fallocate(memory.fd, 0, size)
            return cls(memory.fd, name)
        except BaseException as error:
            os.close(memory.fd)
            posix_ipc.unlink_shared_memory(name)
            if isinstance(error, OSError) and error.errno in _OUT_OF_SPACE:
                raise _no_space(kind, size) from error
            raise

    @classmethod
    def attach(cls, name: str) -> Segment:
        """Map an existing segment by name, for tools. Raises SegmentError."""
        try:
            fd = os.open(SHM_DIRECTORY / name.lstrip("/"), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise SegmentError(f"segment {name} can't be opened: {error.strerror}") from error
        return cls._adopt(fd, name)

    @classmethod
    def from_fd(cls, fd: int) -> Segment:
        """Map a segment whose descriptor was handed over. The segment owns `fd` from now on."""
        return cls._adopt(fd, None)

    @classmethod
    def _adopt(cls, fd: int, name: str | None) -> Segment:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return cls(fd, name)
        except (OSError, ValueError, SegmentError) as error:
            os.close(fd)
            raise SegmentError(f"descriptor {fd} is not a usable segment: {error}") from error

    def unlink(self) -> None:
        """Remove the name. The memory lives until the last process has unmapped it. Twice is harmless."""
        name, self.name = self.name, None
        if name is not None:
            _unlink(name)

    def close(self) -> None:
        """Close the descriptor and unmap; while ends or views are alive, they keep the mapping and its lock. The
        name stays until `unlink`. Twice is harmless."""
        if self.fd >= 0:
            with contextlib.suppress(BufferError):
                self.map.close()
            os.close(self.fd)
            self.fd = -1


def sweep_segments() -> list[str]:
    """Delete this user's segments whose creator is dead and that no process has open. Returns their names."""
    swept = []
    for path in SHM_DIRECTORY.iterdir():
        match = _NAME.match(path.name)
        if match and not _pid_exists(int(match["pid"])) and _nobody_holds(path):
            _unlink(f"/{path.name}")
            swept.append(path.name)
    return swept


def _unlink(name: str) -> None:
    with contextlib.suppress(posix_ipc.ExistentialError):  # another process was faster
        posix_ipc.unlink_shared_memory(name)


def _pid_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _nobody_holds(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False  # not ours, or gone
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return os.fstat(fd).st_uid == os.geteuid()
    finally:
        os.close(fd)


def _check_space(kind: str, size: int) -> None:
    if shared_memory_left(SHM_DIRECTORY).free < size:
        raise _no_space(kind, size)


def _no_space(kind: str, size: int) -> NoSpaceError:
    left = shared_memory_left(SHM_DIRECTORY)
    return NoSpaceError(
        f"segment {kind!r} needs {_mib(size)} of shared memory, {_mib(left.free)} are free "
        f"({left.bound_by}); {left.remedy}"
    )


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:.1f} MiB"
