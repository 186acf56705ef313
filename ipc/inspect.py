"""``python -m ipc.inspect``: this user's live segments and rings, read-only.

Names are gone once all processes have attached, and memfds have none, so segments are found through their owners:
every process keeps the descriptor open, and /proc/<pid>/fd leads to it. Nothing is attached to, locked or written.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import mmap
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipc.errors import CorruptRingError
from ipc.header import RingSnapshot, SideSnapshot, read_snapshot
from ipc.segment import PREFIX, SHM_DIRECTORY

Inode = tuple[int, int]  # device and number

_TARGET = re.compile(
    rf"({SHM_DIRECTORY}/|(?P<memfd>/memfd:))(?P<name>{PREFIX}-[a-z0-9_]+-\d+-[0-9a-f]+)( \(deleted\))?\Z"
)


@dataclass(frozen=True, slots=True)
class FoundSegment:
    """A segment that some process of this user has open, or whose name is still there."""

    name: str
    linked: bool  # the name still exists
    memfd: bool  # it never had one in /dev/shm
    size: int
    pids: tuple[int, ...]
    ring: RingSnapshot | None  # None: not (yet) a ring


@dataclass(frozen=True, slots=True)
class Trace:
    """A path that leads to a segment: a descriptor of process `pid`, or its name (pid None)."""

    path: Path
    name: str
    pid: int | None
    memfd: bool = False


def find_segments() -> list[FoundSegment]:
    """All segments of this user, by name."""
    found: dict[Inode, list[Trace]] = {}
    for trace in (*_open_segments(), *_named_segments()):
        info = _stat(trace.path)
        if info and stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid():
            found.setdefault((info.st_dev, info.st_ino), []).append(trace)
    segments = (_read(inode, traces) for inode, traces in found.items())
    return sorted((segment for segment in segments if segment), key=lambda segment: segment.name)


def _named_segments() -> Iterator[Trace]:
    for path in SHM_DIRECTORY.glob(f"{PREFIX}-*"):
        if _TARGET.match(str(path)):
            yield Trace(path, path.name, None)


def _open_segments() -> Iterator[Trace]:
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            descriptors = list((process / "fd").iterdir())
        except OSError:
            continue  # another user's, or gone
        for descriptor in descriptors:
            try:
                match = _TARGET.match(str(descriptor.readlink()))
            except OSError:
                continue
            if match:
                yield Trace(descriptor, match["name"], int(process.name), memfd=match["memfd"] is not None)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _read(inode: Inode, traces: list[Trace]) -> FoundSegment | None:
    """Through whichever trace still leads there: processes come and go while we look."""
    for trace in traces:
        try:
            fd = os.open(trace.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            info = os.fstat(fd)
            if (info.st_dev, info.st_ino) != inode:
                continue
            pids = {trace.pid for trace in traces if trace.pid is not None}
            ring = _read_ring(fd, info.st_size)
        finally:
            os.close(fd)
        linked, owners = _is_linked(trace.name, inode), tuple(sorted(pids))
        return FoundSegment(trace.name, linked, trace.memfd, info.st_size, owners, ring)
    return None


def _is_linked(name: str, inode: Inode) -> bool:
    info = _stat(SHM_DIRECTORY / name)
    return info is not None and (info.st_dev, info.st_ino) == inode


def _read_ring(fd: int, size: int) -> RingSnapshot | None:
    try:
        with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as memory:
            return read_snapshot(memory)
    except (CorruptRingError, ValueError, OSError):
        return None


def format_segment(segment: FoundSegment) -> str:
    """Several lines of text about one segment."""
    state = "" if segment.pids else "   NOT OPEN IN ANY PROCESS"
    where = "memfd" if segment.memfd else "named" if segment.linked else "unlinked"
    head = f"{segment.name}   {segment.size / 1024:.0f} KiB   {where}{state}"
    if segment.ring is None:
        return f"{head}\n  not a ring"
    ring = segment.ring
    unit = "slots of " + str(ring.slot_size) + " B" if ring.kind == "slots" else "B for records"
    made = f"made by pid {ring.creator_pid}{', REVOKED' if ring.revoked else ''}"
    dead = "dead, which ended the ring" if ring.on_death == "end" else "evicted"
    lines = [head, f"  ring '{ring.name}': {ring.capacity} {unit}, {made}"]
    lines += [_format_side(ring.producer, "")]
    for i, consumer in enumerate(ring.consumers):
        used = ring.occupancy(i)
        share = f"holds {used} of {ring.capacity} ({100 * used / ring.capacity:.0f} %)"
        lines.append(_format_side(consumer, dead if i in ring.evicted else share))
    return "\n".join(lines)


def _format_side(side: SideSnapshot, note: str) -> str:
    who = f"pid {side.pid}{'' if side.alive else ' DEAD'}" if side.pid else "nobody"
    counters = side.counters
    parts = [
        f"  {side.role:<8}",
        f"{side.label or '-':<12}",
        f"{who:<14}",
        f"{'waiting' if side.waiting else side.state:<8}",
        f"at {side.index:<10}",
        f"beat {counters['heartbeat']:<10}",
        f"waits {counters['waits']} parks {counters['parks']} wakes {counters['wakes']}",
        f"spun {counters['spin_ns'] / 1e6:.1f} ms",
        f"lost {counters['lost_wakes']}",
        note,
    ]
    return " ".join(parts).rstrip()


def to_json(segments: list[FoundSegment]) -> list[dict[str, Any]]:
    """What `--json` prints."""
    return [dataclasses.asdict(segment) for segment in segments]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ipc.inspect", description="List this user's live rings.")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument(
        "--watch", type=float, metavar="SECONDS", help="print again every so often, until interrupted"
    )
    options = parser.parse_args(arguments)
    if options.watch is not None and not options.watch > 0:
        parser.error("--watch: a number of seconds above 0 expected")
    try:
        _report(as_json=options.json)
        while options.watch:
            time.sleep(options.watch)
            print()
            _report(as_json=options.json)
    except KeyboardInterrupt:
        return 0
    return 0


def _report(*, as_json: bool) -> None:
    segments = find_segments()
    if as_json:
        print(json.dumps(to_json(segments), indent=2))
    elif segments:
        print("\n\n".join(format_segment(segment) for segment in segments))
    else:
        print(f"no live segment named {PREFIX}-… of this user")


if __name__ == "__main__":
    sys.exit(main())
