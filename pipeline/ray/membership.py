"""Which nodes there are: what they say of themselves, and what a router makes of that.

A node that says nothing for a while may be gone, or cut off from Ray alone: a router keeps one that it has a link to.
So neither the end of this directory nor of Ray's own processes takes a node away from a router.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

SAID_S = 1.0
"""Time between two announcements of a node."""

SILENT_S = 10.0
"""A node that has said nothing for so long is not named any more."""

_REMEMBERED_S = 600.0  # that a node has left
_LATE_S = 5.0  # that what it said before may come later, as long as a call of the directory may take


@dataclass(frozen=True, slots=True)
class View:
    """Hosts and ports. `here`: have said so of late; `left`: have said that they leave."""

    here: tuple[str, ...]
    left: frozenset[str]


class Membership:
    """Times are of one monotonic clock, in seconds. Nodes of another version are for routers of that version."""

    def __init__(self) -> None:
        self._here: dict[str, tuple[str, float]] = {}
        self._left: dict[str, float] = {}

    def announce(self, address: str, version: str, now: float) -> None:
        if now - self._left.get(address, -math.inf) < _LATE_S:
            return
        self._here[address] = version, now
        self._left.pop(address, None)

    def leave(self, address: str, now: float) -> None:
        self._here.pop(address, None)
        self._left[address] = now

    def view(self, version: str, now: float) -> View:
        self._here = {at: said for at, said in self._here.items() if now - said[1] < SILENT_S}
        self._left = {at: when for at, when in self._left.items() if now - when < _REMEMBERED_S}
        here = tuple(address for address, (theirs, _) in self._here.items() if theirs == version)
        return View(here, frozenset(self._left))


def next_nodes(linked: Mapping[str, bool], view: View, most: int) -> Sequence[str]:
    """The nodes that a router should have, the ones that it has first. `linked`: of each that it has, whether there
    is a link to it."""
    kept = [node for node, up in linked.items() if node in view.here or (up and node not in view.left)]
    return [*kept, *(node for node in view.here if node not in linked)][:most]


def is_stale(given: Collection[str], view: View, waited_s: float, patience_s: float) -> bool:
    """A router that was given these nodes, and has had none of them for so long, had better begin anew: others are
    here, and of its own there is none left, or it has been patient enough."""
    others = any(node not in given for node in view.here)
    return others and (waited_s > patience_s or not any(node in view.here for node in given))
