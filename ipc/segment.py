"""Shared-memory segments: exclusive, private, fully allocated, and gone when their processes are.

A segment is named ``/ringserve-<kind>-<creator's pid>-<random>``. Where /dev/shm has no room for it, it is a memfd,
whose name leads nowhere. A name in /dev/shm is needed only until all have attached; children get the descriptor.
While any process has it open, a shared `flock` is held on it: the sweep of what dead processes left behind deletes a
segment only if its creator is gone *and* nobody holds it, so a recycled pid, or a pid of another container, can never
cost a living server its memory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import re
import secrets
from enum import StrEnum
from pathlib import Path

import posix_ipc

from ipc.errors import NoSpaceError, SegmentError
from ipc.limits import MemoryLeft, memory_left, shared_memory_left

PREFIX = "ringserve"
SHM_DIRECTORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory

_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
_NAME = re.compile(rf"{PREFIX}-(?P<kind>[a-z0-9_]+)-(?P<pid>\d+)-[0-9a-f]+\Z")
_OUT_OF_SPACE = {errno.ENOSPC, errno.ENOMEM, errno.EDQUOT, errno.EFBIG}
_NOEXEC_SEAL = 0x8  # MFD_NOEXEC_SEAL, which hosts may demand; Python 3.11 has no name for it
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""Of a memfd whose size never changes again: nobody can make another's mapping fail."""


class Backing(StrEnum):
    """What the memory of a segment belongs to. A memfd is bounded by nothing but memory, and its size is sealed."""

    SHM = "/dev/shm"  # noqa: S108
    MEMFD = "memfd"

    def left(self) -> MemoryLeft:
        """How much new memory it may have."""
        return memory_left() if self is Backing.MEMFD else shared_memory_left(SHM_DIRECTORY)


def backing_for(*sizes: int) -> Backing | None:
    """Where there is room for segments of these sizes in bytes: /dev/shm, else memfds, else None."""
    need = sum(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE for size in sizes)
    return next((backing for backing in Backing if backing.left().free >= need), None)


class Segment:
    """A mapped segment. `fd` stays open as long as the segment is: it carries the lock, and the inspector finds
    the segment through it. `name` is None where there is none in /dev/shm, or only the descriptor was handed over."""

    def __init__(self, fd: int, name: str | None) -> None:
        self.fd = fd
        self.name = name
        self.size = os.fstat(fd).st_size
        if self.size == 0:
            raise SegmentError("the segment is empty: nothing was ever written to it")
        # MAP_POPULATE: the first message must not pay for page faults
        self.map = mmap.mmap(fd, self.size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)

    @classmethod
    def create(cls, kind: str, size: int, backing: Backing | None = None) -> Segment:
        """Make and map a new segment of `size` zeroed bytes, mode 0600. Without `backing`, where there is room.

        Raises NoSpaceError, with what is needed and free and how to enlarge it, before anything is used.
        """
        if not _KIND.match(kind):
            raise ValueError(f"segment kind {kind!r}: up to 32 lower-case letters, digits and _ expected")
        if size <= 0:
            raise ValueError(f"segment {kind!r}: a size of at least 1 byte expected, not {size}")
        backing = backing or backing_for(size) or Backing.MEMFD
        if backing.left().free < size:
            raise _no_space(kind, size, backing)
        fd, name = _open_new(f"/{PREFIX}-{kind}-{os.getpid()}-{secrets.token_hex(4)}", backing)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            os.posix_fallocate(fd, 0, size)
            if backing is Backing.MEMFD:
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            return cls(fd, name)
        except BaseException as error:
            os.close(fd)
            if name is not None:
                _unlink(name)
            if isinstance(error, OSError) and error.errno in _OUT_OF_SPACE:
                raise _no_space(kind, size, backing) from error
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
    """Delete this user's segments whose creator is dead and that no process has open. Returns their names. A memfd
    needs no sweep: it is gone with the last process that has it open."""
    swept = []
    for path in SHM_DIRECTORY.glob(f"{PREFIX}-*"):
        match = _NAME.match(path.name)
        if match and not _pid_exists(int(match["pid"])) and _nobody_holds(path):
            _unlink(f"/{path.name}")
            swept.append(path.name)
    return swept


def _open_new(name: str, backing: Backing) -> tuple[int, str | None]:
    """Descriptor of a new, empty segment, and its name in /dev/shm, if it has one. Raises SegmentError."""
    try:
        if backing is Backing.MEMFD:
            return open_memfd(name.removeprefix("/")), None
        return posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600).fd, name
    except (OSError, posix_ipc.Error) as error:
        raise SegmentError(f"segment {name} can't be made in {backing}: {error}") from error


def open_memfd(name: str) -> int:
    """A new, empty one. Raises OSError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create(name, flags)  # before Linux 6.3
    os.fchmod(fd, 0o600)
    return fd


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


def _no_space(kind: str, size: int, backing: Backing) -> NoSpaceError:
    left = backing.left()
    return NoSpaceError(
        f"segment {kind!r} needs {_mib(size)} of shared memory, {_mib(left.free)} are free "
        f"({left.bound_by}); {left.remedy}"
    )


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:.1f} MiB"
