"""What both sides say first, and the forms of what they say of lanes.

A router and its nodes have to agree on everything that decides what a token, a limit or a record is: what differs is
named, and there is no link. The form of a hello stays, so that versions that know nothing else of each other can
refuse each other by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeVar

import msgspec

from pipeline.link.frames import PROTOCOL, LinkError

_MAGIC = b"ringserve link\n"
_Told = TypeVar("_Told", bound=msgspec.Struct)


class Hello(msgspec.Struct, frozen=True):
    """`number`: the upper bits of all requests of this front, 31 random ones. `facts`: of the model, by the settings
    that they come from."""

    protocol: int
    version: str
    role: str
    number: int
    facts: Mapping[str, int | str]

    def pack(self) -> bytes:
        return _MAGIC + msgspec.msgpack.encode(self)


ROUTER, NODE = "router", "node"


def hello(role: str, version: str, number: int, facts: Mapping[str, int | str]) -> Hello:
    """Of this program."""
    return Hello(PROTOCOL, version, role, number, facts)


def unpack_hello(payload: bytes) -> Hello:
    """Raises LinkError."""
    if not payload.startswith(_MAGIC):
        raise LinkError("the other side is no link of RingServe")
    return told(payload[len(_MAGIC) :], Hello)


def difference(mine: Hello, theirs: Hello) -> str:
    """Why there is no link between them; empty if there may be one."""
    if theirs.role == mine.role:
        return f"both sides are a {mine.role}: a router links to nodes"
    for what in ("version", "protocol"):
        if (here := getattr(mine, what)) != (there := getattr(theirs, what)):
            return f"the {mine.role}'s {what} is {here}, the {theirs.role}'s {there}: both must be the same"
    for key in sorted({*mine.facts, *theirs.facts}):
        if (here := mine.facts.get(key)) != (there := theirs.facts.get(key)):
            text = f"{key} is {here!r} for the {mine.role} and {there!r} for the {theirs.role}"
            return f"{text}: both need the same configuration"
    return ""


class Room(msgspec.Struct, frozen=True, array_like=True):
    """Of a lane that is up, in bytes: its longest request, and how many may be under way to its ring; the id of
    the weights that this generation is computed with; and whether requests can be deterministic there."""

    longest: int
    window: int
    weights: str = ""
    deterministic: bool = True


class Blame(msgspec.Struct, frozen=True, array_like=True):
    """As `Verdict`, of one lane's generation."""

    culprit: str
    suspects: tuple[int, ...] | None


class Taken(msgspec.Struct, frozen=True, array_like=True):
    octets: int


class Load(msgspec.Struct, frozen=True, array_like=True):
    """Requests of other routers."""

    others: Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]


def tell(message: Room | Blame | Taken | Load) -> bytes:
    return msgspec.msgpack.encode(message)


def told(payload: bytes, kind: type[_Told]) -> _Told:
    """Raises LinkError."""
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LinkError(f"a frame can't be read: {error}") from error
