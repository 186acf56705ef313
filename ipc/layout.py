"""Slot layouts: what a slot holds, declared once.

A `Layout` is a list of named arrays. From it come numpy views of a slot, the slot's size, a hash that both sides
of a ring compare, and a table for the documentation.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import namedtuple
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ALIGNMENT = 64
"""Bytes. A cache line, and the width of the widest vector register."""

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_KINDS = "biufS"  # bool, integers, floats, fixed-length bytes: what is the same in every process


@dataclass(frozen=True, slots=True)
class Field:
    """One array of a slot. `dtype` is anything numpy takes; `shape` () is a single element."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    meaning: str = ""

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ValueError(f"field name {self.name!r}: lower-case letters, digits and _ expected")
        dtype = np.dtype(self.dtype)
        if dtype.kind not in _KINDS or dtype.itemsize == 0 or dtype.byteorder == ">":
            raise ValueError(f"field {self.name!r}: dtype {self.dtype!r} can't be shared between processes")
        if any(n <= 0 for n in self.shape):
            raise ValueError(f"field {self.name!r}: shape {self.shape} has an extent below 1")

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def describe(self, offset: int) -> str:
        """The canonical line that goes into the hash. The meaning does not: words may improve."""
        shape = "x".join(map(str, self.shape)) or "1"
        return f"{offset} {self.name} {np.dtype(self.dtype).str.lstrip('<|')} {shape}"


class Layout:
    """The arrays of a slot, each aligned to 64 bytes.

    Attributes: `name`, `fields`, `offsets` (bytes, one per field), `size` (bytes, a multiple of 64), `text`
    (canonical description, one line per field) and `hash` (16 bytes of its SHA-256).
    """

    def __init__(self, name: str, fields: Sequence[Field]) -> None:
        if not _NAME.match(name):
            raise ValueError(f"layout name {name!r}: lower-case letters, digits and _ expected")
        names = [field.name for field in fields]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"layout {name!r}: at least one field expected, each name once; got {names}")
        self.name = name
        self.fields = tuple(fields)
        self.offsets, self.size = _place(self.fields)
        lines = (field.describe(offset) for field, offset in zip(self.fields, self.offsets, strict=True))
        self.text = "\n".join([f"{name} {self.size}", *lines]) + "\n"
        self.hash = hashlib.sha256(self.text.encode()).digest()[:16]
        self._views = _named_tuple(f"{name}_views", names)

    def views(self, buffer: Any) -> Any:
        """Arrays over one slot, as a named tuple. They keep the slot: drop them before it is given back."""
        raw = np.frombuffer(buffer, np.uint8)
        if raw.size < self.size:
            raise ValueError(f"layout {self.name!r} needs {self.size} bytes, the buffer has {raw.size}")
        return self._over(raw, 0)

    def resident_views(self, end: Any) -> list[Any]:
        """Arrays over every slot of a ring, made once: `views[slot.index]`.

        They are valid only while this process holds that slot, and nothing checks it: they exist so that a
        loop need not make arrays anew for each message. They keep the mapping alive, not the slots.
        """
        if end.slot_size != self.size:
            raise ValueError(f"layout {self.name!r} has {self.size} bytes, the slots of {end.name!r} {end.slot_size}")
        raw = np.frombuffer(end, np.uint8)
        return [self._over(raw, i * self.size) for i in range(end.capacity)]

    def _over(self, raw: Any, base: int) -> Any:
        return self._views._make(
            raw[base + offset : base + offset + field.nbytes].view(field.dtype).reshape(field.shape)
            for field, offset in zip(self.fields, self.offsets, strict=True)
        )

    def table(self) -> str:
        """A Markdown table of this layout."""
        rows = [
            f"| {offset} | `{field.name}` | {np.dtype(field.dtype).name} | {list(field.shape)} | {field.meaning} |"
            for field, offset in zip(self.fields, self.offsets, strict=True)
        ]
        return "\n".join(["| offset | field | dtype | shape | meaning |", "|---|---|---|---|---|", *rows])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Layout({self.name!r}, {len(self.fields)} fields, {self.size} bytes)"


def _named_tuple(name: str, fields: list[str]) -> Any:
    return namedtuple(name, fields)  # the fields are known at run time only


def _place(fields: Sequence[Field]) -> tuple[tuple[int, ...], int]:
    offsets, end = [], 0
    for field in fields:
        offsets.append(end)
        end += -(-field.nbytes // ALIGNMENT) * ALIGNMENT
    return tuple(offsets), end
