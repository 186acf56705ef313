"""The errors of `ipc/`, in one tree."""

from __future__ import annotations


class IpcError(Exception):
    """Base of everything that `ipc/` raises on purpose."""


class SegmentError(IpcError):
    """A shared-memory segment could not be made, found or mapped."""


class NoSpaceError(SegmentError):
    """There is not enough shared memory; the message says how much is needed, free, and what to change."""


class CorruptRingError(IpcError):
    """Shared memory does not hold a usable ring."""


class CorruptLogError(IpcError):
    """Shared memory does not hold a usable log."""


class LayoutMismatchError(IpcError):
    """The two sides of a ring disagree about what a slot holds."""


class RoleTakenError(IpcError):
    """A living process has this role of the ring already."""


class RingClosed(IpcError):  # noqa: N818 - an event of the protocol, like EOFError's meaning, not a mistake
    """The other side closed the ring and nothing is left to read, or this side was closed."""


class RingTimeout(IpcError, TimeoutError):  # noqa: N818 - see RingClosed
    """The timeout of a wait passed.

    Attribute: `written`, for `write_batch` and `write_many`: how many slots or records were published before.
    """

    written: int = 0


class WakeUpError(IpcError):
    """One side sleeps on an eventfd that the other, attached by name, does not have: both must attach by handle."""


class SlotInUseError(IpcError, BufferError):
    """A slot can't be given back, or another one reserved, because views or a reservation are alive."""


class PeerDied(IpcError):  # noqa: N818 - see RingClosed
    """The process at the other end of a ring is dead.

    Attributes: `ring` (its name), `role` ("producer", "consumer" or "creator"), `label` (who the process said it
    was, for example "sampling"; may be empty), `pid`.
    """

    def __init__(self, ring: str, role: str, label: str, pid: int) -> None:
        who = f"{role} {label!r}" if label else role
        super().__init__(f"ring '{ring}': its {who} (pid {pid}) is dead")
        self._arguments = (ring, role, label, pid)
        self.ring = ring
        self.role = role
        self.label = label
        self.pid = pid

    def __reduce__(self) -> tuple[type[PeerDied], tuple[str, str, str, int]]:
        return type(self), self._arguments
